"""Small messages a second through a cache server, and how long it takes to list what waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from attrs import define, field

from ntmobile.bench.load_realm import HOST
from ntmobile.bench.results import Measure, NothingTransferred, Row, Say, Table, in_turn
from ntmobile.bench.stored_objects import Parcel, Sealing, drive
from ntmobile.bench.stored_realm import CACHE, DC2, StoredRealm
from ntmobile.bench.transfer import Ask, Job
from ntmobile.client.exchange import Item
from ntmobile.client.exchange.asking import coordinator
from ntmobile.interfaces import Quotas
from ntmobile.machines.exchange.desk import ENTRIES_ALL, ENTRIES_EACH
from ntmobile.machines.exchange.keyring import OpenedKey
from ntmobile.machines.exchange.shared_keys import key_identifier
from ntmobile.plugins.caches import deliveries, objects
from ntmobile.plugins.caches.database import Transaction
from ntmobile.plugins.caches.sqlite import SQLiteDatabase
from ntmobile.plugins.store_waiting_sqlite import SQLiteWaitingStore
from ntmobile.protocols.caching.records import stored_object
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.servers.configuration import load_coordinator
from ntmobile.wire.messages.exchange import CacheEntry, CacheListDownloadResponse, RequestInfo
from ntmobile.wire.messages.fields import Endpoint

#: Bytes of a message, and connections where there are several.
SIZE, CONNECTIONS = 1024, 8
#: Messages of one sample of the client library: the DC takes 50 requests of a client in a second,
#: 500 at once, and each message is three.
BY_LIBRARY: Final = 20
#: Seconds that all samples of a list may take; then there are fewer.
PATIENCE: Final = 60.0

_MESSAGES: Final = f"""\
Messages of {SIZE} bytes from one device to one of another domain, sealed and signed beforehand but
in the last rows. A message is sent when the cache server has all of it on its disk and the
receiver's coordinator knows and keeps it, too: three requests, and a fourth between the servers. It
is confirmed when the receiver has its manifest and content and the cache server keeps the signed
confirmation: three requests."""


@define(eq=False)
class Messages:
    """Small objects that wait.

    :ivar count: of one sample.
    """

    reactor: Any
    realm: StoredRealm
    count: int
    _waiting: list[list[Parcel]] = field(factory=list, init=False)
    _number: int = field(default=0, init=False)

    async def send(self, connections: int) -> float:
        """Send some, a second."""
        self._number += 1
        realm = self.realm
        application = f"small{self._number}"
        source = realm.directory / application
        sealing = Sealing(realm.phone, realm.laptop, bytes(32), application, source)
        parcels = [sealing.seal(SIZE) for _ in range(self.count)]
        lanes = [
            [ask for parcel in parcels[lane::connections] for ask in parcel.upload(realm.phone)]
            for lane in range(connections)
        ]
        job = Job(HOST, realm.ports["cs1"], str(realm.authority), lanes, str(source))
        done = await drive(job, realm.directory)
        source.unlink()
        found = await listed(self.reactor, realm, application)
        if len(found) != self.count:
            raise NothingTransferred(f"{len(found)} of {self.count} are known to the coordinator")
        self._waiting.append(parcels)
        return self.count / done.seconds

    async def fetch(self, connections: int) -> float:
        """Fetch and confirm as many, a second."""
        realm, parcels = self.realm, self._waiting.pop(0)
        lanes: list[list[Ask]] = []
        for lane in range(connections):
            asks: list[Ask] = []
            for parcel in parcels[lane::connections]:
                asks += [*parcel.download(realm.laptop), parcel.confirm(realm.laptop)]
            lanes.append(asks)
        room = sum(parcel.length for parcel in parcels)
        job = Job(HOST, realm.ports["cs1"], str(realm.authority), lanes, "", room)
        done = await drive(job, realm.directory)
        if done.kept != room:
            raise NothingTransferred(f"{done.kept} of {room} bytes came")
        return self.count / done.seconds

    async def send_by_library(self) -> float:
        """Send some with the client library, a second."""
        phone, laptop = self.realm.phone, self.realm.laptop
        file = self.realm.directory / "message"
        file.write_bytes(bytes(SIZE))
        began = time.perf_counter()
        for _ in range(BY_LIBRARY):
            await phone.exchange.send([laptop.fqdn], file, application="messages")
        return BY_LIBRARY / (time.perf_counter() - began)

    async def fetch_by_library(self) -> float:
        """List, fetch and confirm as many with the client library, a second."""
        laptop = self.realm.laptop.exchange
        file = self.realm.directory / "received"
        began = time.perf_counter()
        items = (await laptop.inbox("messages"))[:BY_LIBRARY]
        for item in items:
            await laptop.fetch(item, file)
            await laptop.confirm(item)
            if file.read_bytes() != bytes(SIZE):
                raise NothingTransferred("what came is not what was sent")
            file.unlink()
        return len(items) / (time.perf_counter() - began)


async def listed(reactor: Any, realm: StoredRealm, application: str) -> list[CacheEntry]:
    """What the receiver's DC lists for an application, page by page."""
    found: list[CacheEntry] = []
    server = coordinator(reactor, realm.laptop.session, time.time)
    try:
        base = target = f"/v1/caches?application={application}"
        while True:
            answer = await server.document(CacheListDownloadResponse, "GET", target)
            found += answer.entries
            if not answer.more:
                return found
            target = f"{base}&after={answer.entries[-1].identifier.hex()}"
    finally:
        await server.close()


