"""The records of objects and their parts."""

from __future__ import annotations

from attrs import frozen

from ntmobile.errors import AlreadyExists, MalformedMessage, NoSuchItem
from ntmobile.interfaces import Quotas, Standing, StoredObject, StoredPart
from ntmobile.plugins.caches.accounts import (
    COMING,
    COMPLETE,
    RELEASED,
    charge,
    expect_room,
)
from ntmobile.plugins.caches.blobs import BlobName, Kept
from ntmobile.plugins.caches.database import Transaction
from ntmobile.wire.names import user_of

_COLUMNS = (
    "identifier, sender, application, length, part_size, expires, document,"
    " place, came_parts, state, size, owner"
)


@frozen
class Record:
    """An object, and what the storage knows of it besides."""

    announced: StoredObject
    place: str
    came_parts: int
    state: int
    size: int
    owner: str


def find(t: Transaction, identifier: bytes, at: float | None) -> Record | None:
    """Give an object that has not expired at a time; without one, also one that has."""
    rows = t.rows(f"SELECT {_COLUMNS} FROM cache_objects WHERE identifier = ?", identifier)
    if not rows or (at is not None and rows[0][5] <= at):
        return None
    _, sender, application, length, part_size, expires, document, *rest = rows[0]
    names = t.rows(
        "SELECT destination FROM cache_deliveries WHERE identifier = ? ORDER BY rank_in_list",
        identifier,
    )
    announced = StoredObject(
        identifier,
        sender,
        application,
        tuple(name for (name,) in names),
        length,
        part_size,
        expires,
        bytes(document),
    )
    return Record(announced, *rest)


def expect(t: Transaction, identifier: bytes, at: float) -> Record:
    """Give an object that is there.

    :raises NoSuchItem: there is none.
    """
    found = find(t, identifier, at)
    if found is None:
        raise NoSuchItem(f"there is no object {identifier.hex()} here, or no longer")
    return found


def add(
    t: Transaction, announced: StoredObject, place: str, quotas: Quotas, left: int, at: float
) -> tuple[Standing, str | None]:
    """Announce an object; see ``ICacheStorage.add_object``.

    :param place: where its blobs will be, if it is new.
    :return: how it stands, and a place that is no longer used.
    """
    if len(set(announced.destinations)) != len(announced.destinations):
        raise MalformedMessage("the object has the same destination twice")
    freed = None
    before = find(t, announced.identifier, None)
    if before is not None and before.announced.expires <= at:
        freed, before = remove(t, announced.identifier), None
    if before is not None:
        if before.announced != announced:
            raise AlreadyExists(
                f"there is another object {announced.identifier.hex()}; choose another identifier"
            )
        return standing(t, before, 1000), None
    owner = user_of(announced.sender)
    size = announced.length + len(announced.document)
    expect_room(t, owner, announced.application, size, 1, quotas, left)
    charge(t, owner, announced.application, size, 1)
    t.change(
        "INSERT INTO cache_objects (identifier, place, sender, owner, application, expires, size,"
        " length, part_size, touched, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        announced.identifier,
        place,
        announced.sender,
        owner,
        announced.application,
        float(announced.expires),
        size,
        announced.length,
        announced.part_size,
        float(at),
        announced.document,
    )
    for rank, destination in enumerate(announced.destinations):
        t.change(
            "INSERT INTO cache_deliveries (identifier, rank_in_list, destination, state, reason,"
            " since, confirmation) VALUES (?, ?, ?, 'not told', '', ?, ?)",
            announced.identifier,
            rank,
            destination,
            float(at),
            b"",
        )
    if not announced.parts:
        _complete(t, announced, at)
    return standing(t, expect(t, announced.identifier, at), 1000), freed


def standing(t: Transaction, record: Record, limit: int) -> Standing:
    """How an object stands, with at most ``limit`` missing parts."""
    if record.state != COMING:
        return Standing(True, record.state == RELEASED)
    if limit <= 0:
        return Standing(False, False)
    came = {
        part for (part,) in t.rows("SELECT part FROM cache_parts WHERE place = ?", record.place)
    }
    missing: list[int] = []
    for part in range(record.announced.parts):
        if len(missing) == limit:
            break
        if part not in came:
            missing.append(part)
    return Standing(False, False, tuple(missing))


def expect_part(
    t: Transaction, identifier: bytes, part: int, size: int, digest: bytes, at: float
) -> tuple[BlobName, bool]:
    """Prepare for a part: under which name its blob is to be, and whether it is there already.

    :raises NoSuchItem: there is no such object, or no longer its parts.
    :raises AlreadyExists: that part came with other data.
    :raises MalformedMessage: there is no such number, or its size is another.
    """
    record = expect(t, identifier, at)
    if record.state == RELEASED:
        raise NoSuchItem(f"object {identifier.hex()} was confirmed by all; its parts are gone")
    expected = record.announced.size_of(part) if part >= 0 else 0
    if not expected:
        raise MalformedMessage(f"the object has {record.announced.parts} parts, and no {part}")
    if size != expected:
        raise MalformedMessage(f"part {part} of the object has {expected} bytes, not {size}")
    found = find_part(t, record.place, part)
    if found is not None and found.digest != digest:
        raise AlreadyExists(f"part {part} came with other data; announce another object for it")
    return BlobName(record.place, part, digest), found is not None


