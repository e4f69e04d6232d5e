"""A part that a device uploads, hashed and written while it comes (figure 4).

What is asked for is looked up first, so nothing is written for who may not upload it; and the part
is recorded only when all of it is there and is what was signed (R28). So the memory that it takes
is that of its body, as for any request, and little is left to do when its last byte has come.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ntmobile.errors import MalformedMessage, NoSuchItem, NTMobileError, Unreachable
from ntmobile.interfaces import ICacheStorage, IIncomingPart
from ntmobile.machines.exchange.objects import ChunkHasher
from ntmobile.protocols.caching.access import Caller
from ntmobile.protocols.caching.objects import Found, Objects
from ntmobile.protocols.caching.roots import Offload
from ntmobile.protocols.http_routes import Head
from ntmobile.wire.http_digests import CONTENT_DIGEST, parse_content_digest
from ntmobile.wire.messages.exchange import Manifest

#: Bytes that are hashed and written at once.
SLAB: Final = 1 << 19
#: Pieces that are not joined for that.
FEW: Final = 4


async def find_part(
    objects: Objects, caller: Caller, identifier: bytes, number: int, length: int
) -> Found:
    """The object of a part, if it has one of that number and length.

    :raises NoSuchItem: it has not. :raises MalformedMessage: the part has another length.
    """
    found = await objects.of_sender(caller, identifier, 0)
    size = found.stored.size_of(number)
    if not size:
        raise NoSuchItem(f"the object has {found.stored.parts} parts, numbered from 0")
    if length != size:
        raise MalformedMessage(f"part {number} has {size} bytes, not {length}")
    return found


@define(eq=False)
class PartReceiver:
    """See :class:`~ntmobile.protocols.http_routes.Receiver`.

    :ivar head: :ivar caller: of the request. :ivar offload: hashes in another thread.
    """

    storage: ICacheStorage
    objects: Objects
    offload: Offload
    head: Head
    caller: Caller
    _whole: Any = field(factory=sha256, init=False)
    _chunks: ChunkHasher = field(factory=ChunkHasher, init=False)
    _pieces: list[bytes] = field(factory=list, init=False)
    _waiting: int = field(default=0, init=False)
    _left: int = field(init=False)
    _found: Found | None = field(default=None, init=False)
    _incoming: IIncomingPart | None = field(default=None, init=False)
    _problem: Exception | None = field(default=None, init=False)
    _over: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _more: Deferred[None] | None = field(default=None, init=False)
    _end: Deferred[None] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.head.length
        Deferred.fromCoroutine(self._take())

    # -- Receiver

    def write(self, data: bytes) -> None:
        """See the protocol."""
        if self._over:
            return  # it failed, and that is answered when all has come
        self._pieces.append(data)
        self._waiting += len(data)
        self._left -= len(data)
        if self._waiting >= SLAB or not self._left:
            _wake(self._more)

    async def digest(self) -> bytes:
        """See the protocol."""
        await self._all()
        digest: bytes = self._whole.digest()
        return digest

    def close(self) -> None:
        """See the protocol."""
        self._closed = True
        _wake(self._more)
        self._drop()

    # -- What it does

    async def keep(self) -> tuple[Manifest, bytes, bool]:
        """Keep the part, after its digest was found right.

        :return: the object's manifest, the part's chunk hashes, whether the object is complete.
        """
        await self._all()
        assert self._found is not None and self._incoming is not None
        complete = await self._incoming.keep(self.objects.unix_time())
        return self._found.manifest, self._chunks.hashes(), complete

    async def _all(self) -> None:
        if not self._over:
            self._end = Deferred()
            await self._end
        if self._problem is not None:
            raise self._problem

    async def _take(self) -> None:
        try:
            await self._enough()  # nothing is looked up, or opened, for who has no room yet
            await self._look()
            while self._waiting or self._left:
                await self._enough()
                await self._slab()
        except Exception as problem:
            self._problem = problem
            self._pieces.clear()
        self._over = True
        self._drop()
        _wake(self._end)

    async def _look(self) -> None:
        """Look up what is uploaded, and begin it."""
        identifier, number = self.head.values["object"], self.head.values["part"]
        size = self.head.length
        self._found = await find_part(self.objects, self.caller, identifier, number, size)
        digest = parse_content_digest(self.head.header(CONTENT_DIGEST) or "")
        at = self.objects.unix_time()
        self._incoming = await self.storage.begin_part(identifier, number, size, digest, at)

    async def _enough(self) -> None:
        """Wait until as much has come as is written at once, or the last of it."""
        while self._left and self._waiting < SLAB:
            if self._closed:
                raise Unreachable("the request ended before its body")
            self._more = Deferred()
            await self._more

    async def _slab(self) -> None:
        """Hash and write what has come."""
        slab, self._pieces, self._waiting = self._pieces, [], 0
        if len(slab) > FEW:
            slab = [b"".join(slab)]
        hashers = (self._whole.update, self._chunks.update)
        hashing = [Deferred.fromCoroutine(self._hash(update, slab)) for update in hashers]
        try:
            if self._incoming is not None:
                await self._incoming.write(*slab)
        finally:
            for each in hashing:
                await each

    async def _hash(self, update: Callable[[bytes], None], slab: list[bytes]) -> None:
        def work() -> bytes:
            for piece in slab:
                update(piece)
            return b""

        await self.offload(work)

    def _drop(self) -> None:
        """Throw away what nobody will keep, when nothing is being written."""
        incoming = self._incoming
        if incoming is not None and self._over and (self._closed or self._problem is not None):
            self._incoming = None
            incoming.drop().addErrback(_undropped)


def _wake(waiting: Deferred[None] | None) -> None:
    if waiting is not None and not waiting.called:
        waiting.callback(None)


def _undropped(failure: Failure) -> None:
    """What could not be removed now is removed at the next start."""
    failure.trap(NTMobileError)
