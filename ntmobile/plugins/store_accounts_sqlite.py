"""Accounts in an SQLite file: users, devices, revocations (rules R2, R3, R5, R34).

The account server and the ``ntm user`` and ``ntm device`` commands use the file at the same time;
what a command changes reaches the server through :meth:`SQLiteAccounts.changes_since`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigurationError,
    StorageFailed,
    UnknownName,
)
from ntmobile.interfaces import (
    Change,
    Device,
    IAccountStore,
    IAccountStoreProvider,
    Revocation,
    TokenChanges,
    User,
)
from ntmobile.plugins import account_tokens
from ntmobile.plugins.section import Section
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.names import user_of

#: Scripts that bring the schema from one version (PRAGMA user_version) to the next.
MIGRATIONS: Final = (
    """
    CREATE TABLE users (
        name TEXT PRIMARY KEY,
        password_hash TEXT NOT NULL,
        disabled INTEGER NOT NULL DEFAULT 0,
        version INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE devices (
        fqdn TEXT PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (name),
        certificate BLOB NOT NULL,
        enrolled_at REAL NOT NULL,
        removed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX devices_by_user ON devices (user);
    CREATE TABLE changes (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        user TEXT NOT NULL
    ) STRICT;
    CREATE TABLE certificates (
        serial INTEGER PRIMARY KEY,
        fqdn TEXT NOT NULL,
        identity BLOB NOT NULL,
        expires REAL NOT NULL,
        revoked_by INTEGER REFERENCES changes (sequence)
    ) STRICT;
    CREATE INDEX certificates_by_fqdn ON certificates (fqdn);
    CREATE INDEX certificates_by_expiry ON certificates (expires);
    CREATE INDEX certificates_by_change ON certificates (revoked_by) WHERE revoked_by IS NOT NULL;
    """,
    """
    ALTER TABLE devices ADD COLUMN former BLOB NOT NULL DEFAULT x'';
    ALTER TABLE devices ADD COLUMN succession BLOB NOT NULL DEFAULT x'';
    """,
    account_tokens.SCHEMA,
)
_DEVICE: Final = "fqdn, user, certificate, enrolled_at, removed, former, succession"
#: How long a writer waits for another, in seconds.
PATIENCE: Final = 5.0
#: How many changes are given at once.
CHANGES_LIMIT: Final = 1000


@implementer(IAccountStore)
class SQLiteAccounts:
    """The store in one file, made if it is not there. See :class:`IAccountStore` for the methods.

    :raises ConfigurationError: the file cannot be opened, is not ours, or everybody may read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            # Made by hand, so that it, and the files SQLite puts beside it, are private (R6).
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            if path.stat().st_mode & 0o004:
                raise ConfigurationError(f"{path}: everybody may read it; run chmod 600 {path}")
        except OSError as problem:
            raise ConfigurationError(f"{path}: cannot be opened: {problem.strerror}") from None
        self._db: sqlite3.Connection | None = None
        try:
            self._migrate()
        except StorageFailed as problem:
            raise ConfigurationError(f"{path}: cannot be used: {problem.__cause__}") from None
        finally:
            # twistd may fork before the store is used. A child has none of its parent's locks, so
            # that others would take the file for closed and remove the log that it writes to.
            self.close()

    def _connected(self) -> sqlite3.Connection:
        """The connection, made when it is first used."""
        if self._db is None:
            made = sqlite3.connect(
                self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                made.execute(f"PRAGMA {pragma}")
            self._db = made
        return self._db

    def _migrate(self) -> None:
        """Bring the schema up to date; the version is asked under the lock that writers take."""
        with self._access("BEGIN IMMEDIATE") as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise ConfigurationError(
                    f"{self._path}: made by a newer ntmobile; upgrade this one"
                )
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextmanager
    def _access(self, begin: str) -> Iterator[sqlite3.Connection]:
        """A transaction that happens as a whole, or not at all."""
        with self._lock:
            try:
                db = self._connected()
                db.execute(begin)
                yield db
                db.execute("COMMIT")
            except BaseException as problem:
                self._roll_back()
                if isinstance(problem, sqlite3.Error):
                    raise StorageFailed(
                        f"{self._path}: {problem}; nothing was changed"
                    ) from problem
                raise

    def _roll_back(self) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has rolled back by itself, for instance on a full disk

    # -- Users

    def add_user(self, name: str, password_hash: str) -> None:
        """Add a user."""
        with self._access("BEGIN IMMEDIATE") as db:
            if self._user(db, name) is not None:
                raise AlreadyExists(
                    f"{name} is there already; ntm user password changes its password"
                )
            db.execute(
                "INSERT INTO users (name, password_hash) VALUES (?, ?)", (name, password_hash)
            )
            self._change(db, "user", name)

    def set_password(self, name: str, password_hash: str) -> None:
        """Change a user's password."""
        with self._access("BEGIN IMMEDIATE") as db:
            self._expect_user(db, name)
            db.execute("UPDATE users SET password_hash = ? WHERE name = ?", (password_hash, name))
            self._change(db, "user", name)

    def set_disabled(self, name: str, disabled: bool, at: float) -> tuple[Revocation, ...]:
        """Disable or enable a user; nothing happens if it is so already."""
        with self._access("BEGIN IMMEDIATE") as db:
            if self._expect_user(db, name).disabled == disabled:
                return ()
            db.execute("UPDATE users SET disabled = ? WHERE name = ?", (disabled, name))
            change = self._change(db, "user", name)
            if not disabled:
                return ()
            rows = db.execute("SELECT fqdn FROM devices WHERE user = ?", (name,)).fetchall()
            return tuple(
                revoked for (fqdn,) in rows for revoked in self._revoke(db, fqdn, change, at)
            )

    def user(self, name: str) -> User | None:
        """Give a user, or None."""
        with self._access("BEGIN") as db:
            return self._user(db, name)

    def users(self) -> list[User]:
        """List all users, by name."""
        with self._access("BEGIN") as db:
            rows = db.execute(
                "SELECT name, password_hash, disabled, version FROM users ORDER BY name"
            )
            return [User(row[0], row[1], bool(row[2]), row[3]) for row in rows]

    def _user(self, db: sqlite3.Connection, name: str) -> User | None:
        row = db.execute(
            "SELECT name, password_hash, disabled, version FROM users WHERE name = ?", (name,)
        ).fetchone()
        return row and User(row[0], row[1], bool(row[2]), row[3])

    def _expect_user(self, db: sqlite3.Connection, name: str) -> User:
        user = self._user(db, name)
        if user is None:
            raise UnknownName(f"there is no user {name}; ntm user list shows who there is")
        return user

    # -- Devices

    def enroll(
        self, certificate: DeviceCertificate, at: float, *, replace: bool, succession: bytes = b""
    ) -> tuple[Revocation, ...]:
        """Record a device that is new, or new under this name."""
        fqdn, name = certificate.fqdn, user_of(certificate.fqdn)
        with self._access("BEGIN IMMEDIATE") as db:
            self._expect_enabled(db, name)
            device = self._device(db, fqdn)
            if device and not device.removed:
                if device.certificate.identity == certificate.identity:
                    self._record(db, certificate)
                    return ()
                if not replace:
                    raise AlreadyExists(f"{fqdn} is enrolled already; --replace takes its place")
            change = self._device_change(db, name)
            revoked = self._revoke(db, fqdn, change, at)
            succession = succession if device and not device.removed else b""
            former = device.certificate.identity if device and succession else b""
            db.execute(
                "INSERT OR REPLACE INTO devices"
                " (fqdn, user, certificate, enrolled_at, former, succession)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (fqdn, name, certificate.der, at, former, succession),
            )
            self._record(db, certificate)
            return revoked

    def renew(self, certificate: DeviceCertificate) -> None:
        """Record a device's next certificate."""
        with self._access("BEGIN IMMEDIATE") as db:
            self._expect_enabled(db, user_of(certificate.fqdn))
            device = self._device(db, certificate.fqdn)
            if (
                device is None
                or device.removed
                or device.certificate.identity != certificate.identity
            ):
                raise UnknownName(f"{certificate.fqdn} is not enrolled, or replaced; enrol again")
            self._record(db, certificate)

    def remove(self, fqdn: str, at: float) -> tuple[Revocation, ...]:
        """Remove a device and revoke its certificates."""
        with self._access("BEGIN IMMEDIATE") as db:
            device = self._device(db, fqdn)
            if device is None or device.removed:
                raise UnknownName(f"there is no device {fqdn}; ntm device list shows which are")
            change = self._device_change(db, device.user)
            db.execute("UPDATE devices SET removed = 1 WHERE fqdn = ?", (fqdn,))
            return self._revoke(db, fqdn, change, at)

    def device(self, fqdn: str) -> Device | None:
        """Give a device that is not removed, or None."""
        with self._access("BEGIN") as db:
            device = self._device(db, fqdn)
            return device if device and not device.removed else None

    def devices(self, user: str) -> list[Device]:
        """List a user's devices, by name."""
        with self._access("BEGIN") as db:
            rows = db.execute(
                f"SELECT {_DEVICE} FROM devices WHERE user = ? ORDER BY fqdn",
                (user,),
            )
            return [_device(row) for row in rows]

    def _expect_enabled(self, db: sqlite3.Connection, name: str) -> None:
        if self._expect_user(db, name).disabled:
            raise AccessDenied(f"the user {name} is disabled; ask who runs the realm")

    def _device(self, db: sqlite3.Connection, fqdn: str) -> Device | None:
        row = db.execute(
            f"SELECT {_DEVICE} FROM devices WHERE fqdn = ?",
            (fqdn,),
        ).fetchone()
        return row and _device(row)

    def _record(self, db: sqlite3.Connection, certificate: DeviceCertificate) -> None:
        """Keep a certificate as the device's latest, and forget those of everyone that expired."""
        db.execute(
            "UPDATE devices SET certificate = ? WHERE fqdn = ?",
            (certificate.der, certificate.fqdn),
        )
        db.execute(
            "INSERT INTO certificates (serial, fqdn, identity, expires) VALUES (?, ?, ?, ?)",
            (certificate.serial, certificate.fqdn, certificate.identity, certificate.not_after),
        )
        db.execute("DELETE FROM certificates WHERE expires < ?", (certificate.not_before,))

    # -- Revocations and changes

    def revocations(self, at: float) -> list[Revocation]:
        """List what is revoked and has not expired."""
        with self._access("BEGIN") as db:
            rows = db.execute(
                "SELECT serial, fqdn, identity, expires FROM certificates"
                " WHERE revoked_by IS NOT NULL AND expires > ? ORDER BY serial",
                (at,),
            )
            return [Revocation(*row) for row in rows]

    def changes_since(self, sequence: int) -> list[Change]:
        """List changes after a number, oldest first."""
        with self._access("BEGIN") as db:
            rows = db.execute(
                "SELECT sequence, kind, user FROM changes WHERE sequence > ?"
                " ORDER BY sequence LIMIT ?",
                (sequence, CHANGES_LIMIT),
            ).fetchall()
            return [
                Change(number, kind, user, self._revoked_by(db, number))
                for number, kind, user in rows
            ]

    def last_change(self) -> int:
        """Give the number of the latest change, 0 if there was none."""
        with self._access("BEGIN") as db:
            (last,) = db.execute("SELECT COALESCE(MAX(sequence), 0) FROM changes").fetchone()
            return int(last)

    # -- Tokens

    def add_token(self, certificate: DeviceCertificate, token: bytes, key: bytes) -> None:
        """Keep the token of a login."""
        with self._access("BEGIN IMMEDIATE") as db:
            account_tokens.add_token(db, certificate, token, key)

    def token_changes(self, sequence: int, at: float) -> TokenChanges:
        """Give what happened to tokens after a number."""
        with self._access("BEGIN") as db:
            return account_tokens.changes_since(db, sequence, at, CHANGES_LIMIT)

    def last_token_change(self) -> int:
        """Give the number of the latest change of tokens."""
        with self._access("BEGIN") as db:
            return account_tokens.last_change(db)

    # -- Within

    def _change(self, db: sqlite3.Connection, kind: str, name: str) -> int:
        cursor = db.execute("INSERT INTO changes (kind, user) VALUES (?, ?)", (kind, name))
        return int(cursor.lastrowid or 0)

    def _device_change(self, db: sqlite3.Connection, name: str) -> int:
        """A change of a user's device list, which gets the next version (rule R5)."""
        db.execute("UPDATE users SET version = version + 1 WHERE name = ?", (name,))
        return self._change(db, "devices", name)

    def _revoke(
        self, db: sqlite3.Connection, fqdn: str, change: int, at: float
    ) -> tuple[Revocation, ...]:
        db.execute(
            "UPDATE certificates SET revoked_by = ?"
            " WHERE fqdn = ? AND revoked_by IS NULL AND expires > ?",
            (change, fqdn, at),
        )
        account_tokens.revoke_tokens(db, fqdn)
        return tuple(each for each in self._revoked_by(db, change) if each.fqdn == fqdn)

    def _revoked_by(self, db: sqlite3.Connection, change: int) -> tuple[Revocation, ...]:
        rows = db.execute(
            "SELECT serial, fqdn, identity, expires FROM certificates WHERE revoked_by = ?"
            " ORDER BY serial",
            (change,),
        )
        return tuple(Revocation(*row) for row in rows)


def _device(row: tuple[str, str, bytes, float, int, bytes, bytes]) -> Device:
    certificate = DeviceCertificate.parse(row[2])
    return Device(row[0], row[1], certificate, row[3], bool(row[4]), row[5], row[6])


@implementer(IPlugin, IAccountStoreProvider)
class SQLiteAccountStore:
    """Opens the file that ``path`` in ``[store]`` names."""

    name = "sqlite"

    def open(self, section: Mapping[str, object], directory: Path, *, make: bool) -> SQLiteAccounts:
        """Open the accounts."""
        if not isinstance(section, Section):
            section = Section(directory / "(configuration)", "store", section)
        path = directory / section.text("path", expected="the path of the account database")
        section.finish()
        if not make and not path.exists():
            raise ConfigurationError(f"{path}: there is no account database; see ntm realm init")
        return SQLiteAccounts(path)


sqlite_account_store = SQLiteAccountStore()