def record_part(t: Transaction, identifier: bytes, name: BlobName, size: int, at: float) -> bool:
    """Record a part whose blob is there; tells whether the object is complete.

    Raises as :func:`expect_part`, for much may have happened while the blob was written.
    """
    expected, there = expect_part(t, identifier, name.part, size, name.digest, at)
    if expected.place != name.place:
        raise NoSuchItem(f"object {identifier.hex()} was removed meanwhile; send its parts again")
    record = expect(t, identifier, at)
    if there:
        return record.state != COMING
    t.change(
        "INSERT INTO cache_parts (place, part, size, digest) VALUES (?, ?, ?, ?)",
        name.place,
        name.part,
        size,
        name.digest,
    )
    t.change(
        "UPDATE cache_objects SET came = came + ?, came_parts = came_parts + 1, touched = ?"
        " WHERE identifier = ?",
        size,
        float(at),
        identifier,
    )
    complete = record.came_parts + 1 == record.announced.parts
    if complete:
        _complete(t, record.announced, at)
    return complete


def _complete(t: Transaction, announced: StoredObject, at: float) -> None:
    """The object is whole: its destinations are to be told."""
    t.change(
        "UPDATE cache_objects SET state = ? WHERE identifier = ?", COMPLETE, announced.identifier
    )
    for destination in announced.destinations:
        t.change(
            "INSERT INTO cache_exchanges (kind, identifier, destination, due)"
            " VALUES ('data', ?, ?, ?)",
            announced.identifier,
            destination,
            float(at),
        )


def find_part(t: Transaction, place: str, part: int) -> StoredPart | None:
    """What is recorded of a part."""
    rows = t.rows("SELECT size, digest FROM cache_parts WHERE place = ? AND part = ?", place, part)
    return StoredPart(rows[0][0], bytes(rows[0][1])) if rows else None


def locate_part(
    t: Transaction, identifier: bytes, part: int, at: float
) -> tuple[str, StoredPart] | None:
    """Find a part of an object: its place, and what is recorded of it."""
    rows = t.rows(
        "SELECT o.place, p.size, p.digest FROM cache_objects AS o"
        " JOIN cache_parts AS p ON p.place = o.place"
        " WHERE o.identifier = ? AND o.expires > ? AND p.part = ?",
        identifier,
        float(at),
        part,
    )
    return (rows[0][0], StoredPart(rows[0][1], bytes(rows[0][2]))) if rows else None


def kept(t: Transaction, place: str) -> Kept:
    """The parts that are recorded at a place."""
    rows = t.rows("SELECT part, digest FROM cache_parts WHERE place = ?", place)
    return frozenset((part, bytes(digest)) for part, digest in rows)


def release(t: Transaction, record: Record) -> None:
    """Forget the parts of an object; all else of it stays until it expires."""
    announced = record.announced
    left = len(announced.document)
    t.change("DELETE FROM cache_parts WHERE place = ?", record.place)
    t.change(
        "UPDATE cache_objects SET state = ?, size = ?, came = 0, came_parts = 0"
        " WHERE identifier = ?",
        RELEASED,
        left,
        announced.identifier,
    )
    charge(t, record.owner, announced.application, left - record.size, 0)


def remove(t: Transaction, identifier: bytes) -> str | None:
    """Remove an object; gives the place of its blobs, None if there was none."""
    record = find(t, identifier, None)
    if record is None:
        return None
    t.change("DELETE FROM cache_parts WHERE place = ?", record.place)
    t.change("DELETE FROM cache_deliveries WHERE identifier = ?", identifier)
    t.change("DELETE FROM cache_exchanges WHERE kind = 'data' AND identifier = ?", identifier)
    t.change("DELETE FROM cache_objects WHERE identifier = ?", identifier)
    charge(t, record.owner, record.announced.application, -record.size, -1)
    return record.place


def expire(t: Transaction, at: float, idle: float, limit: int) -> list[str]:
    """Remove objects that have expired or stopped to come; gives the places, at most ``limit``."""
    rows = t.rows(
        "SELECT identifier FROM cache_objects WHERE expires <= ? LIMIT ?", float(at), limit
    )
    if len(rows) < limit:
        rows += t.rows(
            "SELECT identifier FROM cache_objects WHERE state = ? AND touched <= ? AND expires > ?"
            " LIMIT ?",
            COMING,
            at - idle,
            float(at),
            limit - len(rows),
        )
    places = [remove(t, bytes(identifier)) for (identifier,) in rows]
    return [place for place in places if place is not None]
