"""Listening sockets of the servers, with errors that say what to do."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReactorSocket
from twisted.internet.protocol import DatagramProtocol, Factory

from ntmobile.errors import ConfigurationError
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.signalling import SignallingPort

#: Bytes asked for of the system, so that a burst of registrations waits instead of being lost.
RECEIVE_BUFFER: Final = 4 << 20
#: Largest datagram taken.
DATAGRAM_SIZE: Final = 8192


def listen_tcp(reactor: Any, port: int, factory: Factory[Any], host: str) -> IListeningPort:
    """Listen on a TCP port of a numeric address. :raises ConfigurationError: it is not free."""
    try:
        listening: IListeningPort = reactor.listenTCP(port, factory, interface=host)
    except CannotListenError as problem:
        raise _explained("TCP", host, port, problem.socketError) from None
    return listening


def listen_udp(reactor: Any, port: int, protocol: DatagramProtocol, host: str) -> IListeningPort:
    """Listen on a UDP port of a numeric address. :raises ConfigurationError: it is not free."""
    if not IReactorSocket.providedBy(reactor):
        try:
            listening: IListeningPort = reactor.listenUDP(port, protocol, interface=host)
        except CannotListenError as problem:
            raise _explained("UDP", host, port, problem.socketError) from None
        return listening
    with _bound(port, host) as made:
        adopted: IListeningPort = reactor.adoptDatagramPort(
            made.fileno(), made.family, protocol, DATAGRAM_SIZE
        )
        return adopted


def listen_signalling(reactor: Any, port: int, protocol: SignallingPort, host: str) -> Any:
    """Listen for clients; on a reactor with sockets, take what waits in few calls.

    :return: what to stop listening. :raises ConfigurationError: the port is not free.
    """
    if not IReactorFDSet.providedBy(reactor):
        return listen_udp(reactor, port, protocol, host)
    listening = DatagramPort(_bound(port, host), protocol, reactor)
    protocol.attach(listening)
    listening.startListening()
    return listening


def _bound(port: int, host: str) -> socket.socket:
    """A UDP socket. :raises ConfigurationError: the port is not free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            # "::" is beside "0.0.0.0", not in its place.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        made.bind((host, port))
    except OSError as problem:
        made.close()
        raise _explained("UDP", host, port, problem) from None
    return made


def _explained(kind: str, host: str, port: int, problem: object) -> ConfigurationError:
    reason = getattr(problem, "strerror", None) or problem
    return ConfigurationError(
        f"cannot listen on {kind} port {port} of {host}: {reason}; end the other program or "
        "change listen or port in the configuration"
    )
