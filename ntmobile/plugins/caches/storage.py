"""A cache storage made of a database and a place for blobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ntmobile.errors import NoSuchItem, NTMobileError, StorageFailed, Unreachable
from ntmobile.interfaces import (
    Exchange,
    ICacheStorage,
    IIncomingPart,
    Quotas,
    Standing,
    StoredDelivery,
    StoredKey,
    StoredObject,
    StoredPart,
    Usage,
    WaitingKind,
)
from ntmobile.plugins.caches import accounts, deliveries, keys, objects
from ntmobile.plugins.caches.blobs import BlobName, Blobs, BlobWriter
from ntmobile.plugins.caches.database import Database, Transaction
from ntmobile.plugins.caches.incoming import IncomingPart

_T = TypeVar("_T")

log = Logger()

#: Calls that may be under way or waiting for a thread.
WAITING: Final = 1024
#: Keys or objects that are removed in one transaction.
BATCH: Final = 200


class Threads(Protocol):
    """Where what blocks is done."""

    def run(self, call: Callable[[], _T]) -> Deferred[_T]:
        """Do it, and fire with its result in the reactor's thread."""

    def stop(self) -> None:
        """Wait for what is under way."""


class PoolThreads:
    """A few threads of its own, made when they are first needed, that is after any fork."""

    def __init__(self, reactor: IReactorFromThreads, count: int) -> None:
        self._reactor = reactor
        self._count = count
        self._pool: ThreadPool | None = None

    def run(self, call: Callable[[], _T]) -> Deferred[_T]:
        """See :class:`Threads`."""
        if self._pool is None:
            self._pool = ThreadPool(0, self._count, "ntm-cache-storage")
            self._pool.start()
        running: Deferred[_T] = deferToThreadPool(self._reactor, self._pool, call)
        return running

    def stop(self) -> None:
        """See :class:`Threads`."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


@implementer(ICacheStorage)
class RecordStorage:
    """See :class:`~ntmobile.interfaces.ICacheStorage`.

    :param capacity: bytes that may be stored; 0: as many as there is room for.
    :param random: makes the names of places.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        quotas: Quotas,
        threads: Threads,
        capacity: int = 0,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._quotas = quotas
        self._threads = threads
        self._capacity = capacity
        self._random = random
        self._writers: set[BlobWriter] = set()
        self._closed = False
        self._busy = 0
        self._idle: Deferred[None] | None = None

    def _run(self, call: Callable[[], _T]) -> Deferred[_T]:
        if self._closed:
            return fail(StorageFailed("the cache's storage is closed"))
        if self._busy >= WAITING:
            return fail(Unreachable("the cache server is busy; try again in a minute"))
        self._busy += 1
        return self._threads.run(call).addBoth(self._done)

    def _done(self, result: _T) -> _T:
        self._busy -= 1
        if not self._busy and self._idle is not None:
            self._idle.callback(None)
        return result

    # -- Opening and closing

    def open(self) -> Deferred[None]:
        """See the interface."""

        def work() -> None:
            self._database.open()
            swept = self._blobs.open(
                lambda place: self._database.read(lambda t: objects.kept(t, place))
            )
            if swept:
                log.info("{swept} parts that a crash left were removed", swept=swept)
            self._database.write(accounts.rebuild)

        async def opened() -> None:
            try:
                await self._run(work)
            except BaseException:
                await self._not_opened()
                raise

        return Deferred.fromCoroutine(opened())

    async def _not_opened(self) -> None:
        """Leave no lock, connection or thread behind: it may be tried again, or never."""
        if self._closed:
            return
        with suppress(NTMobileError):
            await self._run(self._let_go)
        if not self._closed:
            self._threads.stop()

    def _let_go(self) -> None:
        while self._writers:
            self._writers.pop().drop()
        self._blobs.close()
        self._database.close()

    def close(self) -> Deferred[None]:
        """See the interface; the threads end after the last thing that was asked."""
        if self._closed:
            return succeed(None)
        self._closed = True
        self._idle = Deferred()
        self._database.hurry()
        if not self._busy:
            self._idle.callback(None)

        def stop(result: _T) -> _T:
            self._threads.stop()
            return result

        return self._idle.addCallback(lambda _: self._threads.run(self._let_go)).addBoth(stop)

    # -- Keys

    def add_keys(self, added: Sequence[StoredKey], at: float) -> Deferred[None]:
        """See the interface."""
        quotas, free = self._quotas, self._blobs.free
        return self._run(
            lambda: self._database.write(
                lambda t: keys.add(t, added, quotas, accounts.room(t, self._capacity, free()), at)
            )
        )

    def key(self, identifier: bytes, destination: str, at: float) -> Deferred[StoredKey | None]:
        """See the interface."""
        return self._run(
            lambda: self._database.read(lambda t: keys.find(t, identifier, destination, at))
        )

    # -- Objects

    def add_object(self, announced: StoredObject, at: float) -> Deferred[Standing]:
        """See the interface."""
        place = self._random(16).hex()

        def work() -> Standing:
            standing, freed = self._database.write(
                lambda t: objects.add(
                    t,
                    announced,
                    place,
                    self._quotas,
                    accounts.room(t, self._capacity, self._blobs.free()),
                    at,
                )
            )
            self._clear(freed)
            return standing

        return self._run(work)

    def find(self, identifier: bytes, at: float) -> Deferred[StoredObject | None]:
        """See the interface."""

        def work() -> StoredObject | None:
            record = self._database.read(lambda t: objects.find(t, identifier, at))
            return None if record is None else record.announced

        return self._run(work)

    def standing(self, identifier: bytes, at: float, limit: int = 1000) -> Deferred[Standing]:
        """See the interface."""
        return self._run(
            lambda: self._database.read(
                lambda t: objects.standing(t, objects.expect(t, identifier, at), limit)
            )
        )

    def look_up(
        self, identifier: bytes, at: float, limit: int = 1000
    ) -> Deferred[tuple[StoredObject, Standing] | None]:
        """See the interface."""

        def look(t: Transaction) -> tuple[StoredObject, Standing] | None:
            record = objects.find(t, identifier, at)
            if record is None:
                return None
            return record.announced, objects.standing(t, record, limit)

        return self._run(lambda: self._database.read(look))

    def put_part(
        self, identifier: bytes, number: int, data: bytes, digest: bytes, at: float
    ) -> Deferred[bool]:
        """See the interface."""

        def work() -> bool:
            size = len(data)
            name, there = self._database.read(
                lambda t: objects.expect_part(t, identifier, number, size, digest, at)
            )
            if not there:
                self._blobs.put(name, data)
            return self._record(identifier, name, size, at)

        return self._run(work)

    def begin_part(
        self, identifier: bytes, sender: str, number: int, size: int, digest: bytes, at: float
    ) -> Deferred[IIncomingPart]:
        """See the interface."""

        def look(t: Transaction) -> tuple[BlobName, bool]:
            if objects.expect(t, identifier, at).announced.sender != sender:
                raise NoSuchItem(f"there is no object {identifier.hex()} of {sender} here")
            return objects.expect_part(t, identifier, number, size, digest, at)

        def work() -> IIncomingPart:
            name, there = self._database.read(look)
            writer = None if there else self._blobs.begin(name)
            if writer is not None:
                self._writers.add(writer)
            return IncomingPart(self, identifier, name, size, writer)

        return self._run(work)

    def incoming(self, call: Callable[[], _T]) -> Deferred[_T]:
        """Do something with a part that is coming."""
        return self._run(call)

    def record(
        self, identifier: bytes, name: BlobName, size: int, writer: BlobWriter | None, at: float
    ) -> bool:
        """Keep a blob that has come, and record it; blocks."""
        if writer is not None:
            writer.keep()
        return self._record(identifier, name, size, at)

    def ended(self, writer: BlobWriter) -> None:
        """A blob was kept, or will not be; blocks."""
        self._writers.discard(writer)
        writer.drop()

    def _record(self, identifier: bytes, name: BlobName, size: int, at: float) -> bool:
        try:
            return self._database.write(
                lambda t: objects.record_part(t, identifier, name, size, at)
            )
        except StorageFailed:
            raise  # whether it was recorded is not known: what was not is swept at start
        except NTMobileError:
            self._discard(name)
            raise

    def _discard(self, name: BlobName) -> None:
        """Remove a blob that was not recorded: unless it was, for somebody else."""
        known = self._database.read(lambda t: objects.kept(t, name.place))
        if (name.part, name.digest) not in known:
            self._blobs.drop(name)

    def part(self, identifier: bytes, number: int, at: float) -> Deferred[StoredPart | None]:
        """See the interface."""

        def work() -> StoredPart | None:
            found = self._locate(identifier, number, at)
            return None if found is None else found[1]

        return self._run(work)

    def _locate(self, identifier: bytes, number: int, at: float) -> tuple[str, StoredPart] | None:
        return self._database.read(lambda t: objects.locate_part(t, identifier, number, at))

    def read_part(
        self, identifier: bytes, number: int, start: int, length: int, at: float
    ) -> Deferred[bytes]:
        """See the interface."""

        def locate() -> BlobName:
            found = self._locate(identifier, number, at)
            if found is None:
                raise NoSuchItem(f"part {number} of object {identifier.hex()} is not here")
            return BlobName(found[0], number, found[1].digest)

        def work() -> bytes:
            name = locate()
            try:
                return self._blobs.get(name, start, length)
            except StorageFailed:
                locate()  # it may have been removed since, which is no failure of the storage
                raise

        return self._run(work)

    def remove(self, identifier: bytes) -> Deferred[bool]:
        """See the interface."""

        def work() -> bool:
            place = self._database.write(lambda t: objects.remove(t, identifier))
            self._clear(place)
            return place is not None

        return self._run(work)

    def _clear(self, place: str | None) -> None:
        """Remove the blobs of a place whose records are gone; what fails is swept at start."""
        if place is None:
            return
        try:
            self._blobs.clear(place)
        except StorageFailed as problem:
            log.warn("parts are left until the next start: {problem}", problem=problem)

    # -- Deliveries

    def deliveries(self, identifier: bytes, at: float) -> Deferred[list[StoredDelivery]]:
        """See the interface."""
        return self._run(
            lambda: self._database.read(lambda t: deliveries.listed(t, identifier, at))
        )

    def confirm(
        self, identifier: bytes, destination: str, confirmation: bytes, at: float
    ) -> Deferred[Standing]:
        """See the interface."""

        def work() -> Standing:
            standing, freed = self._database.write(
                lambda t: deliveries.confirm(t, identifier, destination, confirmation, at)
            )
            self._clear(freed)
            return standing

        return self._run(work)

    def exchanges(self, at: float, limit: int) -> Deferred[list[Exchange]]:
        """See the interface."""
        return self._run(lambda: self._database.read(lambda t: deliveries.due(t, at, limit)))

    def next_exchange(self) -> Deferred[float | None]:
        """See the interface."""
        return self._run(lambda: self._database.read(deliveries.next_due))

    def told(
        self, kind: WaitingKind, identifier: bytes, destinations: Sequence[str], at: float
    ) -> Deferred[None]:
        """See the interface."""
        return self._run(
            lambda: self._database.write(
                lambda t: deliveries.told(t, kind, identifier, destinations, at)
            )
        )

    def postpone(
        self,
        kind: WaitingKind,
        identifier: bytes,
        destinations: Sequence[str],
        reason: str,
        until: float | None,
        at: float,
    ) -> Deferred[None]:
        """See the interface."""
        return self._run(
            lambda: self._database.write(
                lambda t: deliveries.postpone(t, kind, identifier, destinations, reason, until, at)
            )
        )

    # -- Room

    def expire(self, at: float, idle: float) -> Deferred[int]:
        """See the interface; a batch a transaction, so that others come in between."""

        def work() -> int:
            total = 0
            while True:
                count = self._database.write(lambda t: keys.expire(t, at, BATCH))
                total += count
                if count < BATCH:
                    break
            while True:
                places = self._database.write(lambda t: objects.expire(t, at, idle, BATCH))
                for place in places:
                    self._clear(place)
                total += len(places)
                if len(places) < BATCH:
                    return total

        return self._run(work)

    def usage(self, *, user: str | None = None, application: str | None = None) -> Deferred[Usage]:
        """See the interface."""
        return self._run(
            lambda: self._database.read(
                lambda t: accounts.usage(t, owner=user, application=application)
            )
        )

    def free(self) -> Deferred[int]:
        """See the interface."""
        return self._run(
            lambda: self._database.read(
                lambda t: accounts.room(t, self._capacity, self._blobs.free())
            )
        )
