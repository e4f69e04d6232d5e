"""What the client keeps of stored data: keys, uploads, downloads, and what was delivered.

One SQLite file of mode 0600 in the state directory (R6), durable at each step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import astuple, evolve

from ntmobile.client.exchange.items import ENDED, Item, Outgoing, Status
from ntmobile.client.state import EXCHANGE
from ntmobile.errors import StorageFailed
from ntmobile.machines.exchange.keyring import KeyRing, OpenedKey
from ntmobile.machines.exchange.manifests import Details
from ntmobile.machines.exchange.prekeys import PreKeyRing, PreKeySecret
from ntmobile.machines.exchange.shared_keys import SharedKey
from ntmobile.machines.exchange.signing import LONGEST
from ntmobile.plugins.files import sync_directory
from ntmobile.plugins.private_database import PrivateDatabase
from ntmobile.wire.messages.exchange import CacheEntry, Manifest

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS device (identity BLOB NOT NULL) STRICT;
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
        object BLOB PRIMARY KEY, request BLOB NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL,
        length INTEGER NOT NULL, hashes BLOB NOT NULL, cache TEXT NOT NULL, state TEXT NOT NULL,
        made REAL NOT NULL, expires INTEGER NOT NULL, reason TEXT NOT NULL, statuses BLOB NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS items (
        sender TEXT, object BLOB, entry BLOB NOT NULL, manifest BLOB NOT NULL,
        details BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (sender, object)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS downloads (
        sender TEXT, object BLOB, part TEXT NOT NULL, hashes BLOB NOT NULL,
        PRIMARY KEY (sender, object)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS received (
        sender TEXT, object BLOB, expires INTEGER NOT NULL, part TEXT NOT NULL,
        target TEXT NOT NULL, confirming INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (sender, object)
    ) STRICT;
"""


