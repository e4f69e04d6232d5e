"""Cutting a packet that a system handed over for many: TSO and USO, in software.

A piece gets the header of the whole with what differs: lengths, IPv4 identification and header
checksum, TCP sequence number; PSH and FIN stay with the last piece, CWR with the first. TCP and UDP
checksums stay partial: they cover the pseudo header of the piece.
"""

from __future__ import annotations

import struct
from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import ones_sum, pseudo_sum
from ntmobile.wire.offload import CHECKSUM_AT, GsoKind, Offload, transport
from ntmobile.wire.packet import TCP, Buffer
from ntmobile.wire.pieces import layout

#: IPv4 from byte 2 on: total length, identification, fragment, TTL and protocol, checksum.
_IPV4: Final = struct.Struct("!HHHHH")
_SEQUENCE: Final = struct.Struct("!I")
_SHORT: Final = struct.Struct("!H")
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


class Segmentation:
    """One packet to be cut.

    :param packet: an inner packet whose checksum is partial; it must stay until it is cut.
    :param size: the most bytes of one piece. TCP is cut to that; the datagrams of UDP stay what
        they are.
    :ivar count: pieces. :ivar length: bytes of each but the last. :ivar last: bytes of the last.
    :raises MalformedMessage: it cannot be cut.
    """

    __slots__ = (
        "_before",
        "_header",
        "_ip",
        "_last_header",
        "_packet",
        "_sequence",
        "_sequence_at",
        "_step",
        "_top",
        "count",
        "last",
        "length",
    )

    def __init__(self, packet: Buffer, offload: Offload, size: int) -> None:
        start, protocol, length = transport(packet)
        if (
            not offload.partial
            or not protocol
            or (protocol == TCP) == (offload.kind is GsoKind.UDP)
        ):
            raise MalformedMessage("a packet that cannot be cut")
        self._top = top = start + length
        step = offload.size if offload.kind else len(packet) - top
        if protocol == TCP:
            step = min(step, size - top)
        elif not offload.kind:
            raise MalformedMessage("a datagram that is not to be cut")
        payload = len(packet) - top
        if step <= 0 or payload <= 0:
            raise MalformedMessage("a packet to be cut into nothing")
        self._packet = memoryview(packet)
        self._step = step
        self.count = -(-payload // step)
        self.length = top + min(step, payload)
        self.last = top + payload - (self.count - 1) * step
        header = bytearray(packet[:top])
        self._ip: tuple[int, int, int, int] | None = None
        if header[0] >> 4 == 4:
            _, identification, fragment, life, _ = _IPV4.unpack_from(header, 2)
            header[2:4] = header[4:6] = header[10:12] = b"\0\0"
            self._ip = (identification, fragment, life, ones_sum(header[:start]))
        self._sequence_at = start + 4 if protocol == TCP else 0
        self._sequence = _SEQUENCE.unpack_from(header, start + 4)[0] if protocol == TCP else 0
        self._header = self._piece(header, start, protocol, self.length)
        self._last_header = self._piece(header, start, protocol, self.last)
        self._before = header[start + 13] if protocol == TCP else 0
        if protocol == TCP:
            self._header[start + 13] &= ~(_FIN | _PSH | _CWR)
            self._last_header[start + 13] &= 0xFF if self.count == 1 else ~_CWR

    @staticmethod
    def _piece(header: bytearray, start: int, protocol: int, length: int) -> bytearray:
        """The header of a piece of so many bytes, but for what differs between pieces."""
        made = bytearray(header)
        inside = length - start
        if made[0] >> 4 == 6:
            _SHORT.pack_into(made, 4, length - 40)
            source, destination = bytes(made[8:24]), bytes(made[24:40])
        else:
            _SHORT.pack_into(made, 2, length)
            source, destination = bytes(made[12:16]), bytes(made[16:20])
        if protocol != TCP:
            _SHORT.pack_into(made, start + 4, inside)
        partial = pseudo_sum(source, destination, protocol, inside)
        _SHORT.pack_into(made, start + CHECKSUM_AT[protocol], partial)
        return made

    def write_run(self, into: memoryview, before: int, after: int) -> None:
        """Write all pieces one after another.

        :param before: bytes left free before each piece. :param after: and behind it.
        """
        top, stride, last = self._top, before + self.length + after, self.count - 1
        at = before
        if not self._sequence_at:
            for number in range(self.count):
                self.write(number, into, at)
                at += stride
            return
        version = 6 if self._ip is None else 4
        made = layout(version, self._sequence_at - 4, TCP, top)
        *ip, middle, sequence, rest = made.unpack(self._header)
        pack, whole, begin, step = made.pack_into, self._packet, top, self._step
        identification = total = 0
        if self._ip is not None:
            identification, _, _, total = self._ip
            total += self.length - 1
        for _ in range(last):
            if ip:
                check = 65534 - (total + identification) % 65535
                pack(into, at, ip[0], identification, ip[2], check, middle, sequence, rest)
                identification = identification + 1 & 0xFFFF
            else:
                pack(into, at, middle, sequence, rest)
            into[at + top : at + top + step] = whole[begin : begin + step]
            at += stride
            begin += step
            sequence = sequence + step & 0xFFFFFFFF
        if self._before & _CWR:
            into[before + self._sequence_at + 9] |= _CWR
        self.write(last, into, at)

    def write(self, number: int, into: bytearray | memoryview, at: int) -> int:
        """Write one piece.

        :param number: from 0 on. :return: its bytes.
        """
        top, begin = self._top, number * self._step
        if number == self.count - 1:
            length, header = self.last, self._last_header
        else:
            length, header = self.length, self._header
        into[at : at + top] = header
        into[at + top : at + length] = self._packet[top + begin : begin + length]
        if self._ip is not None:
            identification, fragment, life, total = self._ip
            identification = identification + number & 0xFFFF
            total += length + identification
            total = (total & 0xFFFF) + (total >> 16)
            _IPV4.pack_into(
                into,
                at + 2,
                length,
                identification,
                fragment,
                life,
                ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF,
            )
        if self._sequence_at:
            _SEQUENCE.pack_into(into, at + self._sequence_at, self._sequence + begin & 0xFFFFFFFF)
            if not number and self._before & _CWR:
                into[at + self._sequence_at + 9] |= _CWR
        return length
