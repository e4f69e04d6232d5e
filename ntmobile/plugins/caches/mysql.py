"""Records and blobs of a cache storage in a MySQL or MariaDB database."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import pymysql
from attrs import frozen
from pymysql.constants import CLIENT, CR, ER
from twisted.logger import Logger

from ntmobile.errors import ConfigurationError, StorageFailed, StorageFull
from ntmobile.plugins.caches.blobs import BlobName, Gathered, Kept
from ntmobile.plugins.caches.database import MIGRATIONS, Transaction, statements
from ntmobile.plugins.files import read_secret

_T = TypeVar("_T")

log = Logger()

#: How long a lost connection is made again before who asked is told, in seconds.
PATIENCE: Final = 10.0
#: Bytes of a part in one row. Twice as many, in hexadecimal, are one statement, and 1 MiB is what
#: servers take that were told to take little (``max_allowed_packet``).
CHUNK: Final = 256 << 10
#: What may be different when it is tried again.
_PASSING: Final = (
    0,  # the connection is closed already, says PyMySQL
    CR.CR_CONN_HOST_ERROR,
    CR.CR_CONNECTION_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    ER.CON_COUNT_ERROR,
    ER.SERVER_SHUTDOWN,
    ER.LOCK_WAIT_TIMEOUT,
    ER.LOCK_DEADLOCK,
    ER.QUERY_INTERRUPTED,
    1927,  # ER_CONNECTION_KILLED, of MariaDB
)
_FULL: Final = (ER.DISK_FULL, ER.RECORD_FILE_FULL, 3675)
_WORDS: Final = {
    "name": "VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin",
    "digest": "VARBINARY(32)",
    "document": "MEDIUMBLOB",
    "text": "TEXT CHARACTER SET utf8mb4",
    "number": "BIGINT",
    "time": "DOUBLE",
    "table": "ENGINE=InnoDB",
}
_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS cache_state (
        one INT PRIMARY KEY,
        version INT NOT NULL
    ) ENGINE=InnoDB;
    INSERT IGNORE INTO cache_state (one, version) VALUES (1, 0);
    CREATE TABLE IF NOT EXISTS cache_blobs (
        place VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        part BIGINT NOT NULL,
        digest BINARY(32) NOT NULL,
        piece INT NOT NULL,
        data MEDIUMBLOB NOT NULL,
        PRIMARY KEY (place, part, digest, piece)
    ) ENGINE=InnoDB
"""
#: Blobs and writers see what others have done; who reads records sees one moment.
_READING: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_SESSION: Final = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION innodb_lock_wait_timeout = 10",
)


@frozen
class Account:
    """Where the database is, and who we are there.

    :ivar socket: path of the server's Unix socket; empty: ``host`` and ``port`` count.
    :ivar password_file: read at each connection, so that it may change (R6: it is nowhere else).
    :ivar authority: file of certificates by which the server proves itself; None: no TLS.
    """

    host: str
    port: int
    socket: str
    user: str
    database: str
    password_file: Path
    authority: Path | None = None

    def __str__(self) -> str:
        where = self.socket or f"{self.host}:{self.port}"
        return f"database {self.database} of {self.user} at {where}"

    def connect(self) -> pymysql.connections.Connection[Any]:
        """Connect.

        :raises ConfigurationError: the password cannot be read.
        :raises pymysql.Error: the server cannot be reached, or refuses.
        """
        password = read_secret(self.password_file, 4096).decode("latin1").strip()
        made = pymysql.connect(
            host=self.host,
            port=self.port,
            unix_socket=self.socket or None,
            user=self.user,
            password=password,
            database=self.database,
            charset="utf8mb4",
            connect_timeout=5,
            read_timeout=60,
            write_timeout=60,
            # Rows that were found count as changed, also where they are the same as before.
            client_flag=CLIENT.FOUND_ROWS,
            ssl=self._context(),
        )
        with made.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        return made

    def _context(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.authority))
        except (OSError, ssl.SSLError) as problem:
            raise ConfigurationError(f"{self.authority}: cannot be used: {problem}") from None


