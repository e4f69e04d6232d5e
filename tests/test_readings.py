from __future__ import annotations

from ntmobile.machines.direction.records import AskCoordinator
from ntmobile.wire.messages.realtime import Outcome
from tests.coordinators import DC2, LAPTOP, PHONE
from tests.test_direction import DirectionCase


class ReadingTests(DirectionCase):
    """A name that may be a device's of one domain, or a user's of another."""

    def test_in_turn(self) -> None:
        """Who asks the DC of the likelier domain says whose is asked after it, until none is."""
        request, client = self.world.request(PHONE, LAPTOP), self.world.client(PHONE)
        (first,) = self.dc1.direction.asked(client, request, "token", 0.0, self.world.at)
        assert isinstance(first, AskCoordinator)
        self.assertEqual((first.domain, first.then), (DC2, f"bob.{DC2}"))
        (second,) = self.dc1.direction.failed(first.tag, Outcome.UNREACHABLE, "silent")
        assert isinstance(second, AskCoordinator)
        self.assertEqual((second.domain, second.then), (f"bob.{DC2}", None))
