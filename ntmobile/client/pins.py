"""The identities of correspondents, as first seen, and the versions of device lists (rule R5)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import field, frozen

from ntmobile.errors import (
    AuthenticationError,
    ConfigurationError,
    StorageFailed,
    UnknownName,
    UntrustedIdentity,
)
from ntmobile.machines.login.identities import Devices, fingerprint, succeeds
from ntmobile.plugins.files import make_directory
from ntmobile.wire.certificates import DeviceCertificate

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS pins (
        fqdn TEXT PRIMARY KEY,
        identity BLOB NOT NULL,
        since REAL NOT NULL,
        how TEXT NOT NULL,
        offered BLOB
    ) STRICT;
    CREATE TABLE IF NOT EXISTS lists (
        user TEXT PRIMARY KEY,
        version INTEGER NOT NULL
    ) STRICT;
"""
#: How an identity came to be pinned.
FIRST: Final = "first contact"
SUCCESSION: Final = "signed by the former identity"
BY_HAND: Final = "ntm trust"


@frozen
class Pin:
    """A pinned correspondent.

    :ivar identity: raw Ed25519 key. :ivar since: unix seconds. :ivar how: first contact,
        succession or by hand. :ivar offered: another identity that was refused since, or empty.
    """

    fqdn: str
    identity: bytes = field(repr=False)
    since: float
    how: str
    offered: bytes = field(repr=False)


class PinStore:
    """Pins in a file, durable and atomic; several programs may use it at the same time.

    :param path: the file; made, with its directory, if it is not there.
    :raises ConfigurationError: it cannot be opened or is damaged.
    """

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        try:
            make_directory(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
        except OSError as problem:
            raise ConfigurationError(f"{path}: cannot be opened: {problem.strerror}") from None
        except sqlite3.Error as problem:
            raise ConfigurationError(
                f"{path}: cannot be used: {problem}; "
                f"move it away, and correspondents are pinned anew at first contact"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that happens as a whole, or not at all."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as problem:
            raise StorageFailed(f"{self._path}: {problem}; nothing was changed") from problem

    # -- pins

    def pinned(self, fqdn: str) -> Pin | None:
        """What is pinned for a device, or None."""
        return self._pinned(self._db, fqdn)

    def _pinned(self, db: sqlite3.Connection, fqdn: str) -> Pin | None:
        try:
            row = db.execute(
                "SELECT fqdn, identity, since, how, offered FROM pins WHERE fqdn = ?", (fqdn,)
            ).fetchone()
        except sqlite3.Error as problem:
            raise StorageFailed(f"{self._path}: {problem}") from problem
        return None if row is None else Pin(row[0], row[1], row[2], row[3], row[4] or b"")

    def check(self, certificate: DeviceCertificate) -> None:
        """Compare a verified certificate with the pin; at first contact, pin it.

        :raises UntrustedIdentity: another identity is pinned. The one that was shown is remembered,
            for :meth:`trust`.
        :raises StorageFailed: it cannot be pinned.
        """
        fqdn, identity = certificate.fqdn, certificate.identity
        pin = self.pinned(fqdn)
        if pin is not None and pin.identity == identity:
            return
        with self._writing() as db:
            pin = self._pinned(db, fqdn)
            if pin is None:
                self._pin(db, fqdn, identity, FIRST)
            elif pin.identity != identity:
                db.execute("UPDATE pins SET offered = ? WHERE fqdn = ?", (identity, fqdn))
        if pin is not None and pin.identity != identity:
            raise UntrustedIdentity(
                f"{fqdn} shows another identity than before: it was enrolled anew, or it is "
                f"somebody else; ask its user, then accept it with: ntm trust {fqdn}"
            )

    def _pin(self, db: sqlite3.Connection, fqdn: str, identity: bytes, how: str) -> None:
        db.execute(
            "INSERT OR REPLACE INTO pins (fqdn, identity, since, how) VALUES (?, ?, ?, ?)",
            (fqdn, identity, self._wall(), how),
        )

    def trust(self, fqdn: str) -> bytes:
        """Accept the identity that a device showed last.

        :return: the identity that is pinned now.
        :raises UnknownName: it never showed one, or no other than the pinned.
        """
        with self._writing() as db:
            pin = self._pinned(db, fqdn)
            if pin is None:
                raise UnknownName(f"{fqdn} was never met; its identity is pinned at first contact")
            if not pin.offered or pin.offered == pin.identity:
                raise UnknownName(f"{fqdn} has shown no other identity than the pinned one")
            self._pin(db, fqdn, pin.offered, BY_HAND)
            return pin.offered

    def learn(self, devices: Devices) -> list[str]:
        """Take a verified device list: accept what pinned identities have signed.

        :return: FQDNs whose pin moved on to a successor.
        :raises AuthenticationError: it is older than a list seen before.
        """
        moved = []
        with self._writing() as db:
            row = db.execute("SELECT version FROM lists WHERE user = ?", (devices.user,)).fetchone()
            if row is not None and devices.version < row[0]:
                raise AuthenticationError(
                    f"the device list of {devices.user} is version {devices.version}, but "
                    f"version {row[0]} was seen before; its coordinator may be dishonest"
                )
            db.execute(
                "INSERT OR REPLACE INTO lists (user, version) VALUES (?, ?)",
                (devices.user, devices.version),
            )
            for fqdn, device in devices.listed.items():
                pin = self._pinned(db, fqdn)
                if pin is not None and succeeds(device, pin.identity):
                    self._pin(db, fqdn, device.identity, SUCCESSION)
                    moved.append(fqdn)
        return moved

    def fingerprint(self, own: DeviceCertificate, fqdn: str) -> str:
        """The digits to compare with a correspondent, the same on both sides.

        :raises UnknownName: no identity is pinned for that device yet.
        """
        pin = self.pinned(fqdn)
        if pin is None:
            raise UnknownName(f"{fqdn} was never met; connect once, for instance: ntm ping {fqdn}")
        return fingerprint((own.fqdn, own.identity), (fqdn, pin.identity))
