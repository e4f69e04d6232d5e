"""Fragments of inner packets (RFC 791, RFC 8200 section 4.5): cutting, and reading a piece."""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum
from ntmobile.wire.packet import IPV6_HEADER, Buffer, header_length, parse, walk_extensions

_FRAGMENT: Final = 44
_FRAGMENT_HEADER: Final = struct.Struct("!BBHI")
_MORE_V4: Final = 0x2000
_MORE_V6: Final = 0x0001


@frozen(slots=True)
class Piece:
    """A fragment, and where it belongs.

    :ivar key: the same for all fragments of one packet, and for no other for a while.
    :ivar source: 4 or 16 bytes. :ivar destination: likewise.
    :ivar protocol: what the whole packet's payload is, if this is the first fragment.
    :ivar behind: its offset in that payload, in bytes, a multiple of 8.
    :ivar more: whether others come after it.
    """

    key: tuple[bytes, bytes, int, int]
    source: bytes
    destination: bytes
    protocol: int
    behind: int
    more: bool
    data: bytes


def piece_of(packet: Buffer) -> Piece:
    """Read a fragment; what is none, or has no sound size, is :class:`MalformedMessage`.

    IPv4 options and IPv6 extension headers before the fragment header are left out.
    """
    view = parse(packet)
    if view.whole:
        raise MalformedMessage("a packet that is no fragment")
    if view.version == 4:
        field = packet[6] << 8 | packet[7]
        identification, protocol = packet[4] << 8 | packet[5], packet[9]
        behind, more = (field & 0x1FFF) * 8, bool(field & _MORE_V4)
        data = bytes(packet[view.offset :])
        key = (view.source, view.destination, protocol, identification)
    else:
        at = walk_extensions(packet, packet[6], until=_FRAGMENT).offset
        protocol, _, field, identification = _FRAGMENT_HEADER.unpack_from(packet, at)
        behind, more = field & 0xFFF8, bool(field & _MORE_V6)
        data = bytes(packet[at + _FRAGMENT_HEADER.size :])
        key = (view.source, view.destination, 0, identification)
    if not data or (more and len(data) % 8):
        raise MalformedMessage(f"a fragment of {len(data)} bytes that cannot have others after it")
    return Piece(key, view.source, view.destination, protocol, behind, more, data)


def fragments(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """Cut a whole packet into fragments of at most ``mtu`` bytes; one that fits stays as it is.

    :param mtu: at least 68 for IPv4, 1280 for IPv6.
    :param identification: other for each packet between two addresses; 16 bits are used for IPv4.
    :raises MalformedMessage: it is no whole packet, or has IPv4 options or IPv6 extension headers.
    """
    if len(packet) <= mtu:
        return [packet]
    view = parse(packet)
    if not view.whole or view.offset != (20 if view.version == 4 else IPV6_HEADER.size):
        raise MalformedMessage("only packets with a plain header are fragmented")
    overhead = view.offset + (0 if view.version == 4 else _FRAGMENT_HEADER.size)
    step = (mtu - overhead) & ~7
    if step < 8:
        raise MalformedMessage(f"no fragment fits an MTU of {mtu}")
    payload = packet[view.offset :]
    cut = _cut_v4 if view.version == 4 else _cut_v6
    return [
        cut(packet, payload[at : at + step], at, at + step < len(payload), identification)
        for at in range(0, len(payload), step)
    ]


def _cut_v4(packet: bytes, part: bytes, at: int, more: bool, identification: int) -> bytes:
    size = header_length(packet)
    header = bytearray(packet[:size])
    flags = at // 8 | (_MORE_V4 if more else 0)
    header[2:8] = struct.pack("!HHH", size + len(part), identification & 0xFFFF, flags)
    header[10:12] = bytes(2)
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header) + part


def _cut_v6(packet: bytes, part: bytes, at: int, more: bool, identification: int) -> bytes:
    header = bytearray(packet[: IPV6_HEADER.size])
    header[4:7] = struct.pack("!HB", _FRAGMENT_HEADER.size + len(part), _FRAGMENT)
    field = at | (_MORE_V6 if more else 0)
    middle = _FRAGMENT_HEADER.pack(packet[6], 0, field, identification & 0xFFFFFFFF)
    return bytes(header) + middle + part
