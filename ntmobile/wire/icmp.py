"""ICMP and ICMPv6 (RFC 792, RFC 4443): errors about an inner packet, and echo.

An error is made only where one may be (RFC 1122 section 3.2.2, RFC 4443 section 2.4): never about
an ICMP error, a later fragment, or a packet to or from anything but one host.
"""

from __future__ import annotations

import struct
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum, pseudo_sum
from ntmobile.wire.packet import (
    ICMP,
    ICMPV6,
    Buffer,
    Packet,
    build,
    header_is_sound,
    parse,
    ports_at,
)
from ntmobile.wire.readdressing import ERRORS_V4, ERRORS_V6, quoted_transport

#: Largest error packet: what every IPv4 host takes (RFC 1812), and the least IPv6 MTU.
LARGEST: Final = {4: 576, 6: 1280}
#: IPv4 and IPv6 headers, and that of ICMP.
_OVERHEAD: Final = {4: 28, 6: 48}
_PROTOCOL: Final = {4: ICMP, 6: ICMPV6}
_ECHO_REQUEST: Final = {4: 8, 6: 128}
_ECHO_REPLY: Final = {4: 0, 6: 129}
_REDIRECT_V6: Final = 137
#: Types that ask or answer, about which an error may be sent; unknown types are errors for safety.
_QUERIES_V4: Final = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})


class Reason(Enum):
    """Why a packet cannot reach its destination: ICMP type and code, then ICMPv6's."""

    NO_ROUTE = (3, 0), (1, 0)
    PROHIBITED = (3, 13), (1, 1)  #: administratively
    HOST = (3, 1), (1, 3)  #: the host does not answer
    PORT = (3, 3), (1, 4)  #: nobody listens


@frozen(slots=True)
class Message:
    """A sound ICMP message. ``body`` is all after the checksum."""

    version: int
    source: bytes
    destination: bytes
    kind: int
    code: int
    body: bytes

    @property
    def is_echo_request(self) -> bool:
        """Whether it is a ping."""
        return self.kind == _ECHO_REQUEST[self.version] and not self.code

    @property
    def is_echo_reply(self) -> bool:
        """Whether it answers a ping."""
        return self.kind == _ECHO_REPLY[self.version] and not self.code

    @property
    def is_unreachable(self) -> bool:
        """Whether it says that a destination cannot be reached (not: that a packet was too big)."""
        if self.version == 4:
            return self.kind == 3 and self.code != 4
        return self.kind == 1

    @property
    def is_error(self) -> bool:
        """Whether it quotes a packet."""
        return self.kind in (ERRORS_V4 if self.version == 4 else ERRORS_V6)


def parse_icmp(packet: Buffer) -> Message:
    """Read an ICMP or ICMPv6 packet; a fragment or wrong checksum is :class:`MalformedMessage`."""
    view = parse(packet)
    if view.protocol != _PROTOCOL[view.version] or not view.whole:
        raise MalformedMessage("an inner packet that is no whole ICMP message")
    data = bytes(packet[view.offset :])
    if len(data) < 8 or checksum(data, _sum(view)) or not header_is_sound(packet, view):
        raise MalformedMessage("an ICMP message that is cut off or whose checksum is wrong")
    return Message(view.version, view.source, view.destination, data[0], data[1], data[4:])


def _sum(view: Packet) -> int:
    if view.version == 4:
        return 0
    return pseudo_sum(view.source, view.destination, ICMPV6, view.length - view.offset)


def icmp_packet(source: bytes, destination: bytes, kind: int, code: int, body: bytes) -> bytes:
    """An ICMP or ICMPv6 packet, by the addresses' family. ``body`` is all after the checksum."""
    version = 4 if len(source) == 4 else 6
    data = bytearray((kind, code, 0, 0)) + body
    if len(data) > 65535 or len(destination) != len(source):
        raise MalformedMessage("no ICMP message is so long or between such addresses")
    start = 0 if version == 4 else pseudo_sum(source, destination, ICMPV6, len(data))
    data[2:4] = checksum(data, start).to_bytes(2, "big")
    return build(source, destination, _PROTOCOL[version], bytes(data))


