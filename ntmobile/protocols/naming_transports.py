"""DNS over UDP and TCP on a server's side (RFC 1035, section 4.2; RFC 7766), within limits.

What is answered is a :data:`Responder`'s business: the authoritative server's, or the resolver's
inside a client's namespace. A response may come at once or later; those to one TCP connection may
come in another order than the questions (RFC 7766, section 7).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import DatagramProtocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.wire.dns_messages import QUERY_LIMIT

#: Seconds a TCP connection may be without a whole query, before the first and after each.
IDLE: Final = 10.0
#: TCP connections at once: in all (the oldest gives way) and from one host.
CONNECTIONS: Final = 256
CONNECTIONS_EACH: Final = 32
#: Queries of one TCP connection under way at once; then it is not read from.
PIPELINED: Final = 16
#: Datagrams under way at once; more are dropped, as a full socket buffer would.
DATAGRAMS: Final = 512

log = Logger()

#: Takes a message and the host it came from; gives the response, or None for none.
Responder = Callable[[bytes, str], "bytes | Deferred[bytes | None] | None"]


class DatagramNaming(DatagramProtocol):
    """DNS over UDP: a datagram is a message."""

    noisy = False

    def __init__(self, respond: Responder) -> None:
        self._respond = respond
        self._under_way = 0

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        """Answer to where it came from."""
        if self._under_way >= DATAGRAMS:
            return
        response = self._respond(datagram, addr[0])
        if isinstance(response, Deferred):
            self._under_way += 1
            response.addBoth(self._done, addr)
        elif response is not None:
            self._send(response, addr)

    def _done(self, response: bytes | Failure | None, addr: tuple[Any, ...]) -> None:
        self._under_way -= 1
        if isinstance(response, Failure):
            log.failure("a DNS question was not answered", failure=response)
        elif response is not None and self.transport is not None:
            self._send(response, addr)

    def _send(self, response: bytes, addr: tuple[Any, ...]) -> None:
        assert self.transport is not None
        try:
            self.transport.write(response, addr)
        except OSError as problem:
            # The asker's network is not reachable, or the buffer is full: he asks again.
            log.debug("no DNS answer to {host}: {problem}", host=addr[0], problem=problem)


@implementer(IPushProducer)
class StreamNaming(Int16StringReceiver):
    """DNS over TCP: messages with a length of two bytes in front."""

    MAX_LENGTH = QUERY_LIMIT
    transport: ITCPTransport

    def __init__(self, connections: StreamNamingFactory, host: str) -> None:
        self.host = host
        self._connections = connections
        self._under_way = 0
        self._lost = False
        self._idle: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the clock; read only as fast as the other side takes the answers."""
        self._connections.opened(self)
        IConsumer(self.transport).registerProducer(self, True)
        self._wait()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the clock."""
        self._lost = True
        self._stop_waiting()
        self._connections.closed(self)

    def stringReceived(self, string: bytes) -> None:
        """Answer one message."""
        self._wait()
        response = self._connections.respond(string, self.host)
        if not isinstance(response, Deferred):
            self._answer(response)
            return
        self._under_way += 1
        if self._under_way >= PIPELINED:
            self.pauseProducing()
        response.addBoth(self._done)

    def _done(self, response: bytes | Failure | None) -> None:
        self._under_way -= 1
        if isinstance(response, Failure):
            log.failure("a DNS question was not answered", failure=response)
            response = None
        if self._lost:
            return
        self._answer(response)
        if self._under_way == PIPELINED - 1:
            self.resumeProducing()

    def _answer(self, response: bytes | None) -> None:
        if response is None:
            self._close()
        else:
            self.sendString(response)

    def _wait(self) -> None:
        self._stop_waiting()
        self._idle = self._connections.clock.callLater(IDLE, self._expired)

    def _stop_waiting(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = None

    def _expired(self) -> None:
        if self._under_way:
            self._wait()
        else:
            self.abort()

    def _close(self) -> None:
        IConsumer(self.transport).unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection at once, whatever is still to be sent."""
        self.transport.abortConnection()


class StreamNamingFactory(ServerFactory):
    """Makes :class:`StreamNaming` connections and keeps to their number.

    :ivar respond: answers the messages.
    :ivar clock: ends idle connections.
    """

    noisy = False

    def __init__(self, respond: Responder, clock: IReactorTime) -> None:
        self.respond = respond
        self.clock = clock
        self._open: dict[StreamNaming, None] = {}
        self._of_host: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> StreamNaming | None:
        """A protocol for one more connection, or none if its host has enough."""
        host: str = getattr(addr, "host", "")
        if self._of_host[host] >= CONNECTIONS_EACH:
            return None
        return StreamNaming(self, host)

    def opened(self, connection: StreamNaming) -> None:
        """Count a connection; where there are too many, the oldest gives way."""
        if len(self._open) >= CONNECTIONS:
            next(iter(self._open)).abort()
        self._open[connection] = None
        self._of_host[connection.host] += 1

    def closed(self, connection: StreamNaming) -> None:
        """Forget a connection."""
        self._open.pop(connection, None)
        self._of_host[connection.host] -= 1
        if not self._of_host[connection.host]:
            del self._of_host[connection.host]

    def close_all(self) -> None:
        """End all connections, when the service stops."""
        for connection in list(self._open):
            connection.abort()


class NamingPorts:
    """The UDP and the TCP port of a DNS server at one address.

    :ivar port: the number, the same for both.
    """

    def __init__(self, udp: Any, tcp: Any, factory: StreamNamingFactory) -> None:
        self._ports = (udp, tcp)
        self._factory = factory
        self.port: int = tcp.getHost().port

    async def stop(self) -> None:
        """Stop listening on both, and end the connections there are."""
        stopping = [port.stopListening() for port in self._ports]
        self._factory.close_all()
        for stopped in stopping:
            if isinstance(stopped, Deferred):
                await stopped
