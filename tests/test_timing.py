from __future__ import annotations

import time

from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols.timing import MachineTimer, use_monotonic_time


class MachineTimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A machine that notes when it is woken."""
        self.clock = Clock()
        self.woken: list[float] = []
        self.timer = MachineTimer(self.clock, self.woken.append)

    def test_wakes(self) -> None:
        """The machine is woken at its time, once, and told the time."""
        self.timer.set(2.5)
        self.clock.advance(2.0)
        self.assertEqual(self.woken, [])
        self.clock.advance(0.5)
        self.assertEqual(self.woken, [2.5])
        self.clock.advance(10.0)
        self.assertEqual(self.woken, [2.5])

    def test_moved(self) -> None:
        """Another time replaces the former, sooner or later; there is only ever one call."""
        for due in (5.0, 2.0, 7.0, 3.0):
            self.timer.set(due)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(3.0)
        self.assertEqual(self.woken, [3.0])

    def test_none(self) -> None:
        """A machine that has nothing to do is not woken."""
        self.timer.set(1.0)
        self.timer.set(None)
        self.timer.set(None)
        self.clock.advance(5.0)
        self.assertEqual(self.woken, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_past(self) -> None:
        """A time that has passed is now, at the next turn of the reactor, not inside the call."""
        self.clock.advance(10.0)
        self.timer.set(3.0)
        self.assertEqual(self.woken, [])
        self.clock.advance(0.0)
        self.assertEqual(self.woken, [10.0])

    def test_again_from_within(self) -> None:
        """A machine that is woken may set its next time at once."""
        self.timer = MachineTimer(self.clock, lambda now: self.timer.set(now + 1.0))
        self.timer.set(1.0)
        self.clock.pump([1.0] * 5)
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [6.0])
        self.timer.cancel()
        self.timer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MonotonicTests(SynchronousTestCase):
    def test_monotonic(self) -> None:
        """R12: timers do not go by the wall clock, which somebody may set."""

        class Reactor(ReactorBase):
            def installWaker(self) -> None:
                """No waker is needed."""

        self.patch(ReactorBase, "__init__", lambda self: None)
        ours = Reactor()
        use_monotonic_time(IReactorTime(ours, ours))
        self.patch(time, "time", lambda: 0.0)
        first = ours.seconds()
        self.assertGreater(first, 1.0)
        self.assertGreaterEqual(ours.seconds(), first)

    def test_virtual_clocks_stay(self) -> None:
        """A clock of a test is left as it is."""
        clock = Clock()
        use_monotonic_time(clock)
        self.assertEqual(clock.seconds(), 0.0)
        self.assertTrue(IReactorTime.providedBy(reactor))
