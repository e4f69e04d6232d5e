"""``ntm trust`` and ``ntm verify`` as they are typed (rule R5)."""

from __future__ import annotations

import re

from click.testing import CliRunner

from ntmobile.client.pins import PinStore
from ntmobile.client.state import PINS
from ntmobile.commands.main import main
from ntmobile.errors import UntrustedIdentity
from tests.test_identity import PHONE, StateTestCase

BOB = "laptop.bob.dc2.ntm.example"


class TrustCommandTests(StateTestCase):
    """Alice's phone, which has met Bob's laptop."""

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.save()
        self.pins = PinStore(self.directory / PINS)
        self.addCleanup(self.pins.close)
        _, _, self.bob = self.realm.device(BOB)
        self.pins.check(self.bob)

    def ntm(self, *words: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, [*words, "--state", str(self.directory)])
        self.assertEqual(result.exit_code, status, result.output)
        return result.output

    def digits(self, shown: str) -> str:
        return " ".join(re.findall(r"\b\d{5}\b", shown))

    def test_verify(self) -> None:
        """R5: it shows the digits, and what the other side must type."""
        shown = self.ntm("verify", BOB)
        self.assertEqual(self.digits(shown), self.pins.fingerprint(self.alice.certificate, BOB))
        self.assertIn("first contact", shown)
        self.assertIn(f"ntm verify {PHONE}", shown)

    def test_trust(self) -> None:
        """R5: it accepts what was shown last, while the agent has the pins open."""
        _, _, new = self.realm.device(BOB)
        self.assertRaises(UntrustedIdentity, self.pins.check, new)
        self.assertIn("It has shown another identity since", self.ntm("verify", BOB))
        shown = self.ntm("trust", BOB)
        self.pins.check(new)
        self.assertEqual(self.digits(shown), self.pins.fingerprint(self.alice.certificate, BOB))

    def test_nothing_to_trust(self) -> None:
        """It accepts nothing that was never shown; one line says so."""
        self.assertIn("no other identity", self.ntm("trust", BOB, status=1))
        self.assertIn("was never met", self.ntm("trust", "x.eve.dc2.ntm.example", status=1))
        self.assertIn("connect once", self.ntm("verify", "x.eve.dc2.ntm.example", status=1))
        self.assertIn("is no device", self.ntm("verify", "bob.example", status=1))
