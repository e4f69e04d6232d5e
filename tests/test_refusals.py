"""R13: a correspondent's device refuses by itself what its DC admits."""

from __future__ import annotations

from ntmobile.wire.messages.coordination import RouteDirectionRefusal
from ntmobile.wire.messages.realtime import Outcome
from tests.coordinators import DC2, DESK, LAPTOP, PHONE
from tests.test_direction import DirectionCase
from tests.test_domain import DomainCase


class MachineTests(DirectionCase):
    """The directions of two DCs."""

    def test_refused(self) -> None:
        """R13: a direction that CN refuses ends, with the answer for a name that nobody has."""
        self.world.refusing = {LAPTOP}
        unknown = f"laptow.bob.{DC2}"
        answers = [self.world.responses[self.world.direct(PHONE, cn)] for cn in (LAPTOP, unknown)]
        self.assertEqual([one.outcome for one in answers], [Outcome.UNKNOWN] * 2)
        self.assertEqual(answers[0].detail, answers[1].detail.replace(unknown, LAPTOP))
        (refusal,) = self.phone.refused
        self.assertEqual(refusal.direction, self.phone.told[0].direction)
        self.assertEqual((refusal.outcome, refusal.detail), (Outcome.UNKNOWN, answers[0].detail))
        self.assertEqual(len(self.dc1.direction), 0)

    def test_refused_by_others(self) -> None:
        """R1: only CN's own DC says that CN refused."""
        self.world.direct(PHONE, LAPTOP)
        identifier = self.phone.told[0].direction
        for domain, refusal in (
            ("dc3.ntm.example", RouteDirectionRefusal(identifier, LAPTOP)),
            (DC2, RouteDirectionRefusal(identifier, DESK)),
            (DC2, RouteDirectionRefusal(bytes(8), LAPTOP)),
        ):
            self.dc1.hears(domain, refusal)
        self.assertEqual(self.phone.refused, [])
        self.assertEqual(len(self.dc1.direction), 1)


class RefusalTests(DomainCase):
    """Two DCs and their clients' sessions."""

    def test_refused(self) -> None:
        """R13: what CN itself refuses MN hears of, in the words for a name that nobody has."""
        for device in (self.laptop, self.tablet):  # at another DC, and at the same
            device.outcome = Outcome.REFUSED
            self.connect(self.phone, device)
            self.world.run(0.2)
            self.assertEqual(len(self.phone.refused), 1)
            refusal = self.phone.refused.pop()
            self.assertEqual(refusal.direction, device.told[0].direction)
            self.assertEqual(refusal.outcome, Outcome.UNKNOWN)
            detail = f"nobody is called {device.fqdn}, or not for you to reach"
            self.assertEqual(refusal.detail, detail)
