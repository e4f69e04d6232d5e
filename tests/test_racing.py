from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, Unreachable
from ntmobile.protocols.racing import Race


class RaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Three attempts, of which none has come to an end."""
        self.clock = Clock()
        self.begun: list[int] = []
        self.late: list[str] = []
        self.ends: list[Deferred[str]] = [Deferred() for _ in range(3)]
        attempts = deque(self.attempt(number) for number in range(3))
        self.race = Race(self.clock, attempts, 0.5, self.late.append)
        self.won = self.race.start()

    def attempt(self, number: int) -> Callable[[], Coroutine[Any, Any, str]]:
        """One that ends when the test says so."""

        async def attempt() -> str:
            self.begun.append(number)
            return await self.ends[number]

        return attempt

    def test_first(self) -> None:
        """One that arrives within its head start is the only one."""
        self.ends[0].callback("zero")
        self.assertEqual(self.successResultOf(self.won), "zero")
        self.clock.advance(5.0)
        self.assertEqual(self.begun, [0])

    def test_head_start(self) -> None:
        """One that takes longer has company; who comes too late is handed back."""
        self.clock.advance(0.5)
        self.assertEqual(self.begun, [0, 1])
        self.ends[1].callback("one")
        self.assertEqual(self.successResultOf(self.won), "one")
        self.ends[0].callback("zero")
        self.assertEqual(self.late, ["zero"])
        self.clock.advance(5.0)
        self.assertEqual(self.begun, [0, 1])

    def test_cancelled(self) -> None:
        """Who wants none any more ends those under way, and begins no other."""
        self.clock.advance(0.5)
        self.won.cancel()
        self.failureResultOf(self.won, CancelledError)
        self.assertTrue(self.ends[0].called and self.ends[1].called)
        self.clock.advance(5.0)
        self.assertEqual(self.begun, [0, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed(self) -> None:
        """After a failure the next begins at once, and has its own head start."""
        self.ends[0].errback(Unreachable("zero"))
        self.assertEqual(self.begun, [0, 1])
        self.clock.advance(0.4)
        self.assertEqual(self.begun, [0, 1])
        self.clock.advance(0.1)
        self.assertEqual(self.begun, [0, 1, 2])

    def test_all_failed(self) -> None:
        """It is lost when all have failed."""
        self.clock.advance(0.5)
        self.clock.advance(0.5)
        for number in (2, 0):
            self.ends[number].errback(Unreachable(f"{number}"))
            self.assertNoResult(self.won)
        self.ends[1].errback(Unreachable("1"))
        self.assertEqual(str(self.failureResultOf(self.won, Unreachable).value), "1")

    def test_false_one(self) -> None:
        """R14: that somebody else was met matters more than that nobody was."""
        for number, kind in enumerate((Unreachable, AuthenticationError, Unreachable)):
            self.ends[number].errback(kind(f"{number}"))
        self.assertEqual(str(self.failureResultOf(self.won, AuthenticationError).value), "1")

    def test_failure_after_success(self) -> None:
        """A failure after that is nobody's business."""
        self.clock.advance(0.5)
        self.ends[1].callback("one")
        self.ends[0].errback(Unreachable("zero"))
        self.assertEqual(self.successResultOf(self.won), "one")
