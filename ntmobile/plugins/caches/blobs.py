"""Where the parts are: blobs that are written once, each under a name that nothing else had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from attrs import frozen

#: What is recorded of the parts at a place: numbers and digests.
Kept: TypeAlias = "frozenset[tuple[int, bytes]]"


@frozen
class BlobName:
    """Names a blob. Made of nothing that a client chose but a number and a hash.

    :ivar place: of an object, 32 random hexadecimal digits; a later object of the same identifier
        has another one. :ivar part: number of the part. :ivar digest: SHA-256 of the data, so that
        one that came with other data at the same time does not take its place.
    """

    place: str
    part: int
    digest: bytes


class BlobWriter(Protocol):
    """A blob that comes piece by piece; it blocks, and is used by one thread at a time."""

    def write(self, data: bytes) -> None:
        """Add a piece."""

    def keep(self) -> None:
        """Keep what was written under its name, durable when this returns.

        :raises NoSuchItem: its place was cleared meanwhile.
        """

    def drop(self) -> None:
        """Throw away what was not kept; may be called again, and at any time."""


class Gathered:
    """A :class:`BlobWriter` that has it all in memory until it is kept."""

    def __init__(self, blobs: Blobs, name: BlobName) -> None:
        self._blobs = blobs
        self._name = name
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """See the protocol."""
        self._pieces.append(data)

    def keep(self) -> None:
        """See the protocol."""
        self._blobs.put(self._name, b"".join(self._pieces))
        self.drop()

    def drop(self) -> None:
        """See the protocol."""
        self._pieces.clear()


class Blobs(Protocol):
    """A place for blobs. Its methods block, and may be called in several threads at once."""

    def open(self, kept: Callable[[str], Kept]) -> int:
        """Make it ready, and remove each blob that is not recorded.

        :param kept: what is recorded at a place. :return: how many blobs were removed.
        """

    def close(self) -> None:
        """Let it go."""

    def put(self, name: BlobName, data: bytes) -> None:
        """Keep a blob, durable when this returns. One of that name has the same data."""

    def begin(self, name: BlobName) -> BlobWriter:
        """Begin a blob that comes piece by piece; nobody sees it before it is kept."""

    def get(self, name: BlobName, start: int, length: int) -> bytes:
        """Read of a blob that was put, or as much of it as there is.

        :raises StorageFailed: it is not there.
        """

    def drop(self, name: BlobName) -> None:
        """Remove a blob; none is no error."""

    def clear(self, place: str) -> None:
        """Remove all blobs of a place; none is no error."""

    def free(self) -> int | None:
        """Tell how many bytes there is room for; None if that cannot be told."""
