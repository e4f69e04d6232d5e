"""The sender's side: keys, upload, delivery status (figures 3 and 4)."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import evolve, frozen
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from ntmobile import __version__
from ntmobile.client.exchange.asking import SignedServer
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import Outgoing, Status
from ntmobile.client.exchange.parcel import Parcel
from ntmobile.errors import (
    AuthenticationError,
    ContentChanged,
    InvalidName,
    NoSuchItem,
    NTMobileError,
    StorageFailed,
    UnknownName,
    Unreachable,
)
from ntmobile.machines.exchange.chunks import ChunkSealer
from ntmobile.machines.exchange.confirmations import verify_confirmation
from ntmobile.machines.exchange.manifests import Address, Details, sign_manifest, verify_manifest
from ntmobile.machines.exchange.objects import PART, ObjectHeader
from ntmobile.machines.exchange.prekeys import verify_prekey
from ntmobile.machines.exchange.shared_keys import Recipient, SharedKey, exchange_key
from ntmobile.wire import names
from ntmobile.wire.messages.exchange import (
    ASKED,
    LISTED,
    CacheServer,
    CacheServerListResponse,
    Deliveries,
    Delivery,
    DeliveryStatusResponse,
    EncryptedDataUploadRequest,
    EncryptedDataUploadResponse,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
    Manifest,
    PreKeyRequest,
    PreKeyResponse,
    RequestInfo,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome

#: Seconds for which the list of cache servers is gone by.
CACHES_TIME: Final = 30.0
#: Parts on their way at a time.
AT_ONCE: Final = 2
#: Tells how far an upload is: bytes that are there, of how many.
Progress = Callable[[int, int], None]


@frozen
class Shared:
    """What was agreed upon before a file is read: to whom it goes, with which key, by which CS."""

    address: Address
    key: SharedKey
    cache: str


async def share(device: Device, parcel: Parcel) -> Shared:
    """Share a key with the destinations."""
    async with device.coordinator() as home:
        recipients = await find_recipients(device, home, parcel.destinations)
        server, *_ = await _caches(device, home)
        now = device.now()
        until = now + parcel.lifetime
        shared = device.store.keys().take(parcel.application, recipients, until, now)
        if shared is None:
            shared = await _share(device, home, server, parcel.application, recipients)
        device.store.keep_own(shared)
    address = Address(
        tuple(each.fqdn for each in recipients),
        parcel.application,
        parcel.service,
        parcel.item,
        parcel.message,
    )
    return Shared(address, shared, server.name)


async def announce(
    device: Device, parcel: Parcel, source: Path, agreed: Shared, progress: Progress
) -> Outgoing:
    """Read the file once, and keep what is needed to send it."""
    shared, address = agreed.key, agreed.address
    length, sealer = await _read(device, source, shared, progress)
    expires = min(int(device.now() + parcel.lifetime), shared.expires)
    details = Details(parcel.title, parcel.type, length, parcel.note)
    signed = sign_manifest(
        device.signer, shared.key, address, sealer.header, sealer.root(), details, expires
    )
    outgoing = Outgoing(
        object=sealer.header.object,
        request=msgspec.msgpack.encode(EncryptedDataUploadRequest(_info(device, address), signed)),
        name=parcel.title,
        source=str(source.absolute()),
        length=length,
        hashes=bytes(sealer.hashes),
        cache=agreed.cache,
        state="uploading",
        made=device.now(),
        expires=expires,
        statuses=tuple(Status(each, "not told") for each in address.destinations),
    )
    device.store.keep_outgoing(outgoing)
    return outgoing


async def find_recipients(
    device: Device, home: SignedServer, destinations: Sequence[str]
) -> list[Recipient]:
    """Devices and their verified pre-keys; a user stands for all devices that have any.

    :raises NTMobileError: what prevents it for one of them.
    """
    own = device.session().identity.fqdn
    if own in destinations:
        raise InvalidName(f"{own} is this device itself")
    wanted = list(dict.fromkeys(destinations))
    found, failed = await _ask_prekeys(device, home, wanted)
    for name, problem in failed.items():
        others, _ = await _ask_prekeys(device, home, await _devices_of(device, name, problem))
        if not others:
            raise UnknownName(f"{name} has no other device that was ever online, or none for us")
        found |= others
    return [found[fqdn] for fqdn in sorted(found)]


async def _devices_of(device: Device, name: str, problem: NTMobileError) -> Sequence[str]:
    """The devices of a user but for this one.

    :param problem: why there is no device of that name: raised where there is no such user either,
        unless the name can only be a user's.
    """
    if device.ask_devices is None:
        raise problem
    own = device.session().identity
    try:
        listed = (await device.ask_devices(name)).listed
    except NTMobileError as failed:
        # A realm itself is no domain of devices: that is what is below its coordinators' domains.
        user = names.is_user_of(name, own.domain) or names.is_device_of(name, own.trust.home)
        raise (failed if user else problem) from None
    return [fqdn for fqdn in listed if fqdn != own.fqdn]


async def _ask_prekeys(
    device: Device, home: SignedServer, fqdns: Sequence[str]
) -> tuple[dict[str, Recipient], dict[str, NTMobileError]]:
    found: dict[str, Recipient] = {}
    failed: dict[str, NTMobileError] = {}
    for begin in range(0, len(fqdns), ASKED):
        query = PreKeyRequest(home.info.fqdn, tuple(fqdns[begin : begin + ASKED]))
        answer = await home.document(PreKeyResponse, "POST", "/v1/prekeys/query", query)
        keys = {each.key.fqdn: each for each in answer.keys}
        reasons = {each.destination: each for each in answer.failed}
        for fqdn in query.fqdns:
            if fqdn in keys:
                pin = await device.pin(keys[fqdn].certificate, fqdn)
                found[fqdn] = verify_prekey(keys[fqdn], fqdn=fqdn, pin=pin, now=device.now())
            else:
                failed[fqdn] = _problem(reasons.get(fqdn) or Delivery(fqdn, Outcome.UNKNOWN))
    return found, failed


def _problem(delivery: Delivery) -> NTMobileError:
    """What prevents a delivery, as an error."""
    fqdn, reason = delivery.destination, delivery.reason
    match delivery.outcome:
        case Outcome.UNKNOWN:
            return UnknownName(
                f"{fqdn} is not known, was never online, or does not admit this device"
            )
        case Outcome.UNTRUSTED:
            return AuthenticationError(f"{fqdn}: {reason or 'its domain is not trusted'}")
        case Outcome.REFUSED:
            return InvalidName(f"{fqdn}: {reason or 'refused'}")
        case _:
            return Unreachable(f"{fqdn}: {reason or 'its coordinator does not answer'}")


async def _caches(device: Device, home: SignedServer) -> tuple[CacheServer, ...]:
    """The cache servers of the own DC, the least loaded first; asked for now and again."""
    now = device.reactor.seconds()
    if device.caches is None or not device.caches[0] <= now < device.caches[0] + CACHES_TIME:
        found = await home.document(CacheServerListResponse, "GET", "/v1/cache-servers")
        if not found.caches:
            raise Unreachable(f"{home.name} has no cache server now; try again")
        device.caches = now, found.caches
    return device.caches[1]


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
            raise _problem(each)


async def _read(
    device: Device, source: Path, shared: SharedKey, progress: Progress
) -> tuple[int, ChunkSealer]:
    """Read a file for the first time: what its chunks are once they are sealed."""
    try:
        with open(source, "rb", opener=_nonblocking) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StorageFailed(f"{source}: is no file; pipe it into: ntm send ... -")
            length = found.st_size
            sealer = ChunkSealer(shared.key, ObjectHeader.create(length), length)
            for number in range(sealer.header.parts):
                begin, size = sealer.extent(number)
                progress(begin, length)
                sealer.seal_part(number, stream.read(size))
                await _breathe(device)
    except OSError as problem:
        raise StorageFailed(f"{source}: cannot be read: {problem.strerror}") from None
    return length, sealer


def _nonblocking(path: str, flags: int) -> int:
    """Opens a pipe without waiting for who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _breathe(device: Device) -> Deferred[None]:
    """Let others run between two parts."""
    return deferLater(device.reactor, 0, lambda: None)


