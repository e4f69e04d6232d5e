"""Inner packets: what a client reads of the IPv4 and IPv6 packets it carries.

All functions are pure and take time that is bounded by the packet's length. Whatever is not a
packet they accept is :class:`MalformedMessage`, and nothing else is raised.

A packet must fill its buffer exactly, and may not be source-routed: its destination is where it
goes. :mod:`ntmobile.wire.readdressing` changes addresses, :mod:`ntmobile.wire.udp` and
:mod:`ntmobile.wire.icmp` build and read what is inside.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
DCCP: Final = 33
ICMPV6: Final = 58
UDP_LITE: Final = 136

#: Version and header length, TOS, total length, identification, flags and offset, TTL, protocol,
#: checksum, source, destination (RFC 791).
IPV4_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
#: Version, class and label, payload length, next header, hop limit, source, destination (RFC 8200).
IPV6_HEADER: Final = struct.Struct("!IHBB16s16s")

#: No header has this number.
NO_HEADER: Final = -1
#: Extension headers that a walk passes; more is not a packet anyone sends.
EXTENSIONS: Final = 8
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
FRAGMENT: Final = 44
_DESTINATION: Final = 60
_MOBILITY: Final = 135
_HIP: Final = 139
_SHIM6: Final = 140
_SKIPPED: Final = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION, _MOBILITY, _HIP, _SHIM6})
_AUTHENTICATION: Final = 51

#: IPv4 options: loose and strict source route.
_SOURCE_ROUTES: Final = frozenset({131, 137})
#: Protocols that begin with two ports.
_WITH_PORTS: Final = frozenset({TCP, UDP, DCCP, UDP_LITE})

Buffer = bytes | bytearray | memoryview


@frozen(slots=True)
class Packet:
    """The view of an inner packet that a client acts on.

    :ivar version: 4 or 6.
    :ivar source: 4 or 16 bytes. :ivar destination: the same.
    :ivar protocol: the transport protocol, after IPv6 extension headers.
    :ivar offset: where the transport header begins, or a later fragment's payload.
    :ivar length: of the whole packet.
    :ivar first: whether it is whole or a first fragment, so that ``offset`` is a transport header.
    :ivar whole: whether it is not a fragment.
    :ivar ports: source and destination port where the transport has them and they are here.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    offset: int
    length: int
    first: bool
    whole: bool
    ports: tuple[int, int] | None


def parse(packet: Buffer) -> Packet:
    """Look at an inner packet; anything else is :class:`MalformedMessage`."""
    if not packet:
        raise MalformedMessage("an empty inner packet")
    version = packet[0] >> 4
    if version == 4:
        return _parse_v4(packet)
    if version == 6:
        return _parse_v6(packet)
    raise MalformedMessage(f"an inner packet of IP version {version}")


def header_is_sound(packet: Buffer, view: Packet) -> bool:
    """Whether the IPv4 header checksum is right; IPv6 has none, and is always sound."""
    return view.version == 6 or checksum(packet[: header_length(packet)]) == 0


def header_length(packet: Buffer) -> int:
    """Bytes of the IPv4 header, options included."""
    return (packet[0] & 0x0F) * 4


def _parse_v4(packet: Buffer) -> Packet:
    if len(packet) < IPV4_HEADER.size:
        raise MalformedMessage(f"an IPv4 packet of {len(packet)} bytes is shorter than its header")
    first_byte, _, total, _, fragment, _, protocol, _, source, destination = (
        IPV4_HEADER.unpack_from(packet)
    )
    header = (first_byte & 0x0F) * 4
    if header < IPV4_HEADER.size or header > total or total != len(packet):
        raise MalformedMessage(
            f"an IPv4 packet says {total} bytes, {header} of them header, in {len(packet)} bytes"
        )
    if header > IPV4_HEADER.size:
        _check_options(packet, header)
    more, behind = bool(fragment & 0x2000), (fragment & 0x1FFF) * 8
    if behind + total - header > 65535:
        raise MalformedMessage("an IPv4 fragment reaches beyond the largest packet")
    _check_fragment(protocol, behind)
    first = not behind
    ports = ports_at(packet, protocol, header) if first else None
    whole = first and not more
    return Packet(4, source, destination, protocol, header, total, first, whole, ports)


