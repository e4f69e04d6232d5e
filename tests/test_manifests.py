from __future__ import annotations

import os
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, ItemExpired, MalformedMessage, NTMobileError
from ntmobile.machines.exchange.manifests import (
    Address,
    Details,
    claimed_sender,
    open_details,
    sign_manifest,
    verify_manifest,
)
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.signing import LONGEST
from ntmobile.wire.documents import read_document, write_document
from ntmobile.wire.messages.exchange import Manifest, SignedManifest
from ntmobile.wire.sealing import derive
from tests.stored_data import APPLICATION, NOW, Device, fetch, send

SENDER = Device.create("phone.alice.dc1.ntm.example")
RECEIVER = Device.create("laptop.bob.dc2.ntm.example")
OTHER = Device.create("tablet.bob.dc2.ntm.example")
SHARED = bytes(range(32))

ours = settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)


def resigned(manifest: Manifest, **changes: Any) -> SignedManifest:
    """What the sender itself signed after changing something."""
    data = msgspec.msgpack.encode(msgspec.structs.replace(manifest, **changes))
    signature = SENDER.signer.sign("ntm1 manifest", data)
    return SignedManifest(data, signature, SENDER.signer.certificate)


class ManifestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.item = send(SENDER, SHARED, [RECEIVER.fqdn], b"sun and sand" * 100)
        self.signed = self.item.signed
        self.manifest = self.verify()

    def verify(self, signed: SignedManifest | None = None, **changes: Any) -> Manifest:
        given: dict[str, Any] = {"pin": SENDER.pin, "now": NOW, "receiver": RECEIVER.fqdn}
        return verify_manifest(signed or self.signed, **{**given, **changes})

    def test_round_trip(self) -> None:
        """R29: what the sender said is read after it is verified, and the object opens."""
        self.assertEqual(self.manifest.sender, SENDER.fqdn)
        self.assertEqual(self.manifest.destinations, (RECEIVER.fqdn,))
        self.assertEqual(self.manifest.application, APPLICATION)
        self.assertEqual(
            open_details(self.manifest, SHARED), Details("beach.jpg", "image/jpeg", 1200, "look")
        )
        self.assertEqual(fetch(RECEIVER, SENDER, SHARED, self.item), b"sun and sand" * 100)

    def test_over_the_wire(self) -> None:
        """It verifies after it travelled as a document: the signature is of the bytes (R11)."""
        again = read_document(SignedManifest, write_document(self.signed))
        self.assertEqual(self.verify(again), self.manifest)

    def test_servers(self) -> None:
        """A CS verifies it without being a destination, by the identity in the certificate."""
        sender = claimed_sender(self.signed)
        self.assertEqual((sender.fqdn, sender.identity), (SENDER.fqdn, SENDER.pin))
        self.verify(pin=sender.identity, receiver=None)

    @given(st.data())
    @ours
    def test_any_change(self, data: st.DataObject) -> None:
        """R29: one bit changed anywhere in what was signed, or in the signature, is noticed."""
        name = data.draw(st.sampled_from(["manifest", "signature"]))
        value = bytearray(getattr(self.signed, name))
        value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with self.assertRaises(AuthenticationError):
            self.verify(msgspec.structs.replace(self.signed, **{name: bytes(value)}))

    def test_pin(self) -> None:
        """R29: the same name with another identity is refused, though its certificate is real."""
        impostor = Device.create(SENDER.fqdn)
        item = send(impostor, SHARED, [RECEIVER.fqdn], b"")
        self.verify(item.signed, pin=impostor.pin)
        with self.assertRaises(AuthenticationError):
            self.verify(item.signed)

    def test_name_of_another(self) -> None:
        """R29: a device does not sign in the name of another, with whichever certificate."""
        data = msgspec.msgpack.encode(self.manifest)
        signature = OTHER.signer.sign("ntm1 manifest", data)
        for certificate in (OTHER.signer.certificate, SENDER.signer.certificate):
            for pin in (OTHER.pin, SENDER.pin):
                with self.assertRaises(AuthenticationError):
                    self.verify(SignedManifest(data, signature, certificate), pin=pin)

    def test_other_labels(self) -> None:
        """R29: a signature that was given for something else is none for a manifest."""
        for label in ("ntm1 confirmation", "ntm1 sealed key", "ntm1 prekey", "ntm1 manifes"):
            signature = SENDER.signer.sign(label, self.signed.manifest)
            with self.assertRaises(AuthenticationError):
                self.verify(msgspec.structs.replace(self.signed, signature=signature))

    def test_not_for_this_device(self) -> None:
        """R29: an item is for its destinations only."""
        with self.assertRaisesRegex(AuthenticationError, "not for this device"):
            self.verify(receiver=OTHER.fqdn)

    def test_expiry(self) -> None:
        """R29: its signed expiry holds, and is at most 30 days off (R32)."""
        self.verify(now=self.manifest.expires - 1)
        with self.assertRaises(ItemExpired):
            self.verify(now=self.manifest.expires)
        with self.assertRaises(AuthenticationError):
            self.verify(now=self.manifest.expires - LONGEST - 86400)

    def test_contradictions(self) -> None:
        """R11: a manifest that its sender signed and that contradicts itself is malformed."""
        header = ObjectHeader.create(5).pack()
        for changes in (
            {"object": bytes(16)},
            {"length": self.manifest.length + 1},
            {"header": bytes(64)},
            {"header": header},
        ):
            with self.assertRaises(MalformedMessage):
                self.verify(resigned(self.manifest, **changes))

    @given(st.binary(max_size=300))
    @ours
    def test_garbage_that_is_signed(self, data: bytes) -> None:
        """R11: whatever a sender signs, nothing but the family of errors comes of it."""
        signature = SENDER.signer.sign("ntm1 manifest", data)
        with self.assertRaises(NTMobileError):
            self.verify(SignedManifest(data, signature, SENDER.signer.certificate))

    def test_bounds(self) -> None:
        """R11: the sender learns at once of names and texts that are out of bounds."""
        header = ObjectHeader.create(5)
        good, details = Address((RECEIVER.fqdn,), APPLICATION), Details("", "", 5)
        wrong: list[tuple[Address, Details]] = [
            (Address((), APPLICATION), details),
            (Address((RECEIVER.fqdn,) * 65, APPLICATION), details),
            (Address((RECEIVER.fqdn,), "an application"), details),
            (Address((RECEIVER.fqdn,), APPLICATION, message="x" * 257), details),
            (good, Details("x" * 256, "", 5)),
        ]
        for address, about in wrong:
            with self.assertRaises(MalformedMessage):
                sign_manifest(
                    SENDER.signer, SHARED, address, header, bytes(32), about, int(NOW) + 5
                )
        with self.assertRaises(ValueError):
            sign_manifest(
                SENDER.signer, SHARED, good, header, bytes(32), Details("", "", 500), int(NOW) + 5
            )


