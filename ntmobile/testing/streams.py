"""Twisted's half of a stream: transport and listening port over a :class:`StreamSocket`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.testing.datagrams import Address, Datagram, Signal, family
from ntmobile.testing.tcp import StreamSocket
from ntmobile.testing.udp import binding

if TYPE_CHECKING:
    from ntmobile.testing.connectors import StreamConnector
    from ntmobile.testing.hosts import Host

#: Unsent bytes above which a streaming producer is asked to wait.
BUFFER_SIZE: Final = 65536


def tcp_address(address: Address) -> IPv4Address | IPv6Address:
    """Twisted's address object of a TCP address."""
    kind = IPv4Address if family(address[0]) == 4 else IPv6Address
    return kind("TCP", *address)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class StreamTransport:
    """The transport of one connection.

    :ivar protocol: whom it serves, from the moment the connection is made.
    :ivar connected: whether it is made and not lost.
    :ivar disconnecting: whether it will be closed.
    """

    log = Logger()

    def __init__(self, socket: StreamSocket, connector: StreamConnector | None = None) -> None:
        self.socket = socket
        self.protocol: IProtocol | None = None
        self.connected = False
        self.disconnecting = False
        self._connector = connector
        self._producer: IPushProducer | IPullProducer | None = None
        self._streaming = False
        self._producer_paused = False
        self._half_closed = False
        self._no_delay = False
        self._keep_alive = False

    def __repr__(self) -> str:
        return f"<StreamTransport {self.socket.local} to {self.socket.remote}>"

    def serve(self, protocol: IProtocol) -> None:
        """Join a protocol to the stream, now that it is established."""
        self.protocol = protocol
        self.socket.user = self
        self.connected = True
        self._call(protocol.makeConnection, self)

    # ITCPTransport

    def write(self, data: bytes) -> None:
        """Send bytes; ignored once the connection is being closed."""
        if not isinstance(data, bytes):
            raise TypeError(f"a transport writes bytes, not {type(data).__name__}")
        if not self.connected or self._half_closed or (self.disconnecting and not self._producer):
            return
        self.socket.write(data)
        if self._streaming and not self._producer_paused and len(self.socket.unsent) > BUFFER_SIZE:
            self._producer_paused = True
            cast(IPushProducer, self._producer).pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send the joined pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close after everything written, and after the producer where there is one."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._close_if_drained()

    def loseWriteConnection(self) -> None:
        """Close our half, and go on reading."""
        if self.connected and not self._half_closed and not self.disconnecting:
            self._half_closed = True
            self.socket.end()
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.socket.host.timers.callLater(0, self._write_lost)

    def abortConnection(self) -> None:
        """Close at once; the other side sees a reset."""
        if self.connected:
            self.socket.user = None
            self.socket.reset()
            self._lose_soon(ConnectionAborted())

    def getHost(self) -> IPv4Address | IPv6Address:
        """Our address."""
        return tcp_address(self.socket.local)

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The other's address, as it looks from here."""
        return tcp_address(self.socket.remote)

    def getTcpNoDelay(self) -> bool:
        """What was set; it changes nothing here."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Remember it."""
        self._no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        """What was set; it changes nothing here."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Remember it."""
        self._keep_alive = enabled

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Write what the producer produces; see :class:`IConsumer`."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self._producer} is registered")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = cast(IPushProducer | IPullProducer, producer)
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._produce()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None
        self._streaming = False
        if self.disconnecting:
            self._close_if_drained()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self.socket.pause()

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected:
            self.socket.resume()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # What the socket tells.

    def established(self) -> None:
        """Nothing to do: the transport begins after that."""

    def arrived(self, data: bytes) -> None:
        """Hand bytes to the protocol."""
        if self.protocol is not None and self.connected:
            self._call(self.protocol.dataReceived, data)

    def ended(self) -> None:
        """The other side sends no more: half closed where the protocol knows that, else the end."""
        if not self.connected:
            return
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._call(self.protocol.readConnectionLost)
            if self._half_closed:
                self._lose_soon(ConnectionDone())
        else:
            self.socket.user = None
            self.socket.unsent.clear()
            self.socket.end()
            self._lose_soon(ConnectionDone())

    def drained(self) -> None:
        """Let the producer go on, or close."""
        if self._producer is None:
            self._close_if_drained()
        elif not self._streaming or self._producer_paused:
            self.socket.host.timers.callLater(0, self._produce)

    def broke(self, reason: Exception) -> None:
        """The stream is gone."""
        if self.connected:
            self._lost(Failure(reason))

    # Inside.

    def _produce(self) -> None:
        producer, self._producer_paused = self._producer, False
        if producer is not None and self.connected:
            self._call(producer.resumeProducing)

    def _write_lost(self) -> None:
        protocol = self.protocol
        if self.connected and IHalfCloseableProtocol.providedBy(protocol):
            self._call(protocol.writeConnectionLost)

    def _close_if_drained(self) -> None:
        waiting = self._producer is not None or bool(self.socket.unsent)
        if self.disconnecting and self.connected and not waiting:
            self.socket.user = None
            self.socket.end()
            self._lose_soon(ConnectionDone())

    def _lose_soon(self, reason: Exception) -> None:
        self.disconnecting = True
        self.socket.host.timers.callLater(0, self._lost, Failure(reason))

    def _lost(self, reason: Failure) -> None:
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = False
        self.socket.user = None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            try:
                protocol.connectionLost(reason)
            except Exception:
                self.log.failure("A protocol failed while its connection was lost")
        if self._connector is not None:
            self._connector.connectionLost(reason)

    def _call(self, method: object, *arguments: object) -> None:
        """Call the protocol; where that raises, log it and close, as Twisted's reactors do."""
        assert callable(method)
        try:
            method(*arguments)
        except Exception as problem:
            self.log.failure("A stream protocol on {host} failed", host=self.socket.host.name)
            self.socket.user = None
            self.socket.reset()
            self._lost(Failure(problem))


