"""Listening sockets of the servers, with errors that say what to do."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, Factory

from ntmobile.errors import ConfigurationError


def listen_tcp(reactor: Any, port: int, factory: Factory[Any], host: str) -> IListeningPort:
    """Listen on a TCP port of a numeric address. :raises ConfigurationError: it is not free."""
    try:
        listening: IListeningPort = reactor.listenTCP(port, factory, interface=host)
    except CannotListenError as problem:
        raise _explained("TCP", host, port, problem) from None
    return listening


def listen_udp(reactor: Any, port: int, protocol: DatagramProtocol, host: str) -> IListeningPort:
    """Listen on a UDP port of a numeric address. :raises ConfigurationError: it is not free."""
    try:
        listening: IListeningPort = reactor.listenUDP(port, protocol, interface=host)
    except CannotListenError as problem:
        raise _explained("UDP", host, port, problem) from None
    return listening


def _explained(kind: str, host: str, port: int, problem: CannotListenError) -> ConfigurationError:
    reason = getattr(problem.socketError, "strerror", None) or problem.socketError
    return ConfigurationError(
        f"cannot listen on {kind} port {port} of {host}: {reason}; end the other program or "
        "change listen or port in the configuration"
    )