class _Transaction:
    """See :class:`~ntmobile.plugins.caches.database.Transaction`."""

    def __init__(self, connection: pymysql.connections.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """See the protocol."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values or None)
            return list(cursor.fetchall())

    def change(self, sql: str, *values: object) -> int:
        """See the protocol."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values or None)
            return int(cursor.rowcount)


class MySQLDatabase:
    """See :class:`~ntmobile.plugins.caches.database.Database`.

    A connection for each thread, made again when it is lost. Writers take the lock of the one row
    of ``cache_state``, so that they happen one after the other whoever they are.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._local = threading.local()
        self._all: set[pymysql.connections.Connection[Any]] = set()
        self._guard = threading.Lock()
        self._hurry = threading.Event()

    def open(self) -> None:
        """See the protocol; the database is this cache server's as long as it lives."""
        self._hurry.clear()
        self.change(self._migrate)
        owner = self._connection()
        t = _Transaction(owner)
        try:
            t.change("SET SESSION wait_timeout = 31536000")  # the longest: it only waits
            name = "CONCAT('ntm-cache:', SHA1(DATABASE()))"
            ((taken,),) = t.rows(f"SELECT GET_LOCK({name}, ?)", PATIENCE / 2)
        except pymysql.Error as problem:
            raise self._failure(problem) from None
        if not taken:
            raise StorageFailed(
                f"{self._account}: another cache server uses it; each needs a database of its own"
            )
        self._local = threading.local()  # so that this connection is used for nothing else

    def _migrate(self, t: Transaction) -> None:
        for statement in _TABLES.split(";"):
            t.change(statement)
        ((version,),) = t.rows("SELECT version FROM cache_state")
        if version > len(MIGRATIONS):
            raise ConfigurationError(f"{self._account}: made by a newer ntmobile; upgrade this one")
        for statement in statements(version, _WORDS):
            try:
                t.change(statement.replace("INDEX IF NOT EXISTS", "INDEX"))  # MySQL has no such IF
            except pymysql.Error as problem:
                if _code(problem) != ER.DUP_KEYNAME:
                    raise
        t.change("UPDATE cache_state SET version = ?", len(MIGRATIONS))

    def hurry(self) -> None:
        """See the protocol."""
        self._hurry.set()

    def close(self) -> None:
        """See the protocol."""
        self._hurry.set()
        for connection in list(self._all):
            self._forget(connection)

    def read(self, work: Callable[[Transaction], _T]) -> _T:
        """See the protocol."""
        return self._patiently(work, _READING)

    def change(self, work: Callable[[Transaction], _T]) -> _T:
        """Do what may happen beside what others do."""
        return self._patiently(work)

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """See the protocol."""

        def alone(t: Transaction) -> _T:
            t.rows("SELECT version FROM cache_state WHERE one = 1 FOR UPDATE")
            return work(t)

        return self._patiently(alone)

    def _patiently(self, work: Callable[[Transaction], _T], before: str = "") -> _T:
        """Do a work in a transaction, and again while what prevents it may pass."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.05
        while True:
            try:
                return self._once(work, before)
            except (pymysql.Error, OSError) as problem:
                passing = _code(problem) in _PASSING and not self._hurry.is_set()
                if not passing or time.monotonic() + pause > deadline:
                    raise self._failure(problem) from None
            self._hurry.wait(pause)
            pause = min(2 * pause, 1.0)

    def _once(self, work: Callable[[Transaction], _T], before: str) -> _T:
        connection = self._connection()
        try:
            if before:
                _Transaction(connection).change(before)
            connection.begin()
            result = work(_Transaction(connection))
            connection.commit()
            return result
        except pymysql.Error:
            self._forget(connection)
            raise
        except BaseException:
            try:
                connection.rollback()
            except pymysql.Error:
                self._forget(connection)
            raise

    def _connection(self) -> pymysql.connections.Connection[Any]:
        """This thread's connection."""
        found: pymysql.connections.Connection[Any] | None = getattr(self._local, "it", None)
        if found is None or found not in self._all:
            found = self._account.connect()
            self._local.it = found
            with self._guard:
                self._all.add(found)
        return found

    def _forget(self, connection: pymysql.connections.Connection[Any]) -> None:
        with self._guard:
            self._all.discard(connection)
        with suppress(pymysql.Error, OSError):
            connection.close()

    def _failure(self, problem: Exception) -> StorageFailed:
        """What to say: the server's own line has no password, and no data."""
        code = _code(problem)
        text = " ".join(str(problem.args[-1] if problem.args else problem).split())
        if code in _FULL or "errno: 28" in text.lower():
            # Clients are told this one.
            log.error("{where}: {problem}", where=str(self._account), problem=text[:300])
            return StorageFull("the database is full; nothing was changed, try again later")
        return StorageFailed(f"{self._account}: {text[:300]}; nothing was changed")


def _code(problem: Exception) -> int:
    code = problem.args[0] if problem.args else 0
    return code if isinstance(code, int) else 0


class RowBlobs:
    """Blobs in rows of the same database; see :class:`~ntmobile.plugins.caches.blobs.Blobs`.

    In pieces of :data:`CHUNK`, because a server bounds the size of a statement, and because it
    reads a LONGBLOB as a whole, also where a little of it is asked for.
    """

    def __init__(self, database: MySQLDatabase) -> None:
        self._database = database

    def open(self, kept: Callable[[str], Kept]) -> int:
        """See the protocol; the database finds by itself what is not recorded."""
        names = self._database.change(
            lambda t: t.rows(
                "SELECT DISTINCT b.place, b.part, b.digest FROM cache_blobs AS b"
                " LEFT JOIN cache_parts AS p"
                " ON p.place = b.place AND p.part = b.part AND p.digest = b.digest"
                " WHERE p.place IS NULL"
            )
        )
        for place, part, digest in names:
            self.drop(BlobName(place, part, bytes(digest)))
        return len(names)

    def close(self) -> None:
        """See the protocol."""

    def put(self, name: BlobName, data: bytes) -> None:
        """See the protocol."""
        # REPLACE, because it may have been done already, or in part, before a connection was lost.
        # The data is put into the statement in hexadecimal, ten times as fast as PyMySQL escapes.
        pieces = [
            "REPLACE INTO cache_blobs (place, part, digest, piece, data) VALUES"
            f" (?, ?, ?, ?, x'{data[start : start + CHUNK].hex()}')"
            for start in range(0, len(data), CHUNK)
        ]

        def work(t: Transaction) -> None:
            for piece, statement in enumerate(pieces):
                t.change(statement, name.place, name.part, name.digest, piece)

        self._database.change(work)

    def begin(self, name: BlobName) -> Gathered:
        """See the protocol: it is written when it is whole."""
        return Gathered(self, name)

    def get(self, name: BlobName, start: int, length: int) -> bytes:
        """See the protocol."""
        first, last = start // CHUNK, (start + max(length, 1) - 1) // CHUNK
        rows = self._database.change(
            lambda t: t.rows(
                "SELECT piece, data FROM cache_blobs WHERE place = ? AND part = ? AND digest = ?"
                " AND piece BETWEEN ? AND ? ORDER BY piece",
                name.place,
                name.part,
                name.digest,
                first,
                last,
            )
        )
        data = b"".join(bytes(piece) for _, piece in rows)
        if not rows and not self._there(name):
            raise StorageFailed(f"part {name.part} is missing in the database; restore a backup")
        return data[start - first * CHUNK :][:length]

    def _there(self, name: BlobName) -> bool:
        return bool(
            self._database.change(
                lambda t: t.rows(
                    "SELECT piece FROM cache_blobs WHERE place = ? AND part = ? AND digest = ?"
                    " AND piece = 0",
                    name.place,
                    name.part,
                    name.digest,
                )
            )
        )

    def drop(self, name: BlobName) -> None:
        """See the protocol."""
        self._database.change(
            lambda t: t.change(
                "DELETE FROM cache_blobs WHERE place = ? AND part = ? AND digest = ?",
                name.place,
                name.part,
                name.digest,
            )
        )

    def clear(self, place: str) -> None:
        """See the protocol; some rows at a time, for the server's log of undoing has bounds."""
        while self._database.change(
            lambda t: t.change("DELETE FROM cache_blobs WHERE place = ? LIMIT 256", place)
        ):
            pass

    def free(self) -> int | None:
        """See the protocol: a database does not say."""
        return None
