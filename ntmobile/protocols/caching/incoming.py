"""A part that a device uploads, hashed and written while it comes (figure 4).

What is asked for is looked up first, so nothing is written for who may not upload it; and the part
is recorded only when all of it is there and is what was signed (R28). So the memory that it takes
is that of its body, as for any request, and little is left to do when its last byte has come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
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

#: Bytes that are hashed and written at once, at least.
SLAB: Final = 1 << 20
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
class Lane:
    """Has pieces worked on in their order: each time all that have come, until something fails.

    :ivar work: works on pieces.
    """

    work: Callable[[list[bytes]], Awaitable[object]]
    _pieces: list[bytes] = field(factory=list, init=False)
    _running: bool = field(default=False, init=False)
    _problem: Exception | None = field(default=None, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def add(self, pieces: list[bytes]) -> None:
        """Have more worked on."""
        self._pieces += pieces
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run())

    async def done(self) -> None:
        """Wait until all is done.

        :raises Exception: of what failed.
        """
        while self._running:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        if self._problem is not None:
            raise self._problem

    async def _run(self) -> None:
        while self._pieces:
            pieces, self._pieces = self._pieces, []
            try:
                if self._problem is None:
                    await self.work(pieces)
            except Exception as problem:
                self._problem = problem
        self._running = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


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
    _writing: Lane = field(init=False)
    _digesting: Lane = field(init=False)
    _chunking: Lane = field(init=False)
    _whole: Any = field(factory=sha256, init=False)
    _chunks: ChunkHasher = field(factory=ChunkHasher, init=False)
    _pieces: list[bytes] = field(factory=list, init=False)
    _waiting: int = field(default=0, init=False)
    _left: int = field(init=False)
    _found: Found | None = field(default=None, init=False)
    _incoming: IIncomingPart | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.head.length
        self._writing = Lane(self._write)
        self._digesting = Lane(lambda pieces: self._hash(self._whole.update, pieces))
        self._chunking = Lane(lambda pieces: self._hash(self._chunks.update, pieces))

    # -- Receiver

    def write(self, data: bytes) -> None:
        """See the protocol."""
        self._pieces.append(data)
        self._waiting += len(data)
        self._left -= len(data)
        if self._waiting >= SLAB or not self._left:
            self._slab()

    async def digest(self) -> bytes:
        """See the protocol."""
        await self._writing.done()
        await self._digesting.done()
        digest: bytes = self._whole.digest()
        return digest

    def close(self) -> None:
        """See the protocol."""
        if not self._closed:
            self._closed = True
            Deferred.fromCoroutine(self._drop())

    # -- What it does

    async def keep(self) -> tuple[Manifest, bytes, bool]:
        """Keep the part, after its digest was found right.

        :return: the object's manifest, the part's chunk hashes, whether the object is complete.
        """
        assert self._found is not None and self._incoming is not None
        complete = await self._incoming.keep(self.objects.unix_time())
        await self._chunking.done()
        return self._found.manifest, self._chunks.hashes(), complete

    def _slab(self) -> None:
        """Have what has come hashed and written."""
        slab, self._pieces, self._waiting = self._pieces, [], 0
        if len(slab) > FEW:
            slab = [b"".join(slab)]
        for lane in (self._writing, self._digesting, self._chunking):
            lane.add(slab)

    async def _write(self, pieces: list[bytes]) -> None:
        if self._incoming is None:
            # With the first slab: nothing is opened for who has no room for a body yet.
            self._incoming = await self._begin()
        if self._closed:
            raise Unreachable("the request ended before its body")
        await self._incoming.write(*pieces)

    async def _begin(self) -> IIncomingPart:
        """Look up what is uploaded while it is begun."""
        identifier, number = self.head.values["object"], self.head.values["part"]
        size, at = self.head.length, self.objects.unix_time()
        digest = parse_content_digest(self.head.header(CONTENT_DIGEST) or "")
        sender = self.caller.fqdn if self.caller.certificate is None else ""
        beginning = self.storage.begin_part(identifier, sender, number, size, digest, at)
        try:
            found = await find_part(self.objects, self.caller, identifier, number, size)
        except Exception:
            beginning.addCallback(lambda begun: begun.drop()).addErrback(_undropped)
            raise
        self._found = found
        return await beginning

    def _hash(self, update: Callable[[bytes], None], pieces: list[bytes]) -> Awaitable[bytes]:
        def work() -> bytes:
            for piece in pieces:
                update(piece)
            return b""

        return self.offload(work)

    async def _drop(self) -> None:
        """Throw away what was not kept, when nothing is being written."""
        with suppress(Exception):  # it was answered with it
            await self._writing.done()
        if self._incoming is not None:
            self._incoming.drop().addErrback(_undropped)


def _undropped(failure: Failure) -> None:
    """What could not be removed now is removed at the next start."""
    failure.trap(NTMobileError)
