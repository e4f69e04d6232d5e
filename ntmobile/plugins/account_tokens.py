"""Authentication tokens in the account database (paper, V-A; rules R28, R34).

Each row carries the number of the last thing that happened to it, its making or its revocation; so
what a cache server missed is what has a higher number than the last that it knows.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ntmobile.errors import UnknownName
from ntmobile.interfaces import AccountToken, TokenChanges
from ntmobile.wire.certificates import DeviceCertificate

#: The schema's part.
SCHEMA: Final = """
    CREATE TABLE tokens (
        token BLOB PRIMARY KEY,
        fqdn TEXT NOT NULL,
        key BLOB NOT NULL,
        expires REAL NOT NULL,
        sequence INTEGER NOT NULL UNIQUE,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX tokens_by_fqdn ON tokens (fqdn);
    CREATE INDEX tokens_by_expiry ON tokens (expires);
    CREATE TABLE token_progress (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        sequence INTEGER NOT NULL
    ) STRICT;
    INSERT INTO token_progress VALUES (1, 0);
    """
#: Tokens of one device that are kept: renewals overlap.
EACH: Final = 8


def add_token(
    db: sqlite3.Connection, certificate: DeviceCertificate, token: bytes, key: bytes
) -> None:
    """Keep the token of a login, if its certificate still holds."""
    row = db.execute(
        "SELECT revoked_by FROM certificates WHERE serial = ? AND fqdn = ?",
        (certificate.serial, certificate.fqdn),
    ).fetchone()
    if row is None or row[0] is not None:
        raise UnknownName(f"{certificate.fqdn} is not enrolled, or replaced; enrol again")
    db.execute("DELETE FROM tokens WHERE expires <= ?", (certificate.not_before,))
    db.execute(
        "DELETE FROM tokens WHERE fqdn = ? AND sequence NOT IN"
        " (SELECT sequence FROM tokens WHERE fqdn = ? ORDER BY sequence DESC LIMIT ?)",
        (certificate.fqdn, certificate.fqdn, EACH - 1),
    )
    db.execute(
        "INSERT INTO tokens (token, fqdn, key, expires, sequence) VALUES (?, ?, ?, ?, ?)",
        (token, certificate.fqdn, key, certificate.not_after, _next(db)),
    )


def revoke_tokens(db: sqlite3.Connection, fqdn: str) -> None:
    """End all tokens of a device; their keys are forgotten."""
    rows = db.execute("SELECT token FROM tokens WHERE fqdn = ? AND revoked = 0", (fqdn,))
    for (token,) in rows.fetchall():
        db.execute(
            "UPDATE tokens SET revoked = 1, key = x'', sequence = ? WHERE token = ?",
            (_next(db), token),
        )


def last_change(db: sqlite3.Connection) -> int:
    """Number of the last change."""
    (sequence,) = db.execute("SELECT sequence FROM token_progress").fetchone()
    return int(sequence)


def changes_since(db: sqlite3.Connection, sequence: int, at: float, most: int) -> TokenChanges:
    """What happened after a number, at most so much of it."""
    rows = db.execute(
        "SELECT token, fqdn, key, expires, sequence, revoked FROM tokens WHERE sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (sequence, most),
    ).fetchall()
    living = [row for row in rows if row[3] > at]
    return TokenChanges(
        rows[-1][4] if len(rows) == most else max(sequence, last_change(db)),
        tuple(AccountToken(*row[:4]) for row in living if not row[5]),
        tuple(dict.fromkeys(row[1] for row in living if row[5])),
    )


def _next(db: sqlite3.Connection) -> int:
    db.execute("UPDATE token_progress SET sequence = sequence + 1")
    return last_change(db)
