"""Links that are dialled for ever: an endpoint for Twisted's ``ClientService`` (design section 5).

``ClientService`` counts a connection as made when TCP stands, and then starts its back-off anew.
For a link that is too early: TLS may fail, the peer may be another, or it may not want us.
:class:`LinkEndpoint` connects only what is verified and greeted; all else is a failed attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NTMobileError, Unreachable
from ntmobile.protocols.link import Link

log = Logger()

#: Seconds in which TLS must stand.
HANDSHAKE: Final = 10.0


def abort(link: Link) -> None:
    """Drop a connection at once: a peer that does not answer acknowledges no last bytes either."""
    transport = link.transport
    if transport is not None:
        getattr(transport, "abortConnection", transport.loseConnection)()


@implementer(IStreamClientEndpoint)
class InTurn:
    """One of several endpoints, another at each attempt: the addresses of one server."""

    def __init__(self, endpoints: Sequence[IStreamClientEndpoint]) -> None:
        self._endpoints = list(endpoints)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect to the one whose turn it is."""
        endpoint = self._endpoints.pop(0)
        self._endpoints.append(endpoint)
        connecting: Deferred[Any] = endpoint.connect(protocolFactory)
        return connecting


@implementer(IStreamClientEndpoint)
class LinkEndpoint:
    """Connects links that are verified and greeted.

    The protocol of the factory given to :meth:`connect` is but the sign that a link stands: it is
    told when the link is closed, and its transport closes the link.

    :param name: of the server, for people. :param make: makes a new link.
    :param greet: does what a new link must begin with; if it fails, so does the attempt.
    """

    def __init__(
        self,
        inner: IStreamClientEndpoint,
        clock: IReactorTime,
        name: str,
        make: Callable[[], Link],
        greet: Callable[[Link], Awaitable[None]],
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._name = name
        self._make = make
        self._greet = greet
        self._problem = ""

    def __repr__(self) -> str:
        return self._name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect, verify, greet."""
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        connecting.addErrback(self._told)
        return connecting

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        link = cast(Link, await self._inner.connect(Factory.forProtocol(self._make)))
        try:
            await link.ready.addTimeout(HANDSHAKE, self._clock)
            await self._greet(link)
            if not link.alive:
                raise Unreachable("the connection closed at once")
        except BaseException:
            abort(link)
            raise
        self._problem = ""
        transport = cast(ITransport, link.transport)
        shown = factory.buildProtocol(transport.getPeer())
        if shown is None:
            abort(link)
            raise Unreachable("the connection is not wanted any more")
        shown.makeConnection(transport)
        link.closed.addCallback(lambda problem: shown.connectionLost(Failure(problem)))
        return shown

    def _told(self, failure: Failure) -> Failure:
        """Log why, once for each new reason."""
        known = failure.check(NTMobileError)
        problem = str(failure.value) if known else failure.getErrorMessage()
        if problem != self._problem:
            self._problem = problem
            log.warn("no link to {name}: {problem}", name=self._name, problem=problem)
        return failure
