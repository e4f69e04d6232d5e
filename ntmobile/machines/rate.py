"""Rate limits: a token bucket for each key, in bounded memory.

A bucket holds ``burst`` tokens and gains ``rate`` tokens a second; what is allowed takes one. Only
the time at which a bucket is full again is stored (the generic cell rate algorithm), so a key costs
one number, and a key whose bucket is full costs nothing: it is the same as an unknown key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

#: Keys a limiter remembers unless told otherwise; about 200 bytes each.
DEFAULT_CAPACITY: Final = 10_000


class RateLimiter:
    """Allows each key ``rate`` events a second, and ``burst`` at once after a rest.

    When more than ``capacity`` keys are busy at once, the one that asked least recently is
    forgotten and starts afresh: a flood of keys may loosen a limit, never lock out a newcomer.
    Choose keys an attacker cannot multiply (a network, an account), and the capacity above what he
    can fill at ``rate``.

    :param rate: events a second, above 0.
    :param burst: events at once, at least 1.
    :param capacity: keys remembered, at least 1.
    :raises ValueError: a parameter is out of its range.
    """

    def __init__(self, rate: float, burst: float, capacity: int = DEFAULT_CAPACITY) -> None:
        if not rate > 0 or not burst >= 1 or capacity < 1:
            raise ValueError(f"no limiter of rate {rate}, burst {burst}, capacity {capacity}")
        self._interval = 1.0 / rate
        self._tolerance = (burst - 1.0) * self._interval
        self._capacity = capacity
        # key -> when its bucket is full again, least recently asked first
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    @property
    def size(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def allow(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` may have one more event at ``now``; if so, it is counted.

        A refused event costs no token, so a steady flood still gets ``rate`` through.

        :param now: monotonic seconds; must not go back.
        """
        full_at = max(self._full_at.get(key, now), now)
        allowed = full_at - now <= self._tolerance + 1e-9
        if allowed:
            full_at += self._interval
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)
        return allowed

    def charge(self, key: Hashable, now: float, cost: float) -> None:
        """Count ``cost`` events more for one that was allowed, and turned out to be a large one.

        :param now: as for :meth:`allow`.
        """
        if key in self._full_at:
            self._full_at[key] = max(self._full_at[key], now) + cost * self._interval

    def wait(self, key: Hashable, now: float) -> float:
        """How many seconds from ``now`` until ``key`` is allowed again; 0 if it is."""
        return max(0.0, self._full_at.get(key, now) - now - self._tolerance)

    def forget(self, key: Hashable) -> None:
        """Give ``key`` a full bucket, as after a success that clears failed attempts."""
        self._full_at.pop(key, None)

    def expire(self, now: float) -> None:
        """Drop the keys whose bucket is full again; worth calling now and then, never needed."""
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
        if not self._full_at:
            self._full_at = OrderedDict()  # the room that many keys took is given back
