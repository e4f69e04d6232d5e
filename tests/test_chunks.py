from __future__ import annotations

import contextlib
import os
from hashlib import sha256

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, ContentChanged, MalformedMessage
from ntmobile.machines.exchange.chunks import ChunkOpener, ChunkSealer, chunk_nonce, object_key
from ntmobile.machines.exchange.objects import (
    CHUNK,
    HEADER_SIZE,
    LONGEST_OBJECT,
    PART,
    SEALED_CHUNK,
    SEALED_PART,
    ObjectHeader,
    ObjectRoot,
    padded_length,
)

SHARED = bytes(range(32))
#: Lengths around every border that there is.
LENGTHS = (0, 1, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 1, PART - 1, PART, PART + 1, PART + CHUNK)
#: A long text is cut out of this: content does not matter, position does.
POOL = os.urandom(2 * PART + 3 * CHUNK)

ours = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


def sealed(plain: bytes, shared: bytes = SHARED) -> tuple[ChunkSealer, list[bytes]]:
    """A plaintext's sealer and parts."""
    sealer = ChunkSealer(shared, ObjectHeader.create(len(plain)), len(plain))
    parts = []
    for number in range(sealer.header.parts):
        begin, size = sealer.extent(number)
        parts.append(sealer.seal_part(number, plain[begin : begin + size]))
    return sealer, parts


def opened(header: ObjectHeader, length: int, root: bytes, parts: list[bytes]) -> bytes:
    opener = ChunkOpener(SHARED, header, length, root)
    plain = b"".join(opener.open_part(part) for part in parts)
    opener.finish()
    return plain


def chunks_of(parts: list[bytes]) -> list[bytes]:
    data = b"".join(parts)
    return [data[begin : begin + SEALED_CHUNK] for begin in range(0, len(data), SEALED_CHUNK)]


def parts_of(chunks: list[bytes]) -> list[bytes]:
    data = b"".join(chunks)
    return [data[begin : begin + SEALED_PART] for begin in range(0, len(data), SEALED_PART)]


class PaddingTests(SynchronousTestCase):
    @given(st.integers(0, LONGEST_OBJECT))
    @ours
    def test_padme(self, length: int) -> None:
        """R33: a padded length is at most 12 % (or 256 bytes) more, and stays when padded again."""
        padded = padded_length(length)
        self.assertLessEqual(length, padded)
        self.assertLessEqual(padded, max(256, length * 1.12))
        self.assertEqual(padded_length(padded), padded)

    def test_few_lengths(self) -> None:
        """R33: lengths up to a MiB fall together in few, short texts in one."""
        self.assertLess(len({padded_length(length) for length in range(1 << 20)}), 300)
        self.assertEqual({padded_length(length) for length in range(257)}, {256})

    def test_known(self) -> None:
        """Values of the paper's formula."""
        known = {9: 256, 1000: 1024, 1_000_000: 1_015_808, 10**9: 1_006_632_960}
        self.assertEqual({length: padded_length(length) for length in known}, known)

    def test_too_long(self) -> None:
        """An object has a length that there is."""
        for wrong in (-1, LONGEST_OBJECT + 1):
            with self.assertRaises(ValueError):
                padded_length(wrong)


