"""Inner packets that do not fit one datagram travel as two halves (R23).

The first half is flagged FIRST and has some counter; the second is flagged SECOND and has the next
one. Each half is sealed by itself, so nobody can join halves that do not belong together.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Halves that wait for the other; with reordering beyond this a packet is lost.
WAITING: Final = 128


def halves(packet: bytes) -> tuple[bytes, bytes]:
    """The two halves of a packet, the first not the shorter."""
    middle = (len(packet) + 1) // 2
    return packet[:middle], packet[middle:]


class Joining:
    """Puts halves together, in whatever order they come; remembers a bounded number."""

    __slots__ = ("_waiting", "lost")

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[int, int, bool], bytes] = OrderedDict()
        self.lost = 0

    def add(self, epoch: int, counter: int, half: bytes, *, first: bool) -> bytes | None:
        """Add an authentic half; the packet if that completes it."""
        start = counter if first else counter - 1
        other = self._waiting.pop((epoch, start, not first), None)
        if other is not None:
            return half + other if first else other + half
        self._waiting[epoch, start, first] = half
        if len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)
            self.lost += 1
        return None
