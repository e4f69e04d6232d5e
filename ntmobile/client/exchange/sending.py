"""The sender's side: keys, upload, delivery status (figures 3 and 4)."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from attrs import evolve
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ntmobile.client.exchange.asking import SignedServer
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import Outgoing, Status
from ntmobile.errors import ContentChanged, NoSuchItem, StorageFailed, UnknownName, Unreachable
from ntmobile.machines.exchange.chunks import ChunkSealer
from ntmobile.machines.exchange.confirmations import verify_confirmation
from ntmobile.machines.exchange.manifests import Address, Details, sign_manifest, verify_manifest
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.prekeys import verify_prekey
from ntmobile.machines.exchange.shared_keys import Recipient, SharedKey, exchange_key
from ntmobile.wire.messages.exchange import (
    ASKED,
    CacheServer,
    CacheServerListResponse,
    Deliveries,
    DeliveryStatusResponse,
    EncryptedDataUploadRequest,
    EncryptedDataUploadResponse,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
    PreKeyRequest,
    PreKeyResponse,
    RequestInfo,
    SignedManifest,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome


async def announce(
    device: Device, address: Address, source: Path, texts: tuple[str, str, str], lifetime: float
) -> Outgoing:
    """Share a key with the destinations, read the file once, and keep what is needed to send it.

    :param texts: name, type and note.
    """
    async with device.coordinator() as home:
        recipients = await _recipients(device, home, address.destinations)
        server, *_ = await _caches(home)
        now = device.now()
        shared = device.store.keys().take(address.application, recipients, now + lifetime, now)
        if shared is None:
            shared = await _share(device, home, server, address.application, recipients)
        device.store.keep_own(shared)
    length, sealer = await _read(device, source, shared)
    name, kind, note = texts
    expires = min(int(device.now() + lifetime), shared.expires)
    details = Details(name, kind, length, note)
    signed = sign_manifest(
        device.signer, shared.key, address, sealer.header, sealer.root(), details, expires
    )
    outgoing = Outgoing(
        sealer.header.object,
        msgspec.msgpack.encode(signed),
        str(source.resolve()),
        length,
        bytes(sealer.hashes),
        server.name,
        "uploading",
    )
    device.store.keep_outgoing(outgoing)
    return outgoing


async def _recipients(
    device: Device, home: SignedServer, destinations: tuple[str, ...]
) -> list[Recipient]:
    found = []
    for begin in range(0, len(destinations), ASKED):
        query = PreKeyRequest(home.info.fqdn, destinations[begin : begin + ASKED])
        answer = await home.document(PreKeyResponse, "POST", "/v1/prekeys/query", query)
        keys = {each.key.fqdn: each for each in answer.keys}
        for fqdn in query.fqdns:
            if fqdn not in keys:
                raise UnknownName(f"{fqdn} is not known, has no keys yet, or is not for us")
            pin = await device.pin(keys[fqdn].certificate, fqdn)
            found.append(verify_prekey(keys[fqdn], fqdn=fqdn, pin=pin, now=device.now()))
    return found


async def _caches(home: SignedServer) -> tuple[CacheServer, ...]:
    found = await home.document(CacheServerListResponse, "GET", "/v1/cache-servers")
    if not found.caches:
        raise Unreachable(f"{home.name} has no cache server now; try again")
    return found.caches


async def _share(
    device: Device,
    home: SignedServer,
    server: CacheServer,
    application: str,
    recipients: list[Recipient],
) -> SharedKey:
    """Figure 3: the temporal keys by the DCs, the shared key by the CS."""
    made = exchange_key(device.signer, application, recipients, device.now())
    destinations = tuple(each.fqdn for each in recipients)
    info = replace(home.info, application=application, destinations=destinations)
    temporal = TemporalKeyUploadRequest(info, made.temporal, made.shared.expires)
    answer = await home.document(TemporalKeyUploadResponse, "POST", "/v1/temporal-keys", temporal)
    _check(answer.results)
    places = [each.pair() for each in server.endpoints]
    async with device.cache(server.name, places) as cache:
        upload = EncryptionKeyUploadRequest(info, made.sealed)
        await cache.document(EncryptionKeyUploadResponse, "POST", "/v1/keys", upload)
    return made.shared.used()


def _check(results: Deliveries) -> None:
    for each in results:
        if each.outcome != Outcome.OK:
            raise Unreachable(f"no key reached {each.destination}: {each.reason or 'refused'}")


async def _read(device: Device, source: Path, shared: SharedKey) -> tuple[int, ChunkSealer]:
    """Read a file for the first time: what its chunks are once they are sealed."""
    try:
        with source.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            sealer = ChunkSealer(shared.key, ObjectHeader.create(length), length)
            for number in range(sealer.header.parts):
                sealer.seal_part(number, stream.read(sealer.extent(number)[1]))
                await _breathe(device)
    except OSError as problem:
        raise StorageFailed(f"{source}: cannot be read: {problem.strerror}") from None
    return length, sealer


def _breathe(device: Device) -> Deferred[None]:
    """Let others run between two parts."""
    return deferLater(device.reactor, 0, lambda: None)


def find(device: Device, object: bytes) -> Outgoing:
    """What was sent; :class:`NoSuchItem` if it was not from here."""
    for each in device.store.outgoing():
        if each.object == object:
            return each
    raise NoSuchItem(f"nothing was sent from here as {object.hex()}")


async def upload(device: Device, outgoing: Outgoing) -> None:
    """Figure 4: upload what the CS has not got, then have the destinations told.

    :raises ContentChanged: the file changed since it was announced (R30).
    """
    signed = msgspec.msgpack.decode(outgoing.manifest, type=SignedManifest)
    pin = device.signer.identity.public_key().public_bytes_raw()
    manifest = verify_manifest(signed, pin=pin, now=device.now())
    shared = device.store.keys().own.get(manifest.key)
    if shared is None:
        raise ContentChanged("the key of this item has ended; send it anew")
    header = ObjectHeader.parse(manifest.header)
    sealer = ChunkSealer(shared.key, header, outgoing.length, outgoing.hashes)
    base = f"/v1/objects/{outgoing.object.hex()}"
    places = await _places(device, outgoing.cache)
    async with device.cache(outgoing.cache, places) as cache:
        info = RequestInfo(
            cache.info.version,
            cache.info.fqdn,
            manifest.destinations,
            manifest.application,
            manifest.service,
            manifest.item,
            manifest.message,
        )
        request = EncryptedDataUploadRequest(info, signed)
        kind = EncryptedDataUploadResponse
        while missing := (await cache.document(kind, "POST", "/v1/objects", request)).missing:
            for number in missing:
                part = sealer.seal_part(number, _plain(outgoing.source, *sealer.extent(number)))
                await cache.ask("PUT", f"{base}/parts/{number}", part)
        await cache.document(kind, "POST", f"{base}/complete")
    device.store.keep_outgoing(evolve(outgoing, state="stored"))


async def _places(device: Device, name: str) -> list[tuple[str, int]]:
    async with device.coordinator() as home:
        for each in await _caches(home):
            if each.name == name:
                return [endpoint.pair() for endpoint in each.endpoints]
    raise Unreachable(f"{name} is not there now; try again")


def _plain(source: str, begin: int, size: int) -> bytes:
    try:
        with open(source, "rb") as stream:
            stream.seek(begin)
            return stream.read(size)
    except OSError as problem:
        raise StorageFailed(f"{source}: cannot be read: {problem.strerror}") from None


async def status(device: Device, object: bytes) -> tuple[Status, ...]:
    """Ask the CS, and verify each confirmation."""
    outgoing = find(device, object)
    signed = msgspec.msgpack.decode(outgoing.manifest, type=SignedManifest)
    pin = device.signer.identity.public_key().public_bytes_raw()
    manifest = verify_manifest(signed, pin=pin, now=device.now())
    async with device.cache(outgoing.cache, await _places(device, outgoing.cache)) as cache:
        target = f"/v1/objects/{object.hex()}/status"
        answer = await cache.document(DeliveryStatusResponse, "GET", target)
    found = []
    for each in answer.statuses:
        state = each.state
        if state == "confirmed" and each.confirmation is None:
            state = "waiting"  # nobody can see that it is so
        elif state == "confirmed" and each.confirmation is not None:
            verify_confirmation(
                each.confirmation,
                object=object,
                root=manifest.root,
                sender=manifest.sender,
                receiver=each.destination,
                pin=await device.pin(each.confirmation.certificate, each.destination),
            )
        found.append(Status(each.destination, state, each.reason, each.at))
    if found and all(each.state == "confirmed" for each in found):
        device.store.keep_outgoing(evolve(outgoing, state="confirmed"))
    return tuple(found)
