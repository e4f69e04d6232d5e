"""Packets that a kernel hands over to be cut."""

from __future__ import annotations

import struct
from typing import Any

from attrs import field, frozen

from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.checksums import checksum, pseudo_sum
from ntmobile.wire.offload import CHECKSUM_AT, PARTIAL, GsoKind, Offload
from ntmobile.wire.packet import TCP

FIN, SYN, PSH, ACK, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x40, 0x80
SOURCE = {4: bytes((198, 18, 0, 1)), 6: bytes(range(16))}
DESTINATION = {4: bytes((198, 18, 0, 2)), 6: bytes(range(16, 32))}


@frozen
class Whole:
    """What a kernel may hand over: a packet, as its headers and payload."""

    version: int = 6
    protocol: int = TCP
    payload: bytes = b""
    size: int = 1000
    flags: int = ACK
    sequence: int = 1
    options: bytes = b""
    traffic_class: int = 0
    identification: int = 0
    ports: tuple[int, int] = (1000, 2000)
    source: bytes = field()
    destination: bytes = field()

    @source.default
    def _source(self) -> bytes:
        return SOURCE[self.version]

    @destination.default
    def _destination(self) -> bytes:
        return DESTINATION[self.version]

    @classmethod
    def between(
        cls,
        source: DeviceCertificate,
        destination: DeviceCertificate,
        version: int,
        payload: bytes,
        **fields: Any,
    ) -> Whole:
        """A packet from one device to another."""
        ends = (source.ipv6, destination.ipv6) if version == 6 else (source.ipv4, destination.ipv4)
        fields |= {"source": ends[0].packed, "destination": ends[1].packed}
        return cls(version=version, payload=payload, **fields)

    def packet(self) -> bytes:
        """Its bytes, with a partial checksum."""
        if self.protocol == TCP:
            offset = (20 + len(self.options)) // 4 << 4
            head = struct.pack(
                "!HHIIBBHHH", *self.ports, self.sequence, 77, offset, self.flags, 500, 0, 0
            )
            inside = head + self.options + self.payload
        else:
            inside = struct.pack("!HHHH", *self.ports, 8 + len(self.payload), 0) + self.payload
        source, destination = self.source, self.destination
        partial = pseudo_sum(source, destination, self.protocol, len(inside))
        at = CHECKSUM_AT[self.protocol]
        inside = inside[:at] + partial.to_bytes(2, "big") + inside[at + 2 :]
        if self.version == 6:
            first = 0x60000000 | self.traffic_class << 20 | 0x12345
            head = struct.pack("!IHBB", first, len(inside), self.protocol, 64)
            return head + source + destination + inside
        total, name = 20 + len(inside), self.identification
        head = struct.pack(
            "!BBHHHBBH", 0x45, self.traffic_class, total, name, 0x4000, 64, self.protocol, 0
        )
        head += source + destination
        return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + inside

    @property
    def offload(self) -> Offload:
        """What is left to be done with it."""
        if len(self.payload) <= self.size:
            return PARTIAL
        kind = GsoKind.UDP
        if self.protocol == TCP:
            kind = GsoKind.TCP4 if self.version == 4 else GsoKind.TCP6
        return Offload(kind, self.size, True, bool(self.flags & CWR and self.protocol == TCP))