def find(device: Device, object: bytes) -> Outgoing:
    """What was sent; :class:`NoSuchItem` if it was not from here."""
    for each in device.store.outgoing(object):
        return each
    raise NoSuchItem(f"nothing was sent from here as {object.hex()}")


async def upload(device: Device, outgoing: Outgoing, progress: Progress) -> Outgoing:
    """Figure 4: upload what the CS has not got, then have the destinations told.

    :raises ContentChanged: the file changed since it was announced (R30).
    """
    request, manifest = _announced(device, outgoing)
    shared = device.store.keys().own.get(manifest.key)
    if shared is None:
        raise ContentChanged("the key of this item has ended; send it anew")
    header = ObjectHeader.parse(manifest.header)
    sealer = ChunkSealer(shared.key, header, outgoing.length, outgoing.hashes)
    base = f"/v1/objects/{outgoing.object.hex()}"
    places = await _places(device, outgoing.cache)
    async with device.cache(outgoing.cache, places) as cache:
        kind = EncryptedDataUploadResponse
        more = True
        while more:
            missing = (await cache.document(kind, "POST", "/v1/objects", request)).missing
            await _put_all(cache, outgoing, sealer, missing, progress)
            more = len(missing) == LISTED  # there may be more of them than are listed at once
        progress(outgoing.length, outgoing.length)
        answer = await cache.document(kind, "POST", f"{base}/complete")
    told = {each.destination: each for each in answer.results}
    statuses = tuple(
        evolve(
            each,
            state="waiting"
            if each.destination in told and told[each.destination].outcome == Outcome.OK
            else each.state,
            reason=told[each.destination].reason if each.destination in told else each.reason,
        )
        for each in outgoing.statuses
    )
    stored = evolve(outgoing, state="stored", hashes=b"", reason="", statuses=statuses)
    device.store.keep_outgoing(stored)
    device.spool.remove(Path(outgoing.source))
    return stored


