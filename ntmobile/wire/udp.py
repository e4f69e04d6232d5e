"""UDP in inner packets (RFC 768, RFC 8200), for clients that have no kernel to do it."""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum, pseudo_sum
from ntmobile.wire.packet import IPV4_HEADER, UDP, Buffer, build, header_is_sound, parse

_HEADER: Final = struct.Struct("!HHHH")
#: Longest payloads, by version.
LARGEST_PAYLOAD: Final = {4: 65535 - IPV4_HEADER.size - _HEADER.size, 6: 65535 - _HEADER.size}


@frozen(slots=True)
class Datagram:
    """A sound UDP datagram; addresses have 4 or 16 bytes."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes


def udp_packet(
    source: bytes, destination: bytes, source_port: int, destination_port: int, payload: bytes
) -> bytes:
    """An inner packet with a UDP datagram, by the addresses' family.

    :raises MalformedMessage: addresses of two families, a port outside 1 to 65535 (0 is allowed for
        the source, where no answer is wanted), or a payload beyond :data:`LARGEST_PAYLOAD`.
    """
    if not 0 <= source_port < 65536 or not 0 < destination_port < 65536:
        raise MalformedMessage(f"no UDP port is {source_port} or {destination_port}")
    length = _HEADER.size + len(payload)
    if length > 65535 or len(source) != len(destination) or len(source) not in (4, 16):
        raise MalformedMessage(f"no UDP datagram has {len(payload)} bytes or such addresses")
    data = bytearray(_HEADER.pack(source_port, destination_port, length, 0)) + payload
    value = checksum(data, pseudo_sum(source, destination, UDP, length))
    # Zero would say "no checksum".
    data[6:8] = (value or 0xFFFF).to_bytes(2, "big")
    return build(source, destination, UDP, bytes(data))


def parse_udp(packet: Buffer) -> Datagram:
    """Read a UDP packet.

    :raises MalformedMessage: no packet, no UDP, a fragment, a wrong length or checksum. IPv4 may go
        without a checksum, IPv6 may not.
    """
    view = parse(packet)
    if view.protocol != UDP or not view.whole:
        raise MalformedMessage("an inner packet that is no whole UDP datagram")
    data = bytes(packet[view.offset :])
    if len(data) < _HEADER.size:
        raise MalformedMessage("a UDP header is cut off")
    source_port, destination_port, length, value = _HEADER.unpack_from(data)
    if not _HEADER.size <= length <= len(data) or not destination_port:
        raise MalformedMessage(f"a UDP datagram to port {destination_port} says {length} bytes")
    data = data[:length]
    if value:
        if checksum(data, pseudo_sum(view.source, view.destination, UDP, length)):
            raise MalformedMessage("a UDP datagram's checksum is wrong")
    elif view.version == 6:
        raise MalformedMessage("a UDP datagram over IPv6 without a checksum")
    if not header_is_sound(packet, view):
        raise MalformedMessage("an IPv4 header's checksum is wrong")
    return Datagram(
        view.source, view.destination, source_port, destination_port, data[_HEADER.size :]
    )
