"""What a system has left to be done with a packet: cutting and checksum (virtio_net_hdr).

A TUN device with ``IFF_VNET_HDR`` hands over, and takes, a header of ten bytes before each packet
(virtio 1.2, section 5.1.6): that the TCP or UDP checksum so far covers the pseudo header only, and
that the packet stands for many of ``size`` bytes of payload each.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum
from ntmobile.wire.packet import FRAGMENT, TCP, UDP, Buffer, walk_extensions

#: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; in the byte order of the machine.
VIRTIO: Final = struct.Struct("=BBHHHH")
#: Bytes of that header.
VIRTIO_SIZE: Final = VIRTIO.size
_NEEDS_CSUM: Final = 1
_GSO_ECN: Final = 0x80
#: Where TCP and UDP keep their checksum.
CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
#: The last two fields of that header: what the checksum covers begins there, and it is so far on.
_PLACE: Final = struct.Struct("=6xHH")


class GsoKind(IntEnum):
    """How a packet is to be cut; the numbers of virtio_net_hdr."""

    NONE = 0
    TCP4 = 1
    TCP6 = 4
    UDP = 5


@frozen(slots=True)
class Offload:
    """What is left to be done with a packet.

    :ivar kind: how it is to be cut. :ivar size: bytes of payload of each piece but the last.
    :ivar partial: its checksum covers the pseudo header only.
    :ivar ecn: CWR is set, and belongs to the first piece alone.
    """

    kind: GsoKind = GsoKind.NONE
    size: int = 0
    partial: bool = False
    ecn: bool = False


#: Nothing but the checksum.
PARTIAL: Final = Offload(partial=True)
_NOTHING: Final = bytes(VIRTIO_SIZE)


def parse_virtio(header: Buffer) -> Offload | None:
    """What the header before a packet says; None where nothing is left to be done.

    :raises MalformedMessage: it asks for something that was never offered.
    """
    flags, kind, _, size, _, _ = VIRTIO.unpack_from(header)
    if not kind:
        return PARTIAL if flags & _NEEDS_CSUM else None
    try:
        return Offload(
            GsoKind(kind & ~_GSO_ECN), size, bool(flags & _NEEDS_CSUM), bool(kind & _GSO_ECN)
        )
    except ValueError:
        raise MalformedMessage(f"a packet to be cut in an unknown way, {kind}") from None


def open_virtio(data: memoryview) -> tuple[Buffer, Offload | None]:
    """A packet that a device handed over after its header, and what is left to be done with it.

    A checksum that is not the packet's own but one further in, as of the packet that a VXLAN
    carries, is completed here: nothing after this looks so deep.

    :raises MalformedMessage: it asks for something that was never offered.
    """
    offload, packet = parse_virtio(data), data[VIRTIO_SIZE:]
    if offload is None or not offload.partial:
        return packet, offload
    place = _PLACE.unpack_from(data)
    start, protocol, _ = transport(packet)
    if protocol and place == (start, CHECKSUM_AT[protocol]):
        return packet, offload
    if offload.kind:
        raise MalformedMessage("a packet to be cut somewhere further in")
    return _complete_at(packet, *place), None


def pack_virtio(offload: Offload | None, packet: Buffer) -> bytes:
    """The header before a packet whose beginning, all its headers, is ``packet``."""
    if offload is None:
        return _NOTHING
    start, protocol, length = transport(packet)
    if protocol not in CHECKSUM_AT or not offload.partial:
        return _NOTHING
    kind = offload.kind | (_GSO_ECN if offload.ecn else 0)
    return VIRTIO.pack(
        _NEEDS_CSUM,
        kind,
        start + length if kind else 0,
        offload.size,
        start,
        CHECKSUM_AT[protocol],
    )


def transport(packet: Buffer) -> tuple[int, int, int]:
    """Where TCP or UDP begins in a packet, which, and the size of its header.

    The protocol is 0 where there is neither, it is not all here, or the packet is a fragment.
    """
    size = len(packet)
    version = packet[0] >> 4 if size else 0
    if version == 4 and size >= 20:
        start, protocol = (packet[0] & 15) * 4, packet[9]
        if start < 20 or packet[6] & 0x3F or packet[7]:
            return 0, 0, 0
    elif version == 6 and size >= 40:
        start, protocol = 40, packet[6]
        if protocol not in CHECKSUM_AT:
            start, protocol = _behind_extensions(packet)
    else:
        return 0, 0, 0
    if protocol == UDP and size >= start + 8:
        return start, protocol, 8
    if protocol == TCP and size >= start + 20:
        length = (packet[start + 12] >> 4) * 4
        if length >= 20 and size >= start + length:
            return start, protocol, length
    return 0, 0, 0


def _behind_extensions(packet: Buffer) -> tuple[int, int]:
    """Where an IPv6 packet's transport begins, and which it is; 0 for one not to be touched."""
    try:
        found = walk_extensions(packet, packet[6], FRAGMENT)
    except MalformedMessage:
        return 0, 0
    return found.offset, found.protocol


def complete(packet: Buffer) -> bytes:
    """The packet with its checksum completed; one that is neither TCP nor UDP stays as it is."""
    start, protocol, _ = transport(packet)
    return _complete_at(packet, start, CHECKSUM_AT[protocol]) if protocol else bytes(packet)


def _complete_at(packet: Buffer, start: int, behind: int) -> bytes:
    """The packet with a checksum of all from ``start`` on, ``behind`` bytes further."""
    data = bytearray(packet)
    at = start + behind
    if at + 2 > len(data):
        raise MalformedMessage("a packet is cut off before its checksum")
    # The field holds the sum of the pseudo header, so that it is summed up with the rest.
    data[at : at + 2] = (checksum(memoryview(data)[start:]) or 0xFFFF).to_bytes(2, "big")
    return bytes(data)
