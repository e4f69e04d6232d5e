"""A SOCKS5 server (RFC 1928) that connects to names: no method of login, no command but CONNECT.

Names stay names (``socks5h`` in curl's words), so that whoever connects decides what they mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import (
    AccessDenied,
    AuthenticationError,
    InvalidName,
    NotPermittedHere,
    NTMobileError,
    UnknownName,
    Unreachable,
)
from ntmobile.protocols.splicing import Spliced

log = Logger()

VERSION: Final = 5
_NO_METHOD: Final = 0xFF
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
#: Seconds in which a client must have said where it wants to go.
PATIENCE: Final = 30.0

#: Connects to a host, as it was asked for, and a port.
Connect = Callable[[str, int], Deferred[Spliced]]


class Reply(IntEnum):
    """What became of a request (RFC 1928, section 6)."""

    OK = 0
    FAILED = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    REFUSED = 5
    NO_COMMAND = 7
    NO_ADDRESS_TYPE = 8


def reply_for(problem: BaseException) -> Reply:
    """The reply that says best what went wrong."""
    if isinstance(problem, Unreachable) and "refused" in str(problem):
        return Reply.REFUSED
    if isinstance(problem, UnknownName | InvalidName | Unreachable):
        return Reply.HOST_UNREACHABLE
    if isinstance(problem, AccessDenied | AuthenticationError | NotPermittedHere):
        return Reply.NOT_ALLOWED
    return Reply.FAILED


class SocksProtocol(Spliced):
    """One client of the proxy.

    :param connect: connects to where it wants to go.
    :param failed: is told of a request that failed: where to, and why.
    """

    def __init__(
        self, clock: IReactorTime, connect: Connect, failed: Callable[[str, str], None]
    ) -> None:
        self._connect = connect
        self._failed = failed
        self._clock = clock
        self._buffer = b""
        self._greeted = False
        self._connecting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Wait for the greeting, but not for ever."""
        self._expiry = self._clock.callLater(PATIENCE, self._drop)

    def dataReceived(self, data: bytes) -> None:
        """Greeting and request; then all is the application's."""
        if self.other is not None:
            super().dataReceived(data)
            return
        self._buffer += data
        if self._connecting is not None:
            if len(self._buffer) > 65536:
                self._drop()
            return
        if not self._greeted:
            self._greet()
        if self._greeted and self._connecting is None:
            self._request()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone: so is what it asked for."""
        if self._expiry.active():
            self._expiry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        super().connectionLost(reason)

    def _greet(self) -> None:
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            if self._buffer[:1] not in (b"", b"\x05"):
                self._drop()
            return
        methods = self._buffer[2 : 2 + self._buffer[1]]
        if self._buffer[0] != VERSION or 0 not in methods:
            self._write(bytes((VERSION, _NO_METHOD)))
            self._drop()
            return
        self._buffer = self._buffer[2 + len(methods) :]
        self._greeted = True
        self._write(bytes((VERSION, 0)))

    def _request(self) -> None:
        try:
            parsed = parse_request(self._buffer)
        except RefusedRequest as problem:
            self._answer(problem.reply)
            self._drop()
            return
        if parsed is None:
            return
        host, port, length = parsed
        self._buffer = self._buffer[length:]
        if self._expiry.active():
            self._expiry.cancel()
        self.hold()
        self._connecting = Deferred.fromCoroutine(self._reach(host, port))
        self._connecting.addErrback(lambda failure: None)

    async def _reach(self, host: str, port: int) -> None:
        try:
            far = await self._connect(host, port)
        except NTMobileError as problem:
            self._failed(f"{host}:{port}", str(problem))
            self._answer(reply_for(problem))
            self._drop()
            return
        except CancelledError:
            return  # the client is gone
        except Exception:
            log.failure("connecting to {host}", host=host)
            self._answer(Reply.FAILED)
            self._drop()
            return
        self._answer(Reply.OK)
        self.join(far)
        early, self._buffer = self._buffer, b""
        if early and far.transport is not None:
            far.transport.write(early)

    def _answer(self, reply: Reply) -> None:
        # The address that is bound for it means nothing outside the virtual network.
        self._write(bytes((VERSION, reply, 0, _IPV4)) + bytes(6))

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class RefusedRequest(NTMobileError):
    """A request that is none, or not one that is served here; ``reply`` says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"a SOCKS request that is not served: {reply.name}")
        self.reply = reply


def parse_request(data: bytes) -> tuple[str, int, int] | None:
    """Host, port, and the bytes that a request takes; None if it is not whole yet.

    :raises RefusedRequest: it is not a CONNECT to a name or address.
    """
    if len(data) < 5:
        return None
    version, command, _, kind, first = data[:5]
    if version != VERSION:
        raise RefusedRequest(Reply.FAILED)
    if command != _CONNECT:
        raise RefusedRequest(Reply.NO_COMMAND)
    start, length = (5, first) if kind == _NAME else (4, {_IPV4: 4, _IPV6: 16}.get(kind, 0))
    if not length:
        raise RefusedRequest(Reply.FAILED if kind == _NAME else Reply.NO_ADDRESS_TYPE)
    end = start + length
    if len(data) < end + 2:
        return None
    (port,) = struct.unpack_from("!H", data, end)
    raw = data[start:end]
    if kind == _IPV4:
        return str(IPv4Address(raw)), port, end + 2
    if kind == _IPV6:
        return str(IPv6Address(raw)), port, end + 2
    try:
        return raw.decode("ascii"), port, end + 2
    except UnicodeDecodeError:
        raise RefusedRequest(Reply.HOST_UNREACHABLE) from None


class SocksFactory(Factory[SocksProtocol]):
    """Makes the protocol of each client; see :class:`SocksProtocol`."""

    noisy = False

    def __init__(
        self, clock: IReactorTime, connect: Connect, failed: Callable[[str, str], None]
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._failed = failed

    def buildProtocol(self, addr: object) -> SocksProtocol:
        """One client."""
        return SocksProtocol(self._clock, self._connect, self._failed)
