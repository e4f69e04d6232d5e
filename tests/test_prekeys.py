from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, ItemExpired, KeyErased, MalformedMessage
from ntmobile.machines.exchange.prekeys import (
    PREKEY_TIME,
    WEEK,
    PreKeyRing,
    sign_prekey,
    verify_prekey,
)
from ntmobile.machines.exchange.signing import LONGEST, SKEW, Signer
from ntmobile.wire.messages.exchange import DevicePreKey, PreKey
from tests.stored_data import NOW, Device

ALICE = Device.create("phone.alice.dc1.ntm.example")
BOB = Device.create("laptop.bob.dc2.ntm.example")


class VerificationTests(SynchronousTestCase):
    """R31: a pre-key is of the device that is meant, or nothing is sealed to it."""

    def verify(self, found: DevicePreKey, now: float = NOW) -> None:
        recipient = verify_prekey(found, fqdn=BOB.fqdn, pin=BOB.pin, now=now)
        self.assertEqual(recipient.prekey, found.key)

    def test_own(self) -> None:
        """What a device has published is taken."""
        self.verify(BOB.published)

    def test_every_field_is_signed(self) -> None:
        """R31: a DC that changes anything, above all the key, is found out."""
        changes: dict[str, Any] = {
            "number": 0,
            "public": ALICE.published.key.public,
            "expires": BOB.published.key.expires + 1,
            "signature": bytes(64),
        }
        self.assertEqual({*changes, "fqdn"}, set(PreKey.__struct_fields__))
        for name, value in changes.items():
            key = msgspec.structs.replace(BOB.published.key, **{name: value})
            with self.assertRaises(AuthenticationError):
                self.verify(DevicePreKey(key, BOB.signer.certificate))

    def test_of_another(self) -> None:
        """R31: the pre-key of another device, or one signed by it for this name, is refused."""
        with self.assertRaises(AuthenticationError):
            self.verify(ALICE.published)
        forged = sign_prekey(ALICE.signer, 7, ALICE.published.key.public, int(NOW) + 100)
        forged = msgspec.structs.replace(forged, fqdn=BOB.fqdn)
        for certificate in (ALICE.signer.certificate, BOB.signer.certificate):
            with self.assertRaises(AuthenticationError):
                self.verify(DevicePreKey(forged, certificate))

    def test_certificate_of_another(self) -> None:
        """The certificate beside it must be the device's."""
        with self.assertRaises(AuthenticationError):
            self.verify(DevicePreKey(BOB.published.key, ALICE.signer.certificate))

    def test_former_name(self) -> None:
        """R31: a pre-key that the same identity signed under another name is another device's."""
        former = Signer("old.bob.dc2.ntm.example", BOB.signer.certificate, BOB.signer.identity)
        key = sign_prekey(former, 3, BOB.published.key.public, int(NOW) + 100)
        with self.assertRaisesRegex(AuthenticationError, r"is that of old\.bob"):
            self.verify(DevicePreKey(key, BOB.signer.certificate))

    def test_expired(self) -> None:
        """R31: a pre-key is written to for two weeks."""
        self.verify(BOB.published, NOW + PREKEY_TIME - 1)
        with self.assertRaises(ItemExpired):
            self.verify(BOB.published, NOW + PREKEY_TIME)

    def test_identity_key(self) -> None:
        """R31, R4: pre-key 0 must be the key whose hash the certificate has."""
        good = BOB.ring.identity_prekey(BOB.signer, int(NOW) + 100)
        self.verify(DevicePreKey(good, BOB.signer.certificate))
        other = sign_prekey(BOB.signer, 0, ALICE.published.key.public, int(NOW) + 100)
        with self.assertRaisesRegex(AuthenticationError, "not the key in its certificate"):
            self.verify(DevicePreKey(other, BOB.signer.certificate))

    def test_no_key(self) -> None:
        """R11: bytes that are no X-Wing key are malformed, though signed."""
        bad = sign_prekey(BOB.signer, 3, b"\xff" * 1216, int(NOW) + 100)
        with self.assertRaises(MalformedMessage):
            self.verify(DevicePreKey(bad, BOB.signer.certificate))


class RingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ring = PreKeyRing(bytes(32))

    def rotate(self, now: float) -> int:
        return self.ring.rotate(BOB.signer, now).number

    def test_weekly(self) -> None:
        """R31: a new pre-key is due when there is none and when the newest is a week old."""
        self.assertTrue(self.ring.due(NOW))
        first = self.rotate(NOW)
        self.assertFalse(self.ring.due(NOW + WEEK - 1))
        self.assertTrue(self.ring.due(NOW + WEEK))
        self.assertGreater(self.rotate(NOW + WEEK), first)
        self.assertFalse(self.ring.due(NOW + WEEK))

    def test_clock_that_was_ahead(self) -> None:
        """A pre-key from the future, made by a wrong clock, is no reason to wait for it."""
        self.rotate(NOW + 100 * WEEK)
        self.assertTrue(self.ring.due(NOW))

    def test_numbers(self) -> None:
        """A number is never used twice: not at once, nor after all others were erased."""
        first, second = self.rotate(NOW), self.rotate(NOW)
        self.assertGreater(second, first)
        later = NOW + 20 * WEEK
        self.ring.erase(later, later)
        self.assertEqual(self.ring.secrets, {})
        self.assertGreater(self.rotate(later), second)

    def test_restart(self) -> None:
        """The secrets are all there is to store."""
        number = self.rotate(NOW)
        again = PreKeyRing(bytes(32), self.ring.secrets.values())
        self.assertFalse(again.due(NOW))
        again.private(number)
        again.private(0)
        with self.assertRaises(KeyErased):
            again.private(number + 1)

    def test_kept_while_it_may_be_written_to(self) -> None:
        """R31: a pre-key outlives its successor for as long as anybody may still write to it."""
        number = self.rotate(NOW)
        later = NOW + PREKEY_TIME + SKEW
        self.rotate(NOW + WEEK)
        self.assertEqual(self.ring.erase(later, later), ())
        self.ring.private(number)

    def test_erased_with_the_last_item(self) -> None:
        """R31: when all that waits has been listed and opened, the private half goes."""
        number = self.rotate(NOW)
        later = NOW + PREKEY_TIME + SKEW + 1
        self.ring.hold(number, b"one")
        self.ring.hold(number, b"two")
        self.assertEqual(self.ring.erase(later, later), ())
        self.ring.release(b"one")
        self.assertEqual(self.ring.erase(later, later), ())
        self.ring.release(b"two")
        self.assertEqual(self.ring.erase(NOW, later), ())  # nothing was listed since
        self.assertEqual(self.ring.erase(later, later), (number,))
        with self.assertRaises(KeyErased):
            self.ring.private(number)

    def test_erased_in_any_case(self) -> None:
        """R31: 30 days later nothing can need it, whatever is said."""
        number = self.rotate(NOW)
        self.ring.hold(number, b"one")
        end = NOW + PREKEY_TIME + SKEW + LONGEST
        self.assertEqual(self.ring.erase(0, end), ())
        self.assertEqual(self.ring.erase(0, end + 1), (number,))

    def test_not_shown(self) -> None:
        """R6: no secret shows."""
        number = self.rotate(NOW)
        secret = self.ring.secrets[number]
        self.assertNotIn(repr(secret.seed).strip("b'"), repr(self.ring.secrets))