class HeaderTests(SynchronousTestCase):
    @given(st.integers(0, LONGEST_OBJECT))
    @ours
    def test_round_trip(self, length: int) -> None:
        """A header has 64 bytes and comes back; its parts add up to the whole."""
        header = ObjectHeader.create(length)
        self.assertEqual(len(header.pack()), HEADER_SIZE)
        self.assertEqual(ObjectHeader.parse(header.pack()), header)
        last = header.part_length(header.parts - 1)
        self.assertEqual((header.parts - 1) * SEALED_PART + last, header.sealed_length)

    @given(st.integers(0, HEADER_SIZE - 1), st.integers(1, 255))
    @ours
    def test_any_change(self, where: int, change: int) -> None:
        """R11: a changed header is another object's, or malformed."""
        header = ObjectHeader.create(100_000)
        data = bytearray(header.pack())
        data[where] ^= change
        with contextlib.suppress(MalformedMessage):
            self.assertNotEqual(ObjectHeader.parse(bytes(data)), header)

    def test_malformed(self) -> None:
        """R11: other sizes, versions, and lengths that no padding gives are malformed."""
        data = ObjectHeader(bytes(32), 256, bytes(16)).pack()
        wrong = [b"", data[:-1], data + b"\0", b"NTM2" + data[4:], data[:4] + b"\2" + data[5:]]
        lengths = (0, 255, 257, (1 << 20) + 1, 1 << 63)
        wrong += [data[:40] + length.to_bytes(8, "big") + data[48:] for length in lengths]
        for each in wrong:
            with self.assertRaises(MalformedMessage):
                ObjectHeader.parse(each)

    def test_parts(self) -> None:
        """A part that an object does not have is no part."""
        header = ObjectHeader.create(PART + 1)
        for number in (-1, header.parts):
            with self.assertRaises(ValueError):
                header.part_length(number)


class NonceTests(SynchronousTestCase):
    def test_unique(self) -> None:
        """R30: a nonce is index and final flag; no two chunks of an object have the same."""
        header = ObjectHeader.create(20 * PART)
        nonces = {chunk_nonce(header, index) for index in range(header.chunks)}
        self.assertEqual(len(nonces), header.chunks)
        self.assertEqual(chunk_nonce(header, 258), bytes.fromhex("000000000000000000010200"))
        self.assertEqual(chunk_nonce(header, header.chunks - 1)[-1], 1)

    def test_keys(self) -> None:
        """R30: each object has its own key, of shared key and salt."""
        one, two = ObjectHeader.create(1), ObjectHeader.create(1)
        self.assertEqual(
            len({object_key(key, head) for key in (SHARED, bytes(32)) for head in (one, two)}), 4
        )


class RoundTripTests(SynchronousTestCase):
    def test_borders(self) -> None:
        """R30: objects of every length around chunk and part borders come back as they were."""
        for length in LENGTHS:
            plain = POOL[:length]
            sealer, parts = sealed(plain)
            header = sealer.header
            self.assertEqual(
                [len(part) for part in parts], [*map(header.part_length, range(len(parts)))]
            )
            self.assertEqual(sum(map(len, parts)), header.sealed_length)
            self.assertEqual(opened(header, length, sealer.root(), parts), plain)

    @given(st.integers(0, len(POOL) - 1))
    @settings(ours, max_examples=15)
    def test_any_length(self, length: int) -> None:
        """R30: so do those of any other length."""
        sealer, parts = sealed(POOL[:length])
        self.assertEqual(opened(sealer.header, length, sealer.root(), parts), POOL[:length])

    def test_root(self) -> None:
        """R30: the root is the hash of label, header and the hashes of all chunks, in order."""
        sealer, parts = sealed(POOL[: PART + 5])
        hashes = b"".join(sha256(chunk).digest() for chunk in chunks_of(parts))
        self.assertEqual(
            sealer.root(), sha256(b"ntm1 root" + sealer.header.pack() + hashes).digest()
        )

    def test_root_by_whoever_stores(self) -> None:
        """Who has only parts, as a CS has, makes the same root, and none before all are there."""
        sealer, parts = sealed(POOL[: PART + 5])
        root = ObjectRoot(sealer.header)
        for number, part in enumerate(parts):
            self.assertEqual(root.next_part, number)
            with self.assertRaises(ValueError):
                root.digest()
            root.update(sealer.header.chunk_hashes(number, part))
        self.assertEqual(root.digest(), sealer.root())

    def test_nothing_shows(self) -> None:
        """Ciphertext has nothing of the plaintext, and zeros are no zeros."""
        _, parts = sealed(bytes(PART))
        self.assertNotIn(bytes(8), b"".join(parts))


class ResumeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.plain = POOL[: 2 * PART + 7]
        self.sealer, self.parts = sealed(self.plain)

    def part(self, number: int) -> bytes:
        begin, size = self.sealer.extent(number)
        return self.plain[begin : begin + size]

    def test_identical(self) -> None:
        """R30: a part that is sealed again, in any order, after a restart too, the same bytes."""
        again = ChunkSealer(SHARED, self.sealer.header, len(self.plain), bytes(self.sealer.hashes))
        for sealer in (self.sealer, again):
            for number in (2, 0, 1, 1):
                self.assertEqual(sealer.seal_part(number, self.part(number)), self.parts[number])

    def test_interrupted(self) -> None:
        """A first pass goes on after a restart where it was."""
        first = ChunkSealer(SHARED, self.sealer.header, len(self.plain))
        first.seal_part(0, self.part(0))
        second = ChunkSealer(SHARED, self.sealer.header, len(self.plain), bytes(first.hashes))
        with self.assertRaises(ValueError):
            second.seal_part(2, self.part(2))
        with self.assertRaises(ValueError):
            second.root()
        second.seal_part(1, self.part(1))
        second.seal_part(2, self.part(2))
        self.assertEqual(second.root(), self.sealer.root())

    def test_changed(self) -> None:
        """R30: a file that changed since is refused: no nonce ever seals two texts."""
        changed = bytearray(self.part(1))
        changed[-1] ^= 1
        for wrong in (changed, self.part(1)[:-1], self.part(1) + b"x"):
            with self.assertRaises(ContentChanged):
                self.sealer.seal_part(1, wrong)

    def test_other_length(self) -> None:
        """A header and a length that do not belong together are a mistake of the caller."""
        with self.assertRaises(ValueError):
            ChunkSealer(SHARED, self.sealer.header, 5)

    def test_download(self) -> None:
        """Opening goes on after a restart, and still judges the whole."""
        header, root = self.sealer.header, self.sealer.root()
        first = ChunkOpener(SHARED, header, len(self.plain), root)
        plain = first.open_part(self.parts[0])
        second = ChunkOpener(SHARED, header, len(self.plain), root, bytes(first.hashes))
        self.assertEqual(second.next_part, 1)
        plain += second.open_part(self.parts[1]) + second.open_part(self.parts[2])
        second.finish()
        self.assertEqual(plain, self.plain)

    def test_wrong_part_then_right(self) -> None:
        """A part that was garbled on the way can be fetched again."""
        opener = ChunkOpener(SHARED, self.sealer.header, len(self.plain), self.sealer.root())
        with self.assertRaises(AuthenticationError):
            opener.open_part(self.parts[1])
        self.assertEqual(opener.open_part(self.parts[0]), self.part(0))


