"""Asking another server over HTTPS: one request at a time, bounded in time and size."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from ntmobile.errors import Unreachable
from ntmobile.protocols.tls import tls_problem

#: Largest answer, in bytes.
ANSWER: Final = 1 << 16
#: Seconds for which an idle connection is kept: less than servers keep it.
KEPT: Final = 30
#: Bytes of a body that are given at once.
PIECE: Final = 1 << 16
#: Of Linux' ``tcp.h``; not in Python's module everywhere.
_TCP_NOTSENT_LOWAT: Final = 25
#: Why a request was ended that another one may follow at once.
CHANGED: Final = "the network changed"
#: A connection ended before the answer, or on its way.
_BROKEN: Final = (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)


class NetworkChanged(Unreachable):
    """A request was ended because the connection that it was on leads nowhere now."""


@implementer(IStreamClientEndpoint)
@define
class _Paced:
    """A TCP endpoint whose socket takes no more than the network does.

    Otherwise a whole body disappears in the socket's buffer, and on a slow line nothing is seen to
    move for longer than anybody waits.
    """

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :class:`IStreamClientEndpoint`."""
        connecting: Deferred[IProtocol] = self.endpoint.connect(protocolFactory)
        connecting.addCallback(self._connected)
        return connecting

    def _connected(self, protocol: IProtocol) -> IProtocol:
        get_handle = getattr(getattr(protocol, "transport", None), "getHandle", None)
        if get_handle is not None and sys.platform == "linux":
            with suppress(OSError, AttributeError):  # an old kernel, or no socket of this system
                get_handle().setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, PIECE)
        return protocol


@implementer(IAgentEndpointFactory)
@define
class _OneServer:
    """Who the server must prove to be is known, whatever its address."""

    reactor: Any
    tls: IOpenSSLClientConnectionCreator
    timeout: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """How to connect to it."""
        host = uri.host.decode("ascii").strip("[]")
        endpoint = HostnameEndpoint(self.reactor, host, uri.port, self.timeout)
        wrapped: IStreamClientEndpoint = wrapClientTLS(self.tls, _Paced(endpoint))
        return wrapped


class _Running:
    """A request that is under way, and what ends it before its time.

    :ivar ended: why it was ended; empty while it was not.
    """

    def __init__(self, reactor: Any, seconds: float) -> None:
        self.ended = ""
        self.asking: Deferred[tuple[int, bytes]] | None = None
        self._seconds = seconds
        self._stalled: IDelayedCall = reactor.callLater(
            seconds, self.end, f"no answer within {seconds:g} s"
        )

    def moved(self) -> None:
        """Something was sent or received."""
        if self._stalled.active():
            self._stalled.reset(self._seconds)

    def end(self, reason: str) -> None:
        """End it."""
        self.ended = reason
        if self.asking is not None:
            self.asking.cancel()

    def over(self) -> None:
        """It has ended."""
        if self._stalled.active():
            self._stalled.cancel()


@implementer(IBodyProducer)
class _Octets:
    """The body of a request, piece by piece, as fast as it is taken."""

    def __init__(self, data: bytes, moved: Callable[[], None]) -> None:
        self.length = len(data)
        self._rest = memoryview(data)
        self._moved = moved
        self._done: Deferred[None] = Deferred()
        self._consumer: IConsumer | None = None
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin."""
        self._consumer = consumer
        self._give()
        return self._done

    def _give(self) -> None:
        while self._consumer is not None and not self._paused:
            self._moved()
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            self._consumer.write(bytes(piece))
            if not self._rest:
                self._consumer = None
                self._done.callback(None)

    def pauseProducing(self) -> None:
        """What was given waits to be sent."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It was sent."""
        self._paused = False
        self._give()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._consumer = None


class _Body(Protocol):
    """Gathers the body of an answer, and no more of it than may come."""

    def __init__(self, most: int, moved: Callable[[], None]) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._most = most
        self._moved = moved
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """A piece."""
        self._moved()
        self._data += data
        if len(self._data) > self._most and not self.done.called:
            self.done.errback(Unreachable(f"an answer of more than {self._most} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All of it, or the connection is gone."""
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(bytes(self._data))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        if self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()


class HttpServerAt:
    """One server that is asked now and again, at one of its addresses after the other.

    :param name: of the server, for people.
    :param places: its numeric addresses and ports. :param tls: verifies who it is.
    :param timeout: seconds in which nothing of a request may move, connecting included.
    :param most: bytes of an answer.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        places: Sequence[tuple[str, int]],
        tls: IOpenSSLClientConnectionCreator,
        timeout: float,
        most: int = ANSWER,
    ) -> None:
        self._reactor = reactor
        self._most = most
        self._name = name
        self._places = list(places)
        self._timeout = timeout
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 2
        self._pool.cachedConnectionTimeout = KEPT
        self._pool.retryAutomatically = False
        self._running: set[_Running] = set()
        self._agent = Agent.usingEndpointFactory(
            reactor, _OneServer(reactor, tls, timeout), pool=self._pool
        )

    async def ask(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request.

        :return: status and body.
        :raises NetworkChanged: :meth:`abort` ended it; ask anew.
        :raises Unreachable: there is no whole answer; the next one goes to another address.
        """
        running = _Running(self._reactor, self._timeout)
        self._running.add(running)
        try:
            running.asking = Deferred.fromCoroutine(
                self._ask(method, target, body, headers, running.moved)
            )
            return await running.asking
        except CancelledError:
            if not running.ended:  # who asks is gone
                raise
            reason = ""
        except Unreachable as problem:
            reason = str(problem)
        except _BROKEN as problem:
            if not running.ended and any(one.check(CancelledError) for one in problem.reasons):
                raise CancelledError from None
            reason = "; ".join(dict.fromkeys(tls_problem(one.value) for one in problem.reasons))
        except (ConnectError, ConnectingCancelledError, ConnectionClosed, OSError) as problem:
            reason = str(problem).rstrip(".")
        finally:
            running.over()
            self._running.discard(running)
        reason = running.ended or reason or "no connection"
        if reason == CHANGED:
            raise NetworkChanged(f"{self._name}: {reason}")
        self._places.append(self._places.pop(0))
        raise Unreachable(f"{self._name}: {reason}")

    async def _ask(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: Mapping[str, str],
        moved: Callable[[], None],
    ) -> tuple[int, bytes]:
        host, port = self._places[0]
        shown = f"[{host}]" if ":" in host else host
        response: IResponse = await self._agent.request(
            method.encode("ascii"),
            f"https://{shown}:{port}{target}".encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            _Octets(body, moved) if body else None,
        )
        moved()
        gathered = _Body(self._most, moved)
        response.deliverBody(gathered)
        return response.code, await gathered.done

    def abort(self) -> None:
        """The network changed: end what is under way, and use no connection again."""
        for running in list(self._running):
            running.end(CHANGED)
        self.close().addErrback(lambda failure: None)

    def close(self) -> Deferred[None]:
        """Close the connection that is kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed
