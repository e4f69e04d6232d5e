from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.wire.replay import WINDOW, ReplayWindow


class Naive:
    """A window that remembers everything."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()

    def acceptable(self, counter: int) -> bool:
        """Not seen, and not older than the window."""
        highest = max(self.seen, default=-1)
        return counter not in self.seen and counter > highest - self.size


def counters(size: int) -> st.SearchStrategy[list[int]]:
    """Counters that go on, come late, repeat and leap."""
    step = st.one_of(
        st.integers(-size - 2, 2),
        st.integers(0, 3),
        st.sampled_from([size - 1, size, size + 1, 1 << 40]),
    )

    def walk(steps: list[int]) -> list[int]:
        place, found = 0, []
        for each in steps:
            place = max(0, place + each)
            found.append(place)
        return found

    return st.lists(step, max_size=60).map(walk)


class ReplayWindowTests(SynchronousTestCase):
    @given(st.sampled_from([1, 2, 8, 64]).flatmap(lambda n: st.tuples(st.just(n), counters(n))))
    @settings(max_examples=500)
    def test_as_a_set(self, case: tuple[int, list[int]]) -> None:
        """R21: it answers as one would that remembers every counter, the old ones apart."""
        size, arriving = case
        window, naive = ReplayWindow(size), Naive(size)
        for counter in arriving:
            expected = naive.acceptable(counter)
            self.assertEqual(window.acceptable(counter), expected)
            self.assertEqual(window.mark(counter), expected)
            if expected:
                naive.seen.add(counter)
            self.assertEqual(window.highest, max(naive.seen, default=-1))

    def test_looking_marks_nothing(self) -> None:
        """What is only looked at, because it may not be authentic, stays acceptable."""
        window = ReplayWindow()
        self.assertTrue(window.acceptable(7))
        self.assertTrue(window.acceptable(7))
        self.assertEqual(window.highest, -1)

    def test_width(self) -> None:
        """R21: of the last 8192 counters every one is told apart; older ones are refused."""
        self.assertGreaterEqual(WINDOW, 8192)
        window = ReplayWindow()
        window.mark(100_000)
        self.assertTrue(window.acceptable(100_000 - WINDOW + 1))
        self.assertFalse(window.acceptable(100_000 - WINDOW))

    def test_memory(self) -> None:
        """However far the counters go, the window keeps one bit for each of its width."""
        window = ReplayWindow(64)
        for counter in range(0, 100_000, 3):
            window.mark(counter)
        self.assertLessEqual(window._seen.bit_length(), 64)
