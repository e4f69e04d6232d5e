"""The ``sqlite`` store of what waits at a DC, the default: one private file (R31)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import (
    IWaitingStore,
    IWaitingStoreProvider,
    Kept,
    KnownDevice,
    WaitingKey,
)
from ntmobile.plugins.private_database import PrivateDatabase
from ntmobile.plugins.section import reject_unknown
from ntmobile.wire.messages.exchange import CacheEntry, PreKey

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS device (
    fqdn TEXT PRIMARY KEY, certificate BLOB NOT NULL, identity BLOB NOT NULL, allow BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS temporal_key (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT, fqdn TEXT NOT NULL, sender TEXT NOT NULL,
    application TEXT NOT NULL, identifier BLOB NOT NULL, key BLOB NOT NULL, expires REAL NOT NULL,
    UNIQUE (fqdn, identifier)
) STRICT;
CREATE INDEX IF NOT EXISTS temporal_key_by_sender ON temporal_key (fqdn, sender);
CREATE INDEX IF NOT EXISTS temporal_key_by_expiry ON temporal_key (expires);
CREATE TABLE IF NOT EXISTS entry (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT, fqdn TEXT NOT NULL, identifier BLOB NOT NULL,
    sender TEXT NOT NULL, application TEXT NOT NULL, expires REAL NOT NULL, entry BLOB NOT NULL,
    UNIQUE (fqdn, identifier, sender)
) STRICT;
CREATE INDEX IF NOT EXISTS entry_by_sender ON entry (fqdn, sender);
CREATE INDEX IF NOT EXISTS entry_by_expiry ON entry (expires);
CREATE TABLE IF NOT EXISTS prekey (
    fqdn TEXT NOT NULL, number INTEGER NOT NULL, expires REAL NOT NULL, prekey BLOB NOT NULL,
    PRIMARY KEY (fqdn, number)
) STRICT, WITHOUT ROWID;
"""
#: Tables of what belongs to one device.
_BELONGINGS: Final = ("temporal_key", "entry", "prekey")
_ENTRY: Final = msgspec.msgpack.Decoder(CacheEntry)
_PREKEY: Final = msgspec.msgpack.Decoder(PreKey)
_NAMES: Final = msgspec.msgpack.Decoder(tuple[str, ...])


@implementer(IWaitingStore)
class SQLiteWaitingStore:
    """See :class:`~ntmobile.interfaces.waiting.IWaitingStore` for the methods."""

    def __init__(self, file: Path) -> None:
        self._database = PrivateDatabase(file, "what waits for devices", _SCHEMA)

    # -- devices

    def note(self, devices: Sequence[KnownDevice], gone: Sequence[str]) -> None:
        """See the interface."""
        with self._database.access() as database:
            for fqdn in gone:
                _forget(database, fqdn)
                database.execute("DELETE FROM device WHERE fqdn = ?", (fqdn,))
            for one in devices:
                row = database.execute(
                    "SELECT identity FROM device WHERE fqdn = ?", (one.fqdn,)
                ).fetchone()
                if row is not None and row[0] != one.identity:
                    _forget(database, one.fqdn)
                database.execute(
                    "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?)",
                    (one.fqdn, one.certificate, one.identity, msgspec.msgpack.encode(one.allow)),
                )

    def devices(self, fqdns: Sequence[str]) -> dict[str, KnownDevice]:
        """See the interface."""
        found = {}
        with self._database.access("BEGIN") as database:
            for fqdn in fqdns:
                row = database.execute("SELECT * FROM device WHERE fqdn = ?", (fqdn,)).fetchone()
                if row is not None:
                    found[fqdn] = KnownDevice(row[0], row[1], row[2], _NAMES.decode(row[3]))
        return found

    # -- temporal keys

    def keep_keys(self, keys: Sequence[WaitingKey], each: int, all_: int) -> list[Kept]:
        """See the interface."""
        with self._database.access() as database:
            return [_keep_key(database, one, each, all_) for one in keys]

    def key_identifiers(self, fqdn: str, after: bytes, at: float, most: int) -> list[bytes]:
        """See the interface."""
        with self._database.access("BEGIN") as database:
            rows = database.execute(
                "SELECT identifier FROM temporal_key WHERE fqdn = ? AND expires > ? AND arrival > "
                "coalesce((SELECT max(arrival) FROM temporal_key"
                " WHERE fqdn = ? AND identifier = ?), 0) ORDER BY arrival LIMIT ?",
                (fqdn, at, fqdn, after, most),
            )
            return [row[0] for row in rows]

    def key(self, fqdn: str, identifier: bytes, at: float) -> WaitingKey | None:
        """See the interface."""
        with self._database.access("BEGIN") as database:
            row = database.execute(
                "SELECT fqdn, sender, application, identifier, key, expires FROM temporal_key"
                " WHERE fqdn = ? AND identifier = ? AND expires > ?",
                (fqdn, identifier, at),
            ).fetchone()
            return None if row is None else WaitingKey(*row)

    def erase_key(self, fqdn: str, identifier: bytes) -> bool:
        """See the interface."""
        with self._database.access() as database:
            erased = database.execute(
                "DELETE FROM temporal_key WHERE fqdn = ? AND identifier = ?", (fqdn, identifier)
            )
            return erased.rowcount > 0

    # -- entries

    def keep_entry(
        self, fqdns: Sequence[str], entry: CacheEntry, each: int, all_: int
    ) -> list[Kept]:
        """See the interface."""
        encoded = msgspec.msgpack.encode(entry)
        with self._database.access() as database:
            return [_keep_entry(database, one, entry, encoded, each, all_) for one in fqdns]

    def entries(
        self,
        fqdn: str,
        application: str | None,
        after: bytes,
        at: float,
        most: int,
        sender: str = "",
    ) -> list[CacheEntry]:
        """See the interface."""
        with self._database.access("BEGIN") as database:
            rows = database.execute(
                "SELECT entry FROM entry WHERE fqdn = ? AND (? IS NULL OR application = ?)"
                " AND expires > ? AND arrival > coalesce((SELECT max(arrival) FROM entry"
                " WHERE fqdn = ? AND identifier = ? AND ? IN ('', sender)), 0)"
                " ORDER BY arrival LIMIT ?",
                (fqdn, application, application, at, fqdn, after, sender, most),
            )
            return [_ENTRY.decode(row[0]) for row in rows]

    def erase_entry(self, fqdn: str, identifier: bytes, sender: str = "") -> bool:
        """See the interface."""
        with self._database.access() as database:
            erased = database.execute(
                "DELETE FROM entry WHERE fqdn = ? AND identifier = ? AND ? IN ('', sender)",
                (fqdn, identifier, sender),
            )
            return erased.rowcount > 0

    # -- pre-keys

    def keep_prekeys(self, fqdn: str, keys: Sequence[PreKey]) -> None:
        """See the interface."""
        with self._database.access() as database:
            database.executemany(
                "INSERT OR REPLACE INTO prekey VALUES (?, ?, ?, ?)",
                [(fqdn, one.number, one.expires, msgspec.msgpack.encode(one)) for one in keys],
            )
            database.execute(
                "DELETE FROM prekey WHERE fqdn = ? AND number != 0"
                " AND number < (SELECT max(number) FROM prekey WHERE fqdn = ?)",
                (fqdn, fqdn),
            )

    def prekeys(self, fqdns: Sequence[str], at: float) -> dict[str, PreKey]:
        """See the interface."""
        found = {}
        with self._database.access("BEGIN") as database:
            for fqdn in fqdns:
                row = database.execute(
                    "SELECT prekey FROM prekey WHERE fqdn = ? AND expires > ?"
                    " ORDER BY number DESC LIMIT 1",
                    (fqdn, at),
                ).fetchone()
                if row is not None:
                    found[fqdn] = _PREKEY.decode(row[0])
        return found

    # -- all

    def expire(self, at: float) -> int:
        """See the interface."""
        count = 0
        with self._database.access() as database:
            for table in _BELONGINGS:
                erased = database.execute(f"DELETE FROM {table} WHERE expires <= ?", (at,))
                count += erased.rowcount
        self._database.scrub()
        return count

    def close(self) -> None:
        """See the interface."""
        self._database.close()


