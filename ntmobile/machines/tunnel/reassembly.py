"""Joins the fragments of inner packets, in bounded memory and time.

Overlapping fragments end their packet (RFC 5722; the same for IPv4): nobody sends them in good
faith. Fragments of one packet that do not all come within 30 s are forgotten (RFC 8200 says 60 s).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from attrs import define, field

from ntmobile.errors import MalformedMessage
from ntmobile.wire.fragments import Piece, piece_of
from ntmobile.wire.packet import build

#: Packets in the making; with their largest size that is 4 MiB.
CAPACITY: Final = 64
#: Fragments of one packet; of 1280 bytes each, 53 make the largest.
PIECES: Final = 128
#: Seconds from a packet's first fragment to its last.
LIFETIME: Final = 30.0


@define
class _Making:
    began: float
    length: int | None = None
    protocol: int | None = None
    data: dict[int, bytes] = field(factory=dict)
    spoilt: bool = False


class Reassembly:
    """Packets in the making, the oldest first.

    :ivar lost: packets that were given up.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._making: OrderedDict[tuple[bytes, bytes, int, int], _Making] = OrderedDict()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._making)

    def add(self, packet: bytes, now: float) -> bytes | None:
        """Add a fragment; the whole packet if that completes it.

        :param now: seconds, monotonic.
        :raises MalformedMessage: it is no fragment.
        """
        piece = piece_of(packet)
        self._expire(now)
        making = self._making.get(piece.key)
        if making is None:
            making = self._making[piece.key] = _Making(now)
            if len(self._making) > self._capacity:
                self._drop_oldest()
        if not making.spoilt and not self._fits(making, piece):
            # Kept until it expires, so that what still comes of it begins no new packet.
            making.spoilt = True
            making.data.clear()
            self.lost += 1
        if making.spoilt:
            return None
        self._place(making, piece)
        return self._complete(piece, making)

    @staticmethod
    def _fits(making: _Making, piece: Piece) -> bool:
        """Whether a piece is neither overlapping nor beyond the end; an exact copy fits."""
        end = piece.behind + len(piece.data)
        if making.length is not None and end > making.length:
            return False
        if making.length is not None and not piece.more and end != making.length:
            return False
        if piece.behind in making.data:
            return making.data[piece.behind] == piece.data
        ends = (at + len(data) for at, data in making.data.items())
        beyond = not piece.more and any(one > end for one in ends)
        overlapping = any(
            at < end and piece.behind < at + len(data) for at, data in making.data.items()
        )
        return not beyond and not overlapping and len(making.data) < PIECES

    @staticmethod
    def _place(making: _Making, piece: Piece) -> None:
        making.data[piece.behind] = piece.data
        if not piece.more:
            making.length = piece.behind + len(piece.data)
        if not piece.behind:
            making.protocol = piece.protocol

    def _complete(self, piece: Piece, making: _Making) -> bytes | None:
        have = sum(len(data) for data in making.data.values())
        if making.protocol is None or have != making.length:
            return None
        del self._making[piece.key]
        payload = b"".join(data for _, data in sorted(making.data.items()))
        try:
            return build(piece.source, piece.destination, making.protocol, payload)
        except MalformedMessage:
            # Together they are longer than any packet.
            self.lost += 1
            return None

    def _expire(self, now: float) -> None:
        while self._making and next(iter(self._making.values())).began + LIFETIME < now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, making = self._making.popitem(last=False)
        self.lost += not making.spoilt
