"""Records of a cache storage in an SQLite file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.logger import Logger

from ntmobile.errors import ConfigurationError, StorageFailed, StorageFull
from ntmobile.plugins.caches.database import MIGRATIONS, Transaction, statements
from ntmobile.plugins.files import make_directory, sync_directory

_T = TypeVar("_T")

log = Logger()

#: How long a writer waits for another program, such as a backup, in seconds.
PATIENCE: Final = 10.0
_WORDS: Final = {
    "name": "TEXT",
    "digest": "BLOB",
    "document": "BLOB",
    "text": "TEXT",
    "number": "INTEGER",
    "time": "REAL",
    "table": "STRICT",
}


class _Transaction:
    """See :class:`~ntmobile.plugins.caches.database.Transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See the protocol."""
        return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, *values: Any) -> int:
        """See the protocol."""
        return self._connection.execute(sql, values).rowcount


class SQLiteDatabase:
    """See :class:`~ntmobile.plugins.caches.database.Database`.

    A connection for each thread, so that who reads does not wait for who writes.

    :param path: the file; None: in memory, for tests, and then for one thread.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._shown = str(path or "records in memory")
        self._writing = threading.RLock()
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []

    def open(self) -> None:
        """See the protocol; the file is made where there is none, and private (R6)."""
        if self._path is not None:
            try:
                make_directory(self._path.parent)
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                sync_directory(self._path.parent)
                if self._path.stat().st_mode & 0o077:
                    raise ConfigurationError(
                        f"{self._path}: others may read it; run chmod 600 {self._path}"
                    )
            except OSError as problem:
                raise StorageFailed(
                    f"{problem.filename}: cannot be opened: {problem.strerror}"
                ) from None
        self.write(self._migrate)

    def _migrate(self, t: Transaction) -> None:
        ((version,),) = t.rows("PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise ConfigurationError(f"{self._shown}: made by a newer ntmobile; upgrade this one")
        for statement in statements(version, _WORDS):
            t.change(statement)
        t.change(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(
                self._path or ":memory:",
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,  # closed by the thread that closes the storage
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                found.execute(f"PRAGMA {pragma}")
            self._local.connection = found
            self._all.append(found)
        return found

    def hurry(self) -> None:
        """See the protocol; nothing here is patient for long."""

    def close(self) -> None:
        """See the protocol."""
        while self._all:
            self._all.pop().close()
        self._local = threading.local()

    def read(self, work: Callable[[Transaction], _T]) -> _T:
        """See the protocol."""
        return self._within("BEGIN", work)

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """See the protocol."""
        with self._writing:
            return self._within("BEGIN IMMEDIATE", work)

    def _within(self, begin: str, work: Callable[[Transaction], _T]) -> _T:
        connection = None
        try:
            connection = self._connection()
            connection.execute(begin)
            result = work(_Transaction(connection))
            connection.execute("COMMIT")
            return result
        except BaseException as problem:
            _roll_back(connection)
            if not isinstance(problem, sqlite3.Error):
                raise
            if getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                # Clients are told this one.
                log.error("{where}: {problem}", where=self._shown, problem=str(problem))
                raise StorageFull(f"{problem}; nothing was changed, try again later") from problem
            raise StorageFailed(f"{self._shown}: {problem}; nothing was changed") from problem


def _roll_back(connection: sqlite3.Connection | None) -> None:
    try:
        if connection is not None and connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # SQLite has rolled back by itself, for instance on a full disk
