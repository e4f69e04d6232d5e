"""Twisted endpoints on the virtual network, for any Twisted program on this machine.

``ntm:5000`` listens on the virtual addresses of this device, and
``ntm:phone.alice.dc1.ntm.example:5000`` connects to a correspondent; both take ``state=DIR`` where
the state directory is not the usual one. The agent must be running: it brings the tunnel up, and
the sockets are made in its virtual network.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
    IWriteDescriptor,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.plugin import IPlugin
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.client.control import SOCKET, error_of, no_agent
from ntmobile.client.settings import load_settings
from ntmobile.client.state import default_state
from ntmobile.errors import ConfigurationError, NotPermittedHere, NotRegistered, Unreachable
from ntmobile.plugins.netns.channel import Channel

#: Attachments that have no sockets, only what is inside the program.
_SOCKETLESS: Final = ("datagram", "fd")
#: Seconds for a TCP connection through a tunnel that is up.
CONNECT_TIMEOUT: Final = 30.0


def open_socket(state: Path) -> tuple[socket.socket, bool]:
    """A non-blocking IPv6 stream socket that reaches the virtual network of ``state``.

    :return: it, and whether it is in a namespace of its own; else (the ``tun`` attachment) it is
        the host's, where not everything that it could reach or hear is of the virtual network.
    :raises NotPermittedHere: this device has no virtual network for sockets.
    """
    try:
        channel = Channel.connect(state)
    except NotRegistered:
        if load_settings(state).attachment[0] in _SOCKETLESS:
            raise NotPermittedHere(
                f"{state}: this device has no virtual network for sockets; set "
                '[attachment] plugin = "netns" or "tun" in its node.toml'
            ) from None
        made, alone = socket.socket(socket.AF_INET6, socket.SOCK_STREAM), False
    else:
        try:
            family, kind = int(socket.AF_INET6), int(socket.SOCK_STREAM)
            _, [descriptor] = channel.request("socket", family=family, type=kind, protocol=0)
        finally:
            channel.close()
        made, alone = socket.socket(fileno=descriptor), True
    made.setblocking(False)
    return made, alone


class _Answer(LineOnlyReceiver):
    """One question to the agent."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, request: object) -> None:
        self._request = request
        self.answer: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        """Ask."""
        self.sendLine(json.dumps(self._request).encode())

    def lineReceived(self, line: bytes) -> None:
        """The answer; events are of no interest."""
        message = json.loads(line)
        if "event" in message or self.answer.called:
            return
        if "result" in message:
            self.answer.callback(message["result"])
        else:
            self.answer.errback(Failure(error_of(message)))
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """No answer any more."""
        if not self.answer.called:
            self.answer.errback(Failure(Unreachable("the agent ended before it answered")))


async def ask_agent(reactor: Any, state: Path, command: str, **parameters: Any) -> Any:
    """Ask the agent of a state directory without blocking; see :mod:`ntmobile.client.control`.

    :raises NTMobileError: what the agent says, or that none is running.
    """
    question = _Answer({"command": command, **parameters})
    try:
        directory = os.open(state, os.O_DIRECTORY | os.O_RDONLY)
        try:
            # An address of this kind holds 108 bytes, however deep the directory is.
            path = f"/proc/self/fd/{directory}/{SOCKET}"
            await connectProtocol(UNIXClientEndpoint(reactor, path), question)
        finally:
            os.close(directory)
    except ConnectingCancelledError:
        question.answer.addErrback(lambda failure: None)
        raise CancelledError from None
    except Exception:  # the directory, the socket, or who listens there is missing
        question.answer.addErrback(lambda failure: None)
        raise no_agent(state) from None
    return await question.answer


@implementer(IReadDescriptor, IWriteDescriptor)
class _Connecting:
    """Waits until a connection in progress is writable, and reads what became of it."""

    def __init__(self, reactor: Any, connecting: socket.socket) -> None:
        self._reactor = reactor
        self._socket = connecting
        self.done: Deferred[None] = Deferred(self._cancel)
        reactor.addWriter(self)

    def _cancel(self, _: object) -> None:
        self._reactor.removeWriter(self)

    def doWrite(self) -> None:
        """Writable: connected, or failed."""
        self._reactor.removeWriter(self)
        self._decide(None)

    def _decide(self, reason: Failure | None) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.done.errback(Failure(Unreachable(os.strerror(code))))
        elif reason is not None:
            self.done.errback(Failure(Unreachable(reason.getErrorMessage())))
        else:
            self.done.callback(None)

    def doRead(self) -> None:
        """Never asked for."""

    def fileno(self) -> int:
        """The socket, for the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "ntm"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor sees an error on it, or ends."""
        if not self.done.called:
            self._decide(reason)


