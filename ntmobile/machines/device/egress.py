"""Which of several networks a device sends through: make before break (design, section 5).

A system with two default routes prefers one, and sends everything by it as soon as it is there,
whether or not it leads anywhere. :class:`Egress` keeps to the way that works: one that is newly
preferred is asked first, by a question to the DC through that very interface, and taken when an
answer came back; and when the present way seems dead, the others are asked. One instance serves
one family.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

from attrs import define, field

#: Seconds after which a way is asked again, doubling up to the longest.
FIRST_RETRY: Final = 0.2
LONGEST_RETRY: Final = 30.0
#: Seconds in which some way must answer before the next one is simply tried.
DOUBT: Final = 3.0
#: Seconds for which a way that was given up is not returned to; doubles each time.
HOLD: Final = 10.0
HOLD_LIMIT: Final = 600.0

W = TypeVar("W", bound=Hashable)


@define
class _Question:
    due: float
    wait: float = FIRST_RETRY


@define
class _Hold:
    until: float
    seconds: float


@define(eq=False)
class Egress(Generic[W]):
    """The way out in one family.

    :ivar current: what everything goes by; None: there is none.
    """

    current: W | None = None
    _ways: tuple[W, ...] = ()
    _questions: dict[W, _Question] = field(factory=dict)
    _held: dict[W, _Hold] = field(factory=dict)
    _doubted: float | None = None

    @property
    def pinned(self) -> W | None:
        """The way to send by, where it is another than the system would take."""
        return self.current if self._ways and self.current != self._ways[0] else None

    @property
    def ways(self) -> tuple[W, ...]:
        """All ways, the one that the system prefers first."""
        return self._ways

    def changed(self, ways: Sequence[W], now: float) -> bool:
        """The ways are these now, the one that the system prefers first.

        :return: whether everything goes another way from now on.
        """
        self._ways = tuple(ways)
        for gone in [way for way in (*self._questions, *self._held) if way not in self._ways]:
            self._questions.pop(gone, None)
            self._held.pop(gone, None)
        if self.current in self._ways:
            self._ask_preferred(now)
            return False
        former, self.current, self._doubted = self.current, next(iter(self._ways), None), None
        self._questions.clear()
        return former != self.current

    def doubt(self, now: float) -> None:
        """What goes by the present way seems lost: find out which way works, this one first."""
        if self._doubted is None and len(self._ways) > 1:
            self._doubted = now
            self._questions = {
                way: _Question(now if way == self.current else now + FIRST_RETRY)
                for way in self._ways
            }

    def answered(self, way: W, now: float) -> bool:
        """An answer came back by this way.

        :return: whether everything goes another way from now on.
        """
        if self._questions.pop(way, None) is None:
            return False
        doubted = self._doubted is not None
        if not doubted and self._ways.index(way) >= self._place():
            return False
        self._doubted = None
        return self._take(way, now, given_up=doubted)

    def handle_timer(self, now: float) -> bool:
        """Where nothing answers, the DC may be what is dead: try the next way all the same.

        :return: whether everything goes another way from now on.
        """
        if self._doubted is None or now < self._doubted + DOUBT:
            return False
        self._doubted = None
        following = self._ways[(self._place() + 1) % len(self._ways)]
        return self._take(following, now, given_up=True)

    def due(self, now: float) -> list[W]:
        """The ways to ask now; each counts as asked."""
        found = []
        for way, question in self._questions.items():
            if now >= question.due:
                found.append(way)
                question.due = now + question.wait
                question.wait = min(2 * question.wait, LONGEST_RETRY)
        return found

    def next_timer(self) -> float | None:
        """When there is something to do."""
        times = [question.due for question in self._questions.values()]
        if self._doubted is not None:
            times.append(self._doubted + DOUBT)
        return min(times, default=None)

    def _place(self) -> int:
        return self._ways.index(self.current) if self.current in self._ways else len(self._ways)

    def _take(self, way: W, now: float, *, given_up: bool) -> bool:
        former, self.current = self.current, way
        if former == way:
            self._ask_preferred(now)
            return False
        if given_up and former is not None:
            before = self._held.get(former)
            seconds = HOLD if before is None else min(2 * before.seconds, HOLD_LIMIT)
            self._held[former] = _Hold(now + seconds, seconds)
            self._questions.pop(former, None)
        self._ask_preferred(now)
        return True

    def _ask_preferred(self, now: float) -> None:
        """Ask the ways that the system prefers to the present one; in doubt, all."""
        asked = self._ways if self._doubted is not None else self._ways[: self._place()]
        known, self._questions = self._questions, {}
        for way in asked:
            held = self._held.get(way)
            begin = now if held is None else max(now, held.until)
            self._questions[way] = known.get(way) or _Question(begin)
