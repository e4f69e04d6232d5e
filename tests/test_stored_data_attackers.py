"""DC and CS together, with all that they store, receive and send, and every key that they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

import msgspec
from attrs import define
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.machines.exchange.chunks import ChunkOpener, ChunkSealer
from ntmobile.machines.exchange.confirmations import (
    Received,
    sign_confirmation,
    verify_confirmation,
)
from ntmobile.machines.exchange.manifests import (
    Address,
    Details,
    open_details,
    sign_manifest,
    verify_manifest,
)
from ntmobile.machines.exchange.objects import CHUNK, ObjectHeader
from ntmobile.machines.exchange.prekeys import verify_prekey
from ntmobile.machines.exchange.shared_keys import (
    KeyExchange,
    exchange_key,
    key_identifier,
    open_key,
)
from ntmobile.wire.documents import write_document
from ntmobile.wire.messages.exchange import (
    DevicePreKey,
    EncryptedDataConfirmationRequest,
    Manifest,
    RequestInfo,
    SealedKey,
    SignedManifest,
)
from ntmobile.wire.sealing import derive
from tests.stored_data import APPLICATION, NOW, Device, Item, fetch, send

ALICE = Device.create("phone.alice.dc1.ntm.example")
BOB = Device.create("laptop.bob.dc2.ntm.example")
CAROL = Device.create("watch.carol.dc2.ntm.example")
#: A device that the attackers enrolled, certificate and all.
MALLORY = Device.create("spy.mallory.dc1.ntm.example")

TEXT = b"Meet me at the old mill at nine. Come alone, and bring the letter. " * 2000

ours = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


@define(eq=False)
class Platform:
    """What DC and CS of both domains hold, of one key exchange, two items and a confirmation.

    The shared key itself is not in it; the temporal keys are, and what they open.
    """

    exchange: KeyExchange
    items: list[Item]
    confirmation: EncryptedDataConfirmationRequest

    @classmethod
    def create(cls) -> Platform:
        recipients = [BOB.as_recipient(), CAROL.as_recipient()]
        exchange = exchange_key(ALICE.signer, APPLICATION, recipients, NOW)
        names = [BOB.fqdn, CAROL.fqdn]
        items = [
            send(ALICE, exchange.shared.key, names, TEXT),
            send(ALICE, exchange.shared.key, names, TEXT[::-1]),
        ]
        manifest = verify_manifest(items[0].signed, pin=ALICE.pin, now=NOW)
        confirmation = sign_confirmation(BOB.signer, manifest, RequestInfo("0.1", BOB.fqdn))
        return cls(exchange, items, confirmation)

    def knowledge(self) -> Iterator[bytes]:
        """Every byte string that they have, and that they can make of it."""
        for device in (ALICE, BOB, CAROL, MALLORY):
            yield device.signer.certificate
            yield device.published.key.public
        yield MALLORY.signer.identity.private_bytes_raw()
        yield from (os.urandom(16), os.urandom(32))  # a token, and the key of client and CS
        for sealed, temporal in zip(self.exchange.sealed, self.exchange.temporal, strict=True):
            yield write_document(sealed)
            yield sealed.sealed
            yield temporal.key
            yield self.inner(sealed, temporal.key)
        for item in self.items:
            yield item.signed.manifest
            yield from item.parts
        yield write_document(self.confirmation)

    @staticmethod
    def inner(sealed: SealedKey, temporal: bytes) -> bytes:
        """The HPKE ciphertext, without the seal of the temporal key, which they do know."""
        context = msgspec.msgpack.encode(
            (
                "ntm1 key",
                sealed.sender,
                sealed.destination,
                sealed.application,
                sealed.identifier,
                sealed.temporal,
                sealed.prekey,
                sealed.expires,
            )
        )
        key = derive(temporal, sealed.identifier, "ntm1 sealed key")
        return AESGCM(key).decrypt(sealed.sealed[:12], sealed.sealed[12:], context)


class AttackerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform.create()
        self.item = self.platform.items[0]
        self.key = self.platform.exchange.shared.key
        self.manifest = verify_manifest(self.item.signed, pin=ALICE.pin, now=NOW)

    def receive(self, item: Item) -> bytes:
        """What Bob's device does with whatever servers hand it."""
        key = BOB.open_key(self.platform.exchange, ALICE)
        return fetch(BOB, ALICE, key, item)

    def test_the_receiver_opens(self) -> None:
        """R29, R30: what the attackers hold is what the receivers open."""
        self.assertEqual(self.receive(self.item), TEXT)
        key = CAROL.open_key(self.platform.exchange, ALICE)
        self.assertEqual(fetch(CAROL, ALICE, key, self.item), TEXT)

    def test_no_key_among_it(self) -> None:
        """R29: no 32 bytes of all that they hold are the shared key."""
        wanted = self.manifest.key
        tried = 0
        for data in self.platform.knowledge():
            # In parts of objects only the ends: hash functions leave nothing there.
            some = data if len(data) < 8192 else data[:2048] + data[-2048:]
            for begin in range(len(some) - 31):
                tried += 1
                self.assertNotEqual(key_identifier(some[begin : begin + 32]), wanted)
        self.assertGreater(tried, 20_000)

    def test_no_text_among_it(self) -> None:
        """R29, R33: nothing that was sent, nor its name, is anywhere in it."""
        everything = b"\0".join(self.platform.knowledge())
        for word in (b"old mill", b"letter", b"beach.jpg", b"image/jpeg", self.key, TEXT[-1:-9:-1]):
            self.assertNotIn(word, everything)

    def test_their_own_keys(self) -> None:
        """R29: the temporal key alone opens nothing, nor does any device key of theirs."""
        for number in (MALLORY.published.key.number, 0):
            for sealed, temporal in zip(
                self.platform.exchange.sealed, self.platform.exchange.temporal, strict=True
            ):
                with self.assertRaises(AuthenticationError):
                    open_key(
                        sealed,
                        pin=ALICE.pin,
                        receiver=sealed.destination,
                        temporal=temporal.key,
                        private=MALLORY.ring.private(number),
                        now=NOW,
                    )

    def test_keys_derived_of_public_things(self) -> None:
        """R30: neither header, identifiers nor temporal keys open details or chunks."""
        header = ObjectHeader.parse(self.manifest.header)
        guesses = [
            self.manifest.key,
            self.manifest.root,
            header.salt,
            bytes(32),
            *(each.key for each in self.platform.exchange.temporal),
            sha256(self.manifest.header).digest(),
        ]
        for guess in guesses:
            with self.assertRaises(AuthenticationError):
                open_details(self.manifest, guess)
            with self.assertRaises(AuthenticationError):
                opener = ChunkOpener(guess, header, len(TEXT), self.manifest.root)
                opener.open_part(self.item.parts[0])

    def test_prekey_of_theirs(self) -> None:
        """R31: a DC that hands out its own key as Bob's gets nothing sealed to it."""
        swapped = msgspec.structs.replace(BOB.published.key, public=MALLORY.published.key.public)
        own = msgspec.structs.replace(MALLORY.published.key, fqdn=BOB.fqdn)
        for key in (swapped, own, MALLORY.published.key):
            for certificate in (BOB.signer.certificate, MALLORY.signer.certificate):
                with self.assertRaises(AuthenticationError):
                    verify_prekey(
                        DevicePreKey(key, certificate), fqdn=BOB.fqdn, pin=BOB.pin, now=NOW
                    )

    def test_key_of_theirs(self) -> None:
        """R29: a shared key that they made, in Alice's name, Bob does not open."""
        forged = exchange_key(MALLORY.signer, APPLICATION, [BOB.as_recipient()], NOW)
        real, theirs = self.platform.exchange.sealed[0], forged.sealed[0]
        named = msgspec.structs.replace(theirs, sender=ALICE.fqdn)
        attempts = (
            theirs,
            named,
            msgspec.structs.replace(named, certificate=ALICE.signer.certificate),
            msgspec.structs.replace(
                named, certificate=ALICE.signer.certificate, signature=real.signature
            ),
            msgspec.structs.replace(real, sealed=theirs.sealed, temporal=theirs.temporal),
        )
        for attempt in attempts:
            with self.assertRaises(AuthenticationError):
                open_key(
                    attempt,
                    pin=ALICE.pin,
                    receiver=BOB.fqdn,
                    temporal=forged.temporal[0].key,
                    private=BOB.ring.private(attempt.prekey),
                    now=NOW,
                )

    def forged(self, signer: Device, sender: str, key: bytes) -> SignedManifest:
        """An item that a device made and gives out as another's."""
        item = send(signer, key, [BOB.fqdn], b"come at ten instead")
        manifest = msgspec.msgpack.decode(item.signed.manifest, type=Manifest)
        data = msgspec.msgpack.encode(msgspec.structs.replace(manifest, sender=sender))
        return SignedManifest(
            data, signer.signer.sign("ntm1 manifest", data), ALICE.signer.certificate
        )

    def test_item_of_theirs(self) -> None:
        """R29: an item that they made in Alice's name is not shown to anybody."""
        forged = self.forged(MALLORY, ALICE.fqdn, os.urandom(32))
        for certificate in (ALICE.signer.certificate, MALLORY.signer.certificate):
            for signature in (forged.signature, self.item.signed.signature, bytes(64)):
                attempt = SignedManifest(forged.manifest, signature, certificate)
                with self.assertRaises(AuthenticationError):
                    self.receive(Item(attempt, self.item.parts))

    def test_another_destination(self) -> None:
        """R29: Carol, who has the key too, writes nothing that Bob takes for Alice's."""
        key = CAROL.open_key(self.platform.exchange, ALICE)
        forged = self.forged(CAROL, ALICE.fqdn, key)
        with self.assertRaises(AuthenticationError):
            self.receive(Item(forged, self.item.parts))

    def test_other_content_under_her_manifest(self) -> None:
        """R30: not even who has the key puts other content under what Alice signed."""
        key = CAROL.open_key(self.platform.exchange, ALICE)
        header = ObjectHeader.parse(self.manifest.header)
        # Carol seals another text with the same header, so each chunk is authentic.
        sealer = ChunkSealer(key, header, len(TEXT))
        parts = []
        for number in range(header.parts):
            begin, size = sealer.extent(number)
            parts.append(sealer.seal_part(number, TEXT[::-1][begin : begin + size]))
        with self.assertRaisesRegex(AuthenticationError, "not the one that its sender signed"):
            self.receive(Item(self.item.signed, parts))

    @given(st.data())
    @ours
    def test_any_splice(self, data: st.DataObject) -> None:
        """R30: whatever they make of the bytes of both items, Bob reads the one or none."""
        one, two = (b"".join(item.parts) for item in self.platform.items)
        spliced = bytearray(one)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(one) - 1))
            size = data.draw(st.sampled_from([1, 16, 4096, CHUNK + 16]))
            source = data.draw(st.sampled_from([one, two]))
            begin = data.draw(st.integers(0, len(source) - 1))
            piece = source[begin : begin + size]
            if data.draw(st.booleans()):
                spliced[at : at + len(piece)] = piece
            else:
                spliced[at:at] = piece
        signed = data.draw(st.sampled_from([item.signed for item in self.platform.items]))
        try:
            found = self.receive(Item(signed, [bytes(spliced)]))
        except NTMobileError:
            return
        self.assertEqual((bytes(spliced), found), (one, TEXT))

    def test_confirmation_of_theirs(self) -> None:
        """R32: they confirm nothing in Bob's name, and move no confirmation of his."""
        second = verify_manifest(self.platform.items[1].signed, pin=ALICE.pin, now=NOW)
        info = RequestInfo("0.1", BOB.fqdn)
        own = sign_confirmation(MALLORY.signer, second, info)
        moved = msgspec.structs.replace(
            self.platform.confirmation, object=second.object, root=second.root
        )
        for attempt in (
            own,
            moved,
            msgspec.structs.replace(own, certificate=BOB.signer.certificate),
            msgspec.structs.replace(moved, signature=self.item.signed.signature),
        ):
            with self.assertRaises(AuthenticationError):
                verify_confirmation(
                    attempt,
                    object=second.object,
                    root=second.root,
                    sender=ALICE.fqdn,
                    receiver=BOB.fqdn,
                    pin=BOB.pin,
                )

    def test_served_again(self) -> None:
        """R32: an item that they serve again is delivered once."""
        received = Received()
        self.assertIsNotNone(received.take(self.manifest))
        again = verify_manifest(self.item.signed, pin=ALICE.pin, now=NOW + 3600)
        self.assertIsNone(received.take(again))

    def test_identity_of_another_enrolment(self) -> None:
        """R5, R29: an AS that certifies another key as Alice's does not get past the pin."""
        impostor = Device.create(ALICE.fqdn)
        key = os.urandom(32)
        item = send(impostor, key, [BOB.fqdn], b"come at ten instead")
        with self.assertRaises(AuthenticationError):
            verify_manifest(item.signed, pin=ALICE.pin, now=NOW, receiver=BOB.fqdn)

    def test_header_of_theirs(self) -> None:
        """R29: a manifest that Mallory signs in her own name is hers, and names no other."""
        header = ObjectHeader.parse(self.manifest.header)
        details = Details("x", "", len(TEXT))
        address = Address((BOB.fqdn,), APPLICATION)
        key = os.urandom(32)
        signed = sign_manifest(
            MALLORY.signer, key, address, header, self.manifest.root, details, int(NOW) + 60
        )
        found = verify_manifest(signed, pin=MALLORY.pin, now=NOW, receiver=BOB.fqdn)
        self.assertEqual(found.sender, MALLORY.fqdn)
        with self.assertRaises(AuthenticationError):
            opener = ChunkOpener(key, header, len(TEXT), found.root)
            opener.open_part(self.item.parts[0])
