from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.expiring import ExpiringCache
from ntmobile.machines.rate import RateLimiter


class RateLimiterTests(SynchronousTestCase):
    def test_burst_then_rate(self) -> None:
        """A rested key gets its burst at once, then one event each 1/rate seconds."""
        limiter = RateLimiter(rate=2.0, burst=3)
        self.assertEqual([limiter.allow("a", 0.0) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertFalse(limiter.allow("a", 0.49))
        self.assertTrue(limiter.allow("a", 0.5))
        self.assertFalse(limiter.allow("a", 0.6))

    def test_keys_apart(self) -> None:
        """One key's events cost another nothing."""
        limiter = RateLimiter(rate=1.0, burst=1)
        self.assertTrue(limiter.allow("a", 0.0))
        self.assertTrue(limiter.allow("b", 0.0))
        self.assertFalse(limiter.allow("a", 0.0))

    def test_rest_refills_no_more_than_the_burst(self) -> None:
        """However long a key rests, it gets its burst and no more."""
        limiter = RateLimiter(rate=1.0, burst=2)
        limiter.allow("a", 0.0)
        self.assertEqual([limiter.allow("a", 1e6) for _ in range(3)], [True, True, False])

    def test_flood_still_gets_the_rate(self) -> None:
        """Refused events cost no token: a flooded key keeps its rate."""
        limiter = RateLimiter(rate=10.0, burst=1)
        allowed = sum(limiter.allow("a", tick / 1000) for tick in range(10_000))
        self.assertEqual(allowed, 100)

    def test_memory_is_bounded(self) -> None:
        """R8: a flood of keys takes no more than the capacity; the one that rested longest goes."""
        limiter = RateLimiter(rate=0.1, burst=1, capacity=100)
        for number in range(1000):
            limiter.allow(number, 0.0)
        self.assertEqual(limiter.size, 100)
        self.assertFalse(limiter.allow(999, 0.0))
        self.assertTrue(limiter.allow(0, 0.0))

    def test_large_events(self) -> None:
        """What turns out to be large counts for more; it is paid for by those that follow."""
        limiter = RateLimiter(rate=1.0, burst=4)
        self.assertTrue(limiter.allow("a", 0.0))
        limiter.charge("a", 0.0, 5.0)
        limiter.charge("unknown", 0.0, 5.0)
        self.assertEqual(limiter.size, 1)
        self.assertFalse(limiter.allow("a", 2.9))
        self.assertTrue(limiter.allow("a", 3.0))

    def test_wait_says_when(self) -> None:
        """The waiting time is exact: a moment before it is refused, at it allowed."""
        limiter = RateLimiter(rate=0.5, burst=2)
        self.assertEqual(limiter.wait("a", 0.0), 0.0)
        limiter.allow("a", 0.0)
        limiter.allow("a", 0.0)
        wait = limiter.wait("a", 0.0)
        self.assertAlmostEqual(wait, 2.0)
        self.assertFalse(limiter.allow("a", wait - 0.01))
        self.assertTrue(limiter.allow("a", wait))

    def test_forget_and_expire(self) -> None:
        """A forgotten key starts afresh; rested keys are dropped, others stay limited."""
        limiter = RateLimiter(rate=1.0, burst=1)
        limiter.allow("a", 0.0)
        limiter.forget("a")
        self.assertTrue(limiter.allow("a", 0.0))
        limiter.allow("b", 5.0)
        limiter.expire(5.0)
        self.assertEqual(limiter.size, 1)
        self.assertFalse(limiter.allow("b", 5.0))

    def test_senseless_parameters(self) -> None:
        """Parameters that would allow nothing, or everything, are refused."""
        for rate, burst, capacity in ((0, 1, 1), (float("nan"), 1, 1), (1, 0.5, 1), (1, 1, 0)):
            self.assertRaises(ValueError, RateLimiter, rate, burst, capacity)

    @given(
        rate=st.floats(0.1, 100),
        burst=st.integers(1, 20),
        gaps=st.lists(st.floats(0, 2), max_size=60),
    )
    def test_never_more_than_promised(self, rate: float, burst: int, gaps: list[float]) -> None:
        """Over any stretch of time a key gets at most burst + rate x time."""
        limiter = RateLimiter(rate, burst)
        now = 0.0
        allowed = []
        for gap in gaps:
            now += gap
            if limiter.allow("a", now):
                allowed.append(now)
        for first in range(len(allowed)):
            for last in range(first, len(allowed)):
                promised = burst + rate * (allowed[last] - allowed[first])
                self.assertLessEqual(last - first + 1, promised + 1e-3)


class ExpiringCacheTests(SynchronousTestCase):
    def test_until_its_time(self) -> None:
        """A value is there before its time and gone at it."""
        cache: ExpiringCache[str, int] = ExpiringCache(2)
        cache.put("a", 1, until=5.0)
        self.assertEqual(cache.get("a", 4.9), 1)
        self.assertIsNone(cache.get("a", 5.0))
        self.assertEqual(cache.size, 0)

    def test_the_least_used_goes(self) -> None:
        """A full cache drops the value that was used least recently."""
        cache: ExpiringCache[str, int] = ExpiringCache(2)
        cache.put("a", 1, until=5.0)
        cache.put("b", 2, until=5.0)
        cache.get("a", 0.0)
        cache.put("c", 3, until=5.0)
        self.assertEqual([cache.get(key, 0.0) for key in "abc"], [1, None, 3])
        cache.forget("a")
        self.assertIsNone(cache.get("a", 0.0))
