"""The replay window of a stream of counters (rule R21; RFC 6479's idea on one integer)."""

from __future__ import annotations

from typing import Final

#: Counters behind the highest one that are still told apart.
WINDOW: Final = 8192


class ReplayWindow:
    """Remembers which of the last :data:`WINDOW` counters were seen: check, open, then mark."""

    __slots__ = ("_seen", "_top", "size")

    def __init__(self, size: int = WINDOW) -> None:
        self.size = size
        self._top = -1
        self._seen = 0

    @property
    def highest(self) -> int:
        """The highest counter marked, or -1."""
        return self._top

    def acceptable(self, counter: int) -> bool:
        """Whether the counter is neither seen nor older than the window."""
        if counter > self._top:
            return True
        behind = self._top - counter
        return behind < self.size and not (self._seen >> behind) & 1

    def mark(self, counter: int) -> bool:
        """Mark an *authenticated* counter; ``False`` where it was not acceptable."""
        if counter > self._top:
            shift = counter - self._top
            mask = (1 << self.size) - 1
            self._seen = ((self._seen << shift) & mask | 1) if shift < self.size else 1
            self._top = counter
            return True
        behind = self._top - counter
        if behind >= self.size or (self._seen >> behind) & 1:
            return False
        self._seen |= 1 << behind
        return True

    def mark_run(self, first: int, count: int) -> None:
        """Mark ``count`` authenticated counters from ``first`` on, all above the highest one."""
        shift = first + count - 1 - self._top
        mask = (1 << self.size) - 1
        seen = (self._seen << shift) & mask if shift < self.size else 0
        self._seen = seen | ((1 << count) - 1) & mask
        self._top = first + count - 1
