"""HTTP/1.1 for servers' APIs: bounded, a request judged before its body comes, no tracebacks.

Twisted's channel parses (:mod:`ntmobile.protocols.http_connection`). What is added: a request is
matched, its sender known and its length judged when its head is there; a body is kept in memory
only as far as there is room for bodies, else in a file; who is slow is told so and cut off; every
error is a problem document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ntmobile.machines.login.sources import source_network
from ntmobile.protocols.http_bodies import Bodies
from ntmobile.protocols.http_connection import HttpConnection
from ntmobile.protocols.http_limits import SMALL, Limits
from ntmobile.protocols.http_request import HttpRequest
from ntmobile.protocols.http_routes import (
    JSON_TYPE,
    OCTETS_TYPE,
    Access,
    Answer,
    Call,
    Head,
    Receiver,
    Table,
    read_query,
)
from ntmobile.wire import problems
from ntmobile.wire.documents import read_document
from ntmobile.wire.http_digests import CONTENT_DIGEST, parse_content_digest
from ntmobile.wire.http_signatures import Request as SignableRequest
from ntmobile.wire.problems import Problem

log = Logger()


class HttpApi(Factory["HttpConnection"]):
    """A table of routes, served to whoever connects.

    :ivar serving: whether connections are taken at all.
    :param access: name in the routes → who asks.
    :param reactor: time, and threads for digests of long bodies.
    :param directory: of files for bodies that find no room in memory; None: the system's.
    """

    noisy = False

    def __init__(
        self,
        table: Table,
        access: Mapping[str, Access],
        reactor: Any,
        limits: Limits | None = None,
        directory: Path | None = None,
    ) -> None:
        self.table = table
        self.limits = limits or Limits()
        self.reactor = reactor
        self.bodies = Bodies(self.limits, directory)
        self.serving = True
        self._access = access
        self._connections: dict[HttpConnection, str] = {}
        self._addresses: Counter[str] = Counter()
        #: Those that wait for a request, the one that waits longest first.
        self._idle: dict[HttpConnection, None] = {}

    def buildProtocol(self, address: Any) -> HttpConnection | None:
        """A connection, if there are not too many that are of use."""
        if not self.serving:
            return None
        source = source_network(str(getattr(address, "host", "")))
        if not (self._room_for(source) and self._room_for(None)):
            log.debug("a connection from {source} is refused: too many", source=source)
            return None
        connection = HttpConnection(self)
        self._connections[connection] = source
        self._addresses[source] += 1
        return connection

    def _room_for(self, source: str | None) -> bool:
        """Whether there is room for one more, of a network or at all.

        If need be the connection goes that waits longest for a request of its client, so that who
        does nothing but hold connections keeps nobody out.
        """
        if source is None:
            count, most = len(self._connections), self.limits.connections
        else:
            count, most = self._addresses[source], self.limits.per_address
        if count < most:
            return True
        for connection in self._idle:
            if source in (None, self._connections.get(connection)) and connection.peer() is None:
                self.gone(connection)
                connection.abort()
                return True
        return False

    def waits(self, connection: HttpConnection) -> None:
        """A connection waits for its client's next request."""
        if connection in self._connections:
            self._idle[connection] = None

    def works(self, connection: HttpConnection) -> None:
        """The head of a request has come on a connection."""
        self._idle.pop(connection, None)

    def gone(self, connection: HttpConnection) -> None:
        """A connection ended."""
        self._idle.pop(connection, None)
        source = self._connections.pop(connection, None)
        if source is not None:
            self._addresses[source] -= 1
            if not self._addresses[source]:
                del self._addresses[source]

    def log(self, request: HttpRequest) -> None:
        """A request was answered."""
        log.debug(
            "{method} {path}: {status}",
            method=request.method.decode("latin-1"),
            path=request.path.decode("latin-1"),
            status=request.code,
        )

    def close(self) -> None:
        """End all connections at once."""
        for connection in list(self._connections):
            connection.abort()

    def judge(
        self, signable: SignableRequest, length: int | None, peer: Any, address: str
    ) -> tuple[Head, Any]:
        """Judge a request by its head: what it asks for, and who asks.

        :raises NTMobileError: it is refused.
        """
        route, values = self.table.find(signable.method, signable.path)
        if length is None:
            raise Problem(problems.LENGTH, "say the length of the body in Content-Length")
        if length > route.limit:
            most = f"at most {route.limit} bytes" if route.limit else "no body"
            raise Problem(problems.LARGE, f"a body of {length} bytes, where {most} may be")
        values |= read_query(route, signable.query)
        head = Head(route, signable, length, values, peer, address)
        caller = self._access[route.access](head)
        if length:
            _check_media(head)
        return head, caller

    def receiver(self, head: Head | None, caller: Any) -> Receiver | None:
        """Make who takes a long body as it comes, where its route has such."""
        if head is None or head.route.receive is None:
            return None
        return head.route.receive(head, caller)

    async def serve(
        self, head: Head, caller: Any, body: bytes, receiver: Receiver | None = None
    ) -> Answer:
        """Serve a request that was let in.

        :param receiver: who has taken its body as it came.
        """
        route = head.route
        promised = head.header(CONTENT_DIGEST)
        if promised is not None:
            expected = parse_content_digest(promised)
            found = await (self._digest(body) if receiver is None else receiver.digest())
            if found != expected:
                raise Problem(problems.CONTENT, "the body is not what Content-Digest says")
        message = None if route.body is None else read_document(route.body, body, route.limit)
        octets = body if message is None else b""
        return await route.serve(Call(head, caller, message, octets, receiver))

    async def _digest(self, body: bytes) -> bytes:
        if len(body) <= SMALL:
            return sha256(body).digest()
        digest: bytes = await deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), lambda: sha256(body).digest()
        )
        return digest


def _check_media(head: Head) -> None:
    """The body's type is that of the route; octets may go without one."""
    expected = OCTETS_TYPE if head.route.octets else JSON_TYPE
    said = head.header("content-type")
    if said is None and head.route.octets:
        return
    if said is None or said.partition(";")[0].strip().lower() != expected:
        raise Problem(problems.MEDIA, f"the body must be {expected}")
