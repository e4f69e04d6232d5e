"""When a tunnel asks for a direction: at once after a move, else with back-off (R15, R26)."""

from __future__ import annotations

from attrs import define, field

from ntmobile.machines.tunnel.constants import WANT_RETRY, WANT_RETRY_LIMIT
from ntmobile.machines.tunnel.events import DirectionWanted
from ntmobile.wire.messages.realtime import Purpose

#: Relay servers to avoid that one request can name.
_AVOIDED = 4


@define
class Wanting:
    """Asks for directions for one tunnel.

    :ivar purpose: what is wanted now, or None.
    """

    purpose: Purpose | None = None
    _avoid: dict[str, None] = field(factory=dict)
    _next: float = float("-inf")
    _wait: float = WANT_RETRY

    def want(self, purpose: Purpose) -> None:
        """Something is missing. Keys are more than paths."""
        if self.purpose is None or purpose is Purpose.NEW:
            self.purpose = purpose

    def urgent(self, purpose: Purpose) -> None:
        """It is missing at once, whatever was asked for a moment ago: this side moved."""
        self.want(purpose)
        self._next, self._wait = float("-inf"), WANT_RETRY

    def hurry(self) -> None:
        """What hindered earlier requests is over: make the one that waits, if any, now."""
        self._next, self._wait = float("-inf"), WANT_RETRY

    def avoid(self, relay: str) -> None:
        """A relay server failed this side (R26)."""
        self._avoid.pop(relay, None)
        self._avoid[relay] = None
        while len(self._avoid) > _AVOIDED:
            del self._avoid[next(iter(self._avoid))]

    def works(self, relay: str) -> None:
        """It answers (again)."""
        self._avoid.pop(relay, None)

    def satisfied(self) -> None:
        """A direction came. What is still missing is to be wanted again, later."""
        self.purpose = None

    def recovered(self) -> None:
        """A path works: the next trouble is a new one."""
        self._wait = WANT_RETRY

    def due(self, now: float) -> DirectionWanted | None:
        """The request to be made now."""
        if self.purpose is None or now < self._next:
            return None
        self._next = now + self._wait
        self._wait = min(2 * self._wait, WANT_RETRY_LIMIT)
        return DirectionWanted(self.purpose, tuple(self._avoid))

    def next_timer(self) -> float | None:
        """When :meth:`due` has something."""
        return None if self.purpose is None else self._next
