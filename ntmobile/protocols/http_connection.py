"""One HTTP/1.1 connection: Twisted's channel, with a deadline for each thing that is awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from ntmobile.errors import AuthenticationError
from ntmobile.protocols.http_request import HttpRequest
from ntmobile.protocols.tls import connection_of
from ntmobile.protocols.verification import peer_identity
from ntmobile.wire import problems
from ntmobile.wire.problems import PROBLEM_TYPE, Problem

if TYPE_CHECKING:
    from ntmobile.protocols.http_server import HttpApi


class HttpConnection(http.HTTPChannel):
    """A connection: requests one after the other.

    :ivar api: what it serves.
    """

    #: Any: mypy-zope forgets what a class with an interface of its own inherits from.
    requestFactory: Any = HttpRequest
    totalHeadersSize = 16384
    maxHeaders = 64

    def __init__(self, api: HttpApi) -> None:
        http.HTTPChannel.__init__(self)
        self.api = api
        self.factory = api
        self.timeOut = api.limits.idle
        self._deadline: Any = None
        self._ended = False
        self._losing = False

    def peer(self) -> tuple[str, str] | None:
        """Role and name of the server at the other end; None if it showed no certificate."""
        try:
            return peer_identity(connection_of(self.transport))
        except AuthenticationError:
            return None

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Where Twisted gets its timeouts from."""
        return self.api.reactor.callLater(period, func)

    # -- What it waits for

    def expect(self, seconds: float | None) -> None:
        """Something must happen in so many seconds, instead of what was expected before."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.callLater(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self._handlingRequest:  # its answer is not read
            self.abort()
        else:
            self._refuse(Problem(problems.SLOW, "the request took too long; send it again"))

    def abort(self) -> None:
        """Cut the connection."""
        self._ended = True
        self.expect(None)
        cast(Any, self.transport).abortConnection()

    def _refuse(self, problem: Problem) -> None:
        """Answer what cannot be read any further, and end."""
        if self._ended:
            return
        self._ended = True
        document, kind = problem.document(), problem.kind
        head = (
            f"HTTP/1.1 {kind.status} {http.RESPONSES[kind.status].decode()}\r\n"
            f"Content-Type: {PROBLEM_TYPE}\r\nContent-Length: {len(document)}\r\n"
            "Connection: close\r\n\r\n"
        )
        cast(Any, self.transport).write(head.encode("ascii") + document)
        self.loseConnection()

    # -- Twisted's side

    def connectionMade(self) -> None:
        """The head of the first request is expected, after TLS."""
        http.HTTPChannel.connectionMade(self)
        self.expect(self.api.limits.head)
        self.api.waits(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._ended:
            return
        if self._deadline is None and not self._handlingRequest:
            self.expect(self.api.limits.head)
        http.HTTPChannel.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if not self._ended:
            http.HTTPChannel.lineReceived(self, line)

    def rawDataReceived(self, data: bytes) -> None:
        """A piece of a body."""
        if not self._ended:
            http.HTTPChannel.rawDataReceived(self, data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line without end."""
        self._respondToBadRequestAndDisconnect()

    def allHeadersReceived(self) -> None:
        """The head of a request is there: judge it."""
        self.api.works(self)
        request = self.requests[-1]
        self.persistent = self.checkPersistence(request, self._version)
        said = request.requestHeaders.getRawHeaders(b"Expect", [b""])[0].lower()
        expects = said == b"100-continue" and self._version == b"HTTP/1.1" and self.length != 0
        if not request.begin(self._command, self._path, self.length, expects):
            self.persistent = False
            request.refuse(self._command, self._path, self._version)
            self._ended = True
            return
        if expects:
            self._send100Continue()
        limits = self.api.limits
        self.expect(limits.grace + self.length / limits.rate if self.length else None)

    def requestDone(self, request: HttpRequest) -> None:
        """It was answered, and the next one may come."""
        self.api.waits(self)
        http.HTTPChannel.requestDone(self, request)

    def allContentReceived(self) -> None:
        """All of a request is there."""
        self.expect(None)
        if not self._ended:
            http.HTTPChannel.allContentReceived(self)

    def loseConnection(self) -> None:
        """End when all is written; at last by force."""
        self._ended = True
        self.expect(None)
        if self._losing:
            return
        self._losing = True
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        http.HTTPChannel.loseConnection(self)

    def timeoutConnection(self) -> None:
        """Nothing came for a while."""
        self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._ended = True
        self.expect(None)
        self.api.gone(self)
        http.HTTPChannel.connectionLost(self, reason)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(Problem(problems.MALFORMED, "this is not HTTP/1.1 as it should be"))
