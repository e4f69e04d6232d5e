"""The receiver's side: pre-keys, keys, items, confirmations (figures 3 and 4)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from attrs import define, field, frozen
from twisted.logger import Logger

from ntmobile.client.exchange.asking import SignedServer
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import Item
from ntmobile.client.exchange.sending import Progress
from ntmobile.errors import (
    AlreadyExists,
    AuthenticationError,
    NoSuchItem,
    NTMobileError,
    StorageFailed,
)
from ntmobile.machines.exchange import xwing
from ntmobile.machines.exchange.chunks import ChunkOpener
from ntmobile.machines.exchange.confirmations import sign_confirmation
from ntmobile.machines.exchange.keyring import KeyRing, OpenedKey
from ntmobile.machines.exchange.manifests import open_details, verify_manifest
from ntmobile.machines.exchange.objects import PART, ObjectHeader
from ntmobile.machines.exchange.prekeys import PreKeyRing, sign_prekey
from ntmobile.machines.exchange.shared_keys import open_key
from ntmobile.wire import names
from ntmobile.wire.messages.exchange import (
    MANIFESTS,
    CacheEntry,
    CacheListDownloadResponse,
    EncryptedDataListRequest,
    EncryptedDataListResponse,
    EncryptionKeyDownloadResponse,
    PreKeyUploadRequest,
    SignedManifest,
    TemporalKeyDownloadResponse,
)
from ntmobile.wire.messages.fields import Address

log = Logger()

#: Entries that are listed at most; those beyond come when some of these are fetched.
MOST: Final = 100_000
#: Different reasons that are told.
MOST_PROBLEMS: Final = 20


def _ring(device: Device) -> PreKeyRing:
    return device.store.prekeys(device.session().identity.keys.xwing_seed)


async def publish(device: Device) -> None:
    """Make a pre-key where one is due; its secret is stored first (R31)."""
    ring, signer, now = _ring(device), device.signer, device.now()
    if ring.due(now):
        device.store.keep_prekey(ring.secrets[ring.rotate(signer, now).number])
    for number in device.store.unpublished():
        secret = ring.secrets[number]
        public = xwing.public_bytes(secret.seed)
        key = sign_prekey(signer, number, public, secret.expires)
        async with device.coordinator() as home:
            await home.ask("POST", "/v1/prekeys", PreKeyUploadRequest(home.info, (key,)))
        device.store.published(number)
    async with device.coordinator() as home:
        waits = any(each.kind == "key" for each in await _entries(home, None))
    # A secret that a key might still need stays, for as long as anything can wait.
    device.store.erase_prekeys(ring.erase(0.0 if waits else now, now))


@frozen
class Listing:
    """What waits.

    :ivar problems: why something that waits is not among the items; a line each.
    """

    items: list[Item]
    problems: tuple[str, ...]


async def inbox(device: Device, application: str | None) -> Listing:
    """Open the keys that wait, then the details of the objects (R29).

    :param application: None: all.
    """
    problems = Problems()
    async with device.coordinator() as home:
        entries = await _entries(home, application)
        for entry in entries:
            if entry.kind == "key":
                with problems.about(entry):
                    await _open_key(device, home, entry)
    waiting = [entry for entry in entries if entry.kind == "data"]
    received = device.store.all_received()
    waiting = [entry for entry in waiting if _name(entry) not in received]
    known = device.store.items()
    new = [entry for entry in waiting if not _is_known(entry, known)]
    for (cache, places), some in _by_cache(new, problems).items():
        for begin in range(0, len(some), MANIFESTS):
            few = some[begin : begin + MANIFESTS]
            items = await _verified(device, cache, places, few, problems)
            device.store.keep_items(items)
            known |= {(item.sender, item.object): item for item in items}
    items = [known[_name(entry)] for entry in waiting if _is_known(entry, known)]
    return Listing(items, tuple(problems.lines))


@define(eq=False)
class Problems:
    """Why entries are not shown: what one of them is does not keep the others back."""

    lines: dict[str, None] = field(factory=dict)

    @contextmanager
    def about(self, entry: CacheEntry) -> Iterator[None]:
        """Do something about an entry that may fail."""
        try:
            yield
        except NTMobileError as problem:
            line = f"what waits from {entry.sender} is not shown: {problem}"
            if line not in self.lines and len(self.lines) < MOST_PROBLEMS:
                log.warn("{line}", line=line)
                self.lines[line] = None


def _name(entry: CacheEntry) -> tuple[str, bytes]:
    """Sender and object."""
    return entry.sender, entry.identifier[:16]


def _is_known(entry: CacheEntry, known: Mapping[tuple[str, bytes], Item]) -> bool:
    item = known.get(_name(entry))
    return item is not None and item.entry.root == entry.root


def _by_cache(
    entries: Iterable[CacheEntry], problems: Problems
) -> dict[tuple[str, tuple[Address, ...]], list[CacheEntry]]:
    """The entries of each CS that may be asked."""
    found: dict[tuple[str, tuple[Address, ...]], list[CacheEntry]] = {}
    for entry in entries:
        with problems.about(entry):
            name, places = _cache(entry)
            found.setdefault((name, tuple(places)), []).append(entry)
    return found


async def _entries(home: SignedServer, application: str | None) -> list[CacheEntry]:
    """What waits for an application, or None: for all of them."""
    found: list[CacheEntry] = []
    target = "/v1/caches" if application is None else f"/v1/caches?application={application}"
    base = target + ("?" if application is None else "&")
    while True:
        answer = await home.document(CacheListDownloadResponse, "GET", target)
        found += [each for each in answer.entries if application in (None, each.application)]
        if not answer.more or not answer.entries or len(found) >= MOST:
            return found
        last = answer.entries[-1]
        target = f"{base}after={last.identifier.hex()}&sender={last.sender}"


def _cache(entry: CacheEntry) -> tuple[str, list[tuple[str, int]]]:
    """Name and addresses of a CS, which must be one of the sender's domain."""
    if not names.is_within(entry.cache, names.domain_of(entry.sender)):
        raise AuthenticationError(f"{entry.cache} is no cache server of {entry.sender}")
    return entry.cache, [each.pair() for each in entry.endpoints]