@frozen(slots=True)
class Quoted:
    """What an ICMP error says it is about; ``ports`` where they are quoted."""

    source: bytes
    destination: bytes
    protocol: int
    ports: tuple[int, int] | None


def quoted(error: Message) -> Quoted | None:
    """The packet that an ICMP error quotes, as far as it is there; ``None`` where it is none."""
    packet = error.body[4:]
    found = quoted_transport(packet, error.version)
    if found is None:
        return None
    protocol, offset = found
    at, size = (12, 4) if error.version == 4 else (8, 16)
    ports = ports_at(packet, protocol, offset)
    return Quoted(packet[at : at + size], packet[at + size : at + 2 * size], protocol, ports)


def echo_request(
    source: bytes, destination: bytes, identifier: int, sequence: int, payload: bytes = b""
) -> bytes:
    """A ping. Identifier and sequence number are taken modulo 65536."""
    body = struct.pack("!HH", identifier & 0xFFFF, sequence & 0xFFFF) + payload
    kind = _ECHO_REQUEST[4 if len(source) == 4 else 6]
    return icmp_packet(source, destination, kind, 0, body)


def echo_reply(request: Message) -> bytes:
    """The answer to a ping, from the address that was pinged."""
    kind = _ECHO_REPLY[request.version]
    return icmp_packet(request.destination, request.source, kind, 0, request.body)


def unreachable(packet: Buffer, reason: Reason, source: bytes | None = None) -> bytes | None:
    """Destination unreachable, about a packet; ``None`` where no error may be sent about it.

    :param source: who says so; by default the packet's destination.
    :raises MalformedMessage: it is not a packet.
    """
    view = parse(packet)
    kind, code = reason.value[0 if view.version == 4 else 1]
    return _error(packet, view, kind, code, 0, source)


def too_big(packet: Buffer, mtu: int, source: bytes | None = None) -> bytes | None:
    """Packet too big (ICMPv6), or fragmentation needed (ICMP), about a packet.

    :param mtu: the largest packet that would pass, in bytes; at least 1280 is said for IPv6 and 68
        for IPv4, which every link carries.
    :param source: who says so; by default the packet's destination.
    :return: the packet to send to the sender, or ``None`` where no error may be sent.
    :raises MalformedMessage: it is not a packet.
    """
    view = parse(packet)
    if view.version == 4:
        return _error(packet, view, 3, 4, min(max(mtu, 68), 65535), source)
    return _error(packet, view, 2, 0, max(mtu, 1280), source)


def _error(
    packet: Buffer, view: Packet, kind: int, code: int, word: int, source: bytes | None
) -> bytes | None:
    if not may_answer(packet, view):
        return None
    speaker = view.destination if source is None else source
    if len(speaker) != len(view.source):
        raise MalformedMessage("an ICMP error cannot come from an address of the other family")
    room = LARGEST[view.version] - _OVERHEAD[view.version]
    body = word.to_bytes(4, "big") + bytes(packet[:room])
    return icmp_packet(speaker, view.source, kind, code, body)


def may_answer(packet: Buffer, view: Packet) -> bool:
    """Whether an ICMP error may be sent about a packet."""
    if not view.first or not _is_one_host(view.source) or not _is_one_host(view.destination):
        return False
    if view.protocol != _PROTOCOL[view.version]:
        return True
    if view.offset >= view.length:
        return False
    kind = packet[view.offset]
    if view.version == 4:
        return kind in _QUERIES_V4
    return kind not in ERRORS_V6 and kind != _REDIRECT_V6


def _is_one_host(address: bytes) -> bool:
    if len(address) == 4:
        four = IPv4Address(address)
        # "This network" and broadcast.
        return not (four.is_multicast or four.is_loopback or address[0] in (0, 255))
    six = IPv6Address(address)
    return not (six.is_multicast or six.is_loopback or six.is_unspecified)
