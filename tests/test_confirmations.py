from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, ItemExpired
from ntmobile.machines.exchange.confirmations import (
    Received,
    sign_confirmation,
    verify_confirmation,
)
from ntmobile.machines.exchange.manifests import verify_manifest
from ntmobile.machines.exchange.signing import SKEW
from ntmobile.wire.messages.exchange import EncryptedDataConfirmationRequest, Manifest, RequestInfo
from tests.stored_data import NOW, Device, send

SENDER = Device.create("phone.alice.dc1.ntm.example")
RECEIVER = Device.create("laptop.bob.dc2.ntm.example")
OTHER = Device.create("tablet.bob.dc2.ntm.example")
SHARED = bytes(range(32))


def manifest_of(text: bytes, sender: Device = SENDER) -> Manifest:
    item = send(sender, SHARED, [RECEIVER.fqdn, OTHER.fqdn], text)
    return verify_manifest(item.signed, pin=sender.pin, now=NOW)


class ConfirmationTests(SynchronousTestCase):
    """R32: only the receiver confirms, and only what it has; the sender can tell."""

    def setUp(self) -> None:
        self.manifest = manifest_of(b"hello")
        self.confirmation = self.confirm(RECEIVER)

    def confirm(self, device: Device) -> EncryptedDataConfirmationRequest:
        return sign_confirmation(device.signer, self.manifest, RequestInfo("0.1", device.fqdn))

    def verify(self, confirmation: EncryptedDataConfirmationRequest, **changes: Any) -> None:
        given: dict[str, Any] = {
            "object": self.manifest.object,
            "root": self.manifest.root,
            "sender": SENDER.fqdn,
            "receiver": RECEIVER.fqdn,
            "pin": RECEIVER.pin,
        }
        verify_confirmation(confirmation, **{**given, **changes})

    def test_verified(self) -> None:
        """R32: the receiver's own signature is taken."""
        self.verify(self.confirmation)

    def test_forged(self) -> None:
        """R32: a CS cannot say that something arrived: not unsigned, not signed by others."""
        other = self.confirm(OTHER)
        for forged in (
            msgspec.structs.replace(self.confirmation, signature=bytes(64)),
            other,
            msgspec.structs.replace(other, certificate=RECEIVER.signer.certificate),
            msgspec.structs.replace(self.confirmation, certificate=OTHER.signer.certificate),
        ):
            with self.assertRaises(AuthenticationError):
                self.verify(forged)

    def test_of_another_item(self) -> None:
        """R32: the confirmation of one item is none of another, nor of another content."""
        another = manifest_of(b"other")
        with self.assertRaises(AuthenticationError):
            self.verify(self.confirmation, object=another.object, root=another.root)
        moved = msgspec.structs.replace(self.confirmation, object=another.object, root=another.root)
        with self.assertRaises(AuthenticationError):
            self.verify(moved, object=another.object, root=another.root)
        with self.assertRaises(AuthenticationError):
            self.verify(self.confirmation, root=another.root)
        with self.assertRaises(AuthenticationError):
            self.verify(moved)  # the signature is right, what is said beside it is not

    def test_for_another_sender(self) -> None:
        """R32: it is for the sender of the item."""
        with self.assertRaises(AuthenticationError):
            self.verify(self.confirmation, sender=OTHER.fqdn)


class ReceivedTests(SynchronousTestCase):
    """R32: nothing is delivered twice to the application."""

    def test_once(self) -> None:
        """R32: an item is delivered once, however often it is served."""
        received, manifest = Received(), manifest_of(b"hello")
        self.assertNotIn(manifest, received)
        self.assertEqual(received.take(manifest), (SENDER.fqdn, manifest.object, manifest.expires))
        self.assertIn(manifest, received)
        self.assertIsNone(received.take(manifest))

    def test_renamed(self) -> None:
        """R32: the same object is known under any other item, service or expiry."""
        received, manifest = Received(), manifest_of(b"hello")
        received.take(manifest)
        self.assertIsNone(
            received.take(
                msgspec.structs.replace(manifest, item="again", expires=manifest.expires + 5)
            )
        )

    def test_others(self) -> None:
        """Another sender's object of the same identifier is another object."""
        received, manifest = Received(), manifest_of(b"hello")
        received.take(manifest)
        self.assertIsNotNone(received.take(msgspec.structs.replace(manifest, sender=OTHER.fqdn)))

    def test_restart(self) -> None:
        """R32: what was stored with a delivery is known after a restart."""
        manifest = manifest_of(b"hello")
        taken = Received().take(manifest)
        assert taken is not None
        sender, identifier, expires = taken
        self.assertIsNone(Received({(sender, identifier): expires}).take(manifest))

    def test_until_expiry(self) -> None:
        """R32: it is remembered until nothing of it would be taken any more."""
        received = Received()
        item = send(SENDER, SHARED, [RECEIVER.fqdn], b"hello")
        manifest = verify_manifest(item.signed, pin=SENDER.pin, now=NOW)
        received.take(manifest)
        self.assertEqual(received.forget(manifest.expires + SKEW), [])
        end = manifest.expires + SKEW + 1
        self.assertEqual(received.forget(end), [(SENDER.fqdn, manifest.object)])
        with self.assertRaises(ItemExpired):
            verify_manifest(item.signed, pin=SENDER.pin, now=end)
