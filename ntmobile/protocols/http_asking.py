"""Asking another server over HTTPS: one request at a time, bounded in time and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import IConsumer, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from ntmobile.errors import Unreachable
from ntmobile.protocols.tls import tls_problem

#: Largest answer, in bytes.
ANSWER: Final = 1 << 16
#: Seconds for which an idle connection is kept: less than servers keep it.
KEPT: Final = 30


@implementer(IPolicyForHTTPS)
class _OneServer:
    """Who the server must prove to be is known, whatever its address."""

    def __init__(self, tls: IOpenSSLClientConnectionCreator) -> None:
        self._tls = tls

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """How to speak TLS with it."""
        return self._tls


@implementer(IBodyProducer)
class _Octets:
    """The body of a request, at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Give all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is given already."""

    def resumeProducing(self) -> None:
        """It is given already."""

    def stopProducing(self) -> None:
        """It is given already."""


class _Body(Protocol):
    """Gathers the body of an answer, and no more of it than may come."""

    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._most = most
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """A piece."""
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
    :param timeout: seconds for one request, connecting included.
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
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = KEPT
        self._pool.retryAutomatically = False
        self._agent = Agent(reactor, _OneServer(tls), connectTimeout=timeout, pool=self._pool)

    async def ask(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request.

        :return: status and body.
        :raises Unreachable: there is no whole answer in time; the next one goes to another address.
        """
        asking = Deferred.fromCoroutine(self._ask(method, target, body, headers))
        try:
            return await asking.addTimeout(self._timeout, self._reactor)
        except (NoAnswer, CancelledError):
            reason = f"no answer within {self._timeout:g} s"
        except Unreachable as problem:
            reason = str(problem)
        except (ResponseFailed, ResponseNeverReceived) as problem:
            reason = "; ".join(dict.fromkeys(tls_problem(one.value) for one in problem.reasons))
        except (ConnectError, ConnectingCancelledError, ConnectionClosed, OSError) as problem:
            reason = str(problem).rstrip(".")
        self._places.append(self._places.pop(0))
        raise Unreachable(f"{self._name}: {reason or 'no connection'}")

    async def _ask(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        host, port = self._places[0]
        shown = f"[{host}]" if ":" in host else host
        response: IResponse = await self._agent.request(
            method.encode("ascii"),
            f"https://{shown}:{port}{target}".encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            _Octets(body) if body else None,
        )
        gathered = _Body(self._most)
        response.deliverBody(gathered)
        return response.code, await gathered.done

    def close(self) -> Deferred[None]:
        """Close the connection that is kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed
