"""When a tunnel asks for a direction (R15, R26)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.events import DirectionWanted
from ntmobile.machines.tunnel.wanting import Wanting
from ntmobile.wire.messages.realtime import Purpose


class WantingTests(SynchronousTestCase):
    """At once, then with back-off."""

    def setUp(self) -> None:
        self.wanting = Wanting()

    def times(self, until: float) -> list[float]:
        """When it asks, if nothing comes."""
        result = []
        while (due := self.wanting.next_timer()) is not None and due <= until:
            now = max(due, 0.0)
            if self.wanting.due(now) is not None:
                result.append(now)
        return result

    def test_back_off(self) -> None:
        """Unanswered, it asks again after 1, 2, 4 s and so on, at least every 30 s."""
        self.wanting.want(Purpose.REPAIR)
        self.assertEqual([0, 1, 3, 7, 15, 31, 61, 91], self.times(100.0))

    def test_nothing_wanted(self) -> None:
        """What is not wanted is not due; a direction satisfies."""
        self.assertIsNone(self.wanting.next_timer())
        self.wanting.want(Purpose.NEW)
        self.wanting.satisfied()
        self.assertIsNone(self.wanting.next_timer())
        self.assertIsNone(self.wanting.due(0.0))

    def test_keys_before_paths(self) -> None:
        """Missing keys are more than missing paths."""
        self.wanting.want(Purpose.NEW)
        self.wanting.want(Purpose.REPAIR)
        self.assertEqual(DirectionWanted(Purpose.NEW), self.wanting.due(0.0))

    def test_urgent(self) -> None:
        """Section 5: after a move it asks at once, whatever it asked for a moment ago."""
        self.wanting.want(Purpose.REPAIR)
        self.wanting.due(0.0)
        self.assertIsNone(self.wanting.due(0.1))
        self.wanting.urgent(Purpose.REPAIR)
        self.assertIsNotNone(self.wanting.due(0.1))

    def test_avoid(self) -> None:
        """R26: failed relays are named, the last four, until they answer again."""
        for number in range(6):
            self.wanting.avoid(f"rs{number}")
        self.wanting.works("rs4")
        self.wanting.want(Purpose.REPAIR)
        wanted = self.wanting.due(0.0)
        assert wanted is not None
        self.assertEqual(("rs2", "rs3", "rs5"), wanted.avoid)
