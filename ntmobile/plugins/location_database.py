"""The file of the ``sqlite`` location store: what is in it, read and written at once.

:mod:`ntmobile.plugins.store_locations_sqlite` makes a store of it that does not block.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import StoredClient
from ntmobile.plugins.files import make_directory

#: Rows read at once.
_SOME: Final = 1000
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


class LocationDatabase:
    """The clients of a DC in one private file; may be used by several threads.

    A daemon asks what is there before it forks, and SQLite forbids to take a connection along: it
    is kept only from :meth:`load` on, or from the first writing.

    :raises ConfigurationError: the file cannot be used.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._kept: sqlite3.Connection | None = None
        make_directory(file.parent)
        file.touch(mode=0o600)
        file.chmod(0o600)  # SQLite gives its journals the same (R6)
        self._file = file
        try:
            with self._reading() as database:
                database.executescript(_SCHEMA)
        except sqlite3.Error as problem:
            raise ConfigurationError(
                f"{file}: no usable location store: {problem}; "
                f"restore it, or move it away and devices log in again"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")
        return made

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, open from now on until :meth:`close`."""
        with self._lock:
            if self._kept is None:
                self._kept = self._connect()
            return self._kept

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, closed again if it was not open."""
        with self._lock:
            if self._kept is not None:
                yield self._kept
                return
            with closing(self._connect()) as database:
                yield database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException as problem:
                if self._kept is not None and self._kept.in_transaction:
                    self._kept.execute("ROLLBACK")
                if isinstance(problem, sqlite3.Error | OverflowError):
                    text = f"{self._file}: cannot store locations: {problem}"
                    raise StorageFailed(text) from None
                raise

    def load(self) -> Iterator[StoredClient]:
        """See :class:`~ntmobile.interfaces.ILocationStore`."""
        rows = self.connection.execute("SELECT * FROM client ORDER BY registration")
        while True:
            with self._lock:
                some = rows.fetchmany(_SOME)
            if not some:
                return
            yield from (StoredClient(*row) for row in some)

    def assignments(self) -> dict[str, tuple[bytes, bytes]]:
        """See :class:`~ntmobile.interfaces.ILocationStore`."""
        with self._reading() as database:
            rows = database.execute("SELECT fqdn, ipv6, ipv4 FROM assignment")
            return {fqdn: (ipv6, ipv4) for fqdn, ipv6, ipv4 in rows}

    def assign(self, assignments: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Keep FQDNs and their virtual IPv6 and IPv4 addresses, durable when this returns."""
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO assignment VALUES (?, ?, ?) ON CONFLICT (fqdn) "
                "DO UPDATE SET ipv6 = excluded.ipv6, ipv4 = excluded.ipv4",
                assignments,
            )

    def sequence(self) -> int:
        """See :class:`~ntmobile.interfaces.ILocationStore`."""
        with self._reading() as database:
            row = database.execute("SELECT sequence FROM progress").fetchone()
            return int(row[0])

    def write(self, changed: list[StoredClient], removed: list[str], sequence: int) -> None:
        """Store a batch, durable when this returns."""
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

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
