from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.device.egress import DOUBT, FIRST_RETRY, HOLD, LONGEST_RETRY, Egress


class EgressTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A device with one way out."""
        self.egress: Egress[str] = Egress()
        self.assertTrue(self.egress.changed(["wifi"], 0.0))

    def test_one_way(self) -> None:
        """What there is only one of is taken without a question."""
        self.assertEqual(self.egress.current, "wifi")
        self.assertIsNone(self.egress.pinned)
        self.assertIsNone(self.egress.next_timer())
        self.egress.doubt(1.0)
        self.assertEqual(self.egress.due(1.0), [])

    def test_preferred_is_asked_first(self) -> None:
        """A way that is newly preferred is taken when it has answered, and not before."""
        self.assertFalse(self.egress.changed(["cable", "wifi"], 1.0))
        self.assertEqual(self.egress.pinned, "wifi")
        self.assertEqual(self.egress.due(1.0), ["cable"])
        self.assertTrue(self.egress.answered("cable", 1.1))
        self.assertEqual(self.egress.current, "cable")
        self.assertIsNone(self.egress.pinned)
        self.assertIsNone(self.egress.next_timer())

    def test_dead_preferred(self) -> None:
        """A preferred way that never answers is asked ever more seldom, and never taken."""
        self.egress.changed(["cable", "wifi"], 0.0)
        asked, now = [], 0.0
        while now < 600.0:
            asked += [now for _ in self.egress.due(now)]
            now = self.egress.next_timer() or 600.0
        gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
        self.assertAlmostEqual(gaps[0], FIRST_RETRY)
        self.assertAlmostEqual(max(gaps), LONGEST_RETRY)
        self.assertLess(len(asked), 40)
        self.assertEqual(self.egress.current, "wifi")

    def test_less_preferred(self) -> None:
        """A way that the system prefers less changes nothing."""
        self.assertFalse(self.egress.changed(["wifi", "mobile"], 1.0))
        self.assertIsNone(self.egress.pinned)
        self.assertIsNone(self.egress.next_timer())

    def test_gone(self) -> None:
        """When the present way goes, the next one is taken at once."""
        self.egress.changed(["wifi", "mobile"], 1.0)
        self.assertTrue(self.egress.changed(["mobile"], 2.0))
        self.assertEqual(self.egress.current, "mobile")
        self.assertTrue(self.egress.changed([], 3.0))
        self.assertIsNone(self.egress.current)

    def test_doubt(self) -> None:
        """In doubt the present way is asked first, then the others; who answers is taken."""
        self.egress.changed(["wifi", "mobile"], 0.0)
        self.egress.doubt(10.0)
        self.assertEqual(self.egress.due(10.0), ["wifi"])
        self.assertEqual(self.egress.due(10.0 + FIRST_RETRY), ["wifi", "mobile"])
        self.assertTrue(self.egress.answered("mobile", 10.3))
        self.assertEqual(self.egress.pinned, "mobile")

    def test_unfounded_doubt(self) -> None:
        """Where the present way answers, all stays as it is."""
        self.egress.changed(["wifi", "mobile"], 0.0)
        self.egress.doubt(10.0)
        self.egress.due(10.0)
        self.assertFalse(self.egress.answered("wifi", 10.05))
        self.assertFalse(self.egress.answered("mobile", 10.3))
        self.assertEqual(self.egress.current, "wifi")
        self.assertIsNone(self.egress.next_timer())

    def test_way_given_up(self) -> None:
        """A way that was given up is not returned to at once, and later each time."""
        self.egress.changed(["wifi", "mobile"], 0.0)
        holds, now = [], 10.0
        for _ in range(3):
            self.egress.doubt(now)
            self.egress.due(now + 1)
            self.assertTrue(self.egress.answered("mobile", now + 1))
            due = self.egress.next_timer()
            assert due is not None  # wifi is asked some time
            holds.append(due - now - 1)
            self.egress.due(due)
            self.assertTrue(self.egress.answered("wifi", due))
            now = due + 1
        self.assertEqual([round(hold) for hold in holds], [HOLD, 2 * HOLD, 4 * HOLD])

    def test_coordinator_dead(self) -> None:
        """Where nothing answers by any way, the DC may be dead: the ways are tried in turn."""
        self.egress.changed(["wifi", "mobile"], 0.0)
        self.egress.doubt(10.0)
        self.assertFalse(self.egress.handle_timer(10.0 + DOUBT / 2))
        self.assertTrue(self.egress.handle_timer(10.0 + DOUBT))
        self.assertEqual(self.egress.current, "mobile")
        self.egress.doubt(20.0)
        self.assertTrue(self.egress.handle_timer(20.0 + DOUBT))
        self.assertEqual(self.egress.current, "wifi")

    def test_late_answer(self) -> None:
        """An answer to no question changes nothing."""
        self.egress.changed(["cable", "wifi"], 0.0)
        self.assertFalse(self.egress.answered("wifi", 0.1))
        self.assertFalse(self.egress.answered("gone", 0.1))
        self.assertEqual(self.egress.current, "wifi")


class EgressMachine(RuleBasedStateMachine):
    """Whatever happens: the present way exists, and questions end or become seldom."""

    def __init__(self) -> None:
        super().__init__()
        self.egress: Egress[int] = Egress()
        self.now = 0.0

    @rule(ways=st.lists(st.integers(0, 4), unique=True, max_size=4))
    def change(self, ways: list[int]) -> None:
        """Other networks."""
        former = self.egress.current
        moved = self.egress.changed(ways, self.now)
        assert moved == (self.egress.current != former)
        if former in ways:
            assert self.egress.current == former

    @rule()
    def doubt(self) -> None:
        """Silence."""
        self.egress.doubt(self.now)

    @rule(way=st.integers(0, 4))
    def answer(self, way: int) -> None:
        """The DC answers, asked or not."""
        former = self.egress.current
        assert self.egress.answered(way, self.now) == (self.egress.current != former)

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        """Time passes; the machine is woken when it asked for it."""
        end, woken = self.now + seconds, 0
        while (due := self.egress.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.egress.handle_timer(self.now)
            self.egress.due(self.now)
            woken += 1
            assert woken < 200
        self.now = end

    @invariant()
    def sends_somewhere(self) -> None:
        """There is a present way if there is any."""
        ways = self.egress.ways
        assert (self.egress.current in ways) if ways else self.egress.current is None


class EgressPropertyTests(SynchronousTestCase):
    """The machine above, as a test."""

    def test_any_order(self) -> None:
        """Any order of changes, doubts and answers keeps the invariants."""
        case = EgressMachine.TestCase
        case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
        case("runTest").runTest()
