"""One HTTP request, from the end of its head to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import implementer, provider

from ntmobile.errors import (
    AuthenticationError,
    MalformedMessage,
    NTMobileError,
    StorageFailed,
)
from ntmobile.protocols.http_bodies import Body
from ntmobile.protocols.http_limits import SMALL
from ntmobile.protocols.http_routes import JSON_TYPE, Answer, Head, Receiver
from ntmobile.wire.documents import write_document
from ntmobile.wire.http_signatures import Request as SignableRequest
from ntmobile.wire.problems import PROBLEM_TYPE, Problem, problem_of

if TYPE_CHECKING:
    from ntmobile.protocols.http_connection import HttpConnection

log = Logger()

#: Bodies of refused requests up to so many bytes are read and dropped; longer ones end the
#: connection, which may cost the client the answer.
DROPPED: Final = 8 << 20


@provider(INonQueuedRequestFactory)
@implementer(IPushProducer)
class HttpRequest(http.Request):
    """One request, from the end of its head on."""

    channel: HttpConnection

    def __init__(self, channel: HttpConnection) -> None:
        http.Request.__init__(self, channel)
        self._api = channel.api
        self._head: Head | None = None
        self._caller: Any = None
        self._body: Body | None = None
        self._receiver: Receiver | None = None
        self._serving = False
        self._refused: NTMobileError | None = None
        self._flowing: Deferred[None] | None = None

    # -- Its head and body

    def begin(self, command: bytes, uri: bytes, length: int | None, expects: bool) -> bool:
        """Judge it by its head; whether its body may come at all.

        :param expects: whether the client waits to hear that before it sends the body.
        """
        try:
            signable = self._signable(command, uri)
            peer = self.channel.peer()
            self._head, self._caller = self._api.judge(
                signable, length, peer, str(getattr(self.client, "host", ""))
            )
        except NTMobileError as problem:
            self._refused = problem
        except Exception:
            log.failure("a request could not be judged")
            self._refused = problem_of(Exception())
        if self._refused is not None:
            # What is not too long is let pass, so that the client reads the answer.
            return length is not None and length <= DROPPED and not expects
        self._body = self._api.bodies.begin(length or 0)
        if length and length > SMALL and not self._body.filed:  # else it comes at a snail's pace
            self._receiver = self._api.receiver(self._head, self._caller)
        return True

    def refuse(self, command: bytes, uri: bytes, version: bytes) -> None:
        """Answer at once that it is refused, without its body."""
        self.method, self.uri, self.clientproto = command, uri, version
        self.path = uri.partition(b"?")[0]
        self._answer_problem(problem_of(self._refused or AuthenticationError("not judged")))

    def _signable(self, command: bytes, uri: bytes) -> SignableRequest:
        try:
            target = uri.decode("ascii")
            fields = {
                name.decode("ascii").lower(): [each.decode("latin-1") for each in values]
                for name, values in self.requestHeaders.getAllRawHeaders()
            }
            method = command.decode("ascii")
        except UnicodeDecodeError:
            raise MalformedMessage("a request that is not ASCII") from None
        path, _, query = target.partition("?")
        return SignableRequest(method, path, query, fields.get("host", [""])[0], fields)

    def gotLength(self, length: int | None) -> None:
        """Nothing: :meth:`begin` judged it, and the body comes to memory."""

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if self._receiver is not None:
            self._receiver.write(data)
        elif self._body is not None:
            self._body.add(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self._serving = True
        Deferred.fromCoroutine(self._serve())

    # -- Its answer

    async def _serve(self) -> None:
        try:
            if self._refused is not None or self._head is None or self._body is None:
                raise self._refused or AuthenticationError("not judged")
            body = await self._body.whole()
            answer = await self._api.serve(self._head, self._caller, body, self._receiver)
            del body
            await self._answer(answer)
        except NTMobileError as problem:
            if isinstance(problem, StorageFailed):
                log.error("a request was not served: {problem}", problem=str(problem))
            self._answer_problem(problem_of(problem))
        except Exception as problem:
            if not self._disconnected:
                log.failure("a request could not be served")
                self._answer_problem(problem_of(problem))
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
        if self._body is not None:
            self._body.close()

    async def _answer(self, answer: Answer) -> None:
        if answer.pieces is not None:
            await self._answer_pieces(answer)
            return
        body, media = answer.body, answer.media
        if answer.document is not None:
            body, media = write_document(answer.document), JSON_TYPE
        self._send(answer.status, media, body, answer.headers)

    async def _answer_pieces(self, answer: Answer) -> None:
        assert answer.pieces is not None
        self._start(answer.status, answer.media, answer.length, answer.headers)
        if self._disconnected:
            return
        self.registerProducer(self, True)
        try:
            async for piece in answer.pieces:
                if self._flowing is not None:
                    await self._flowing
                if self._disconnected:
                    return
                self.write(piece)
        except Exception:
            log.failure("an answer ended early")
            if not self._disconnected:
                self.channel.abort()
            return
        finally:
            await answer.pieces.aclose()
            if not self._disconnected:
                self.unregisterProducer()
        if not self._disconnected:
            self.finish()

    def _answer_problem(self, problem: Problem) -> None:
        if self.startedWriting and not self._disconnected:
            self.channel.abort()
            return
        self._send(problem.kind.status, PROBLEM_TYPE, problem.document(), problem.headers)

    def _send(
        self, status: int, media: str, body: bytes, headers: tuple[tuple[str, str], ...]
    ) -> None:
        self._start(status, media, len(body), headers)
        if self._disconnected:
            return
        if body:
            self.write(body)
        self.finish()

    def _start(
        self, status: int, media: str, length: int, headers: tuple[tuple[str, str], ...]
    ) -> None:
        self.setResponseCode(status)
        own = [("Cache-Control", "no-store"), *headers]
        if status != http.NO_CONTENT:
            own += [("Content-Type", media), ("Content-Length", str(length))]
        if status == http.UNAUTHORIZED:
            own.append(("WWW-Authenticate", "Signature"))
        if not self.channel.persistent:
            own.append(("Connection", "close"))
        for name, value in own:
            self.responseHeaders.setRawHeaders(name, [value])

    # -- The pace of its client (IPushProducer), while an answer is sent in pieces

    def pauseProducing(self) -> None:
        """The client does not read as fast as this is sent."""
        if self._flowing is None:
            self._flowing = Deferred()
            self.channel.expect(self._api.limits.stalled)

    def resumeProducing(self) -> None:
        """It goes on."""
        flowing, self._flowing = self._flowing, None
        if flowing is not None:
            self.channel.expect(None)
            flowing.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.resumeProducing()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone: give back what it had."""
        self._disconnected = True
        self.resumeProducing()
        http.Request.connectionLost(self, reason)
        if not self._serving:
            self._leave()