@implementer(IStreamClientEndpoint)
class NTMClientEndpoint:
    """Connects to a correspondent by name.

    :param name: FQDN of a device, or the name of a user. :param port: TCP port there.
    """

    def __init__(self, reactor: Any, state: Path, name: str, port: int) -> None:
        self._reactor = reactor
        self._state = state
        self._name = name
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See ``IStreamClientEndpoint``; fails with one of our errors."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        shown = await ask_agent(self._reactor, self._state, "resolve", name=self._name)
        made, _ = open_socket(self._state)
        try:
            code = made.connect_ex((shown["ipv6"], self._port))
            if code not in (0, errno.EINPROGRESS):
                raise Unreachable(f"{self._name}: {os.strerror(code)}")
            connecting = _Connecting(self._reactor, made)
            connecting.done.addTimeout(CONNECT_TIMEOUT, self._reactor, self._timed_out)
            try:
                await connecting.done
            except Unreachable as problem:
                raise Unreachable(f"{self._name} port {self._port}: {problem}") from None
            adopting = _Adopting(factory)
            self._reactor.adoptStreamConnection(made.fileno(), socket.AF_INET6, adopting)
        finally:
            made.close()
        return adopting.built

    def _timed_out(self, result: object, seconds: float) -> Failure:
        return Failure(Unreachable(f"no answer within {seconds:g} s"))


class _Adopting(Factory[Any]):
    """Builds the protocol of another factory and remembers it."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.built: Any = None
        self.noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        """The other factory's protocol."""
        self.built = self._factory.buildProtocol(addr)
        return self.built


@implementer(IStreamServerEndpoint)
class NTMServerEndpoint:
    """Listens on the virtual addresses of this device.

    On both, IPv6 and IPv4, where the virtual network is a namespace of its own; where it is an
    interface of the host, on the IPv6 address alone, so that nobody else can connect.
    """

    def __init__(self, reactor: Any, state: Path, port: int) -> None:
        self._reactor = reactor
        self._state = state
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``; fails with one of our errors."""
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        status = await ask_agent(self._reactor, self._state, "status")
        made, alone = open_socket(self._state)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if alone else 1)
            made.bind(("::" if alone else status["virtual"]["ipv6"], self._port))
            made.listen(128)
            listening: IListeningPort = self._reactor.adoptStreamPort(
                made.fileno(), socket.AF_INET6, factory
            )
        except OSError as problem:
            raise ConfigurationError(
                f"cannot listen on port {self._port} of the virtual network: {problem.strerror}"
            ) from None
        finally:
            made.close()
        return listening


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise ValueError(f"ntm: {text!r} is no port; write ntm:5000 or ntm:NAME:5000")
    return int(text)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class NTMServerEndpointParser:
    """Parses ``ntm:PORT``."""

    prefix = "ntm"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> NTMServerEndpoint:
        """See ``IStreamServerEndpointStringParser``; ``state``: a device's directory."""
        (port,), directory = _arguments(args, kwargs, "ntm:5000", 1)
        return NTMServerEndpoint(reactor, directory, _port(port))


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class NTMClientEndpointParser:
    """Parses ``ntm:NAME:PORT``."""

    prefix = "ntm"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> NTMClientEndpoint:
        """See ``IStreamClientEndpointStringParserWithReactor``; ``state``: as for the server."""
        (name, port), directory = _arguments(args, kwargs, "ntm:NAME:5000", 2)
        return NTMClientEndpoint(reactor, directory, name, _port(port))


def _arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], example: str, count: int
) -> tuple[tuple[str, ...], Path]:
    """The parts of a description, and the state directory. :raises ValueError: what it must be."""
    if len(args) != count or not set(kwargs) <= {"state"}:
        raise ValueError(f"ntm: write {example}, and :state=DIR where it is not the usual one")
    state = kwargs.get("state")
    return tuple(args), Path(state) if state else default_state()
