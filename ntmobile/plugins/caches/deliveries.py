"""The records of deliveries: whose coordinator is to be told, was told, and who has confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from ntmobile.errors import NoSuchItem
from ntmobile.interfaces import Exchange, Standing, StoredDelivery, WaitingKind
from ntmobile.plugins.caches import keys, objects
from ntmobile.plugins.caches.accounts import COMING
from ntmobile.plugins.caches.database import Transaction


def listed(t: Transaction, identifier: bytes, at: float) -> list[StoredDelivery]:
    """How far an object has come; see ``ICacheStorage.deliveries``."""
    objects.expect(t, identifier, at)
    rows = t.rows(
        "SELECT destination, state, reason, since, confirmation FROM cache_deliveries"
        " WHERE identifier = ? ORDER BY rank_in_list",
        identifier,
    )
    return [
        StoredDelivery(name, state, reason, since, bytes(confirmation))
        for name, state, reason, since, confirmation in rows
    ]


def confirm(
    t: Transaction, identifier: bytes, destination: str, confirmation: bytes, at: float
) -> tuple[Standing, str | None]:
    """Keep a confirmation; see ``ICacheStorage.confirm``.

    :return: how the object stands, and the place of blobs that nobody needs any more.
    """
    record = objects.expect(t, identifier, at)
    if record.state == COMING or destination not in record.announced.destinations:
        raise NoSuchItem(f"there is no object {identifier.hex()} here for {destination}")
    t.change(
        "UPDATE cache_deliveries SET state = 'confirmed', reason = '', since = ?, confirmation = ?"
        " WHERE identifier = ? AND destination = ? AND state <> 'confirmed'",
        float(at),
        confirmation,
        identifier,
        destination,
    )
    _done(t, "data", identifier, destination)
    ((left,),) = t.rows(
        "SELECT COUNT(*) FROM cache_deliveries WHERE identifier = ? AND state <> 'confirmed'",
        identifier,
    )
    if left:
        return Standing(True, False), None
    objects.release(t, record)
    return Standing(True, True), record.place


def due(t: Transaction, at: float, limit: int) -> list[Exchange]:
    """Exchange requests that are due; see ``ICacheStorage.exchanges``."""
    found: list[Exchange] = []
    for kind, identifier, destination, attempts in t.rows(
        "SELECT kind, identifier, destination, attempts FROM cache_exchanges"
        " WHERE due <= ? ORDER BY due LIMIT ?",
        float(at),
        limit,
    ):
        name = bytes(identifier)
        found += [
            Exchange(kind, name, destination, attempts, document)
            for document in _documents(t, kind, name, destination, at)
        ]
    return found


def _documents(
    t: Transaction, kind: str, identifier: bytes, destination: str, at: float
) -> list[bytes]:
    """The document of a key or an object, unless it has expired."""
    if kind == "key":
        key = keys.find(t, identifier, destination, at)
        return [] if key is None else [key.document]
    rows = t.rows(
        "SELECT document FROM cache_objects WHERE identifier = ? AND expires > ?",
        identifier,
        float(at),
    )
    return [bytes(document) for (document,) in rows]


def next_due(t: Transaction) -> float | None:
    """When the next exchange request is due."""
    ((due_at,),) = t.rows("SELECT MIN(due) FROM cache_exchanges")
    return None if due_at is None else float(due_at)


def told(
    t: Transaction, kind: WaitingKind, identifier: bytes, destinations: Sequence[str], at: float
) -> None:
    """Coordinators know; see ``ICacheStorage.told``."""
    for destination in destinations:
        _done(t, kind, identifier, destination)
        if kind == "data":
            t.change(
                "UPDATE cache_deliveries SET state = 'waiting', reason = '', since = ?"
                " WHERE identifier = ? AND destination = ? AND state = 'not told'",
                float(at),
                identifier,
                destination,
            )


def postpone(
    t: Transaction,
    kind: WaitingKind,
    identifier: bytes,
    destinations: Sequence[str],
    reason: str,
    until: float | None,
    at: float,
) -> None:
    """Requests failed; see ``ICacheStorage.postpone``."""
    for destination in destinations:
        if until is None:
            _done(t, kind, identifier, destination)
        else:
            t.change(
                "UPDATE cache_exchanges SET due = ?, attempts = attempts + 1"
                " WHERE kind = ? AND identifier = ? AND destination = ?",
                float(until),
                kind,
                identifier,
                destination,
            )
        if kind == "data":
            t.change(
                "UPDATE cache_deliveries SET reason = ?, since = ?"
                " WHERE identifier = ? AND destination = ? AND state = 'not told'",
                reason,
                float(at),
                identifier,
                destination,
            )


def _done(t: Transaction, kind: str, identifier: bytes, destination: str) -> None:
    t.change(
        "DELETE FROM cache_exchanges WHERE kind = ? AND identifier = ? AND destination = ?",
        kind,
        identifier,
        destination,
    )