def _listed(entry: CacheEntry) -> str:
    """The path of an entry in the DC's list: others may have announced the same hash value."""
    return f"/v1/caches/{entry.identifier.hex()}?sender={entry.sender}"


async def _open_key(device: Device, home: SignedServer, entry: CacheEntry) -> None:
    """Figure 3, CN's half; both servers forget it only when it is stored here."""
    if (entry.sender, entry.identifier) not in device.store.keys().opened:
        async with device.cache(*_cache(entry)) as cache:
            target = f"/v1/keys/{entry.identifier.hex()}"
            found = await cache.document(EncryptionKeyDownloadResponse, "GET", target)
        sealed = found.key
        if (sealed.sender, sealed.identifier) != (entry.sender, entry.identifier):
            raise AuthenticationError(f"{entry.cache} gave another key than was announced")
        pin = await device.pin(sealed.certificate, sealed.sender)
        path = f"/v1/temporal-keys/{sealed.temporal.hex()}"
        temporal = await home.document(TemporalKeyDownloadResponse, "GET", path)
        if temporal.sender != sealed.sender:
            raise AuthenticationError(f"a temporal key of {temporal.sender}, not {sealed.sender}")
        key = open_key(
            sealed,
            pin=pin,
            receiver=home.info.fqdn,
            temporal=temporal.key,
            private=_ring(device).private(sealed.prekey),
            now=device.now(),
        )
        device.store.keep_opened(OpenedKey.of(sealed, key))
        await home.ask("DELETE", path)
    await home.ask("DELETE", _listed(entry))


async def _verified(
    device: Device,
    name: str,
    places: Sequence[Address],
    entries: Sequence[CacheEntry],
    problems: Problems,
) -> list[Item]:
    """The items of one CS that are what was announced, from whom it was said."""
    manifests = {}
    with problems.about(entries[0]):
        async with device.cache(name, places) as cache:
            asked = EncryptedDataListRequest(
                cache.info, tuple(entry.identifier[:16] for entry in entries)
            )
            answer = await cache.document(
                EncryptedDataListResponse, "POST", "/v1/objects/query", asked
            )
        manifests = {each.object: each.manifest for each in answer.objects}
    items, ring = [], device.store.keys()
    for entry in entries:
        signed = manifests.get(entry.identifier[:16])
        if signed is not None:
            with problems.about(entry):
                items.append(await _item(device, entry, signed, ring))
    return items


async def _item(device: Device, entry: CacheEntry, signed: SignedManifest, ring: KeyRing) -> Item:
    receiver = device.session().identity.fqdn
    pin = await device.pin(signed.certificate, entry.sender)
    manifest = verify_manifest(signed, pin=pin, now=device.now(), receiver=receiver)
    announced = entry.sender, entry.identifier[:16], entry.root, entry.application
    if announced != (manifest.sender, manifest.object, manifest.root, manifest.application):
        raise AuthenticationError(f"{entry.cache} gave another item than was announced")
    return Item(entry, manifest, open_details(manifest, ring.key_for(manifest)))


