"""UDP sockets of a host, as ``reactor.listenUDP`` gives them."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from ntmobile.testing.datagrams import WILDCARD, Address, Datagram, canonical, family

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host


def numeric(host: str) -> str:
    """The canonical form of a numeric address; anything else is ``InvalidAddressError``."""
    try:
        return canonical(host)
    except ValueError:
        raise InvalidAddressError(host, "not an IPv4 or IPv6 address") from None


def binding(interface: str) -> str:
    """The address that an ``interface`` argument of Twisted stands for."""
    return numeric(interface) if interface else WILDCARD[4]


@implementer(IListeningPort, IUDPTransport)
class UDPPort:
    """A bound UDP socket and the transport of its protocol.

    Like Twisted's own it drops what does not fit ``maxPacketSize`` (the rest of that datagram),
    refuses host names and other families, and knows refusals only where connected.
    """

    log = Logger()

    def __init__(
        self,
        host: Host,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> None:
        self.host = host
        self.port = port
        self.protocol = protocol
        self.interface = binding(interface)
        self.maxPacketSize = maxPacketSize
        self._bound: int | None = None
        self._peer: Address | None = None
        self._broadcast = False

    def __repr__(self) -> str:
        return f"<UDPPort {self.interface}:{self._bound} on {self.host.name}>"

    def startListening(self) -> None:
        """Bind, and start the protocol."""
        if self._bound is not None:
            raise CannotListenError(self.interface, self.port, OSError(EINVAL, "already bound"))
        self._bound = self.host.bind("udp", self.interface, self.port, self)
        self.protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None]:
        """Free the port at once, and stop the protocol."""
        if self._bound is not None:
            self.host.unbind("udp", self.interface, self._bound)
            self._bound = None
            self.protocol.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address bound to; a wildcard stays one."""
        kind = IPv4Address if family(self.interface) == 4 else IPv6Address
        return kind("UDP", self.interface, self._bound if self._bound is not None else self.port)

    def connect(self, host: str, port: int) -> None:
        """Speak with this address alone from now on."""
        if self._peer is not None:
            raise RuntimeError("already connected, reconnecting is not supported")
        self._peer = (self._destination(host), port)

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send a datagram; see :meth:`Host.send` for the errors of a network."""
        if self._bound is None:
            raise OSError(EINVAL, "the port is not listening")
        if self._peer is not None:
            if addr is not None and (numeric(addr[0]), addr[1]) != self._peer:
                raise ValueError(f"connected to {self._peer}, not to {addr}")
            destination = self._peer
        elif addr is None:
            raise ValueError("a port that is not connected needs an address to write to")
        else:
            destination = (self._destination(addr[0]), addr[1])
        source = self.interface
        if source in WILDCARD.values():
            source = self.host.source_for(destination[0])
        local = (source, self._bound)
        self.host.send(Datagram(local, destination, bytes(packet), origin=self.host))

    def writeSequence(self, seq: list[bytes], addr: Address | None = None) -> None:
        """Send the joined pieces as one datagram."""
        self.write(b"".join(seq), addr)

    def received(self, datagram: Datagram) -> None:
        """Hand a datagram that arrived to the protocol; what that raises is logged."""
        if self._peer is not None and datagram.source != self._peer:
            return
        try:
            if not datagram.refusal:
                payload = datagram.payload[: self.maxPacketSize]
                self.protocol.datagramReceived(payload, datagram.source)
            elif self._peer is not None:
                # AbstractDatagramProtocol lacks the method that all its users inherit or define.
                getattr(self.protocol, "connectionRefused", lambda: None)()
        except Exception:
            self.log.failure("A datagram protocol on {host} failed", host=self.host.name)

    def vanish(self) -> None:
        """The host has crashed."""
        self._bound = None

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Remember it; there is no broadcast in this internet."""
        self._broadcast = enabled

    def getBroadcastAllowed(self) -> bool:
        """What was set."""
        return self._broadcast

    def _destination(self, host: str) -> str:
        address = numeric(host)
        if family(address) != family(self.interface):
            raise InvalidAddressError(host, f"not of the family of {self.interface}")
        return address
