"""The ``sqlite`` location store, the default: one private file in the DC's state directory.

Written behind, in a thread of its own, a batch a transaction; a crash loses at most what the
clients say again by themselves.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.plugin import IPlugin
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import ILocationStore, ILocationStoreProvider, StoredClient
from ntmobile.plugins.files import make_directory
from ntmobile.plugins.section import reject_unknown

_T = TypeVar("_T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS client (
    fqdn TEXT PRIMARY KEY, session BLOB NOT NULL, key BLOB NOT NULL, certificate BLOB NOT NULL,
    expires REAL NOT NULL, location BLOB NOT NULL, policy BLOB NOT NULL,
    registration INTEGER NOT NULL, correspondents BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS assignment (
    fqdn TEXT PRIMARY KEY, ipv6 BLOB NOT NULL UNIQUE, ipv4 BLOB NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO progress VALUES (1, 0);
"""


@implementer(ILocationStore)
class SQLiteLocationStore:
    """See :class:`~ntmobile.interfaces.ILocationStore`.

    :param reactor: where Deferreds fire; the writing is done in one thread of this store's own.
    """

    def __init__(self, file: Path, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._lock = threading.Lock()
        make_directory(file.parent)
        file.touch(mode=0o600)
        file.chmod(0o600)  # SQLite gives its journals the same (R6)
        self._file = file
        self._pool: ThreadPool | None = None
        self._closed = False
        try:
            self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as problem:
            raise ConfigurationError(
                f"{file}: no usable location store: {problem}; "
                f"restore it, or move it away and devices log in again"
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as problem:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(problem, sqlite3.Error | OverflowError):
                    text = f"{self._file}: cannot store locations: {problem}"
                    raise StorageFailed(text) from None
                raise

    def load(self) -> list[StoredClient]:
        """See the interface."""
        with self._lock:
            rows = self._database.execute("SELECT * FROM client ORDER BY registration")
            return [StoredClient(*row) for row in rows]

    def assignments(self) -> dict[str, tuple[bytes, bytes]]:
        """See the interface."""
        with self._lock:
            rows = self._database.execute("SELECT fqdn, ipv6, ipv4 FROM assignment")
            return {fqdn: (ipv6, ipv4) for fqdn, ipv6, ipv4 in rows}

    def assign(self, fqdn: str, ipv6: bytes, ipv4: bytes) -> None:
        """See the interface."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO assignment VALUES (?, ?, ?) ON CONFLICT (fqdn) "
                "DO UPDATE SET ipv6 = excluded.ipv6, ipv4 = excluded.ipv4",
                (fqdn, ipv6, ipv4),
            )

    def sequence(self) -> int:
        """See the interface."""
        with self._lock:
            row = self._database.execute("SELECT sequence FROM progress").fetchone()
            return int(row[0])

    def write(
        self, changed: list[StoredClient], removed: list[str], sequence: int
    ) -> Deferred[None]:
        """See the interface."""
        return self._in_thread(lambda: self._write(changed, removed, sequence))

    def _write(self, changed: list[StoredClient], removed: list[str], sequence: int) -> None:
        with self._transaction() as database:
            database.executemany("DELETE FROM client WHERE fqdn = ?", [(one,) for one in removed])
            database.executemany(
                "INSERT OR REPLACE INTO client VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        one.fqdn,
                        one.index,
                        one.key,
                        one.certificate,
                        one.expires,
                        one.location,
                        one.policy,
                        one.order,
                        one.correspondents,
                    )
                    for one in changed
                ],
            )
            database.execute("UPDATE progress SET sequence = max(sequence, ?)", (sequence,))

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
