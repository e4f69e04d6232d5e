from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, ItemExpired, KeyErased
from ntmobile.machines.exchange import xwing
from ntmobile.machines.exchange.shared_keys import (
    KEY_ITEMS,
    KEY_TIME,
    SharedKey,
    exchange_key,
    key_identifier,
    open_key,
    seal_key,
    temporal_identifier,
    verify_key,
)
from ntmobile.machines.exchange.signing import LONGEST, SKEW
from ntmobile.wire.documents import read_document, write_document
from ntmobile.wire.messages.exchange import SealedKey
from tests.stored_data import APPLICATION, NOW, Device, share

SENDER = Device.create("phone.alice.dc1.ntm.example")
RECEIVER = Device.create("laptop.bob.dc2.ntm.example")
OTHER = Device.create("tablet.bob.dc2.ntm.example")


class ExchangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = share(SENDER, [RECEIVER, OTHER])
        self.sealed, self.temporal = self.exchange.sealed[0], self.exchange.temporal[0].key

    def open(self, sealed: SealedKey, **changes: Any) -> bytes:
        given: dict[str, Any] = {
            "pin": SENDER.pin,
            "receiver": RECEIVER.fqdn,
            "temporal": self.temporal,
            "private": RECEIVER.ring.private(self.sealed.prekey),
            "now": NOW,
        }
        return open_key(sealed, **{**given, **changes})

    def signed(self, **changes: Any) -> SealedKey:
        """A sealed key that its sender signed after changing something."""
        changed = msgspec.structs.replace(self.sealed, **changes)
        body = msgspec.msgpack.encode(
            (
                changed.sender,
                changed.destination,
                changed.application,
                changed.identifier,
                changed.temporal,
                changed.prekey,
                changed.expires,
                changed.sealed,
            )
        )
        signature = SENDER.signer.sign("ntm1 sealed key", body)
        return msgspec.structs.replace(changed, signature=signature)

    def test_every_destination(self) -> None:
        """R29: each destination opens the same key, with its own temporal key."""
        for device in (RECEIVER, OTHER):
            self.assertEqual(device.open_key(self.exchange, SENDER), self.exchange.shared.key)
        self.assertEqual(len({each.key for each in self.exchange.temporal}), 2)

    def test_over_the_wire(self) -> None:
        """A sealed key is a document, and opens after it travelled."""
        again = read_document(SealedKey, write_document(self.sealed))
        self.assertEqual(self.open(again), self.exchange.shared.key)

    def test_identifiers(self) -> None:
        """R31: identifiers are hashes over label and key."""
        key = self.exchange.shared.key
        self.assertEqual(self.sealed.identifier, sha256(b"ntm1 shared key" + key).digest())
        self.assertEqual(
            self.sealed.temporal, sha256(b"ntm1 temporal key" + self.temporal).digest()
        )
        self.assertNotEqual(key_identifier(key), temporal_identifier(key))

    def test_needs_both(self) -> None:
        """R29: neither the temporal key nor the device's key opens it without the other."""
        with self.assertRaisesRegex(AuthenticationError, "another temporal key"):
            self.open(self.sealed, temporal=self.exchange.temporal[1].key)
        with self.assertRaisesRegex(AuthenticationError, "does not open"):
            self.open(self.sealed, private=OTHER.ring.private(self.exchange.sealed[1].prekey))

    def test_every_field_is_signed(self) -> None:
        """R29: whatever a server changes is noticed before anything is opened."""
        changes: dict[str, Any] = {
            "sender": OTHER.fqdn,
            "destination": OTHER.fqdn,
            "application": "org.example.mail",
            "identifier": bytes(32),
            "temporal": bytes(32),
            "prekey": 0,
            "sealed": self.exchange.sealed[1].sealed,
            "expires": self.sealed.expires + 1,
            "signature": self.exchange.sealed[1].signature,
        }
        self.assertEqual({*changes, "certificate"}, set(SealedKey.__struct_fields__))
        for name, value in changes.items():
            changed = msgspec.structs.replace(self.sealed, **{name: value})
            with self.assertRaisesRegex(AuthenticationError, "not signed by the identity"):
                # No key is at hand: it does not come to opening.
                self.open(changed, private=None, temporal=b"")

    def test_every_field_is_bound(self) -> None:
        """R29: HPKE and the temporal key's seal bind the same context, so that not even its sender
        can give one sealed key out as another."""
        for changes in (
            {"application": "org.example.mail"},
            {"prekey": 0},
            {"expires": self.sealed.expires - 1},
        ):
            with self.assertRaisesRegex(AuthenticationError, "does not open"):
                self.open(self.signed(**changes))

    def test_another_key_inside(self) -> None:
        """R31: what opens must have the identifier that was signed."""

        class Misnamed(SharedKey):
            """A key that says that it is the exchange's."""

            identifier = self.exchange.shared.identifier

        other = Misnamed(bytes(32), APPLICATION, (), NOW, self.sealed.expires)
        sealed = seal_key(SENDER.signer, other, RECEIVER.as_recipient(), self.temporal)
        with self.assertRaisesRegex(AuthenticationError, "not the one that it says"):
            self.open(sealed)

    def test_certificate_of_another(self) -> None:
        """R29: the certificate beside it must be one of the sender's pinned identity."""
        changed = msgspec.structs.replace(self.sealed, certificate=OTHER.signer.certificate)
        with self.assertRaisesRegex(AuthenticationError, "another certificate"):
            self.open(changed)

    def test_pin(self) -> None:
        """R29: who says to be the sender but has another identity is refused, whatever it signs."""
        impostor = Device.create(SENDER.fqdn)
        exchange = share(impostor, [RECEIVER])
        verify_key(exchange.sealed[0], pin=impostor.pin, now=NOW)
        with self.assertRaises(AuthenticationError):
            self.open(exchange.sealed[0], temporal=exchange.temporal[0].key)

    def test_for_another(self) -> None:
        """A sealed key that was delivered to the wrong device is refused by name."""
        with self.assertRaisesRegex(AuthenticationError, "is for tablet.bob"):
            self.open(self.exchange.sealed[1], temporal=self.exchange.temporal[1].key)

    def test_expiry(self) -> None:
        """R29: the signed expiry holds; one that is too far off is none (R32)."""
        self.open(self.sealed, now=self.sealed.expires - 1)
        with self.assertRaises(ItemExpired):
            self.open(self.sealed, now=self.sealed.expires)
        far = self.signed(expires=int(NOW + LONGEST + SKEW + 1))
        with self.assertRaisesRegex(AuthenticationError, "more than 30 days"):
            self.open(far)

    @given(st.binary(min_size=64, max_size=2048))
    @settings(max_examples=50, suppress_health_check=list(HealthCheck), deadline=None)
    def test_garbage_that_is_signed(self, sealed: bytes) -> None:
        """R11: whatever a sender signs, opening fails with the one error."""
        with self.assertRaises(AuthenticationError):
            self.open(self.signed(sealed=sealed))

    def test_sealed_again(self) -> None:
        """Sealing the same key again never uses a nonce twice."""
        shared, recipient = self.exchange.shared, RECEIVER.as_recipient()
        both = [seal_key(SENDER.signer, shared, recipient, self.temporal) for _ in range(2)]
        self.assertNotEqual(both[0].sealed[:12], both[1].sealed[:12])
        self.assertEqual({self.open(each) for each in both}, {shared.key})

    def test_identity_prekey(self) -> None:
        """R31: pre-key 0 is the identity's key, for a device that has published no other."""
        device = Device.create("old.bob.dc2.ntm.example")
        device.published = msgspec.structs.replace(
            device.published, key=device.ring.identity_prekey(device.signer, int(NOW) + 100)
        )
        exchange = share(SENDER, [device])
        self.assertEqual(exchange.sealed[0].prekey, 0)
        self.assertEqual(device.open_key(exchange, SENDER), exchange.shared.key)

    def test_erased(self) -> None:
        """R31: when the private half is erased, nothing that the device has opens the key."""
        device = Device.create("new.bob.dc2.ntm.example")
        exchange = share(SENDER, [device])
        device.ring.erase(NOW + 100 * 86400, NOW + 100 * 86400)
        with self.assertRaises(KeyErased):
            device.open_key(exchange, SENDER)
        with self.assertRaises(AuthenticationError):
            open_key(
                exchange.sealed[0],
                pin=SENDER.pin,
                receiver=device.fqdn,
                temporal=exchange.temporal[0].key,
                private=device.ring.private(0),
                now=NOW,
            )

    def test_nobody_twice(self) -> None:
        """A key is shared with somebody, and with each device once."""
        for wrong in ([], [RECEIVER, RECEIVER]):
            with self.assertRaises(ValueError):
                share(SENDER, wrong)

    def test_not_shown(self) -> None:
        """R6: no key shows in what a log might have."""
        shown = repr(self.exchange)
        for key in (self.exchange.shared.key, self.temporal):
            self.assertNotIn(repr(key).strip("b'"), shown)


class RotationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recipients = [RECEIVER.as_recipient(), OTHER.as_recipient()]
        self.key = exchange_key(SENDER.signer, APPLICATION, self.recipients, NOW).shared

    def serves(self, key: SharedKey | None = None, **changes: Any) -> bool:
        given: dict[str, Any] = {
            "application": APPLICATION,
            "recipients": self.recipients,
            "until": NOW + 86400,
            "now": NOW + 1,
        }
        return (key or self.key).serves(**{**given, **changes})

    def test_same(self) -> None:
        """R31: a key serves for more items to the same devices, in any order."""
        self.assertTrue(self.serves())
        self.assertTrue(self.serves(recipients=self.recipients[::-1]))

    def test_time(self) -> None:
        """R31: it is over after a day; a clock that went back is no reason to go on."""
        self.assertTrue(self.serves(now=NOW + KEY_TIME - 1))
        self.assertFalse(self.serves(now=NOW + KEY_TIME))
        self.assertFalse(self.serves(now=NOW - 1))

    def test_items(self) -> None:
        """R31: it is over after 256 items."""
        key = self.key
        for _ in range(KEY_ITEMS):
            self.assertTrue(self.serves(key))
            key = key.used()
        self.assertFalse(self.serves(key))
        self.assertEqual(key.identifier, self.key.identifier)

    def test_devices(self) -> None:
        """R31: a device more or less means a new key: a new one reads nothing older, and one that
        was removed nothing newer."""
        new = Device.create("watch.bob.dc2.ntm.example").as_recipient()
        self.assertFalse(self.serves(recipients=[*self.recipients, new]))
        self.assertFalse(self.serves(recipients=self.recipients[:1]))

    def test_prekeys(self) -> None:
        """R31: another pre-key means a new key; so does the same number with another key."""
        later = NOW + 8 * 86400
        device = Device.create(RECEIVER.fqdn)
        number = RECEIVER.published.key.number
        self.assertEqual(device.published.key.number, number)
        self.assertFalse(self.serves(recipients=[device.as_recipient(), self.recipients[1]]))
        device = Device.create(RECEIVER.fqdn, later)
        self.assertNotEqual(device.published.key.number, number)
        self.assertFalse(self.serves(recipients=[device.as_recipient(), self.recipients[1]]))

    def test_application(self) -> None:
        """Applications share no keys."""
        self.assertFalse(self.serves(application="org.example.mail"))

    def test_until(self) -> None:
        """No item outlives its key, which lasts for 30 days at most."""
        self.assertTrue(self.serves(until=self.key.expires))
        self.assertFalse(self.serves(until=self.key.expires + 1))
        longer = exchange_key(
            SENDER.signer, APPLICATION, self.recipients, NOW, lifetime=LONGEST * 2
        )
        self.assertEqual(longer.shared.expires, int(NOW + LONGEST))

    def test_sizes(self) -> None:
        """What is sealed is of one size, and an HPKE ciphertext of an X-Wing key."""
        sealed = exchange_key(SENDER.signer, APPLICATION, self.recipients, NOW).sealed
        self.assertEqual({len(each.sealed) for each in sealed}, {12 + 1120 + 32 + 16 + 16})
        self.assertEqual(len(self.recipients[0].prekey.public), xwing.PUBLIC_SIZE)
