"""Virtual time."""

from __future__ import annotations

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.testing import ExactClock, HostTimers


class ExactClockTests(SynchronousTestCase):
    """A clock that stops at every call."""

    def test_exact_times(self) -> None:
        """Each call sees its own time, also one that was scheduled by another."""
        clock = ExactClock()
        seen: list[float] = []

        def tick() -> None:
            seen.append(clock.seconds())
            if len(seen) < 3:
                clock.callLater(1, tick)

        clock.callLater(1, tick)
        clock.advance(10)
        self.assertEqual((seen, clock.seconds()), ([1, 2, 3], 10))

    def test_order_of_equals(self) -> None:
        """Calls of one time run in the order they were made."""
        clock = ExactClock()
        seen: list[int] = []
        for number in range(5):
            clock.callLater(1, seen.append, number)
        clock.advance(1)
        self.assertEqual(seen, [0, 1, 2, 3, 4])


class HostTimersTests(SynchronousTestCase):
    """A host's own timers."""

    def setUp(self) -> None:
        self.clock = ExactClock()
        self.timers = HostTimers(self.clock)
        self.seen: list[float] = []

    def note(self) -> None:
        """Note the time."""
        self.seen.append(self.clock.seconds())

    def test_interface(self) -> None:
        """They provide ``IReactorTime``."""
        self.assertTrue(verifyObject(IReactorTime, self.timers))

    def test_order(self) -> None:
        """Calls run at their times, whatever the order they were made in."""
        for delay in (3, 1, 2, 1):
            self.timers.callLater(delay, self.note)
        self.assertEqual([call.getTime() for call in self.timers.getDelayedCalls()], [1, 1, 2, 3])
        self.clock.advance(5)
        self.assertEqual(self.seen, [1, 1, 2, 3])
        self.assertEqual(self.clock.calls, [])

    def test_cancel(self) -> None:
        """A cancelled call does not run, and can be cancelled once."""
        call = self.timers.callLater(1, self.note)
        call.cancel()
        self.clock.advance(5)
        self.assertEqual((self.seen, self.clock.calls), ([], []))
        self.assertRaises(AlreadyCancelled, call.cancel)

    def test_cancel_after_call(self) -> None:
        """One that ran cannot be cancelled."""
        call = self.timers.callLater(1, self.note)
        self.clock.advance(5)
        self.assertRaises(AlreadyCalled, call.cancel)

    def test_reset_and_delay(self) -> None:
        """A call may be moved both ways."""
        sooner, later = self.timers.callLater(5, self.note), self.timers.callLater(1, self.note)
        sooner.reset(2)
        later.delay(6)
        self.clock.advance(10)
        self.assertEqual(self.seen, [2, 7])

    def test_negative(self) -> None:
        """A negative delay is an error."""
        self.assertRaises(ValueError, self.timers.callLater, -1, self.note)

    def test_stop_and_resume(self) -> None:
        """While stopped nothing runs; what is overdue runs on resuming, the rest in time."""
        self.timers.callLater(1, self.note)
        self.timers.callLater(20, self.note)
        self.timers.stop()
        self.clock.advance(10)
        self.assertEqual(self.seen, [])
        self.timers.resume()
        self.clock.advance(30)
        self.assertEqual(self.seen, [10, 20])

    def test_cancel_while_stopped(self) -> None:
        """What is cancelled while stopped does not run."""
        call = self.timers.callLater(1, self.note)
        self.timers.stop()
        self.clock.advance(10)
        call.cancel()
        self.timers.resume()
        self.clock.advance(1)
        self.assertEqual(self.seen, [])

    def test_clear(self) -> None:
        """Cleared calls count as cancelled."""
        call = self.timers.callLater(1, self.note)
        self.timers.clear()
        self.clock.advance(5)
        self.assertEqual((self.seen, call.active()), ([], False))

    def test_failure(self) -> None:
        """A call that raises raises out of the clock, and the others still run."""

        def fail() -> None:
            raise ZeroDivisionError

        self.timers.callLater(1, fail)
        self.timers.callLater(2, self.note)
        self.assertRaises(ZeroDivisionError, self.clock.advance, 5)
        self.clock.advance(5)
        self.assertEqual(self.seen, [2])
