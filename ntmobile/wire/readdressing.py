"""Showing a correspondent under another address (design section 6, rule R24).

A client that shows a correspondent's IPv4 address as another replaces it in every packet: in the
IP header, in the checksums that cover it, and in the packets that ICMP errors quote. Checksums are
adjusted by difference, so what was wrong before stays wrong and is still noticed by the receiver.
"""

from __future__ import annotations

from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import adjust
from ntmobile.wire.packet import (
    DCCP,
    ICMP,
    ICMPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    TCP,
    UDP,
    UDP_LITE,
    Buffer,
    Packet,
    parse,
    walk_extensions,
)

#: Where a transport keeps the checksum that covers the addresses.
_CHECKSUMS: Final = {TCP: 16, UDP: 6, DCCP: 6, ICMPV6: 2, UDP_LITE: 6}
#: Where the two addresses begin, by version.
_ADDRESSES: Final = {4: 12, 6: 8}
#: ICMP types that quote a packet (RFC 792, RFC 4443).
ERRORS_V4: Final = frozenset({3, 4, 5, 11, 12})
ERRORS_V6: Final = frozenset(range(128))


def rewrite(
    packet: Buffer,
    source: bytes | None = None,
    destination: bytes | None = None,
    *,
    partial: bool = False,
) -> bytes:
    """The packet with another source, another destination, or both.

    In a quoted packet the sides are the other way round: its destination is replaced where it was
    the outer source, and its source where it was the outer destination.

    :param source: of the packet's family, or ``None`` to leave it. :param destination: likewise.
    :param partial: the checksum of its transport is the sum of the pseudo header only.
    :raises MalformedMessage: not a packet, of another family, or a first fragment so short that its
        checksum is in the next.
    """
    view = parse(packet)
    data = bytearray(packet)
    size = len(view.source)
    source = view.source if source is None else source
    destination = view.destination if destination is None else destination
    old, new = view.source + view.destination, source + destination
    if len(source) != size or len(destination) != size:
        raise MalformedMessage(f"an IPv{view.version} packet cannot have such an address")
    if new == old:
        return bytes(packet)
    _replace_addresses(data, 0, view.version, old, new)
    if not view.first:
        return bytes(data)
    at = _checksum_at(view.protocol, view.version)
    if at is not None:
        if view.offset + at + 2 > view.length:
            raise MalformedMessage("an inner packet is cut off before its checksum")
        if partial:
            _adjust_partial(data, view.offset + at, old, new)
        else:
            _adjust(data, view.offset + at, old, new, view.protocol)
    if is_error(packet, view):
        _rewrite_quoted(data, view, old, new)
    return bytes(data)


def _checksum_at(protocol: int, version: int) -> int | None:
    """Where in the transport header is a checksum that covers the addresses."""
    if protocol == ICMPV6 and version == 4:
        return None
    return _CHECKSUMS.get(protocol)


def is_error(packet: Buffer, view: Packet) -> bool:
    """Whether a packet is an ICMP error, which quotes another packet."""
    if not view.first or view.offset >= view.length:
        return False
    kind = packet[view.offset]
    if view.version == 4:
        return view.protocol == ICMP and kind in ERRORS_V4
    return view.protocol == ICMPV6 and kind in ERRORS_V6


def _replace_addresses(data: bytearray, start: int, version: int, old: bytes, new: bytes) -> None:
    """Replace both addresses of the IP header at ``start``."""
    at = start + _ADDRESSES[version]
    data[at : at + len(new)] = new
    if version == 4:
        _adjust(data, start + 10, old, new, ICMP)


def _adjust(data: bytearray, at: int, old: bytes, new: bytes, protocol: int) -> None:
    """Adjust the checksum at ``at``; UDP has a way to say "none", which stays and is avoided."""
    value = data[at] << 8 | data[at + 1]
    may_be_absent = protocol in (UDP, UDP_LITE)
    if may_be_absent and not value:
        return
    value = adjust(value, old, new)
    if may_be_absent and not value:
        value = 0xFFFF
    data[at : at + 2] = value.to_bytes(2, "big")


def _adjust_partial(data: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Adjust the sum of a pseudo header at ``at``, which is no complement."""
    value = ~(data[at] << 8 | data[at + 1]) & 0xFFFF
    data[at : at + 2] = (~adjust(value, old, new) & 0xFFFF).to_bytes(2, "big")


def _rewrite_quoted(data: bytearray, view: Packet, old: bytes, new: bytes) -> None:
    """Replace the addresses in the packet an ICMP error quotes, as far as it is there.

    What does not look like a packet of the same version is left alone: the receiver ignores it.
    """
    start = view.offset + 8
    before = bytes(data[start : view.length])
    transport = quoted_transport(before, view.version)
    if transport is None:
        return
    size = len(old) // 2
    at = start + _ADDRESSES[view.version]
    source, destination = bytes(data[at : at + size]), bytes(data[at + size : at + 2 * size])
    quoted_old = source + destination
    quoted_new = (new[size:] if source == old[size:] else source) + (
        new[:size] if destination == old[:size] else destination
    )
    _replace_addresses(data, start, view.version, quoted_old, quoted_new)
    protocol, offset = transport
    checksum_at = _checksum_at(protocol, view.version)
    if checksum_at is not None and start + offset + checksum_at + 2 <= view.length:
        _adjust(data, start + offset + checksum_at, quoted_old, quoted_new, protocol)
    _adjust(data, view.offset + 2, before, bytes(data[start : view.length]), ICMP)


def quoted_transport(quoted: bytes, version: int) -> tuple[int, int] | None:
    """Protocol and transport offset of a quoted packet; no checksum follows where it is 0."""
    header = IPV4_HEADER if version == 4 else IPV6_HEADER
    if len(quoted) < header.size or quoted[0] >> 4 != version:
        return None
    if version == 4:
        length = (quoted[0] & 0x0F) * 4
        if length < header.size:
            return None
        behind = (quoted[6] << 8 | quoted[7]) & 0x1FFF
        return (quoted[9] if not behind else 0), length
    try:
        found = walk_extensions(quoted, quoted[6])
    except MalformedMessage:
        # Cut off within its extension headers: no transport header is here to be adjusted.
        return 0, len(quoted)
    return (found.protocol if not found.behind else 0), found.offset
