"""UDP on virtual addresses for Twisted programs, without a kernel's sockets.

Joins a :class:`~ntmobile.machines.device.datagrams.DatagramStack` to receivers and protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from ntmobile.errors import AlreadyExists, MalformedMessage, QuotaExceeded, Unreachable
from ntmobile.machines.device.datagrams import DatagramSocket, DatagramStack, Emit
from ntmobile.machines.effects import Address

#: Called with payload, source address and source port.
Receive = Callable[[bytes, str, int], None]
#: Takes the packets that a socket sends.
Send = Callable[[list[Emit]], None]


def packed(host: str) -> bytes:
    """The bytes of a numeric address; anything else is ``InvalidAddressError``."""
    try:
        return ip_address(host).packed
    except ValueError:
        raise InvalidAddressError(host, "not a virtual IPv4 or IPv6 address") from None


class VirtualSocket:
    """A UDP port on all of this device's virtual addresses.

    :param receive: called with each datagram's payload, source address and source port.
    :param refused: called with address and port of a correspondent that does not take datagrams.
    :raises AlreadyExists: the port is in use. :raises QuotaExceeded: no port is free.
    """

    log = Logger()

    def __init__(
        self,
        stack: DatagramStack,
        send: Send,
        port: int,
        receive: Receive,
        refused: Callable[[str, int], None] | None = None,
    ) -> None:
        self._stack = stack
        self._send = send
        self._receive = receive
        self._refused = refused
        self._socket: DatagramSocket | None = stack.listen(port, self)
        self.port = self._socket.port

    def send(self, payload: bytes, destination: str, port: int) -> None:
        """Send a datagram to a correspondent's virtual address.

        What the network does not carry is lost, as with any UDP.

        :raises Unreachable: the socket is closed, or this device has no address of that family.
        :raises MalformedMessage: the payload is longer than UDP allows, or there is no such port.
        """
        if self._socket is None:
            raise Unreachable(f"the socket of UDP port {self.port} is closed; listen again")
        self._send(self._stack.send(self._socket, payload, packed(destination), port))

    def close(self) -> None:
        """Listen no more; may be repeated."""
        if self._socket is not None:
            self._stack.close(self._socket)
            self._socket = None

    def arrived(self, payload: bytes, source: bytes, port: int) -> None:
        """Hand a datagram to the receiver; what that raises is logged."""
        try:
            self._receive(payload, str(ip_address(source)), port)
        except Exception:
            self.log.failure("The receiver of virtual UDP port {port} failed", port=self.port)

    def refused(self, destination: bytes, port: int) -> None:
        """Tell that a datagram was not taken; what the owner raises is logged."""
        try:
            if self._refused is not None:
                self._refused(str(ip_address(destination)), port)
        except Exception:
            self.log.failure("The owner of virtual UDP port {port} failed", port=self.port)


@implementer(IListeningPort, IUDPTransport)
class VirtualUDPPort:
    """What ``reactor.listenUDP`` gives, on virtual addresses.

    Both families share the port; :meth:`getHost` gives the device's IPv6 address where it has one.
    """

    def __init__(
        self, stack: DatagramStack, send: Send, port: int, protocol: AbstractDatagramProtocol
    ) -> None:
        self.protocol = protocol
        self._stack = stack
        self._send = send
        self._wanted = port
        self._socket: VirtualSocket | None = None
        self._peer: tuple[bytes, int] | None = None

    def startListening(self) -> None:
        """Take the port, and start the protocol. :raises CannotListenError: it is in use."""
        try:
            self._socket = VirtualSocket(
                self._stack, self._send, self._wanted, self._received, self._refused
            )
        except (AlreadyExists, QuotaExceeded, MalformedMessage) as problem:
            raise CannotListenError("", self._wanted, problem) from problem
        self.protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None]:
        """Free the port at once, and stop the protocol."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.protocol.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The device's virtual address, and the port."""
        port = self._wanted if self._socket is None else self._socket.port
        address = ip_address(max(self._stack.addresses, key=len, default=bytes(16)))
        if address.version == 4:
            return IPv4Address("UDP", str(address), port)
        return IPv6Address("UDP", str(address), port)

    def connect(self, host: str, port: int) -> None:
        """Speak with this address alone from now on."""
        if self._peer is not None:
            raise RuntimeError("already connected, reconnecting is not supported")
        self._peer = (packed(host), port)

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send a datagram.

        :raises MessageLengthError: it is longer than UDP allows.
        :raises Unreachable: the port is closed, or there is no address of that family.
        """
        peer = self._peer
        if addr is not None:
            wanted = (packed(addr[0]), addr[1])
            if peer not in (None, wanted):
                raise ValueError(f"connected to another address than {addr}")
            peer = wanted
        if peer is None:
            raise ValueError("a port that is not connected needs an address to write to")
        if self._socket is None:
            raise Unreachable(f"UDP port {self._wanted} is closed; listen again")
        try:
            self._socket.send(packet, str(ip_address(peer[0])), peer[1])
        except MalformedMessage as problem:
            raise MessageLengthError(str(problem)) from problem

    def writeSequence(self, seq: list[bytes], addr: Address | None = None) -> None:
        """Send the joined pieces as one datagram."""
        self.write(b"".join(seq), addr)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Without effect: there is no broadcast in a virtual network."""

    def getBroadcastAllowed(self) -> bool:
        """Never."""
        return False

    def _received(self, payload: bytes, source: str, port: int) -> None:
        if self._peer in (None, (packed(source), port)):
            self.protocol.datagramReceived(payload, (source, port))

    def _refused(self, destination: str, port: int) -> None:
        if self._peer == (packed(destination), port):
            # AbstractDatagramProtocol lacks the method that all its users inherit or define.
            getattr(self.protocol, "connectionRefused", lambda: None)()
