"""Whether the parts of an object are what its manifest signed: the chunk root (R29, R30).

The chunk hashes of a part are made when it comes, and kept for a while, so that an object is not
read again when it is complete. What is not kept any more is read from the storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ntmobile.interfaces import ICacheStorage
from ntmobile.machines.exchange.objects import SEALED_CHUNK, SEALED_PART, ObjectHeader, ObjectRoot
from ntmobile.wire.messages.exchange import Manifest

#: Chunk hashes of so many parts are kept, 2 KiB each: those of 16 GiB.
PARTS: Final = 4096
#: Objects that are remembered to be right.
RIGHT: Final = 10_000


class Offload(Protocol):
    """Runs something that takes a while, and needs nothing of ours, in another thread."""

    def __call__(self, call: Callable[[], bytes]) -> Awaitable[bytes]:
        """Run it."""


class Roots:
    """Judges objects of one storage.

    :ivar offload: hashes in another thread.
    """

    def __init__(self, storage: ICacheStorage, offload: Offload) -> None:
        self._storage = storage
        self.offload = offload
        self._hashes: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._judging: dict[tuple[bytes, bytes], list[Deferred[bool]]] = {}

    async def hash_part(self, manifest: Manifest, number: int, data: bytes) -> bytes:
        """The chunk hashes of a part.

        :raises MalformedMessage: it has another length than that part.
        """
        return await self._hash(ObjectHeader.parse(manifest.header), number, data)

    def came(self, manifest: Manifest, number: int, hashes: bytes) -> None:
        """A part is stored: note its chunk hashes.

        An object that was right before may be another one since, removed and sent anew.
        """
        self._right.pop(manifest.object, None)
        self._hashes[manifest.object, number] = hashes
        while len(self._hashes) > PARTS:
            self._hashes.popitem(last=False)

    def forget(self, identifier: bytes) -> None:
        """An object is not there any more, or not complete: what comes may be something else."""
        self._right.pop(identifier, None)
        for key in [key for key in self._hashes if key[0] == identifier]:
            del self._hashes[key]

    def incomplete(self, identifier: bytes) -> None:
        """An object is not complete, so that it cannot be right yet."""
        self._right.pop(identifier, None)

    async def is_right(self, manifest: Manifest, at: float) -> bool:
        """Whether the stored parts, all of which came, are the object that was signed.

        :param at: unix seconds.
        """
        if manifest.object in self._right:
            return True
        judging = manifest.object, manifest.root
        waiting = self._judging.get(judging)
        if waiting is not None:
            # It is being read already, which takes a while where it is long.
            mine: Deferred[bool] = Deferred()
            waiting.append(mine)
            return await mine
        self._judging[judging] = []
        try:
            right = await self._judge(manifest, at)
        except BaseException:
            failure = Failure()
            for each in self._judging.pop(judging):
                each.errback(failure)
            raise
        for each in self._judging.pop(judging):
            each.callback(right)
        return right

    async def _judge(self, manifest: Manifest, at: float) -> bool:
        header = ObjectHeader.parse(manifest.header)
        root = ObjectRoot(header)
        for number in range(header.parts):
            hashes = self._hashes.get((manifest.object, number))
            if hashes is None:
                data = await self._storage.read_part(manifest.object, number, 0, SEALED_PART, at)
                hashes = await self._hash(header, number, data)
            root.update(hashes)
        for number in range(header.parts):
            self._hashes.pop((manifest.object, number), None)
        if root.digest() != manifest.root:
            return False
        self._right[manifest.object] = None
        if len(self._right) > RIGHT:
            self._right.popitem(last=False)
        return True

    async def _hash(self, header: ObjectHeader, number: int, data: bytes) -> bytes:
        if len(data) <= SEALED_CHUNK:
            return header.chunk_hashes(number, data)
        return await self.offload(lambda: header.chunk_hashes(number, data))
