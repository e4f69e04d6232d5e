from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, NoSuchItem
from ntmobile.machines.exchange.keyring import KeyRing, OpenedKey
from ntmobile.machines.exchange.manifests import verify_manifest
from ntmobile.machines.exchange.shared_keys import KEY_ITEMS, KEY_TIME
from ntmobile.wire.messages.exchange import Manifest
from tests.stored_data import APPLICATION, NOW, Device, fetch, send, share

ALICE = Device.create("phone.alice.dc1.ntm.example")
BOB = Device.create("laptop.bob.dc2.ntm.example")
CAROL = Device.create("watch.carol.dc2.ntm.example")


class OwnKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ring = KeyRing()
        self.recipients = [BOB.as_recipient(), CAROL.as_recipient()]
        self.shared = share(ALICE, [BOB, CAROL]).shared

    def test_reused(self) -> None:
        """R31: items to the same devices share a key, each is counted, up to 256."""
        until = NOW + 60
        self.assertIsNone(self.ring.take(APPLICATION, self.recipients, until, NOW))
        self.assertEqual(self.ring.add(self.shared).items, 1)
        for count in range(2, KEY_ITEMS + 1):
            found = self.ring.take(APPLICATION, self.recipients, until, NOW)
            assert found is not None
            self.assertEqual((found.identifier, found.items), (self.shared.identifier, count))
        self.assertIsNone(self.ring.take(APPLICATION, self.recipients, until, NOW))

    def test_others(self) -> None:
        """R31: other devices, applications and days have other keys."""
        self.ring.add(self.shared)
        until = NOW + 60
        self.assertIsNone(self.ring.take(APPLICATION, self.recipients[:1], until, NOW))
        self.assertIsNone(self.ring.take("org.example.mail", self.recipients, until, NOW))
        self.assertIsNone(
            self.ring.take(APPLICATION, self.recipients, until + KEY_TIME, NOW + KEY_TIME)
        )

    def test_restart(self) -> None:
        """R31: what was stored goes on where it was."""
        self.ring.add(self.shared)
        again = KeyRing(self.ring.own.values())
        found = again.take(APPLICATION, self.recipients, NOW + 60, NOW)
        assert found is not None
        self.assertEqual(found.items, 2)

    def test_forgotten(self) -> None:
        """Keys that have ended are named, so that their owner erases them."""
        self.ring.add(self.shared)
        self.assertEqual(self.ring.forget(self.shared.expires - 1), [])
        self.assertEqual(self.ring.forget(self.shared.expires), [self.shared.identifier])
        self.assertEqual(self.ring.own, {})


class OpenedKeyTests(SynchronousTestCase):
    """R29: a key opens items of its sender and application."""

    def setUp(self) -> None:
        self.exchange = share(ALICE, [BOB, CAROL])
        sealed = self.exchange.sealed[0]
        self.opened = OpenedKey.of(sealed, BOB.open_key(self.exchange, ALICE))
        self.ring = KeyRing()
        self.item = send(ALICE, self.exchange.shared.key, [BOB.fqdn], b"hello")
        self.manifest = self.verified(ALICE)

    def verified(self, sender: Device) -> Manifest:
        item = send(sender, self.exchange.shared.key, [BOB.fqdn], b"hello")
        return verify_manifest(item.signed, pin=sender.pin, now=NOW, receiver=BOB.fqdn)

    def test_found(self) -> None:
        """R29: the key that a manifest names opens its object, after a restart too."""
        self.ring.accept(self.opened)
        for ring in (self.ring, KeyRing(opened=self.ring.opened.values())):
            key = ring.key_for(self.manifest)
            self.assertEqual(fetch(BOB, ALICE, key, self.item), b"hello")

    def test_not_yet(self) -> None:
        """An item can come before its key: then it waits."""
        with self.assertRaisesRegex(NoSuchItem, "not come yet"):
            self.ring.key_for(self.manifest)

    def test_of_another_sender(self) -> None:
        """R29: Carol, who has Alice's key, sends no items of her own with it."""
        self.ring.accept(self.opened)
        with self.assertRaises(NoSuchItem):
            self.ring.key_for(self.verified(CAROL))

    def test_of_another_application(self) -> None:
        """R29: applications do not reach each other's items, not even by naming their keys."""
        self.ring.accept(self.opened)
        for changes in ({"application": "org.example.mail"}, {"expires": self.opened.expires + 1}):
            with self.assertRaises(AuthenticationError):
                self.ring.key_for(msgspec.structs.replace(self.manifest, **changes))

    def test_misnamed(self) -> None:
        """A key is kept under its own identifier only."""
        wrong = OpenedKey(ALICE.fqdn, APPLICATION, bytes(32), bytes(32), int(NOW) + 60)
        with self.assertRaises(ValueError):
            self.ring.accept(wrong)

    def test_forgotten(self) -> None:
        """A key goes when it ends."""
        self.ring.accept(self.opened)
        self.assertEqual(self.ring.forget(self.opened.expires - 1), [])
        self.assertEqual(self.ring.forget(self.opened.expires), [self.opened.identifier])
        with self.assertRaises(NoSuchItem):
            self.ring.key_for(self.manifest)

    def test_not_shown(self) -> None:
        """R6: the key does not show."""
        self.assertNotIn(repr(self.opened.key).strip("b'"), repr(self.opened))
