"""What the client keeps of stored data: keys, uploads, downloads, and what was delivered.

One SQLite file of mode 0600 in the state directory (R6), durable at each step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import astuple

from ntmobile.client.exchange.items import Outgoing
from ntmobile.errors import StorageFailed
from ntmobile.machines.exchange.keyring import KeyRing, OpenedKey
from ntmobile.machines.exchange.prekeys import PreKeyRing, PreKeySecret
from ntmobile.machines.exchange.shared_keys import SharedKey
from ntmobile.plugins.files import sync_directory
from ntmobile.plugins.private_database import PrivateDatabase

#: The file's name in the state directory.
EXCHANGE: Final = "exchange.db"
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS own (
        identifier BLOB PRIMARY KEY, key BLOB NOT NULL, application TEXT NOT NULL,
        recipients BLOB NOT NULL, made REAL NOT NULL, expires INTEGER NOT NULL,
        items INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS opened (
        sender TEXT, application TEXT NOT NULL, identifier BLOB, key BLOB NOT NULL,
        expires INTEGER NOT NULL, PRIMARY KEY (sender, identifier)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS prekeys (
        number INTEGER PRIMARY KEY, seed BLOB NOT NULL, made REAL NOT NULL,
        expires INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS outgoing (
        object BLOB PRIMARY KEY, manifest BLOB NOT NULL, source TEXT NOT NULL,
        length INTEGER NOT NULL, hashes BLOB NOT NULL, cache TEXT NOT NULL, state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS downloads (
        sender TEXT, object BLOB, part TEXT NOT NULL, hashes BLOB NOT NULL,
        PRIMARY KEY (sender, object)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS received (
        sender TEXT, object BLOB, expires INTEGER NOT NULL, part TEXT NOT NULL,
        target TEXT NOT NULL, PRIMARY KEY (sender, object)
    ) STRICT;
"""


class ExchangeStore:
    """The file.

    :param directory: the state directory.
    :raises ConfigurationError: it cannot be opened or is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._database = PrivateDatabase(directory / EXCHANGE, "stored data", _SCHEMA)
        self._deliver()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._database.access("BEGIN") as db:
            return db.execute(query, values).fetchall()

    # -- keys

    def keys(self) -> KeyRing:
        """The shared keys, own and opened."""
        own = self._rows("SELECT key, application, recipients, made, expires, items FROM own")
        opened = self._rows("SELECT sender, application, identifier, key, expires FROM opened")
        digests = msgspec.msgpack.Decoder(tuple[bytes, ...])
        return KeyRing(
            (SharedKey(row[0], row[1], digests.decode(row[2]), *row[3:]) for row in own),
            (OpenedKey(*row) for row in opened),
        )

    def keep_own(self, shared: SharedKey) -> None:
        """Keep an own key, with the number of its items."""
        with self._database.access() as db:
            db.execute(
                "INSERT OR REPLACE INTO own VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    shared.identifier,
                    shared.key,
                    shared.application,
                    msgspec.msgpack.encode(shared.recipients),
                    shared.made,
                    shared.expires,
                    shared.items,
                ),
            )

    def keep_opened(self, opened: OpenedKey) -> None:
        """Keep a key of somebody else."""
        with self._database.access() as db:
            db.execute("INSERT OR REPLACE INTO opened VALUES (?, ?, ?, ?, ?)", astuple(opened))

    def prekeys(self, identity_seed: bytes) -> PreKeyRing:
        """The secrets of pre-keys."""
        rows = self._rows("SELECT number, seed, made, expires FROM prekeys")
        return PreKeyRing(identity_seed, (PreKeySecret(*row) for row in rows))

    def keep_prekey(self, secret: PreKeySecret) -> None:
        """Keep a secret, before its public half is published."""
        with self._database.access() as db:
            db.execute(
                "INSERT INTO prekeys (number, seed, made, expires) VALUES (?, ?, ?, ?)",
                astuple(secret),
            )

    def unpublished(self) -> list[int]:
        """Numbers of pre-keys that the DC may not have."""
        return [row[0] for row in self._rows("SELECT number FROM prekeys WHERE published = 0")]

    def published(self, number: int) -> None:
        """The DC has it."""
        with self._database.access() as db:
            db.execute("UPDATE prekeys SET published = 1 WHERE number = ?", (number,))

    def erase_prekeys(self, numbers: tuple[int, ...]) -> None:
        """Erase secrets that nothing needs any more (R31)."""
        with self._database.access() as db:
            db.executemany("DELETE FROM prekeys WHERE number = ?", [(each,) for each in numbers])

    # -- sent

    def keep_outgoing(self, outgoing: Outgoing) -> None:
        """Keep an object that is sent, or its new state."""
        with self._database.access() as db:
            db.execute(
                "INSERT OR REPLACE INTO outgoing VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(outgoing)
            )

    def outgoing(self) -> list[Outgoing]:
        """What was sent, or is to be."""
        return [Outgoing(*row) for row in self._rows("SELECT * FROM outgoing ORDER BY rowid")]

    # -- received

    def download(self, sender: str, object: bytes) -> tuple[Path, bytes] | None:
        """The temporary file of a download that was begun, and its chunk hashes."""
        rows = self._rows(
            "SELECT part, hashes FROM downloads WHERE sender = ? AND object = ?", sender, object
        )
        return (Path(rows[0][0]), rows[0][1]) if rows else None

    def keep_download(self, sender: str, object: bytes, part: Path, hashes: bytes) -> None:
        """Keep how far a download has come, after its file was made durable that far."""
        with self._database.access() as db:
            db.execute(
                "INSERT OR REPLACE INTO downloads VALUES (?, ?, ?, ?)",
                (sender, object, str(part), hashes),
            )

    def forget_download(self, sender: str, object: bytes) -> None:
        """Begin anew next time."""
        with self._database.access() as db:
            db.execute("DELETE FROM downloads WHERE sender = ? AND object = ?", (sender, object))

    def has_received(self, sender: str, object: bytes) -> bool:
        """Whether it was delivered before (R32)."""
        query = "SELECT 1 FROM received WHERE sender = ? AND object = ?"
        return bool(self._rows(query, sender, object))

    def deliver(self, sender: str, object: bytes, expires: int, part: Path, target: Path) -> None:
        """Give a whole and verified file to the application, once (R32).

        After the transaction the file has its name, if need be at the next start.
        """
        with self._database.access() as db:
            db.execute("DELETE FROM downloads WHERE sender = ? AND object = ?", (sender, object))
            db.execute(
                "INSERT INTO received VALUES (?, ?, ?, ?, ?)",
                (sender, object, expires, str(part), str(target)),
            )
        try:
            self._deliver()
        except OSError as problem:
            raise StorageFailed(f"{target}: cannot be written: {problem.strerror}") from None

    def _deliver(self) -> None:
        for part, target in self._rows("SELECT part, target FROM received WHERE part <> ''"):
            if Path(part).exists():
                os.rename(part, target)
                sync_directory(Path(target).parent)
            with self._database.access() as db:
                db.execute("UPDATE received SET part = '' WHERE part = ?", (part,))

    def forget(self, expired: float) -> None:
        """Forget what had ended at that time, in unix seconds."""
        with self._database.access() as db:
            for table in ("own", "opened", "received"):
                db.execute(f"DELETE FROM {table} WHERE expires < ?", (expired,))
