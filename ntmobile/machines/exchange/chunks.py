"""The inside of an encrypted object: its chunks, sealed and opened part by part (R30).

The object key is HKDF of the shared key and the object's own random salt, so no nonce of one object
is ever one of another. The nonce of a chunk is three zero bytes, its index (8) and a byte that is 1
in the last chunk only; the header is additional data. So no chunk can be left out, added, moved
within an object, or taken from another.
"""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ntmobile.errors import AuthenticationError, ContentChanged, MalformedMessage
from ntmobile.machines.exchange.objects import (
    CHUNK,
    HASH,
    PART,
    PART_CHUNKS,
    SEALED_CHUNK,
    TAG,
    ObjectHeader,
    ObjectRoot,
    padded_length,
)
from ntmobile.wire.sealing import derive

_NONCE: Final = struct.Struct("!3xQB")


def object_key(shared: bytes, header: ObjectHeader) -> bytes:
    """The key of an object's chunks."""
    return derive(shared, header.salt, "ntm1 object")


def chunk_nonce(header: ObjectHeader, index: int) -> bytes:
    """The nonce of a chunk: no index has two, and the last one says that it is the last."""
    return _NONCE.pack(index, index == header.chunks - 1)


class ChunkSealer:
    """Seals an object part by part, as often as it takes; a part is always the same bytes.

    A file is read twice: first to know the root, which the manifest signs, then to send. What it
    was at first is held in the chunk hashes, and a file that changed since is refused, because the
    same nonces must never seal two texts. Between the two, and after a restart, ``hashes`` has to
    be kept: 512 KiB for a GiB.

    :ivar hashes: the chunk hashes of the parts that were sealed so far, in order.
    """

    def __init__(
        self, shared: bytes, header: ObjectHeader, length: int, hashes: bytes = b""
    ) -> None:
        """Seal for ``shared``, a shared key, an object of ``length`` bytes of plaintext."""
        if padded_length(length) != header.length:
            raise ValueError(f"the header is not that of an object of {length} bytes")
        self.header = header
        self.hashes = bytearray(hashes)
        self._length = length
        self._aead = AESGCM(object_key(shared, header))
        self._head = header.pack()

    def extent(self, number: int) -> tuple[int, int]:
        """Where in the plaintext a part begins, and how many bytes of it it takes (may be 0)."""
        self.header.part_length(number)
        begin = number * PART
        return begin, max(0, min(PART, self._length - begin))

    def seal_part(self, number: int, plain: bytes | bytearray | memoryview) -> bytes:
        """Seal a part; each for the first time in order, then again as needed.

        :param plain: what :meth:`extent` asks for.
        :raises ContentChanged: it is not what was sealed at first, or of another length.
        """
        if len(plain) != self.extent(number)[1]:
            raise ContentChanged("what is sent has become shorter or longer; send it anew")
        known = -(-len(self.hashes) // (PART_CHUNKS * HASH))
        if number > known:
            raise ValueError(f"part {number} before part {known}")
        sealed = self._seal(number, memoryview(plain))
        hashes = self.header.chunk_hashes(number, sealed)
        if number == known:
            self.hashes += hashes
            return sealed
        begin = number * PART_CHUNKS * HASH
        if self.hashes[begin : begin + len(hashes)] != hashes:
            raise ContentChanged("what is sent has changed since it was announced; send it anew")
        return sealed

    def root(self) -> bytes:
        """The root, when every part was sealed once; sooner, a ``ValueError``."""
        root = ObjectRoot(self.header)
        root.update(self.hashes)
        return root.digest()

    def _seal(self, number: int, plain: memoryview) -> bytes:
        length = self.header.part_length(number)
        chunks = -(-length // SEALED_CHUNK)
        sealed = []
        for step in range(chunks):
            text: bytes | memoryview = plain[step * CHUNK : (step + 1) * CHUNK]
            size = min(SEALED_CHUNK, length - step * SEALED_CHUNK) - TAG
            if len(text) < size:  # what PADME adds
                text = bytes(text) + bytes(size - len(text))
            nonce = chunk_nonce(self.header, number * PART_CHUNKS + step)
            sealed.append(self._aead.encrypt(nonce, text, self._head))
        return b"".join(sealed)


class ChunkOpener:
    """Opens an object's parts in order, and in the end says whether it was the object announced.

    Every chunk that it returns is authentic, but not yet the whole: nothing may be given to an
    application before :meth:`finish`.

    :ivar hashes: chunk hashes so far; with them, opening goes on after a restart.
    """

    def __init__(
        self,
        shared: bytes,
        header: ObjectHeader,
        length: int,
        root: bytes,
        hashes: bytes = b"",
    ) -> None:
        """Open with ``shared`` what a verified manifest announced.

        :param length: of the plaintext, from the manifest's sealed details.
        :raises AuthenticationError: that length and the header do not belong together.
        """
        if not 0 <= length <= header.length or padded_length(length) != header.length:
            raise AuthenticationError("an object's length is not the one that was signed")
        self.header = header
        self.hashes = bytearray(hashes)
        self._length = length
        self._root = root
        self._aead = AESGCM(object_key(shared, header))
        self._head = header.pack()

    @property
    def next_part(self) -> int:
        """Which part comes next; ``header.parts`` after the last one."""
        return -(-len(self.hashes) // (PART_CHUNKS * HASH))

    def open_part(self, part: bytes | bytearray | memoryview) -> bytes:
        """Open the next part: its plaintext, without padding.

        :raises AuthenticationError: it is not that part of that object. The same part can be tried
            again, from elsewhere.
        """
        number = self.next_part
        if number >= self.header.parts:
            raise AuthenticationError("an object is longer than announced")
        try:
            hashes = self.header.chunk_hashes(number, part)
        except MalformedMessage:
            raise AuthenticationError("an object was truncated or lengthened") from None
        plain = self._open(number, memoryview(part))
        rest = min(max(0, self._length - number * PART), len(plain))
        if plain.count(0, rest) != len(plain) - rest:
            raise AuthenticationError("an object's padding is not zeros")
        self.hashes += hashes
        return plain[:rest] if rest < len(plain) else plain

    def finish(self) -> None:
        """See that all parts were opened, and are what the manifest signed.

        :raises AuthenticationError: they are not; all of it is to be thrown away.
        """
        root = ObjectRoot(self.header)
        root.update(self.hashes)
        try:
            found = root.digest()
        except ValueError:
            raise AuthenticationError("an object is incomplete") from None
        if found != self._root:
            raise AuthenticationError("an object is not the one that its sender signed")

    def _open(self, number: int, part: memoryview) -> bytes:
        opened = []
        try:
            for begin in range(0, len(part), SEALED_CHUNK):
                index = number * PART_CHUNKS + begin // SEALED_CHUNK
                sealed = part[begin : begin + SEALED_CHUNK]
                opened.append(
                    self._aead.decrypt(chunk_nonce(self.header, index), sealed, self._head)
                )
        except InvalidTag:
            raise AuthenticationError("an object was altered where it was stored") from None
        return b"".join(opened)
