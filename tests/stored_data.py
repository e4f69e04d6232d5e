"""Devices that exchange stored data, without servers: keys, certificates, pre-keys, one object."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import sha256

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ntmobile.machines.exchange import xwing
from ntmobile.machines.exchange.chunks import ChunkOpener, ChunkSealer
from ntmobile.machines.exchange.manifests import (
    Address,
    Details,
    open_details,
    sign_manifest,
    verify_manifest,
)
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.prekeys import PreKeyRing, verify_prekey
from ntmobile.machines.exchange.shared_keys import (
    KeyExchange,
    Recipient,
    exchange_key,
    open_key,
)
from ntmobile.machines.exchange.signing import Signer
from ntmobile.servers.authority import issue_device
from ntmobile.wire import names, virtual
from ntmobile.wire.messages.exchange import DevicePreKey, SignedManifest
from tests.realms import MemoryRealm

NOW = 1_790_000_000.0
APPLICATION = "org.example.chat"


@functools.cache
def realm() -> MemoryRealm:
    return MemoryRealm(now=NOW)


@define(eq=False)
class Device:
    """A device with all that it needs to write and to be written to.

    :ivar published: its newest pre-key, as its DC hands it out.
    """

    fqdn: str
    signer: Signer
    ring: PreKeyRing
    published: DevicePreKey

    @classmethod
    def create(cls, fqdn: str, now: float = NOW) -> Device:
        identity, seed = Ed25519PrivateKey.generate(), sha256(fqdn.encode()).digest()
        certificate = issue_device(
            realm().device_ca,
            fqdn=fqdn,
            identity=identity.public_key().public_bytes_raw(),
            x25519=sha256(b"x25519" + seed).digest(),
            xwing_hash=sha256(xwing.public_bytes(seed)).digest(),
            ipv6=virtual.address_of(names.domain_of(fqdn), fqdn),
            ipv4=virtual.pick_ipv4(virtual.POOL, fqdn, ()),
            now=NOW,
            lifetime=86400.0,
        )
        signer = Signer(fqdn, certificate.der, identity)
        ring = PreKeyRing(seed)
        return cls(fqdn, signer, ring, DevicePreKey(ring.rotate(signer, now), certificate.der))

    @property
    def pin(self) -> bytes:
        return self.signer.identity.public_key().public_bytes_raw()

    def as_recipient(self, now: float = NOW) -> Recipient:
        return verify_prekey(self.published, fqdn=self.fqdn, pin=self.pin, now=now)

    def open_key(self, exchange: KeyExchange, sender: Device, now: float = NOW) -> bytes:
        """The shared key, from what waits for this device at its DC and the sender's CS."""
        sealed = next(each for each in exchange.sealed if each.destination == self.fqdn)
        temporal = next(each for each in exchange.temporal if each.destination == self.fqdn)
        return open_key(
            sealed,
            pin=sender.pin,
            receiver=self.fqdn,
            temporal=temporal.key,
            private=self.ring.private(sealed.prekey),
            now=now,
        )


@define(eq=False)
class Item:
    """An object on its way: what the CS has of it."""

    signed: SignedManifest
    parts: list[bytes] = field(factory=list)


def share(sender: Device, receivers: Sequence[Device], now: float = NOW) -> KeyExchange:
    recipients = [each.as_recipient(now) for each in receivers]
    return exchange_key(sender.signer, APPLICATION, recipients, now)


def send(sender: Device, shared: bytes, receivers: Sequence[str], plain: bytes) -> Item:
    """Seal an object and sign its manifest."""
    header = ObjectHeader.create(len(plain))
    sealer = ChunkSealer(shared, header, len(plain))
    parts = []
    for number in range(header.parts):
        begin, size = sealer.extent(number)
        parts.append(sealer.seal_part(number, plain[begin : begin + size]))
    signed = sign_manifest(
        sender.signer,
        shared,
        Address(tuple(receivers), APPLICATION, "pictures", "holiday"),
        header,
        sealer.root(),
        Details("beach.jpg", "image/jpeg", len(plain), "look"),
        int(NOW) + 86400,
    )
    return Item(signed, parts)


def fetch(receiver: Device, sender: Device, shared: bytes, item: Item, now: float = NOW) -> bytes:
    """Verify and open an object as its receiver does."""
    manifest = verify_manifest(item.signed, pin=sender.pin, now=now, receiver=receiver.fqdn)
    details = open_details(manifest, shared)
    header = ObjectHeader.parse(manifest.header)
    opener = ChunkOpener(shared, header, details.length, manifest.root)
    plain = b"".join(opener.open_part(part) for part in item.parts)
    opener.finish()
    return plain