class DetailsTests(SynchronousTestCase):
    """R33: what an item is called, and what it is, only its destinations know."""

    def manifest(self, details: Details) -> Manifest:
        signed = sign_manifest(
            SENDER.signer,
            SHARED,
            Address((RECEIVER.fqdn,), APPLICATION),
            ObjectHeader.create(details.length),
            bytes(32),
            details,
            int(NOW) + 86400,
        )
        return verify_manifest(signed, pin=SENDER.pin, now=NOW)

    def test_hidden(self) -> None:
        """R33: name, type and note are nowhere in what servers have; the message is empty."""
        item = send(SENDER, SHARED, [RECEIVER.fqdn], b"secret text")
        shown = item.signed.manifest + b"".join(item.parts)
        for word in (b"beach", b"image", b"look", b"secret"):
            self.assertNotIn(word, shown)
        manifest = verify_manifest(item.signed, pin=SENDER.pin, now=NOW)
        self.assertEqual(manifest.message, "")

    def test_padded(self) -> None:
        """R33: names of different length look alike, and so do short texts."""
        sizes = {len(self.manifest(Details("x" * n, "", n)).details) for n in range(0, 200, 7)}
        self.assertEqual(len(sizes), 1)
        self.assertEqual(
            {self.manifest(Details("", "", n)).length for n in range(0, 257, 64)}, {256 + 16}
        )

    @given(
        st.builds(
            Details,
            st.text(max_size=255).filter(lambda text: text.isprintable()),
            st.text(max_size=127).filter(lambda text: text.isprintable()),
            st.integers(0, 1 << 48),
            st.text(max_size=200).filter(lambda text: text.isprintable()),
        )
    )
    @example(Details("🏖" * 255, "🏖" * 127, 1 << 48, "🏖" * 200))
    @settings(ours, max_examples=30)
    def test_any(self, details: Details) -> None:
        """Any details within bounds come back, and fit a manifest."""
        self.assertEqual(open_details(self.manifest(details), SHARED), details)

    def test_another_key(self) -> None:
        """Details open with the item's key only."""
        manifest = self.manifest(Details("a", "", 1))
        with self.assertRaisesRegex(AuthenticationError, "another key"):
            open_details(manifest, os.urandom(32))

    def test_two_texts(self) -> None:
        """Describing one object twice never uses a nonce of its details twice."""
        header = ObjectHeader.create(1)
        nonces = {
            verify_manifest(
                sign_manifest(
                    SENDER.signer,
                    SHARED,
                    Address((RECEIVER.fqdn,), APPLICATION),
                    header,
                    bytes(32),
                    Details(name, "", 1),
                    int(NOW) + 86400,
                ),
                pin=SENDER.pin,
                now=NOW,
            ).details[:12]
            for name in ("a", "b", "c")
        }
        self.assertEqual(len(nonces), 3)

    def test_lie_about_the_length(self) -> None:
        """R11: details that their sender sealed and that contradict the header are malformed."""
        manifest = self.manifest(Details("a", "", 1))
        data = msgspec.msgpack.encode(Details("a", "", 5000))
        key = derive(SHARED, ObjectHeader.parse(manifest.header).salt, "ntm1 details")
        for text in (len(data).to_bytes(2, "big") + data, b"", b"\0\1\xc1", b"\xff\xff"):
            sealed = bytes(12) + AESGCM(key).encrypt(bytes(12), text, manifest.header)
            with self.assertRaises(MalformedMessage):
                open_details(msgspec.structs.replace(manifest, details=sealed), SHARED)

    def test_moved(self) -> None:
        """Details of one item are no details of another, even of one key and one sender."""
        one, two = self.manifest(Details("a", "", 1)), self.manifest(Details("b", "", 1))
        for details in (two.details, b"", one.details[:-1], bytes(300)):
            with self.assertRaises(AuthenticationError):
                open_details(msgspec.structs.replace(one, details=details), SHARED)