async def fetch(
    device: Device, item: Item, into: Path, progress: Progress, *, confirm: bool
) -> Path:
    """Download part by part into a private file beside the target, which it becomes in the end.

    :param confirm: have the sender told, once it is there.
    :return: the file; another name where one of that name came in between.
    """
    into = into.absolute()
    _check_new(device, item, into)
    manifest = item.manifest
    key = device.store.keys().key_for(manifest)
    part = into.parent / f".{item.object.hex()}.part"
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as stream:
            _lock(descriptor, item)
            _check_new(device, item, into)
            opener = _opener(device, item, key, part, os.fstat(descriptor).st_size)
            await _download(device, item, part, stream, opener, progress)
            _finish(device, item, part, opener)
            _check_new(device, item, into)
            device.store.deliver(
                item.sender, item.object, manifest.expires, part, into, confirm=confirm
            )
    except OSError as problem:
        raise StorageFailed(f"{part}: cannot be written: {problem.strerror}") from None
    return device.store.received_as(item.sender, item.object) or into


def _lock(descriptor: int, item: Item) -> None:
    """Two downloads at a time would spoil each other's file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyExists(f"an item from {item.sender} is being fetched already") from None


def _opener(device: Device, item: Item, key: bytes, part: Path, size: int) -> ChunkOpener:
    """Goes on where a former attempt was, if its file has ``size`` bytes enough."""
    header, length = ObjectHeader.parse(item.manifest.header), item.details.length
    known = device.store.download(item.sender, item.object)
    if known is not None and known[0] == part:
        opener = ChunkOpener(key, header, length, item.manifest.root, known[1])
        if size >= _kept(item, opener):
            return opener
    return ChunkOpener(key, header, length, item.manifest.root)


def _kept(item: Item, opener: ChunkOpener) -> int:
    return min(opener.next_part * PART, item.details.length)


async def _download(
    device: Device,
    item: Item,
    part: Path,
    stream: BinaryIO,
    opener: ChunkOpener,
    progress: Progress,
) -> None:
    def keep(plain: bytes) -> None:
        stream.write(plain)
        stream.flush()
        os.fsync(stream.fileno())

    stream.truncate(_kept(item, opener))
    stream.seek(0, os.SEEK_END)
    async with device.cache(*_cache(item.entry)) as cache:
        while opener.next_part < opener.header.parts:
            progress(_kept(item, opener), item.details.length)
            target = f"/v1/objects/{item.object.hex()}/parts/{opener.next_part}"
            plain = opener.open_part(await cache.ask("GET", target))
            await device.in_thread(partial(keep, plain))
            device.store.keep_download(item.sender, item.object, part, bytes(opener.hashes))
    progress(item.details.length, item.details.length)


def _finish(device: Device, item: Item, part: Path, opener: ChunkOpener) -> None:
    try:
        opener.finish()
    except AuthenticationError:
        device.store.forget_download(item.sender, item.object)
        part.unlink(missing_ok=True)
        raise


def _check_new(device: Device, item: Item, into: Path) -> None:
    delivered = device.store.received_as(item.sender, item.object)
    if delivered is not None:
        raise AlreadyExists(f"an item from {item.sender} was delivered before, as {delivered}")
    if into.exists():
        raise AlreadyExists(f"{into}: exists already; choose another name")


async def confirm(device: Device, item: Item) -> None:
    """Sign, tell the CS, and have the DC forget the entry; what is not done is done later."""
    if not device.store.has_received(item.sender, item.object):
        raise NoSuchItem("an item is confirmed when it was fetched, not sooner")
    device.store.confirm_later(item.sender, item.object)
    async with device.cache(*_cache(item.entry)) as cache:
        confirmation = sign_confirmation(device.signer, item.manifest, cache.info)
        target = f"/v1/objects/{item.object.hex()}/confirm"
        await _unless_gone(cache.ask("POST", target, confirmation))
    async with device.coordinator() as home:
        await _unless_gone(home.ask("DELETE", _listed(item.entry)))
    device.store.confirmed(item.sender, item.object)


async def _unless_gone(asking: Awaitable[bytes]) -> None:
    """Ask for something that an earlier attempt, or the end of its time, may have done already."""
    with suppress(NoSuchItem):
        await asking
