"""When directions are asked for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.wanting import Wanting
from ntmobile.wire.messages.realtime import Purpose


class HurryTests(SynchronousTestCase):
    """The DC could not be asked, and can again."""

    def test_waiting(self) -> None:
        """A request that waits for its next attempt is made at once."""
        wanting = Wanting()
        wanting.want(Purpose.NEW)
        self.assertIsNotNone(wanting.due(0.0))
        self.assertIsNone(wanting.due(0.3))
        wanting.hurry()
        self.assertIsNotNone(wanting.due(0.3))

    def test_nothing_wanted(self) -> None:
        """Where nothing is missing, nothing is asked for."""
        wanting = Wanting()
        wanting.hurry()
        self.assertIsNone(wanting.due(0.0))
