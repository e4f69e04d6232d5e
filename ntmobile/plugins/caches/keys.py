"""The records of sealed keys."""

from __future__ import annotations

from collections.abc import Sequence

from ntmobile.errors import AlreadyExists
from ntmobile.interfaces import Quotas, StoredKey
from ntmobile.plugins.caches.accounts import charge, expect_room
from ntmobile.plugins.caches.database import Transaction
from ntmobile.wire.names import user_of


def add(t: Transaction, keys: Sequence[StoredKey], quotas: Quotas, left: int, at: float) -> None:
    """Keep keys with their exchange requests; see ``ICacheStorage.add_keys``."""
    for key in keys:
        owner = user_of(key.sender)
        size, items = len(key.document), 1
        found = t.rows(
            "SELECT sender, document, expires FROM cache_keys"
            " WHERE destination = ? AND identifier = ?",
            key.destination,
            key.identifier,
        )
        if found:
            ((sender, document, expires),) = found
            if expires > at and sender != key.sender:
                raise AlreadyExists(
                    f"another sender has a key of this identifier for {key.destination}"
                )
            if expires > at and bytes(document) == key.document:
                continue
            remove(t, key.destination, key.identifier)
        expect_room(t, owner, key.application, size, items, quotas, left)
        left -= size
        charge(t, owner, key.application, size, items)
        t.change(
            "INSERT INTO cache_keys"
            " (destination, identifier, sender, owner, application, expires, size, document)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            key.destination,
            key.identifier,
            key.sender,
            owner,
            key.application,
            float(key.expires),
            size,
            key.document,
        )
        t.change(
            "INSERT INTO cache_exchanges (kind, identifier, destination, due)"
            " VALUES ('key', ?, ?, ?)",
            key.identifier,
            key.destination,
            float(at),
        )


def find(t: Transaction, identifier: bytes, destination: str, at: float) -> StoredKey | None:
    """Give a key that has not expired."""
    rows = t.rows(
        "SELECT sender, application, expires, document FROM cache_keys"
        " WHERE destination = ? AND identifier = ? AND expires > ?",
        destination,
        identifier,
        float(at),
    )
    if not rows:
        return None
    ((sender, application, expires, document),) = rows
    return StoredKey(destination, identifier, sender, application, expires, bytes(document))


def remove(t: Transaction, destination: str, identifier: bytes) -> None:
    """Remove a key that is there, and its exchange request."""
    for owner, application, size in t.rows(
        "SELECT owner, application, size FROM cache_keys WHERE destination = ? AND identifier = ?",
        destination,
        identifier,
    ):
        charge(t, owner, application, -size, -1)
    t.change(
        "DELETE FROM cache_keys WHERE destination = ? AND identifier = ?", destination, identifier
    )
    t.change(
        "DELETE FROM cache_exchanges WHERE kind = 'key' AND identifier = ? AND destination = ?",
        identifier,
        destination,
    )


def expire(t: Transaction, at: float, limit: int) -> int:
    """Remove keys that have expired; tells how many, at most ``limit``."""
    rows = t.rows(
        "SELECT destination, identifier FROM cache_keys WHERE expires <= ? LIMIT ?",
        float(at),
        limit,
    )
    for destination, identifier in rows:
        remove(t, destination, bytes(identifier))
    return len(rows)