class ExchangeStore:
    """The file.

    :ivar directory: the state directory.
    :raises ConfigurationError: it cannot be opened or is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._database = PrivateDatabase(directory / EXCHANGE, "stored data", _SCHEMA)
        self._deliver()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def adopt(self, identity: bytes) -> None:
        """Say whose this is; what belongs to a former enrolment is erased.

        Its keys open nothing any more, and what it had begun to send cannot go on. What was
        delivered is remembered all the same (R32).

        :param identity: raw public identity key of the device.
        """
        with self._database.access() as db:
            known = [row[0] for row in db.execute("SELECT identity FROM device")]
            if known == [identity]:
                return
            for table in ("device", "own", "opened", "prekeys", "items", "downloads"):
                db.execute(f"DELETE FROM {table}")
            db.execute("INSERT INTO device VALUES (?)", (identity,))
            db.execute(
                "UPDATE outgoing SET state = 'failed', reason = ? WHERE state = 'uploading'",
                ("the device was enrolled anew; send it again",),
            )
        self._database.scrub()

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
        statuses = msgspec.msgpack.encode([astuple(each) for each in outgoing.statuses])
        with self._database.access() as db:
            db.execute(
                "INSERT INTO outgoing VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (object) DO UPDATE SET hashes = excluded.hashes,"
                " state = excluded.state, reason = excluded.reason, statuses = excluded.statuses",
                (*astuple(evolve(outgoing, statuses=()))[:-1], statuses),
            )

    def outgoing(self, object: bytes | None = None) -> list[Outgoing]:
        """What was sent, or is to be, oldest first; or only the one that is named."""
        rows = self._rows(
            "SELECT * FROM outgoing WHERE ? IS NULL OR object = ? ORDER BY rowid", object, object
        )
        found = []
        for row in rows:
            listed = msgspec.msgpack.decode(row[-1], type=list[tuple[str, str, str, int]])
            statuses = tuple(Status(*each) for each in listed)
            found.append(evolve(Outgoing(*row[:-1]), statuses=statuses))
        return found

    # -- items that wait

    def keep_items(self, items: Iterable[Item]) -> None:
        """Keep what was verified of items, until they have ended or were confirmed."""
        encode = msgspec.msgpack.encode
        rows = [
            (
                item.sender,
                item.object,
                encode(item.entry),
                encode(item.manifest),
                encode(item.details),
                item.manifest.expires,
            )
            for item in items
        ]
        with self._database.access() as db:
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)", rows)

    def items(self) -> dict[tuple[str, bytes], Item]:
        """By sender and object."""
        rows = self._rows("SELECT sender, object, entry, manifest, details FROM items")
        return {(row[0], row[1]): _item(row[2:]) for row in rows}

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
        return self.received_as(sender, object) is not None

    def received_as(self, sender: str, object: bytes) -> Path | None:
        """As which file it was delivered; None if it was not."""
        query = "SELECT target FROM received WHERE sender = ? AND object = ?"
        rows = self._rows(query, sender, object)
        return Path(rows[0][0]) if rows else None

    def received_names(self, beginning: bytes) -> list[Path]:
        """The files of delivered items whose identifiers begin so."""
        rows = self._rows(
            "SELECT target FROM received WHERE substr(object, 1, ?) = ?", len(beginning), beginning
        )
        return [Path(row[0]) for row in rows]

    def all_received(self) -> set[tuple[str, bytes]]:
        """Sender and object of all that was delivered."""
        return {(row[0], row[1]) for row in self._rows("SELECT sender, object FROM received")}

    def deliver(
        self,
        sender: str,
        object: bytes,
        expires: int,
        part: Path,
        target: Path,
        *,
        confirm: bool = False,
    ) -> None:
        """Give a whole and verified file to the application, once (R32).

        After the transaction the file has its name, if need be at the next start, and another one
        where a file of that name came in between; :meth:`received_as` says it.

        :param confirm: note in the same transaction that its sender is to be told.
        """
        with self._database.access() as db:
            db.execute("DELETE FROM downloads WHERE sender = ? AND object = ?", (sender, object))
            db.execute(
                "INSERT INTO received VALUES (?, ?, ?, ?, ?, ?)",
                (sender, object, expires, str(part), str(target), int(confirm)),
            )
        try:
            self._deliver()
        except OSError as problem:
            raise StorageFailed(f"{target}: cannot be written: {problem.strerror}") from None

    def confirm_later(self, sender: str, object: bytes) -> None:
        """Note that the sender of a delivered item is to be told."""
        self._set_confirming(sender, object, 1)

    def confirmed(self, sender: str, object: bytes) -> None:
        """Its sender is told: nothing more is needed of it but its name (R32)."""
        with self._database.access() as db:
            db.execute("DELETE FROM items WHERE sender = ? AND object = ?", (sender, object))
        self._set_confirming(sender, object, 0)

    def to_confirm(self) -> list[Item]:
        """Delivered items whose senders are to be told."""
        rows = self._rows(
            "SELECT entry, manifest, details FROM items JOIN received USING (sender, object)"
            " WHERE confirming = 1"
        )
        return [_item(row) for row in rows]

    def _set_confirming(self, sender: str, object: bytes, value: int) -> None:
        with self._database.access() as db:
            db.execute(
                "UPDATE received SET confirming = ? WHERE sender = ? AND object = ?",
                (value, sender, object),
            )

    def _deliver(self) -> None:
        for part, target in self._rows("SELECT part, target FROM received WHERE part <> ''"):
            given = _give(Path(part), Path(target)) if Path(part).exists() else Path(target)
            with self._database.access() as db:
                db.execute(
                    "UPDATE received SET part = '', target = ? WHERE part = ?", (str(given), part)
                )

    def forget(self, expired: float) -> None:
        """Forget what had ended at that time, in unix seconds; what was sent, later than that."""
        ended = ", ".join(f"'{state}'" for state in ENDED)
        with self._database.access() as db:
            for table in ("own", "opened", "received", "items"):
                db.execute(f"DELETE FROM {table} WHERE expires < ?", (expired,))
            query = f"DELETE FROM outgoing WHERE expires < ? AND state IN ({ended})"
            db.execute(query, (expired - LONGEST,))
            left = "FROM downloads WHERE (sender, object) NOT IN (SELECT sender, object FROM items)"
            for (part,) in db.execute(f"SELECT part {left}").fetchall():
                Path(part).unlink(missing_ok=True)
            db.execute(f"DELETE {left}")


def _give(part: Path, target: Path) -> Path:
    """Give a file its name, or one like it where another file has that: says which."""
    number, name = 0, target
    while True:
        try:
            os.link(part, name)
        except FileExistsError:
            if name.samefile(part):  # that was done when the program ended
                break
            number += 1
            name = target.with_name(f"{target.stem}-{number}{target.suffix}")
        except OSError:  # no file system for links
            if name.exists():
                raise
            os.rename(part, name)
            sync_directory(name.parent)
            return name
        else:
            break
    sync_directory(name.parent)
    part.unlink()
    return name


def _item(row: Any) -> Item:
    entry, manifest, details = row
    return Item(
        msgspec.msgpack.decode(entry, type=CacheEntry),
        msgspec.msgpack.decode(manifest, type=Manifest),
        msgspec.msgpack.decode(details, type=Details),
    )
