"""Joining packets of one flow into one that stands for all: GRO, in software.

Only what is the same but for what cutting changes is joined: a system that cuts the joined packet
again gets the very packets that came. Joined are packets whose checksums are partial, since nobody
would look at those of others any more.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from ntmobile.wire.checksums import checksum, ones_sum, pseudo_sum
from ntmobile.wire.offload import CHECKSUM_AT, PARTIAL, GsoKind, Offload, transport
from ntmobile.wire.packet import TCP, Buffer
from ntmobile.wire.pieces import beginning, layout

#: Flows that may be open at once.
FLOWS: Final = 64
#: The largest packet, and the most datagrams that one may stand for (UDP_MAX_SEGMENTS).
_LARGEST: Final = 65535
_DATAGRAMS: Final = 64
#: The most segments: writev(2) takes 1024 parts (IOV_MAX), the header and what is before it too.
_SEGMENTS: Final = 1000
_FIN, _SYN, _RST, _PSH, _URG, _CWR = 0x01, 0x02, 0x04, 0x08, 0x20, 0x80
_ALONE: Final = _SYN | _RST | _URG
_LAST: Final = _FIN | _PSH
_SHORT: Final = struct.Struct("!H")

Joined: TypeAlias = tuple[list[Buffer], Offload | None]


class _Flow:
    """Packets of one flow that are being joined.

    :ivar parts: the first header, then the payloads.
    :ivar expected: the header that the next packet of full size has, if it goes on.
    :ivar beginning: gets the header of a packet, to be compared.
    :ivar full: bytes of such a packet. :ivar room: how many more there may be.
    """

    __slots__ = (
        "_identification",
        "_ip",
        "_middle",
        "_pack",
        "_rest",
        "_sequence",
        "_sum",
        "beginning",
        "cwr",
        "expected",
        "flags",
        "full",
        "parts",
        "protocol",
        "room",
        "size",
        "start",
        "top",
    )

    def __init__(self, packet: memoryview, start: int, protocol: int, top: int) -> None:
        self.parts: list[Buffer] = [packet[:top], packet[top:]]
        self.start, self.protocol, self.top = start, protocol, top
        self.full = len(packet)
        self.size = self.full - top
        self.room = min((_LARGEST - self.full) // self.size, _SEGMENTS - 1)
        header = bytearray(packet[:top])
        self.flags = self.cwr = 0
        if protocol == TCP:
            self.flags = header[start + 13]
            self.cwr = self.flags & _CWR
            header[start + 13] &= ~_CWR
        else:
            self.room = min(self.room, _DATAGRAMS - 1)
        self.beginning = beginning(top).unpack_from
        made = layout(header[0] >> 4, start, protocol, top)
        self._pack = made.pack
        stays = made.unpack(header)
        self._ip: tuple[bytes, bytes] | None = None
        self._identification = self._sum = 0
        if header[0] >> 4 == 4:
            self._ip, self._identification = (stays[0], stays[2]), stays[1]
            self._sum = ones_sum(stays[0] + stays[2] + header[12:start]) - 1
            stays = stays[4:]
        self._middle, self._sequence, self._rest = stays if protocol == TCP else (*stays, 0, b"")
        self.expected = bytes(header)
        self.advance()

    def advance(self) -> None:
        """What the next header must be."""
        sequence = self._sequence = self._sequence + self.size & 0xFFFFFFFF
        if self._ip is None:
            if self.protocol == TCP:
                self.expected = self._pack(self._middle, sequence, self._rest)
            return
        before, between = self._ip
        number = self._identification = self._identification + 1 & 0xFFFF
        check = 65534 - (self._sum + number) % 65535
        if self.protocol == TCP:
            self.expected = self._pack(
                before, number, between, check, self._middle, sequence, self._rest
            )
        else:
            self.expected = self._pack(before, number, between, check, self._middle)

    def add(self, packet: memoryview) -> bool:
        """Join a packet, if it goes on where this one ends."""
        top, length = self.top, len(packet)
        if not self.room or not top < length <= self.full:
            return False
        goes_on = length == self.full and self.beginning(packet)[0] == self.expected
        if not goes_on and not self._ends(packet, length):
            return False
        self.parts.append(packet[top:])
        self.room -= 1
        if length == self.full:
            self.advance()
        return True

    def _ends(self, packet: memoryview, length: int) -> bool:
        """Whether a packet is the last of these: shorter, or with PSH or FIN."""
        header, expected = bytearray(packet[: self.top]), bytearray(self.expected)
        if length != self.full:
            _set_lengths(expected, self.start, self.protocol, length)
        flags = 0
        if self.protocol == TCP:
            flags = header[self.start + 13]
            header[self.start + 13] &= ~_LAST
        if header != expected:
            return False
        self.flags = flags
        return True

    @property
    def closed(self) -> bool:
        """Nothing can follow."""
        return bool(self.flags & _LAST) or len(self.parts[-1]) < self.size

    def joined(self) -> Joined:
        """The packet that stands for all, and what is left to be done with it."""
        count = len(self.parts) - 1
        if count == 1:
            return self.parts, PARTIAL
        header = bytearray(self.parts[0])
        start = self.start
        total = self.top + (count - 1) * self.size + len(self.parts[-1])
        _set_lengths(header, start, self.protocol, total)
        kind = GsoKind.UDP
        if self.protocol == TCP:
            kind = GsoKind.TCP4 if header[0] >> 4 == 4 else GsoKind.TCP6
            header[start + 13] |= self.flags & _LAST
        self.parts[0] = header
        return self.parts, Offload(kind, self.size, True, bool(self.cwr))


def _set_lengths(header: bytearray, start: int, protocol: int, length: int) -> None:
    """Have a header say that its packet has so many bytes."""
    if header[0] >> 4 == 4:
        _SHORT.pack_into(header, 2, length)
        header[10:12] = b"\0\0"
        _SHORT.pack_into(header, 10, checksum(header[:start]))
        source, destination = bytes(header[12:16]), bytes(header[16:20])
    else:
        _SHORT.pack_into(header, 4, length - 40)
        source, destination = bytes(header[8:24]), bytes(header[24:40])
    if protocol != TCP:
        _SHORT.pack_into(header, start + 4, length - start)
    partial = pseudo_sum(source, destination, protocol, length - start)
    _SHORT.pack_into(header, start + CHECKSUM_AT[protocol], partial)


def _has_ports(packet: memoryview) -> bool:
    """Whether the flow of a packet can be told by looking at fixed places."""
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return packet[6] in CHECKSUM_AT
    if len(packet) < 20 or packet[0] != 0x45:
        return False
    return packet[9] in CHECKSUM_AT and not packet[6] & 0x3F and not packet[7]


class Coalescer:
    """Joins what comes, flow by flow; the order within a flow stays."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Flow] = {}
        self._recent: _Flow | None = None
        self._done: list[Joined] = []

    def add(self, packet: memoryview, partial: bool) -> None:
        """One packet; its memory must stay until :meth:`drain`."""
        recent = self._recent
        if (
            recent is not None
            and partial
            and len(packet) == recent.full
            # The header names the flow, so look no further.
            and recent.beginning(packet)[0] == recent.expected
            and recent.room
        ):
            recent.parts.append(packet[recent.top :])
            recent.room -= 1
            recent.advance()
            return
        key = bytes(packet[8:44] if packet[0] >> 4 == 6 else packet[12:24])
        flow = self._open.get(key)
        if flow is not None:
            if partial and flow.add(packet):
                self._recent = flow
                if flow.closed:
                    self._close(key)
                return
            self._close(key)
        start, protocol, length = transport(packet) if partial else (0, 0, 0)
        top = start + length
        if self._open and not _has_ports(packet):
            # A fragment or the like, whose flow cannot be told: it may not overtake any.
            for each in tuple(self._open):
                self._close(each)
        if not protocol or not self._opens(packet, start, protocol, top):
            self._done.append(([packet], PARTIAL if partial else None))
            return
        if len(self._open) >= FLOWS:
            self._close(next(iter(self._open)))
        flow = self._open[key] = self._recent = _Flow(packet, start, protocol, top)
        if flow.closed:
            self._close(key)

    @staticmethod
    def _opens(packet: memoryview, start: int, protocol: int, top: int) -> bool:
        """Whether others may be joined to this packet: it carries something, and nothing odd."""
        if packet[0] >> 4 == 4:
            sound = start == 20 and packet[2] << 8 | packet[3] == len(packet)
        else:
            sound = (packet[4] << 8 | packet[5]) + 40 == len(packet)
        return sound and len(packet) > top and not (protocol == TCP and packet[start + 13] & _ALONE)

    def _close(self, key: bytes) -> None:
        flow = self._open.pop(key)
        if flow is self._recent:
            self._recent = None
        self._done.append(flow.joined())

    def drain(self) -> list[Joined]:
        """All packets so far: each in parts, with what is left to be done with it."""
        for key in tuple(self._open):
            self._close(key)
        done, self._done = self._done, []
        return done
