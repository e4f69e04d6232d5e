"""Who has stored how much, and whether there is room for more."""

from __future__ import annotations

from typing import Final

from ntmobile.errors import QuotaExceeded, StorageFull
from ntmobile.interfaces import Quotas, Usage
from ntmobile.plugins.caches.database import Transaction

#: An object's state: its parts come; they all came; they were removed, for all have confirmed.
COMING: Final = 0
COMPLETE: Final = 1
RELEASED: Final = 2


def usage(t: Transaction, *, owner: str | None = None, application: str | None = None) -> Usage:
    """What is stored of an owner, of an application, of both, or all in all."""
    sql, values = "SELECT COALESCE(SUM(size), 0), COALESCE(SUM(items), 0) FROM cache_usage", []
    conditions = []
    if owner is not None:
        conditions.append("owner = ?")
        values.append(owner)
    if application is not None:
        conditions.append("application = ?")
        values.append(application)
    if conditions:
        sql += " WHERE " + " AND ".join(conditions)
    ((size, items),) = t.rows(sql, *values)
    return Usage(int(size), int(items))


def charge(t: Transaction, owner: str, application: str, size: int, items: int) -> None:
    """Add to an account, or take from it."""
    found = t.change(
        "UPDATE cache_usage SET size = size + ?, items = items + ?"
        " WHERE owner = ? AND application = ?",
        size,
        items,
        owner,
        application,
    )
    if not found:
        t.change(
            "INSERT INTO cache_usage (owner, application, size, items) VALUES (?, ?, ?, ?)",
            owner,
            application,
            size,
            items,
        )
    elif items < 0:
        t.change(
            "DELETE FROM cache_usage WHERE owner = ? AND application = ? AND items = 0",
            owner,
            application,
        )


def rebuild(t: Transaction) -> None:
    """Make the accounts the sum of what is kept."""
    t.change("DELETE FROM cache_usage")
    t.change(
        "INSERT INTO cache_usage (owner, application, size, items)"
        " SELECT owner, application, SUM(size), COUNT(*) FROM ("
        "SELECT owner, application, size FROM cache_keys"
        " UNION ALL SELECT owner, application, size FROM cache_objects"
        ") AS kept GROUP BY owner, application"
    )


def room(t: Transaction, capacity: int, free: int | None) -> int:
    """How many bytes may still be announced.

    :param capacity: of the storage; 0: as much as there is room for.
    :param free: bytes that there is room for, part of which was announced and did not come yet.
    """
    bounds = [1 << 62]
    if capacity:
        bounds.append(capacity - usage(t).size)
    if free is not None:
        ((coming,),) = t.rows(
            "SELECT COALESCE(SUM(length - came), 0) FROM cache_objects WHERE state = ?", COMING
        )
        bounds.append(free - int(coming))
    return max(0, min(bounds))


def expect_room(
    t: Transaction, owner: str, application: str, size: int, items: int, quotas: Quotas, left: int
) -> None:
    """Refuse what does not fit.

    :param size: bytes more. :param items: items more. :param left: see :func:`room`.
    :raises QuotaExceeded: for the owner or the application. :raises StorageFull: for everybody.
    """
    for what, quota, more, used in (
        (owner, quotas.user, size, usage(t, owner=owner).size),
        (
            f"application {application!r}",
            quotas.application,
            size,
            usage(t, application=application).size,
        ),
    ):
        if quota and more > 0 and used + more > quota:
            raise QuotaExceeded(
                f"{what} may store {quota} bytes here and has {max(0, quota - used)} left, this"
                f" needs {more}; withdraw something, or wait until it is fetched or expires"
            )
    if quotas.items and items > 0 and usage(t, owner=owner).items + items > quotas.items:
        raise QuotaExceeded(
            f"{owner} may store {quotas.items} items here and has that many;"
            " withdraw some, or wait until they expire"
        )
    if size > left:
        raise StorageFull(
            f"the cache server has room for {left} bytes and this needs {size};"
            " try again later, or send less"
        )
