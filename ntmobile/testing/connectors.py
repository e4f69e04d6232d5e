"""The connecting side of ``reactor.connectTCP``."""

from __future__ import annotations

from errno import EADDRNOTAVAIL
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    DNSLookupError,
    NotConnectingError,
    TimeoutError,
    UserError,
    getConnectError,
)
from twisted.internet.interfaces import IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.testing.datagrams import Address
from ntmobile.testing.streams import StreamTransport, tcp_address
from ntmobile.testing.tcp import StreamSocket

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host


@implementer(IConnector)
class StreamConnector:
    """One attempt to connect, and the connection it became; may be used again after that.

    :ivar state: ``connecting``, ``connected`` or ``disconnected``.
    """

    def __init__(
        self,
        host: Host,
        remote: Address,
        factory: ClientFactory[Protocol],
        timeout: float | None,
        bindAddress: Address | None,
    ) -> None:
        self.host = host
        self.remote = remote
        self.factory = factory
        self.timeout = timeout
        self.bindAddress = bindAddress
        self.state = "disconnected"
        self.transport: StreamTransport | None = None
        self._socket: StreamSocket | None = None
        self._deadline: IDelayedCall | None = None
        self._factory_started = False

    def connect(self) -> None:
        """Begin."""
        if self.state != "disconnected":
            raise RuntimeError(f"cannot connect while {self.state}")
        self.state = "connecting"
        if not self._factory_started:
            self.factory.doStart()
            self._factory_started = True
        if self.timeout is not None:
            self._deadline = self.host.timers.callLater(self.timeout, self.broke, TimeoutError())
        self.factory.startedConnecting(self)
        if self.state == "connecting":
            self._open()

    def _open(self) -> None:
        try:
            addresses = self.host.internet.names.lookup(self.remote[0])
            destination = addresses[0], self.remote[1]
            wanted, port = self.bindAddress or ("", 0)
            source = self.host.source_for(destination[0])
            if wanted not in ("", source, *self.host.addresses):
                raise ConnectBindError(EADDRNOTAVAIL, f"{wanted} is none of our addresses")
            local = wanted or source, port or self.host.free_port("tcp", source)
        except ConnectBindError as problem:
            self._fail_soon(problem)
        except LookupError:
            unknown = DNSLookupError(f"no address for {self.remote[0]}")
            self._fail_soon(unknown)
        except OSError as unreachable:
            error = getConnectError((unreachable.errno, unreachable.strerror))
            self._fail_soon(error)
        else:
            self._socket = StreamSocket(self.host, local, destination)
            self._socket.user = self
            self._socket.open()

    def _fail_soon(self, reason: Exception) -> None:
        """Fail in a later turn, in the place of the time-out."""
        self._stop_clock()
        self._deadline = self.host.timers.callLater(0, self.broke, reason)

    def stopConnecting(self) -> None:
        """Give up; the factory hears ``UserError``."""
        if self.state != "connecting":
            raise NotConnectingError("not trying to connect")
        self.broke(UserError())

    def disconnect(self) -> None:
        """Give up, or close."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self.transport is not None:
            self.transport.loseConnection()

    def getDestination(self) -> IPv4Address | IPv6Address:
        """Where it connects to; a name stays a name."""
        try:
            return tcp_address(self.remote)
        except ValueError:
            return IPv4Address("TCP", *self.remote)

    # What the socket tells.

    def established(self) -> None:
        """Make the protocol."""
        if self.state != "connecting" or self._socket is None:
            return
        self._stop_clock()
        self.state = "connected"
        protocol = self.factory.buildProtocol(tcp_address(self._socket.remote))
        if protocol is None:
            self._socket.user = None
            self._socket.reset()
            self.connectionLost(Failure(ConnectError()))
        else:
            self.transport = StreamTransport(self._socket, self)
            self.transport.serve(protocol)

    def arrived(self, data: bytes) -> None:
        """Impossible: a stream is established before it brings data."""

    def ended(self) -> None:
        """Impossible, likewise."""

    def drained(self) -> None:
        """Nothing was written."""

    def broke(self, reason: Exception) -> None:
        """It did not become a connection."""
        if self.state != "connecting":
            return
        self._stop_clock()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.user = None
            socket.reset()
        self.state = "disconnected"
        self.factory.clientConnectionFailed(self, Failure(reason))
        self._stop_factory()

    # What the transport tells.

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over."""
        self.state = "disconnected"
        self.transport = None
        self.factory.clientConnectionLost(self, reason)
        self._stop_factory()

    def _stop_clock(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _stop_factory(self) -> None:
        if self.state == "disconnected" and self._factory_started:
            self._factory_started = False
            self.factory.doStop()