def _forget(database: sqlite3.Connection, fqdn: str) -> None:
    for table in _BELONGINGS:
        database.execute(f"DELETE FROM {table} WHERE fqdn = ?", (fqdn,))


def _is_full(
    database: sqlite3.Connection, table: str, fqdn: str, sender: str, limits: Iterable[int]
) -> bool:
    each, all_ = limits
    (own,) = database.execute(
        f"SELECT count(*) FROM {table} WHERE fqdn = ? AND sender = ?", (fqdn, sender)
    ).fetchone()
    if own >= each:
        return True
    (count,) = database.execute(f"SELECT count(*) FROM {table} WHERE fqdn = ?", (fqdn,)).fetchone()
    return bool(count >= all_)


def _keep_key(database: sqlite3.Connection, key: WaitingKey, each: int, all_: int) -> Kept:
    row = database.execute(
        "SELECT sender FROM temporal_key WHERE fqdn = ? AND identifier = ?",
        (key.fqdn, key.identifier),
    ).fetchone()
    if row is not None:
        if row[0] == key.sender:
            database.execute(
                "UPDATE temporal_key SET expires = max(expires, ?)"
                " WHERE fqdn = ? AND identifier = ?",
                (key.expires, key.fqdn, key.identifier),
            )
        return Kept.KNOWN
    if _is_full(database, "temporal_key", key.fqdn, key.sender, (each, all_)):
        return Kept.FULL
    database.execute(
        "INSERT INTO temporal_key (fqdn, sender, application, identifier, key, expires)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (key.fqdn, key.sender, key.application, key.identifier, key.key, key.expires),
    )
    return Kept.NEW


def _keep_entry(
    database: sqlite3.Connection,
    fqdn: str,
    entry: CacheEntry,
    encoded: bytes,
    each: int,
    all_: int,
) -> Kept:
    known = database.execute(
        "UPDATE entry SET entry = ?, expires = ?, application = ?"
        " WHERE fqdn = ? AND identifier = ? AND sender = ?",
        (encoded, entry.expires, entry.application, fqdn, entry.identifier, entry.sender),
    )
    if known.rowcount:
        return Kept.KNOWN
    if _is_full(database, "entry", fqdn, entry.sender, (each, all_)):
        return Kept.FULL
    database.execute(
        "INSERT INTO entry (fqdn, identifier, sender, application, expires, entry)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (fqdn, entry.identifier, entry.sender, entry.application, entry.expires, encoded),
    )
    return Kept.NEW


@implementer(IPlugin, IWaitingStoreProvider)
class SQLiteWaitingStoreProvider:
    """Opens a :class:`SQLiteWaitingStore`. Key: ``file``, by default ``waiting.sqlite``."""

    name = "sqlite"

    def configure(self, section: Mapping[str, object], directory: str) -> SQLiteWaitingStore:
        """See :class:`~ntmobile.interfaces.waiting.IWaitingStoreProvider`."""
        reject_unknown("waiting", section, ("file",))
        name = section.get("file", "waiting.sqlite")
        if not isinstance(name, str) or not name:
            raise ConfigurationError("waiting.file: expected a path")
        return SQLiteWaitingStore(Path(directory) / name)


sqliteWaiting = SQLiteWaitingStoreProvider()
