"""Pinned correspondents: first contact, successors, strangers, fingerprints (rule R5)."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.pins import BY_HAND, FIRST, SUCCESSION, PinStore
from ntmobile.errors import (
    AuthenticationError,
    ConfigurationError,
    StorageFailed,
    UnknownName,
    UntrustedIdentity,
)
from ntmobile.machines.login.identities import Devices, fingerprint
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.account import ListedDevice, succession_statement
from tests.realms import MemoryRealm

BOB = "phone.bob.dc2.ntm.example"
ALICE = "phone.alice.dc1.ntm.example"
VECTOR = "58915 06145 00416 48652 47882 17148 95944 32513 72174 05195 96587 08129"


class PinTests(SynchronousTestCase):
    """R5: what a device remembers of others."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        self.path = Path(self.mktemp()) / "pins.db"
        self.pins = self.open()
        self.key, _, self.bob = self.realm.device(BOB)

    def open(self) -> PinStore:
        pins = PinStore(self.path, lambda: 1000.0)
        self.addCleanup(pins.close)
        return pins

    def devices(
        self,
        certificate: DeviceCertificate,
        version: int = 2,
        former: bytes = b"",
        succession: bytes = b"",
    ) -> Devices:
        listed = ListedDevice(
            certificate.fqdn,
            b"\1",
            certificate.identity,
            certificate.xwing_hash,
            former,
            succession,
        )
        user = BOB.partition(".")[2]
        return Devices(user, version, 0.0, {BOB: listed}, {BOB: certificate})

    def test_first_contact(self) -> None:
        """R5: at first contact an identity is pinned, durably."""
        self.pins.check(self.bob)
        pin = self.open().pinned(BOB)
        assert pin is not None
        self.assertEqual((pin.identity, pin.how, pin.since), (self.bob.identity, FIRST, 1000.0))

    def test_same_identity(self) -> None:
        """A renewed certificate of the same identity is the same correspondent."""
        self.pins.check(self.bob)
        self.pins.check(self.realm.certify(self.bob))

    def test_other_identity(self) -> None:
        """R5: any other identity is an error that names ntm trust, and the pin stays."""
        self.pins.check(self.bob)
        _, _, stranger = self.realm.device(BOB)
        problem = self.assertRaises(UntrustedIdentity, self.pins.check, stranger)
        self.assertIn(f"ntm trust {BOB}", str(problem))
        self.pins.check(self.bob)

    def test_trust(self) -> None:
        """R5: ntm trust accepts the identity that was shown last."""
        self.pins.check(self.bob)
        _, _, stranger = self.realm.device(BOB)
        self.assertRaises(UntrustedIdentity, self.pins.check, stranger)
        self.assertEqual(self.open().trust(BOB), stranger.identity)
        self.pins.check(stranger)
        pin = self.pins.pinned(BOB)
        assert pin is not None
        self.assertEqual(pin.how, BY_HAND)
        self.assertRaises(UntrustedIdentity, self.pins.check, self.bob)

    def test_nothing_to_trust(self) -> None:
        """ntm trust accepts nothing that was not shown."""
        self.assertIn("never met", str(self.assertRaises(UnknownName, self.pins.trust, BOB)))
        self.pins.check(self.bob)
        self.assertRaises(UnknownName, self.pins.trust, BOB)

    def succeeded(self, signer: Ed25519PrivateKey, former: bytes) -> DeviceCertificate:
        """A list in which Bob's device has a successor that ``signer`` signed."""
        _, _, new = self.realm.device(BOB)
        succession = signer.sign(succession_statement(BOB, former, new.identity))
        self.pins.learn(self.devices(new, 3, former, succession))
        return new

    def test_succession(self) -> None:
        """R5: a new identity that the pinned one signed is accepted silently."""
        self.pins.check(self.bob)
        new = self.succeeded(self.key, self.bob.identity)
        self.pins.check(new)
        pin = self.pins.pinned(BOB)
        assert pin is not None
        self.assertEqual(pin.how, SUCCESSION)

    def test_forged_succession(self) -> None:
        """R5: one that somebody else signed is not."""
        self.pins.check(self.bob)
        new = self.succeeded(Ed25519PrivateKey.generate(), self.bob.identity)
        self.assertRaises(UntrustedIdentity, self.pins.check, new)

    def test_succession_of_another(self) -> None:
        """R5: nor one that is signed by an identity other than the pinned."""
        self.pins.check(self.bob)
        other = Ed25519PrivateKey.generate()
        new = self.succeeded(other, other.public_key().public_bytes_raw())
        self.assertRaises(UntrustedIdentity, self.pins.check, new)

    def test_list_pins_nobody(self) -> None:
        """A list alone pins nobody: that happens at first contact."""
        self.pins.learn(self.devices(self.bob))
        self.assertIsNone(self.pins.pinned(BOB))

    def test_rollback(self) -> None:
        """R5: an older list than one seen before is refused, also after a restart."""
        self.pins.learn(self.devices(self.bob, 5))
        self.pins.learn(self.devices(self.bob, 5))
        again = self.open()
        self.assertRaises(AuthenticationError, again.learn, self.devices(self.bob, 4))

    def test_private(self) -> None:
        """R6: the file is private."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_damaged(self) -> None:
        """A damaged file is one line."""
        self.path.with_name("other.db").write_bytes(b"no database" * 100)
        problem = self.assertRaises(ConfigurationError, PinStore, self.path.with_name("other.db"))
        self.assertIn("other.db", str(problem))

    def test_locked(self) -> None:
        """What cannot be stored is not taken for pinned."""
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        self.pins._db.execute("PRAGMA busy_timeout=10")
        other.execute("BEGIN IMMEDIATE")
        self.assertRaises(StorageFailed, self.pins.check, self.bob)
        other.execute("ROLLBACK")
        self.assertIsNone(self.pins.pinned(BOB))


class FingerprintTests(SynchronousTestCase):
    """R5: the digits that two people compare."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        _, _, self.alice = self.realm.device(ALICE)
        _, _, self.bob = self.realm.device(BOB)

    def store(self, met: DeviceCertificate) -> PinStore:
        pins = PinStore(Path(self.mktemp()) / "pins.db")
        self.addCleanup(pins.close)
        pins.check(met)
        return pins

    def test_same_on_both_sides(self) -> None:
        """R5: both sides show the same twelve groups of five digits."""
        at_alice = self.store(self.bob).fingerprint(self.alice, BOB)
        at_bob = self.store(self.alice).fingerprint(self.bob, ALICE)
        self.assertEqual(at_alice, at_bob)
        self.assertRegex(at_alice, r"^\d{5}( \d{5}){11}$")

    def test_stranger_between(self) -> None:
        """R5: where somebody stands between, the two sides differ."""
        _, _, stranger = self.realm.device(BOB)
        at_alice = self.store(stranger).fingerprint(self.alice, BOB)
        at_bob = self.store(self.alice).fingerprint(self.bob, ALICE)
        self.assertNotEqual(at_alice, at_bob)

    def test_vector(self) -> None:
        """The digits of given identities never change, so that versions can meet."""
        found = fingerprint((ALICE, bytes(32)), (BOB, bytes(range(32))))
        self.assertEqual(found, fingerprint((BOB, bytes(range(32))), (ALICE, bytes(32))))
        self.assertEqual(found, VECTOR)

    def test_never_met(self) -> None:
        """Without a pin there is nothing to compare, and the text says what to do."""
        pins = self.store(self.bob)
        problem = self.assertRaises(UnknownName, pins.fingerprint, self.bob, ALICE)
        self.assertIn("ntm ping", str(problem))
