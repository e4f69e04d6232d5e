"""A private SQLite file, used by one process: connections, transactions, and their failures.

Erased rows are overwritten (``secure_delete``), and :meth:`PrivateDatabase.scrub` empties the log
in which copies of them may be left.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.plugins.files import make_directory

#: How long to wait for another connection, in seconds.
PATIENCE: Final = 5.0


class PrivateDatabase:
    """One file that only its owner may read (R6).

    A daemon opens it before it forks, and SQLite forbids to take a connection along: none is kept
    until the file is used.

    :param what: is in it, for people. :param schema: made where it is not there yet.
    :raises ConfigurationError: the file cannot be used.
    """

    def __init__(self, file: Path, what: str, schema: str) -> None:
        self._file = file
        self._what = what
        self._lock = threading.RLock()
        self._kept: sqlite3.Connection | None = None
        try:
            make_directory(file.parent)
            file.touch(mode=0o600)
            file.chmod(0o600)  # SQLite gives its journals the same
            with self._lock:
                self._connected().executescript(schema)
        except (OSError, sqlite3.Error) as problem:
            raise ConfigurationError(
                f"{file}: {what} cannot be kept there: {problem}; restore it, or move it away"
            ) from None
        finally:
            self.close()

    def _connected(self) -> sqlite3.Connection:
        if self._kept is None:
            made = sqlite3.connect(
                self._file, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                made.execute(f"PRAGMA {pragma}")
            self._kept = made
        return self._kept

    @contextmanager
    def access(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """A transaction that happens as a whole, or not at all.

        :raises StorageFailed: it does not.
        """
        with self._lock:
            try:
                database = self._connected()
                database.execute(begin)
                yield database
                database.execute("COMMIT")
            except BaseException as problem:
                self._roll_back()
                if isinstance(problem, sqlite3.Error | OverflowError):
                    text = f"{self._file}: {self._what} cannot be kept: {problem}"
                    raise StorageFailed(text) from None
                raise

    def _roll_back(self) -> None:
        try:
            if self._kept is not None and self._kept.in_transaction:
                self._kept.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has rolled back by itself, for instance on a full disk

    def scrub(self) -> None:
        """Empty the log, so that what was erased is nowhere in the files any more."""
        with self._lock:
            try:
                self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as problem:
                raise StorageFailed(f"{self._file}: {self._what}: {problem}") from None

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None
