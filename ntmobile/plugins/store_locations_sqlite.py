"""The ``sqlite`` location store, the default: one private file in the DC's state directory.

Written behind, in a thread of its own, a batch a transaction; a crash loses at most what the
clients say again by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.plugin import IPlugin
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import ILocationStore, ILocationStoreProvider, StoredClient
from ntmobile.plugins.location_database import LocationDatabase
from ntmobile.plugins.section import reject_unknown

_T = TypeVar("_T")


@implementer(ILocationStore)
class SQLiteLocationStore:
    """See :class:`~ntmobile.interfaces.ILocationStore`.

    :param reactor: where Deferreds fire; the writing is done in one thread of this store's own.
    """

    def __init__(self, file: Path, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._file = file
        self._database = LocationDatabase(file)
        self._pool: ThreadPool | None = None
        self._closed = False

    def load(self) -> Iterator[StoredClient]:
        """See the interface."""
        return self._database.load()

    def assignments(self) -> dict[str, tuple[bytes, bytes]]:
        """See the interface."""
        return self._database.assignments()

    def assign(self, fqdn: str, ipv6: bytes, ipv4: bytes) -> None:
        """See the interface."""
        self._database.assign([(fqdn, ipv6, ipv4)])

    def sequence(self) -> int:
        """See the interface."""
        return self._database.sequence()

    def write(
        self, changed: list[StoredClient], removed: list[str], sequence: int
    ) -> Deferred[None]:
        """See the interface."""
        return self._in_thread(lambda: self._database.write(changed, removed, sequence))

    def close(self) -> Deferred[None]:
        """See the interface."""
        closed: Deferred[None] = self._in_thread(self._database.close)
        self._closed = True

        def stop(result: _T) -> _T:
            if self._pool is not None:
                self._pool.stop()
                self._pool = None
            return result

        return closed.addBoth(stop)

    def _in_thread(self, call: Callable[[], None]) -> Deferred[None]:
        if self._closed:
            return fail(StorageFailed(f"{self._file}: the location store is closed"))
        if self._pool is None:
            self._pool = ThreadPool(1, 1, "ntm-locations")
            self._pool.start()
        deferred: Deferred[None] = deferToThreadPool(self._reactor, self._pool, call)
        return deferred


@implementer(IPlugin, ILocationStoreProvider)
class SQLiteLocationStoreProvider:
    """Makes a :class:`SQLiteLocationStore`. Key: ``file``, by default ``locations.sqlite``."""

    name = "sqlite"

    def configure(
        self, section: Mapping[str, object], directory: str, reactor: object
    ) -> SQLiteLocationStore:
        """See :class:`~ntmobile.interfaces.ILocationStoreProvider`."""
        reject_unknown("locations", section, ("file",))
        name = section.get("file", "locations.sqlite")
        if not isinstance(name, str) or not name:
            raise ConfigurationError("locations.file: expected a path")
        return SQLiteLocationStore(Path(directory) / name, IReactorFromThreads(reactor))


sqliteLocations = SQLiteLocationStoreProvider()
