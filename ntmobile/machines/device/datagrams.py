"""UDP on virtual addresses inside a process, for the ``datagram`` attachment (design section 6).

A host's IP stack, as small as can be: UDP on one's own addresses, answers to pings, and ICMP about
closed ports. It takes and gives inner packets; :class:`DatagramStack` never calls out, it returns
effects for its owner to carry out. Other transports are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from attrs import define, frozen

from ntmobile.errors import AlreadyExists, MalformedMessage, QuotaExceeded, Unreachable
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.tunnel.reassembly import Reassembly
from ntmobile.wire import icmp
from ntmobile.wire.fragments import fragments
from ntmobile.wire.packet import ICMP, ICMPV6, UDP, parse
from ntmobile.wire.udp import parse_udp, udp_packet

#: Ports of sockets that ask for none (RFC 6335).
EPHEMERAL: Final = range(49152, 65536)
#: ICMP errors a second and at once, to one correspondent (RFC 4443, section 2.4 f).
ERROR_RATE: Final = 10.0
ERROR_BURST: Final = 20.0


@define(eq=False)
class DatagramSocket:
    """A port that is listened on, on all of the device's virtual addresses.

    :ivar receiver: whatever its owner wants to find in the effects about it.
    """

    port: int
    receiver: object


@frozen(slots=True)
class Emit:
    """Send this inner packet to the correspondent whose address is its destination."""

    packet: bytes


@frozen(slots=True)
class Arrived:
    """A datagram for a socket; ``source`` and ``destination`` have 4 or 16 bytes."""

    receiver: object
    payload: bytes
    source: bytes
    port: int
    destination: bytes


@frozen(slots=True)
class Refused:
    """A correspondent (or its port) does not take what a socket sent to it."""

    receiver: object
    destination: bytes
    port: int


@frozen(slots=True)
class Pong:
    """A ping was answered."""

    source: bytes
    identifier: int
    sequence: int
    payload: bytes


Effect: TypeAlias = Emit | Arrived | Refused | Pong


class DatagramStack:
    """The UDP stack of one device.

    :param addresses: its virtual addresses, 4 or 16 bytes each.
    :param mtu: the longest packet it sends whole, in bytes.
    :param random: gives random bytes.
    :ivar dropped: packets that were malformed, for others, or damaged.
    """

    def __init__(
        self,
        addresses: Iterable[bytes],
        mtu: int = 1280,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.addresses = tuple(addresses)
        self.mtu = mtu
        self.dropped = 0
        self._random = random
        self._sockets: dict[int, DatagramSocket] = {}
        self._reassembly = Reassembly()
        self._errors = RateLimiter(ERROR_RATE, ERROR_BURST)
        self._identification = int.from_bytes(random(4), "big")

    def listen(self, port: int, receiver: object) -> DatagramSocket:
        """Listen on a port; 0 takes a free one at random.

        :raises AlreadyExists: the port is listened on. :raises QuotaExceeded: no port is free.
        """
        if not port:
            port = self._free_port()
        elif port in self._sockets:
            raise AlreadyExists(f"UDP port {port} of this device is in use; choose another")
        elif not 0 < port < 65536:
            raise MalformedMessage(f"{port} is not a UDP port: it is outside 0 to 65535")
        socket = self._sockets[port] = DatagramSocket(port, receiver)
        return socket

    def close(self, socket: DatagramSocket) -> None:
        """Listen no more; may be repeated."""
        if self._sockets.get(socket.port) is socket:
            del self._sockets[socket.port]

    def readdress(self, addresses: Iterable[bytes]) -> None:
        """Replace the device's addresses; the sockets stay."""
        self.addresses = tuple(addresses)

    def send(
        self, socket: DatagramSocket, payload: bytes, destination: bytes, port: int
    ) -> list[Emit]:
        """Send a datagram; one that is longer than the MTU goes in fragments.

        :raises Unreachable: this device has no address of the destination's family.
        :raises MalformedMessage: too long a payload, or no such port.
        """
        source = self._source_for(destination)
        return self._emit(udp_packet(source, destination, socket.port, port, payload))

    def ping(
        self, destination: bytes, identifier: int, sequence: int, payload: bytes = b""
    ) -> list[Emit]:
        """Ping a correspondent; a :class:`Pong` tells the answer. Errors as :meth:`send`."""
        source = self._source_for(destination)
        return self._emit(icmp.echo_request(source, destination, identifier, sequence, payload))

    def received(self, packet: bytes, now: float) -> list[Effect]:
        """Take an inner packet. What is malformed or for others is counted and dropped.

        :param now: seconds, monotonic.
        """
        try:
            return self._received(packet, now)
        except MalformedMessage:
            self.dropped += 1
            return []

    def _received(self, packet: bytes, now: float) -> list[Effect]:
        view = parse(packet)
        if view.destination not in self.addresses:
            raise MalformedMessage("a packet for another address")
        if not view.whole:
            joined = self._reassembly.add(packet, now)
            return [] if joined is None else self._received(joined, now)
        if view.protocol == UDP:
            return self._datagram(packet, now)
        if view.protocol == (ICMP if view.version == 4 else ICMPV6):
            return self._message(icmp.parse_icmp(packet))
        return self._refuse(packet, view.source, now)

    def _datagram(self, packet: bytes, now: float) -> list[Effect]:
        datagram = parse_udp(packet)
        socket = self._sockets.get(datagram.destination_port)
        if socket is None:
            return self._refuse(packet, datagram.source, now)
        return [
            Arrived(
                socket.receiver,
                datagram.payload,
                datagram.source,
                datagram.source_port,
                datagram.destination,
            )
        ]

    def _message(self, message: icmp.Message) -> list[Effect]:
        if message.is_echo_request:
            return [*self._emit(icmp.echo_reply(message))]
        if message.is_echo_reply:
            identifier, sequence = message.body[:2], message.body[2:4]
            return [
                Pong(
                    message.source,
                    int.from_bytes(identifier, "big"),
                    int.from_bytes(sequence, "big"),
                    message.body[4:],
                )
            ]
        if message.is_unreachable:
            return self._refused(message)
        return []

    def _refused(self, message: icmp.Message) -> list[Effect]:
        """News about a datagram; believed from its very destination, about a socket of ours."""
        about = icmp.quoted(message)
        if about is None or about.protocol != UDP or about.ports is None:
            return []
        socket = self._sockets.get(about.ports[0])
        ours = about.source == message.destination and about.destination == message.source
        if socket is None or not ours:
            return []
        return [Refused(socket.receiver, about.destination, about.ports[1])]

    def _refuse(self, packet: bytes, source: bytes, now: float) -> list[Effect]:
        if not self._errors.allow(source, now):
            return []
        answer = icmp.unreachable(packet, icmp.Reason.PORT)
        return [] if answer is None else [Emit(answer)]

    def _emit(self, packet: bytes) -> list[Emit]:
        self._identification = self._identification + 1 & 0xFFFFFFFF
        return [Emit(piece) for piece in fragments(packet, self.mtu, self._identification)]

    def _source_for(self, destination: bytes) -> bytes:
        for address in self.addresses:
            if len(address) == len(destination):
                return address
        version = 4 if len(destination) == 4 else 6
        raise Unreachable(f"this device has no virtual IPv{version} address to send from")

    def _free_port(self) -> int:
        start = int.from_bytes(self._random(2), "big")
        for step in range(len(EPHEMERAL)):
            port = EPHEMERAL[(start + step) % len(EPHEMERAL)]
            if port not in self._sockets:
                return port
        raise QuotaExceeded("all UDP ports of this device are in use; close some and try again")