@define(eq=False)
class Lists:
    """Many items that wait.

    :ivar count: how many.
    """

    reactor: Any
    realm: StoredRealm
    count: int
    application: str = "waiting"

    def write(self) -> None:
        """Write what as many sendings leave at CS, DC and receiver, but for the parts.

        Sent one by one they would take longer than all that is measured here.
        """
        realm = self.realm
        key = bytes(31) + b"\1"
        file = realm.directory / "parts"
        sealing = Sealing(realm.phone, realm.laptop, key, self.application, file)
        parcels = [sealing.seal(SIZE) for _ in range(self.count)]
        file.unlink()
        self._write_cache(parcels)
        self._write_list(parcels)
        expires = max(parcel.manifest.expires for parcel in parcels)
        opened = OpenedKey(realm.phone.fqdn, self.application, key_identifier(key), key, expires)
        realm.laptop.store.keep_opened(opened)

    def _write_cache(self, parcels: Sequence[Parcel]) -> None:
        realm, now = self.realm, time.time()
        file = load_cache(realm.cache_file).state / "cache" / "records.sqlite"
        database = SQLiteDatabase(file)

        def work(t: Transaction) -> None:
            for number, parcel in enumerate(parcels):
                manifest, (part,) = parcel.manifest, parcel.parts
                info = RequestInfo(
                    "bench", manifest.sender, manifest.destinations, manifest.application
                )
                announced = stored_object(info, parcel.signed, manifest)
                place = f"{number:032x}"
                objects.add(t, announced, place, Quotas(), 1 << 40, now)
                name, _ = objects.expect_part(t, manifest.object, 0, part.length, part.digest, now)
                objects.record_part(t, manifest.object, name, part.length, now)
                deliveries.told(t, "data", manifest.object, manifest.destinations, now)

        database.write(work)
        database.close()

    def _write_list(self, parcels: Sequence[Parcel]) -> None:
        realm = self.realm
        state = load_coordinator(realm.coordinator_file(DC2)).state
        store = SQLiteWaitingStore(state / "waiting.sqlite")
        endpoints = (Endpoint.of((HOST, realm.ports["cs1"])),)
        for parcel in parcels:
            manifest = parcel.manifest
            entry = CacheEntry(
                CACHE,
                endpoints,
                "data",
                manifest.object + bytes(16),
                manifest.root,
                manifest.sender,
                manifest.application,
                manifest.service,
                manifest.item,
                manifest.message,
                manifest.expires,
            )
            store.keep_entry([realm.laptop.fqdn], entry, ENTRIES_EACH, ENTRIES_ALL)
        store.close()

    async def of_coordinator(self) -> float:
        """List by the DC, ms."""
        began = time.perf_counter()
        found = await listed(self.reactor, self.realm, self.application)
        return self._judge(len(found), began)

    async def of_client(self) -> float:
        """The client's inbox, all of it verified, ms."""
        began = time.perf_counter()
        found: list[Item] = await self.realm.laptop.exchange.inbox(self.application)
        return self._judge(len(found), began)

    def _judge(self, count: int, began: float) -> float:
        seconds = time.perf_counter() - began
        if count != self.count:
            raise NothingTransferred(f"{count} of {self.count} items are listed")
        return 1000 * seconds


async def measure(
    reactor: Any, realm: StoredRealm, repeat: int, say: Say, count: int, waiting: int
) -> list[Table]:
    """Measure messages, then lists."""
    messages = Messages(reactor, realm, count)
    many = f"on {CONNECTIONS} connections at once"
    contenders: dict[str, Measure] = {
        "sent, on one connection": partial(messages.send, 1),
        "fetched and confirmed, on one connection": partial(messages.fetch, 1),
        f"sent, {many}": partial(messages.send, CONNECTIONS),
        f"fetched and confirmed, {many}": partial(messages.fetch, CONNECTIONS),
        "sent by the client library": messages.send_by_library,
        "listed, fetched and confirmed by the client library": messages.fetch_by_library,
    }
    say("-- small messages")
    rows = await in_turn(repeat, contenders, "a second", say)
    table = Table("Stored data: small messages", "a second", note=_MESSAGES)
    table.rows = list(rows.values())
    return [table, await lists(reactor, realm, repeat, say, waiting)]


async def lists(reactor: Any, realm: StoredRealm, repeat: int, say: Say, waiting: int) -> Table:
    """Measure lists; those that take long not as often."""
    say(f"-- {waiting} items that wait")
    one = Lists(reactor, realm, waiting)
    one.write()
    rows = {}
    for name, measure_one in (
        ("listed by the coordinator", one.of_coordinator),
        ("inbox of the client library", one.of_client),
    ):
        row, left = Row(name), PATIENCE
        for _ in range(repeat):
            began = time.monotonic()
            found = (await in_turn(1, {name: measure_one}, "ms", say))[name]
            row.samples += found.samples
            row.failed = found.failed
            left -= time.monotonic() - began
            if row.failed or left < time.monotonic() - began:
                break
        if row.median:
            row.detail = f"{1000 * row.median / waiting:.0f} µs an item"
        rows[name] = row
    table = Table(f"Stored data: {waiting:,} items that wait", "ms", more=False)
    table.rows = list(rows.values())
    return table
