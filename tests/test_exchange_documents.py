"""The examples and numbers in ``docs/protocol/exchange.md`` are what the code says."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.exchange import objects, prekeys, shared_keys, signing, xwing
from ntmobile.machines.exchange.chunks import ChunkSealer, chunk_nonce, object_key
from ntmobile.machines.exchange.confirmations import sign_confirmation
from ntmobile.machines.exchange.manifests import (
    Address,
    Details,
    open_details,
    sign_manifest,
    verify_manifest,
)
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.prekeys import sign_prekey
from ntmobile.machines.exchange.shared_keys import (
    key_identifier,
    open_key,
    temporal_identifier,
)
from ntmobile.machines.exchange.signing import Signer
from ntmobile.servers.authority import issue_device
from ntmobile.wire import names, virtual
from ntmobile.wire.messages.exchange import RequestInfo, SealedKey
from tests.stored_data import realm

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol" / "exchange.md"
VECTOR = re.compile(r"<!-- vector: ([a-z-]+) -->\n```text\n([0-9a-f\n]*)```")
ROW = re.compile(r"^\| `([A-Z_]+)` \| (\d+) \|", re.MULTILINE)

SENDER, RECEIVER = "phone.alice.dc1.ntm.example", "laptop.bob.dc2.ntm.example"
SHARED, TEMPORAL, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32
ALICE, BOB = b"\4" * 32, b"\5" * 32
NOW, EXPIRES = 1_790_000_000, 1_790_086_400
HEADER = ObjectHeader(b"\6" * 32, 256, b"\7" * 16)


def signer(fqdn: str, private: bytes) -> Signer:
    """A device with that Ed25519 key, and a certificate of today."""
    identity = Ed25519PrivateKey.from_private_bytes(private)
    certificate = issue_device(
        realm().device_ca,
        fqdn=fqdn,
        identity=identity.public_key().public_bytes_raw(),
        x25519=bytes(32),
        xwing_hash=bytes(32),
        ipv6=virtual.address_of(names.domain_of(fqdn), fqdn),
        ipv4=virtual.pick_ipv4(virtual.POOL, fqdn, ()),
        now=float(NOW),
        lifetime=86400.0,
    )
    return Signer(fqdn, certificate.der, identity)


def vectors() -> dict[str, bytes]:
    """What the page's examples must be, by name; the sealed key is none, as HPKE is random."""
    alice, bob = signer(SENDER, ALICE), signer(RECEIVER, BOB)
    sealer = ChunkSealer(SHARED, HEADER, 5)
    part = sealer.seal_part(0, b"hello")
    signed = sign_manifest(
        alice,
        SHARED,
        Address((RECEIVER,), "org.example.chat"),
        HEADER,
        sealer.root(),
        Details("greeting.txt", "text/plain", 5),
        EXPIRES,
        lambda size: b"\x08" * size,
    )
    pin = alice.identity.public_key().public_bytes_raw()
    manifest = verify_manifest(signed, pin=pin, now=float(NOW), receiver=RECEIVER)
    prekey = sign_prekey(bob, 2958, xwing.public_bytes(SEED), EXPIRES)
    confirmation = sign_confirmation(bob, manifest, RequestInfo("0.1", RECEIVER))
    return {
        "shared-identifier": key_identifier(SHARED),
        "temporal-identifier": temporal_identifier(TEMPORAL),
        "prekey-hash": sha256(prekey.public).digest(),
        "prekey-signature": prekey.signature,
        "object-header": HEADER.pack(),
        "object-key": object_key(SHARED, HEADER),
        "chunk-nonce": chunk_nonce(HEADER, 0),
        "object-part": part,
        "object-root": sealer.root(),
        "details": msgspec.msgpack.encode(open_details(manifest, SHARED)),
        "manifest": signed.manifest,
        "manifest-signature": signed.signature,
        "confirmation-signature": confirmation.signature,
    }


class ExchangePageTests(SynchronousTestCase):
    """What the page shows is so."""

    def setUp(self) -> None:
        if not PAGE.exists():
            self.skipTest("the documents are not part of this installation")
        self.page = PAGE.read_text("utf-8")
        self.shown = {
            name: bytes.fromhex(text.replace("\n", "")) for name, text in VECTOR.findall(self.page)
        }

    def test_vectors(self) -> None:
        """R29, R30, R31, R32: every example is, byte for byte, what the code makes of inputs."""
        random = {"sealed-key", "sealed-key-signature"}
        shown = {name: value for name, value in self.shown.items() if name not in random}
        self.assertEqual(vectors(), shown)

    def test_sealed_key(self) -> None:
        """R29, R31: the page's sealed key verifies, and opens to the page's shared key."""
        alice = signer(SENDER, ALICE)
        sealed = SealedKey(
            sender=SENDER,
            destination=RECEIVER,
            application="org.example.chat",
            identifier=self.shown["shared-identifier"],
            temporal=self.shown["temporal-identifier"],
            prekey=2958,
            sealed=self.shown["sealed-key"],
            expires=EXPIRES,
            signature=self.shown["sealed-key-signature"],
            certificate=alice.certificate,
        )
        found = open_key(
            sealed,
            pin=alice.identity.public_key().public_bytes_raw(),
            receiver=RECEIVER,
            temporal=TEMPORAL,
            private=xwing.private_key(SEED),
            now=float(NOW),
        )
        self.assertEqual(found, SHARED)

    def test_numbers(self) -> None:
        """The table of numbers is the constants of the machines."""
        shown = {name: int(value) for name, value in ROW.findall(self.page)}
        modules = (objects, shared_keys, prekeys, signing)
        found = {name: vars(each)[name] for each in modules for name in shown if name in vars(each)}
        self.assertEqual(found, shown)
        self.assertGreater(len(shown), 8)
