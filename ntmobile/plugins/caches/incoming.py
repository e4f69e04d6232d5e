"""Parts that come piece by piece to a cache storage of records and blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from ntmobile.interfaces import IIncomingPart
from ntmobile.plugins.caches.blobs import BlobName, BlobWriter

_T = TypeVar("_T")


class Recording(Protocol):
    """What is asked of the storage."""

    def incoming(self, call: Callable[[], _T]) -> Deferred[_T]:
        """Do something that blocks."""

    def record(
        self, identifier: bytes, name: BlobName, size: int, writer: BlobWriter | None, at: float
    ) -> bool:
        """Keep a blob, and record it; blocks."""

    def ended(self, writer: BlobWriter) -> None:
        """A blob was kept, or will not be; blocks."""


@implementer(IIncomingPart)
class IncomingPart:
    """See :class:`~ntmobile.interfaces.IIncomingPart`.

    :param writer: None where the same part is there already.
    """

    def __init__(
        self,
        storage: Recording,
        identifier: bytes,
        name: BlobName,
        size: int,
        writer: BlobWriter | None,
    ) -> None:
        self._storage = storage
        self._identifier = identifier
        self._name = name
        self._size = size
        self._writer = writer

    def write(self, *pieces: bytes) -> Deferred[None]:
        """See the interface."""
        writer = self._writer
        if writer is None:
            return succeed(None)

        def work() -> None:
            for piece in pieces:
                writer.write(piece)

        return self._storage.incoming(work)

    def keep(self, at: float) -> Deferred[bool]:
        """See the interface."""

        def work() -> bool:
            try:
                return self._storage.record(
                    self._identifier, self._name, self._size, self._writer, at
                )
            finally:
                self._end()

        return self._storage.incoming(work)

    def drop(self) -> Deferred[None]:
        """See the interface."""
        return succeed(None) if self._writer is None else self._storage.incoming(self._end)

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._storage.ended(writer)