def _check_options(packet: Buffer, end: int) -> None:
    at = IPV4_HEADER.size
    while at < end:
        option = packet[at]
        if option == 0:
            return
        if option == 1:
            at += 1
            continue
        length = packet[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            raise MalformedMessage("an IPv4 option reaches beyond its header")
        if option in _SOURCE_ROUTES:
            raise MalformedMessage("a source-routed IPv4 packet")
        at += length


def _parse_v6(packet: Buffer) -> Packet:
    if len(packet) < IPV6_HEADER.size:
        raise MalformedMessage(f"an IPv6 packet of {len(packet)} bytes is shorter than its header")
    _, payload, following, _, source, destination = IPV6_HEADER.unpack_from(packet)
    length = IPV6_HEADER.size + payload
    if length != len(packet):
        raise MalformedMessage(f"an IPv6 packet says {length} bytes in {len(packet)} bytes")
    found = walk_extensions(packet, following)
    if found.offset > length:
        raise MalformedMessage("an IPv6 extension header reaches beyond its packet")
    if found.behind + length - found.offset > 65535:
        raise MalformedMessage("an IPv6 fragment reaches beyond the largest packet")
    _check_fragment(found.protocol, found.behind)
    first = not found.behind
    ports = ports_at(packet, found.protocol, found.offset) if first else None
    return Packet(
        6, source, destination, found.protocol, found.offset, length, first, found.whole, ports
    )


@frozen(slots=True)
class Transport:
    """What the walk over IPv6 extension headers ends at; ``behind`` is a fragment's offset."""

    protocol: int
    offset: int
    behind: int
    whole: bool


def walk_extensions(packet: Buffer, following: int, until: int = NO_HEADER) -> Transport:
    """Pass the extension headers after an IPv6 header; one that is cut off is MalformedMessage.

    :param following: the number of the first of them.
    :param until: the number of an extension header to stop before.
    """
    offset, whole = IPV6_HEADER.size, True
    for _ in range(EXTENSIONS + 1):
        if following == until:
            return Transport(following, offset, 0, whole)
        if following in _SKIPPED:
            extension = _extension(packet, offset)
            if following == _ROUTING and extension[3]:
                raise MalformedMessage("a source-routed IPv6 packet")
            following, offset = extension[0], offset + (extension[1] + 1) * 8
        elif following == _AUTHENTICATION:
            extension = _extension(packet, offset)
            following, offset = extension[0], offset + (extension[1] + 2) * 4
        elif following == FRAGMENT:
            extension = _extension(packet, offset)
            field = extension[2] << 8 | extension[3]
            following, offset = extension[0], offset + 8
            # A fragment header without offset and more is an atomic fragment, whole (RFC 6946).
            whole = whole and not field & 0xFFF9
            if field & 0xFFF8:
                return Transport(following, offset, field & 0xFFF8, False)
        else:
            return Transport(following, offset, 0, whole)
    raise MalformedMessage(f"an IPv6 packet with more than {EXTENSIONS} extension headers")


def _extension(packet: Buffer, offset: int) -> bytes:
    extension = bytes(packet[offset : offset + 8])
    if len(extension) < 8:
        raise MalformedMessage("an IPv6 extension header reaches beyond its packet")
    return extension


def _check_fragment(protocol: int, behind: int) -> None:
    """A fragment just behind the ports exists to overwrite a TCP header (RFC 3128)."""
    if protocol == TCP and behind == 8:
        raise MalformedMessage("a fragment that would overwrite a TCP header")


def ports_at(packet: Buffer, protocol: int, offset: int) -> tuple[int, int] | None:
    """Source and destination port, where the protocol has them and they are not cut off."""
    if protocol not in _WITH_PORTS or len(packet) < offset + 4:
        return None
    return (
        packet[offset] << 8 | packet[offset + 1],
        packet[offset + 2] << 8 | packet[offset + 3],
    )


def build_v4(source: bytes, destination: bytes, protocol: int, payload: bytes, ttl: int) -> bytes:
    """An IPv4 packet without options, not to be fragmented, so of identification 0 (RFC 6864)."""
    length = IPV4_HEADER.size + len(payload)
    if length > 65535 or len(source) != 4 or len(destination) != 4:
        raise MalformedMessage(f"no IPv4 packet holds {len(payload)} bytes between such addresses")
    header = bytearray(
        IPV4_HEADER.pack(0x45, 0, length, 0, 0x4000, ttl, protocol, 0, source, destination)
    )
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header) + payload


def build_v6(source: bytes, destination: bytes, protocol: int, payload: bytes, ttl: int) -> bytes:
    """An IPv6 packet without extension headers."""
    if len(payload) > 65535 or len(source) != 16 or len(destination) != 16:
        raise MalformedMessage(f"no IPv6 packet holds {len(payload)} bytes between such addresses")
    head = IPV6_HEADER.pack(6 << 28, len(payload), protocol, ttl, source, destination)
    return head + payload


def build(source: bytes, destination: bytes, protocol: int, payload: bytes, ttl: int = 64) -> bytes:
    """A packet of the addresses' family (4 or 16 bytes each)."""
    maker = build_v4 if len(source) == 4 else build_v6
    return maker(source, destination, protocol, payload, ttl)