@implementer(IListeningPort)
class StreamPort:
    """A listening TCP socket."""

    log = Logger()

    def __init__(self, host: Host, port: int, factory: ServerFactory, interface: str = "") -> None:
        self.host = host
        self.port = port
        self.factory = factory
        self.interface = binding(interface)
        self._bound: int | None = None

    def startListening(self) -> None:
        """Bind, and start the factory."""
        self._bound = self.host.bind("tcp", self.interface, self.port, self)
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Accept no more; connections that are made stay."""
        if self._bound is not None:
            self.host.unbind("tcp", self.interface, self._bound)
            self._bound = None
            self.factory.doStop()
        return succeed(None)

    loseConnection = stopListening

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address bound to; a wildcard stays one."""
        port = self._bound if self._bound is not None else self.port
        return tcp_address((self.interface, port))

    def received(self, datagram: Datagram) -> None:
        """Take a segment that belongs to no stream yet."""
        if datagram.segment is None or datagram.segment.signal is not Signal.OPEN:
            self.host.internet.refuse(self.host, datagram)
            return
        socket = StreamSocket(self.host, datagram.destination, datagram.source)
        socket.user = _Incoming(self, socket)
        socket.accept(datagram)

    def vanish(self) -> None:
        """The host has crashed."""
        self._bound = None

    def establish(self, socket: StreamSocket) -> None:
        """Make the protocol of a connection that is complete."""
        try:
            protocol = self.factory.buildProtocol(tcp_address(socket.remote))
        except Exception:
            self.log.failure("A factory on {host} failed", host=self.host.name)
            protocol = None
        if protocol is None:
            socket.user = None
            socket.reset()
        else:
            StreamTransport(socket).serve(protocol)


class _Incoming:
    """Stands for a connection's user until the other side has confirmed."""

    def __init__(self, port: StreamPort, socket: StreamSocket) -> None:
        self._port = port
        self._socket = socket

    def established(self) -> None:
        self._port.establish(self._socket)

    def arrived(self, data: bytes) -> None:
        """Impossible: a stream is established before it brings data."""

    def ended(self) -> None:
        """Impossible, likewise."""

    def drained(self) -> None:
        """Nothing was written."""

    def broke(self, reason: Exception) -> None:
        """Nobody knew of it."""
