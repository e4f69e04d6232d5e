"""The database that the records of a cache storage are in: what is asked of it, and its tables.

SQL is written for both SQLite and MariaDB, with ``?`` for values; where they differ (the names of
types), the schema has words that each fills in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeVar

_T = TypeVar("_T")

#: Scripts that bring the tables from one version to the next. Each may be begun again, because
#: MariaDB has no transactions for them.
MIGRATIONS: Final = (
    """
    CREATE TABLE IF NOT EXISTS cache_keys (
        destination {name} NOT NULL,
        identifier {digest} NOT NULL,
        sender {name} NOT NULL,
        owner {name} NOT NULL,
        application {name} NOT NULL,
        expires {time} NOT NULL,
        size {number} NOT NULL,
        document {document} NOT NULL,
        PRIMARY KEY (destination, identifier)
    ) {table};
    CREATE INDEX IF NOT EXISTS cache_keys_by_expiry ON cache_keys (expires);

    CREATE TABLE IF NOT EXISTS cache_objects (
        identifier {digest} NOT NULL PRIMARY KEY,
        place {name} NOT NULL,
        sender {name} NOT NULL,
        owner {name} NOT NULL,
        application {name} NOT NULL,
        expires {time} NOT NULL,
        size {number} NOT NULL,
        length {number} NOT NULL,
        part_size {number} NOT NULL,
        came {number} NOT NULL DEFAULT 0,
        came_parts {number} NOT NULL DEFAULT 0,
        touched {time} NOT NULL,
        state {number} NOT NULL DEFAULT 0,
        document {document} NOT NULL
    ) {table};
    CREATE INDEX IF NOT EXISTS cache_objects_by_expiry ON cache_objects (expires);
    CREATE INDEX IF NOT EXISTS cache_objects_by_state ON cache_objects (state, touched);
    CREATE UNIQUE INDEX IF NOT EXISTS cache_objects_by_place ON cache_objects (place);

    CREATE TABLE IF NOT EXISTS cache_parts (
        place {name} NOT NULL,
        part {number} NOT NULL,
        size {number} NOT NULL,
        digest {digest} NOT NULL,
        PRIMARY KEY (place, part)
    ) {table};

    CREATE TABLE IF NOT EXISTS cache_deliveries (
        identifier {digest} NOT NULL,
        rank_in_list {number} NOT NULL,
        destination {name} NOT NULL,
        state {name} NOT NULL,
        reason {text} NOT NULL,
        since {time} NOT NULL,
        confirmation {document} NOT NULL,
        PRIMARY KEY (identifier, destination)
    ) {table};

    CREATE TABLE IF NOT EXISTS cache_exchanges (
        kind {name} NOT NULL,
        identifier {digest} NOT NULL,
        destination {name} NOT NULL,
        due {time} NOT NULL,
        attempts {number} NOT NULL DEFAULT 0,
        PRIMARY KEY (kind, identifier, destination)
    ) {table};
    CREATE INDEX IF NOT EXISTS cache_exchanges_by_due ON cache_exchanges (due);

    CREATE TABLE IF NOT EXISTS cache_usage (
        owner {name} NOT NULL,
        application {name} NOT NULL,
        size {number} NOT NULL,
        items {number} NOT NULL,
        PRIMARY KEY (owner, application)
    ) {table};
    CREATE INDEX IF NOT EXISTS cache_usage_by_application ON cache_usage (application);
    """,
)


def statements(version: int, words: Mapping[str, str]) -> Iterator[str]:
    """The statements that bring tables of a version up to date.

    :param words: for the types: ``name``, ``digest``, ``document``, ``text``, ``number``, ``time``,
        and ``table`` for what ends each table.
    """
    for script in MIGRATIONS[version:]:
        for statement in script.split(";"):
            if statement.strip():
                yield statement.format_map(words)


class Transaction(Protocol):
    """Statements that happen as a whole, or not at all."""

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask for rows."""

    def change(self, sql: str, *values: object) -> int:
        """Change rows, and tell how many were found."""


class Database(Protocol):
    """A database. Its methods block, and may be called in several threads at once."""

    def open(self) -> None:
        """Connect, and bring the tables up to date."""

    def hurry(self) -> None:
        """Be patient with nothing any more, for it will soon be closed; does not block."""

    def close(self) -> None:
        """Disconnect; afterwards it may be opened again."""

    def read(self, work: Callable[[Transaction], _T]) -> _T:
        """Do what changes nothing.

        :raises StorageFailed: it cannot be done.
        """

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """Do what changes something: durable when this returns, undone where ``work`` raises.

        One such work happens after the other. It may be done more than once, if the connection is
        lost meanwhile: a work that was done before must find so, and be content.

        :raises StorageFailed: it cannot be done. :raises StorageFull: there is no room.
        """
