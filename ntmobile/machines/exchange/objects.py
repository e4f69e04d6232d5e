"""The outside of an encrypted object: header, parts, padding and root (R30, R33).

The header has 64 bytes and is bound into every chunk::

    "NTM1" | version 1 | chunk size, log2 (1) | zeros (2) | salt (32) | length (8) | object (16)

The length is that of the padded plaintext. Chunks have 64 KiB of it and a tag of 16 bytes each, the
last one may be shorter; 64 chunks are a part, the unit of upload and download.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage

HEADER_SIZE: Final = 64
CHUNK_BITS: Final = 16
CHUNK: Final = 1 << CHUNK_BITS
TAG: Final = 16
SEALED_CHUNK: Final = CHUNK + TAG
PART_CHUNKS: Final = 64
#: Plaintext and ciphertext of a whole part.
PART: Final = PART_CHUNKS * CHUNK
SEALED_PART: Final = PART_CHUNKS * SEALED_CHUNK
HASH: Final = 32
#: No object is padded to less, so that the lengths of short texts do not show (R33).
SHORTEST: Final = 256
#: Longest plaintext.
LONGEST_OBJECT: Final = 1 << 48

_MAGIC: Final = b"NTM1"
_VERSION: Final = 1
_LAYOUT: Final = struct.Struct("!4sBB2s32sQ16s")


def padded_length(length: int) -> int:
    """The length to which a plaintext is padded: PADME, at least 256.

    PADME (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with
    PURBs", 2019) leaves a length as many significant bits as its exponent has: at most 12 % more,
    and what shows of a length is of the order of the logarithm of its logarithm.
    """
    if not 0 <= length <= LONGEST_OBJECT:
        raise ValueError(f"an object of {length} bytes is too long")
    if length <= SHORTEST:
        return SHORTEST
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


@frozen
class ObjectHeader:
    """The header of an encrypted object.

    :ivar salt: 32 random bytes, of this object alone. :ivar length: of the padded plaintext.
    :ivar object: its identifier, 16 random bytes.
    """

    salt: bytes
    length: int
    object: bytes

    @classmethod
    def create(cls, length: int, random: Callable[[int], bytes] = os.urandom) -> ObjectHeader:
        """A header for a new object whose plaintext has ``length`` bytes."""
        return cls(random(32), padded_length(length), random(16))

    def pack(self) -> bytes:
        """The 64 bytes."""
        return _LAYOUT.pack(
            _MAGIC, _VERSION, CHUNK_BITS, b"\0\0", self.salt, self.length, self.object
        )

    @classmethod
    def parse(cls, data: bytes) -> ObjectHeader:
        """Take 64 bytes apart; anything that :meth:`pack` does not make is malformed.

        :raises MalformedMessage: it is no header of this version.
        """
        if len(data) != HEADER_SIZE:
            raise MalformedMessage(f"an object's header of {len(data)} bytes")
        magic, version, bits, zeros, salt, length, number = _LAYOUT.unpack(data)
        if (magic, version, bits, zeros) != (_MAGIC, _VERSION, CHUNK_BITS, b"\0\0"):
            raise MalformedMessage("an object's header of another version")
        if length > LONGEST_OBJECT or padded_length(length) != length:
            raise MalformedMessage(f"an object's header with an impossible length: {length}")
        return cls(salt, length, number)

    @property
    def chunks(self) -> int:
        """Of how many chunks the object consists."""
        return -(-self.length // CHUNK)

    @property
    def parts(self) -> int:
        """Of how many parts the object consists."""
        return -(-self.length // PART)

    @property
    def sealed_length(self) -> int:
        """Bytes of all its parts together."""
        return self.length + TAG * self.chunks

    def part_length(self, number: int) -> int:
        """Bytes of one part, sealed; a number that it does not have is a ``ValueError``."""
        if not 0 <= number < self.parts:
            raise ValueError(f"an object of {self.parts} parts has no part {number}")
        return min(SEALED_PART, self.sealed_length - number * SEALED_PART)

    def chunk_hashes(self, number: int, part: bytes | bytearray | memoryview) -> bytes:
        """The SHA-256 of each sealed chunk of a part, one after the other.

        :raises MalformedMessage: the part has another length than this one must have.
        """
        if len(part) != self.part_length(number):
            raise MalformedMessage(
                f"part {number} has {len(part)} bytes instead of {self.part_length(number)}"
            )
        view = memoryview(part)
        return b"".join(
            sha256(view[begin : begin + SEALED_CHUNK]).digest()
            for begin in range(0, len(part), SEALED_CHUNK)
        )


class ChunkHasher:
    """The hashes of the sealed chunks of a part, made as it comes."""

    def __init__(self) -> None:
        self._chunk = sha256()
        self._room = SEALED_CHUNK
        self._done: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes, of any cut."""
        view = memoryview(data)
        while len(view):
            piece = view[: self._room]
            self._chunk.update(piece)
            self._room -= len(piece)
            view = view[len(piece) :]
            if not self._room:
                self._done.append(self._chunk.digest())
                self._chunk, self._room = sha256(), SEALED_CHUNK

    def hashes(self) -> bytes:
        """As :meth:`ObjectHeader.chunk_hashes`, when the whole part has come."""
        rest = [self._chunk.digest()] if self._room < SEALED_CHUNK else []
        return b"".join([*self._done, *rest])


class ObjectRoot:
    """The hash over a whole object, made as its parts come: "ntm1 root", header, chunk hashes."""

    def __init__(self, header: ObjectHeader) -> None:
        self._header = header
        self._hash = sha256(b"ntm1 root" + header.pack())
        self._octets = 0

    @property
    def next_part(self) -> int:
        """The number of the part whose chunk hashes come next."""
        return -(-self._octets // (PART_CHUNKS * HASH))

    def update(self, hashes: bytes | bytearray) -> None:
        """Take the chunk hashes of the next part or parts, whole ones, in order."""
        self._hash.update(hashes)
        self._octets += len(hashes)

    def digest(self) -> bytes:
        """The root; before all chunks are there, and after more, a ``ValueError``."""
        if self._octets != self._header.chunks * HASH:
            raise ValueError(
                f"{self._octets // HASH} chunk hashes of an object of {self._header.chunks} chunks"
            )
        return self._hash.digest()