class TamperedTests(SynchronousTestCase):
    """R30: whoever stores an object can do nothing with it that is not noticed."""

    def setUp(self) -> None:
        self.plain = POOL[: PART + 2 * CHUNK + 4] + b"\x01"  # not to be taken for padding
        self.sealer, self.parts = sealed(self.plain)
        self.chunks = chunks_of(self.parts)

    def assert_refused(self, chunks: list[bytes]) -> None:
        with self.assertRaises(AuthenticationError):
            opened(self.sealer.header, len(self.plain), self.sealer.root(), parts_of(chunks))

    def test_truncated(self) -> None:
        """R30: without its last bytes, chunks or parts, or all of them, it is refused."""
        for end in (-1, -2, -len(self.chunks) + 64, 0):
            self.assert_refused(self.chunks[:end])
        self.assert_refused([*self.chunks[:-1], self.chunks[-1][:-1]])

    def test_lengthened(self) -> None:
        """R30: with bytes or chunks more it is refused."""
        self.assert_refused([*self.chunks, self.chunks[-1]])
        self.assert_refused([*self.chunks, b"x"])
        with self.assertRaises(AuthenticationError):
            opened(
                self.sealer.header,
                len(self.plain),
                self.sealer.root(),
                [*self.parts, self.parts[0]],
            )

    def test_left_out(self) -> None:
        """R30: a chunk that is missing in the middle is noticed, and so is one that comes twice."""
        self.assert_refused([*self.chunks[:1], *self.chunks[2:]])
        self.assert_refused([self.chunks[0], *self.chunks[:-1]])

    def test_swapped_parts(self) -> None:
        """R30: parts of one length do not change places."""
        plain = POOL[: 2 * PART]
        sealer, parts = sealed(plain)
        with self.assertRaises(AuthenticationError):
            opened(sealer.header, len(plain), sealer.root(), [parts[1], parts[0]])

    @given(st.data())
    @settings(ours, max_examples=25)
    def test_reordered(self, data: st.DataObject) -> None:
        """R30: chunks in any other order are refused."""
        low = data.draw(st.integers(0, len(self.chunks) - 2))
        high = data.draw(st.integers(low + 1, len(self.chunks) - 1))
        chunks = list(self.chunks)
        chunks[low], chunks[high] = chunks[high], chunks[low]
        self.assert_refused(chunks)

    @given(st.data())
    @settings(ours, max_examples=25)
    def test_altered(self, data: st.DataObject) -> None:
        """R30: one bit anywhere is noticed."""
        which = data.draw(st.integers(0, len(self.chunks) - 1))
        chunk = bytearray(self.chunks[which])
        chunk[data.draw(st.integers(0, len(chunk) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        chunks = list(self.chunks)
        chunks[which] = bytes(chunk)
        self.assert_refused(chunks)

    def test_replayed(self) -> None:
        """R30: chunks of another object, under the same shared key and position, do not fit."""
        other, parts = sealed(self.plain)
        self.assert_refused([*chunks_of(parts)[:1], *self.chunks[1:]])
        with self.assertRaises(AuthenticationError):
            opened(other.header, len(self.plain), other.root(), self.parts)

    def test_other_header(self) -> None:
        """R30: every bit of the header is bound into every chunk."""
        header = self.sealer.header
        others = [
            ObjectHeader(header.salt, header.length, bytes(16)),
            ObjectHeader(bytes(32), header.length, header.object),
        ]
        for other in others:
            opener = ChunkOpener(SHARED, other, len(self.plain), self.sealer.root())
            with self.assertRaises(AuthenticationError):
                opener.open_part(self.parts[0])

    def test_other_root(self) -> None:
        """R30: authentic chunks that are not what the manifest signed are refused in the end."""
        with self.assertRaisesRegex(AuthenticationError, "not the one that its sender signed"):
            opened(self.sealer.header, len(self.plain), bytes(32), self.parts)

    def test_incomplete(self) -> None:
        """Nothing is finished before its last part."""
        opener = ChunkOpener(SHARED, self.sealer.header, len(self.plain), self.sealer.root())
        opener.open_part(self.parts[0])
        with self.assertRaisesRegex(AuthenticationError, "incomplete"):
            opener.finish()

    def test_other_length(self) -> None:
        """A length from the details that the header cannot have is refused; so is other padding."""
        header, root = self.sealer.header, self.sealer.root()
        for wrong in (0, header.length + 1, -1):
            with self.assertRaises(AuthenticationError):
                ChunkOpener(SHARED, header, wrong, root)
        shorter = ChunkOpener(SHARED, header, len(self.plain) - 1, root)
        shorter.open_part(self.parts[0])
        with self.assertRaisesRegex(AuthenticationError, "padding"):
            shorter.open_part(self.parts[1])

    def test_other_key(self) -> None:
        """Another shared key opens nothing."""
        opener = ChunkOpener(bytes(32), self.sealer.header, len(self.plain), self.sealer.root())
        with self.assertRaises(AuthenticationError):
            opener.open_part(self.parts[0])


class MemoryTests(SynchronousTestCase):
    def test_part_by_part(self) -> None:
        """Neither side holds more of an object than a part and its hashes: 16 GiB are no matter."""
        header = ObjectHeader.create(1 << 34)
        hashes = bytes((header.parts - 1) * 64 * 32)
        opener = ChunkOpener(SHARED, header, 1 << 34, bytes(32), hashes)
        sealer = ChunkSealer(SHARED, header, 1 << 34, hashes)
        begin, size = sealer.extent(header.parts - 1)
        self.assertEqual((begin, size), ((1 << 34) - PART, PART))
        part = sealer.seal_part(header.parts - 1, bytes(size))
        self.assertEqual(opener.open_part(part), bytes(size))
