"""A cache storage in memory, for tests and simulations: the same records, no threads, no disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from ntmobile.errors import StorageFailed
from ntmobile.interfaces import Quotas
from ntmobile.plugins.caches.blobs import BlobName, Gathered, Kept
from ntmobile.plugins.caches.sqlite import SQLiteDatabase
from ntmobile.plugins.caches.storage import RecordStorage

_T = TypeVar("_T")


class MemoryBlobs:
    """See :class:`~ntmobile.plugins.caches.blobs.Blobs`. :ivar blobs: what there is."""

    def __init__(self) -> None:
        self.blobs: dict[BlobName, bytes] = {}

    def open(self, kept: Callable[[str], Kept]) -> int:
        """See the protocol."""
        swept = [each for each in self.blobs if (each.part, each.digest) not in kept(each.place)]
        for each in swept:
            del self.blobs[each]
        return len(swept)

    def close(self) -> None:
        """See the protocol."""

    def put(self, name: BlobName, data: bytes) -> None:
        """See the protocol."""
        self.blobs[name] = bytes(data)

    def begin(self, name: BlobName) -> Gathered:
        """See the protocol."""
        return Gathered(self, name)

    def get(self, name: BlobName, start: int, length: int) -> bytes:
        """See the protocol."""
        if name not in self.blobs:
            raise StorageFailed(f"part {name.part} is not in memory")
        return self.blobs[name][start : start + length]

    def drop(self, name: BlobName) -> None:
        """See the protocol."""
        self.blobs.pop(name, None)

    def clear(self, place: str) -> None:
        """See the protocol."""
        for name in [each for each in self.blobs if each.place == place]:
            del self.blobs[name]

    def free(self) -> int | None:
        """See the protocol."""
        return None


class NoThreads:
    """Does what is asked at once; see :class:`~ntmobile.plugins.caches.storage.Threads`."""

    def run(self, call: Callable[[], _T]) -> Deferred[_T]:
        """See the protocol."""
        return maybeDeferred(call)

    def stop(self) -> None:
        """See the protocol."""


class MemoryStorage(RecordStorage):
    """An ``ICacheStorage`` whose Deferreds have fired when they are returned.

    :param capacity: bytes that may be stored; 0: as many as one likes.
    :ivar blobs: the parts, by name.
    """

    def __init__(
        self,
        quotas: Quotas | None = None,
        capacity: int = 0,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.blobs = MemoryBlobs()
        super().__init__(
            SQLiteDatabase(None), self.blobs, quotas or Quotas(), NoThreads(), capacity, random
        )