async def _put_all(
    cache: SignedServer,
    outgoing: Outgoing,
    sealer: ChunkSealer,
    missing: Iterable[int],
    progress: Progress,
) -> None:
    """Upload parts, a few at a time: while the CS writes one, the next one comes.

    :raises NTMobileError: one failed; those that were on their way then have come to their end.
    """
    left = deque(missing)

    async def put() -> None:
        try:
            while left:
                number = left.popleft()
                progress(min(number * PART, outgoing.length), outgoing.length)
                plain = _plain(outgoing.source, *sealer.extent(number))
                target = f"/v1/objects/{outgoing.object.hex()}/parts/{number}"
                await cache.ask("PUT", target, sealer.seal_part(number, plain))
        except BaseException:
            left.clear()
            raise

    putting = [Deferred.fromCoroutine(put()) for _ in range(AT_ONCE)]
    outcomes: Any = await DeferredList(putting, consumeErrors=True)
    for done, result in outcomes:
        if not done:
            result.raiseException()


def _info(device: Device, address: Address) -> RequestInfo:
    """What the paper has each request carry."""
    return RequestInfo(
        __version__[:32],
        device.session().identity.fqdn,
        address.destinations,
        address.application,
        address.service,
        address.item,
        address.message,
    )


def _announced(device: Device, outgoing: Outgoing) -> tuple[EncryptedDataUploadRequest, Manifest]:
    """The request by which an object was announced, and its manifest.

    :raises ItemExpired: its time is over.
    """
    request = msgspec.msgpack.decode(outgoing.request, type=EncryptedDataUploadRequest)
    pin = device.signer.identity.public_key().public_bytes_raw()
    return request, verify_manifest(request.manifest, pin=pin, now=device.now())


async def _places(device: Device, name: str) -> list[tuple[str, int]]:
    async with device.coordinator() as home:
        for each in await _caches(device, home):
            if each.name == name:
                return [endpoint.pair() for endpoint in each.endpoints]
    raise Unreachable(f"{name} is not there now; try again")


def _plain(source: str, begin: int, size: int) -> bytes:
    try:
        with open(source, "rb") as stream:
            stream.seek(begin)
            return stream.read(size)
    except FileNotFoundError:
        raise ContentChanged(f"{source}: is gone; send it anew") from None
    except OSError as problem:
        raise StorageFailed(f"{source}: cannot be read: {problem.strerror}") from None


async def withdraw(device: Device, outgoing: Outgoing) -> Outgoing:
    """Have the CS forget an object, and send no more of it."""
    async with device.cache(outgoing.cache, await _places(device, outgoing.cache)) as cache:
        with suppress(NoSuchItem):  # it was not announced yet, or is gone already
            await cache.ask("DELETE", f"/v1/objects/{outgoing.object.hex()}")
    withdrawn = evolve(outgoing, state="withdrawn", reason="", hashes=b"")
    device.store.keep_outgoing(withdrawn)
    device.spool.remove(Path(outgoing.source))
    return withdrawn


async def status(device: Device, outgoing: Outgoing) -> Outgoing:
    """Ask the CS, and verify each confirmation; keeps and returns what is known then."""
    _, manifest = _announced(device, outgoing)
    async with device.cache(outgoing.cache, await _places(device, outgoing.cache)) as cache:
        target = f"/v1/objects/{outgoing.object.hex()}/status"
        answer = await cache.document(DeliveryStatusResponse, "GET", target)
    found = []
    for each in answer.statuses:
        state = each.state
        if state == "confirmed" and each.confirmation is None:
            state = "waiting"  # nobody can see that it is so
        elif state == "confirmed" and each.confirmation is not None:
            verify_confirmation(
                each.confirmation,
                object=outgoing.object,
                root=manifest.root,
                sender=manifest.sender,
                receiver=each.destination,
                pin=await device.pin(each.confirmation.certificate, each.destination),
            )
        found.append(
            Status(each.destination, state, each.reason, each.at if state == "confirmed" else 0)
        )
    confirmed = found and all(each.state == "confirmed" for each in found)
    known = evolve(
        outgoing, statuses=tuple(found), state="confirmed" if confirmed else outgoing.state
    )
    if known != outgoing:
        device.store.keep_outgoing(known)
    return known
