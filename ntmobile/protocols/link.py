"""The link: messages in frames over TLS, requests both ways (design section 5).

DC and DC, RS and its DC, DC and AS, and a client that logs in talk this way. A frame is::

    length (4) | flags (1) | identifier (4) | encoded message

``length`` counts what follows it; bit 0 of the flags marks a response, bit 1 a one-way message.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from attrs import define
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISystemHandle,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import AuthenticationError, MalformedMessage, NTMobileError, Unreachable
from ntmobile.protocols import trace
from ntmobile.protocols.tls import tls_problem
from ntmobile.protocols.verification import own_name, peer_identity
from ntmobile.wire.codec import FRAME_LIMIT, Message, declaration_of, decode, encode

log = Logger()

_LENGTH: Final = struct.Struct("!I")
_HEAD: Final = struct.Struct("!BI")
_RESPONSE: Final = 1
_ONE_WAY: Final = 2
#: Requests of the other end that may be under way at once; more close the link.
CONCURRENT: Final = 4096
#: Seconds without a word, while requests wait, after which the other end is taken for dead: TCP
#: alone would notice a host that was switched off only after a quarter of an hour.
DEAD: Final = 5.0

#: What answers the other end's requests: the message and the link it came on.
Handler = Callable[[Message, "Link"], Awaitable[Message | None]]
#: Establishes who the other end is once TLS stands; raises AuthenticationError to refuse it.
Verifier = Callable[[ITransport], "tuple[str, str] | None"]


@define(eq=False)
class _Waiting:
    answer: Deferred[Message]
    timeout: Any


@implementer(IHandshakeListener)
class Link(Protocol):
    """One connection's requests and responses.

    :ivar peer: role and name from the other end's certificate, once :attr:`ready` has fired;
        ``None`` for a client that has no certificate.
    :ivar ready: fires with the link when TLS stands and the peer is verified; fails else.
    :ivar closed: fires with the exception that says why when the connection is gone.
    """

    def __init__(self, clock: IReactorTime, handler: Handler, verify: Verifier) -> None:
        self.clock = clock
        self.peer: tuple[str, str] | None = None
        self.ready: Deferred[Link] = Deferred()
        self.closed: Deferred[Any] = Deferred()
        self.attachment: object = None
        self._handler = handler
        self._verify = verify
        self._verified = False
        self._next = 1
        self._waiting: dict[int, _Waiting] = {}
        self._serving = 0
        self._unheard_since: float | None = None
        self._gone = False
        self._buffer = bytearray()

    # -- Twisted's side

    def connectionMade(self) -> None:
        """Wait for the TLS handshake; a plain transport is for tests alone."""
        if not hasattr(self.transport, "getPeerCertificate"):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """IHandshakeListener: the peer's certificate is there to be judged."""
        try:
            if self.transport is not None:
                self.peer = self._verify(self.transport)
        except NTMobileError as problem:
            self._fail(Failure(problem))
            self._abort(str(problem))
            return
        self._verified = True
        if not self.ready.called:
            self.ready.callback(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of frames; anything that is not our protocol closes the connection."""
        if self._gone:
            return
        self._unheard_since = None
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size and not self._gone:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not self._verified or not _HEAD.size < length <= FRAME_LIMIT + _HEAD.size:
                self._abort(f"a frame of {length} bytes that is not of this protocol")
                return
            if len(self._buffer) < _LENGTH.size + length:
                return
            frame = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            self._frame_received(frame)

    def _frame_received(self, frame: bytes) -> None:
        flags, identifier = _HEAD.unpack_from(frame)
        try:
            message = decode(memoryview(frame)[_HEAD.size :])
        except MalformedMessage as problem:
            self._abort(str(problem))
            return
        if flags & _RESPONSE:
            waiting = self._waiting.pop(identifier, None)
            if waiting is not None:
                waiting.timeout.cancel()
                waiting.answer.callback(message)
        elif self._serving >= CONCURRENT:
            self._abort("too many requests at once")
        else:
            self._serve(flags, identifier, message)

    def _abort(self, reason: str) -> None:
        log.warn("closed a link to {peer}: {reason}", peer=self.peer, reason=reason)
        self._gone = True
        self._buffer.clear()
        if self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def _send(self, flags: int, identifier: int, message: Message, data: bytes) -> None:
        if trace.switch.on:
            self._trace(message)
        if self.transport is not None:
            head = _LENGTH.pack(_HEAD.size + len(data)) + _HEAD.pack(flags, identifier)
            self.transport.write(head + data)

    def _trace(self, message: Message) -> None:
        own = None
        if ISystemHandle.providedBy(self.transport):
            own = own_name(cast("SSL.Connection", ISystemHandle(self.transport).getHandle()))
        peer = self.peer[1] if self.peer is not None else "client"
        trace.trace(message, own or "client", peer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what waits."""
        self._gone = True
        self._fail(reason)
        if not self.closed.called:
            # The bare exception: a Failure would run the errbacks, and nobody's callback.
            self.closed.callback(reason.value)

    # -- our side

    @property
    def alive(self) -> bool:
        """Verified and connected."""
        return self._verified and not self._gone

    def request(self, message: Message, timeout: float = 10.0) -> Deferred[Message]:
        """Ask the other end. Fails with :class:`Unreachable` when no answer comes in time.

        :raises MalformedMessage: the message is out of bounds (R11); it was not sent.
        """
        data = encode(message)
        if not self.alive:
            problem = Unreachable(f"no connection for a {declaration_of(message).title}")
            failed: Deferred[Message] = Deferred()
            failed.errback(Failure(problem))
            return failed
        identifier = self._next
        self._next = self._next % 0xFFFFFFFF + 1
        answer: Deferred[Message] = Deferred(lambda _: self._forget(identifier))
        title = declaration_of(message).title
        call = self.clock.callLater(timeout, self._expire, identifier, title)
        self._waiting[identifier] = _Waiting(answer, call)
        if self._unheard_since is None:
            self._unheard_since = self.clock.seconds()
        self._send(0, identifier, message, data)
        return answer

    def tell(self, message: Message) -> None:
        """Send a message that wants no answer."""
        if self.alive:
            self._send(_ONE_WAY, 0, message, encode(message))

    def close(self) -> None:
        """Close the connection after what was written."""
        if self.transport is not None and not self._gone:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once, whatever the other end does."""
        if self.transport is not None and not self._gone:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def _serve(self, flags: int, identifier: int, message: Message) -> None:
        self._serving += 1
        served = ensureDeferred(self._handle(message))

        def answered(answer: Message | None) -> None:
            if answer is not None and not flags & _ONE_WAY and self.alive:
                self._send(_RESPONSE, identifier, answer, encode(answer))

        def refused(failure: Failure) -> None:
            if failure.check(NTMobileError):
                log.warn("refused a request: {problem}", problem=str(failure.value), peer=self.peer)
            else:
                log.failure("a request failed", failure)
            if not self._gone and failure.check(AuthenticationError, MalformedMessage):
                self._abort("the request was not acceptable")

        def done(result: None) -> None:
            self._serving -= 1

        served.addCallbacks(answered, refused)
        served.addErrback(lambda failure: log.failure("an answer was not sent", failure))
        served.addBoth(done)

    async def _handle(self, message: Message) -> Message | None:
        return await self._handler(message, self)

    def _forget(self, identifier: int) -> None:
        waiting = self._waiting.pop(identifier, None)
        if waiting is not None and waiting.timeout.active():
            waiting.timeout.cancel()

    def _expire(self, identifier: int, title: str) -> None:
        waiting = self._waiting.pop(identifier)
        since = self._unheard_since
        if since is not None and self.clock.seconds() - since >= DEAD:
            self._abort("it does not answer any more")
        waiting.answer.errback(Unreachable(f"no answer to a {title}"))

    def _fail(self, reason: Failure) -> None:
        if not self.ready.called:
            self.ready.errback(_readable(reason))
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.timeout.cancel()
            one.answer.errback(Unreachable("the connection closed before the answer"))


def _readable(reason: Failure) -> Failure:
    """Connection errors as one of ours."""
    if reason.check(NTMobileError):
        return reason
    if reason.check(error.ConnectionDone):
        return Failure(Unreachable("the other end closed the connection during the TLS handshake"))
    if reason.check(SSL.Error):
        return Failure(Unreachable(tls_problem(cast(SSL.Error, reason.value))))
    return Failure(Unreachable(f"the connection failed: {reason.getErrorMessage() or reason.type}"))


def verify_peer(*expected: tuple[str, str | None], optional: bool = False) -> Verifier:
    """A verifier: the peer must have one of these roles, and that name where one is given.

    :param optional: a peer without a certificate is let in, as nobody in particular.
    """

    def verify(transport: ITransport) -> tuple[str, str] | None:
        connection = cast("SSL.Connection", ISystemHandle(transport).getHandle())
        identity = peer_identity(connection)
        if identity is None:
            if optional:
                return None
            raise AuthenticationError("the peer shows no certificate")
        if any(identity[0] == role and name in (None, identity[1]) for role, name in expected):
            return identity
        raise AuthenticationError(f"{identity[0]}:{identity[1]} has no business on this link")

    return verify
