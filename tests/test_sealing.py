from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE, Flag, Header, Kind
from ntmobile.wire.sealing import COUNTER_LIMIT, Opener, Sealer, derive, expand

KEY = bytes(range(32))
HEAD = Header(Kind.SIGNAL_SEALED, Flag.FROM_COORDINATOR, b"indexes!", 0)


class SealingTests(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=1200), max_size=8), st.integers(0, 255))
    def test_round_trip(self, plaintexts: list[bytes], flags: int) -> None:
        """What one seals the other opens, with header and counter, from any buffer."""
        sealer, opener = Sealer(KEY), Opener(KEY)
        head = Header(Kind.SIGNAL_SEALED, flags, b"indexes!", 77)
        for counter, plaintext in enumerate(plaintexts):
            datagram = sealer.seal(head, plaintext)
            self.assertEqual(len(datagram), HEADER_SIZE + len(plaintext) + TAG_SIZE)
            header, opened = opener.open((bytes, bytearray, memoryview)[counter % 3](datagram))
            self.assertEqual(opened, plaintext)
            self.assertEqual(header, Header(Kind.SIGNAL_SEALED, flags, b"indexes!", counter))

    def test_layout(self) -> None:
        """AES-256-GCM; the nonce is four zeros and the counter, the header is bound in."""
        sealer = Sealer(KEY)
        sealer.counter = 5
        datagram = sealer.seal(HEAD, b"body")
        nonce = bytes(4) + (5).to_bytes(8, "big")
        opened = AESGCM(KEY).decrypt(nonce, datagram[HEADER_SIZE:], datagram[:HEADER_SIZE])
        self.assertEqual(opened, b"body")

    @given(st.integers(0, 8 * (HEADER_SIZE + 4 + TAG_SIZE) - 1))
    @settings(max_examples=200)
    def test_every_bit_counts(self, bit: int) -> None:
        """A datagram with any bit changed, in header, body or tag, opens nothing."""
        datagram = bytearray(Sealer(KEY).seal(HEAD, b"body"))
        datagram[bit // 8] ^= 1 << bit % 8
        opener = Opener(KEY)
        with self.assertRaises((AuthenticationError, MalformedMessage)):
            opener.open(datagram)
        self.assertEqual(opener.window.highest, -1)

    @given(st.integers(0, HEADER_SIZE + TAG_SIZE + 3))
    def test_cut(self, size: int) -> None:
        """A datagram that was cut opens nothing."""
        datagram = Sealer(KEY).seal(HEAD, b"body")
        with self.assertRaises((AuthenticationError, MalformedMessage)):
            Opener(KEY).open(datagram[:size])

    def test_replay(self) -> None:
        """R7: the same datagram opens once."""
        datagram = Sealer(KEY).seal(HEAD, b"body")
        opener = Opener(KEY)
        opener.open(datagram)
        with self.assertRaisesRegex(AuthenticationError, "twice"):
            opener.open(datagram)

    def test_late(self) -> None:
        """Order does not matter within the window; what is older than it is refused."""
        sealer, opener = Sealer(KEY), Opener(KEY, 16)
        datagrams = [sealer.seal(HEAD, bytes([number])) for number in range(18)]
        opener.open(datagrams[17])
        self.assertEqual(opener.open(datagrams[2])[1], b"\x02")
        with self.assertRaisesRegex(AuthenticationError, "far too late"):
            opener.open(datagrams[1])

    def test_forgery_marks_nothing(self) -> None:
        """A forged datagram with a high counter closes the window for nobody."""
        opener = Opener(KEY, 16)
        forged = Header(Kind.SIGNAL_SEALED, 0, b"indexes!", 1 << 50).pack() + bytes(40)
        with self.assertRaises(AuthenticationError):
            opener.open(forged)
        self.assertEqual(opener.open(Sealer(KEY).seal(HEAD, b"true"))[1], b"true")

    def test_never_a_nonce_twice(self) -> None:
        """R7: the counter grows by one each time, and what the caller's header says is ignored."""
        sealer = Sealer(KEY)
        counters = [Header.parse(sealer.seal(HEAD, b"")).counter for _ in range(100)]
        self.assertEqual(counters, list(range(100)))

    def test_end_of_the_counter(self) -> None:
        """A key that is used up seals nothing more."""
        sealer = Sealer(KEY)
        sealer.counter = COUNTER_LIMIT - 1
        datagram = sealer.seal(HEAD, b"last")
        with self.assertRaisesRegex(AuthenticationError, "used up"):
            sealer.seal(HEAD, b"too much")
        self.assertEqual(Opener(KEY).open(datagram)[1], b"last")

    def test_counter_beyond_the_end(self) -> None:
        """A counter that no sealer gives is refused before any cryptography."""
        opener = Opener(b"no key at all")  # it would raise another error if it were used
        datagram = Header(Kind.SIGNAL_SEALED, 0, b"indexes!", COUNTER_LIMIT).pack() + bytes(16)
        with self.assertRaises(AuthenticationError):
            opener.open(datagram)


class DerivationTests(SynchronousTestCase):
    def test_purposes(self) -> None:
        """Another secret, salt, purpose or length gives another key."""
        keys = {
            derive(b"a" * 32, b"s", "one"),
            derive(b"b" * 32, b"s", "one"),
            derive(b"a" * 32, b"t", "one"),
            derive(b"a" * 32, b"s", "two"),
            expand(b"a" * 32, "one"),
            expand(b"a" * 32, "two"),
        }
        self.assertEqual(len(keys), 6)
        self.assertEqual(len(derive(b"a", b"", "x", 64)), 64)

    def test_rfc_5869(self) -> None:
        """HKDF-SHA256 as in the third example of RFC 5869."""
        found = derive(b"\x0b" * 22, b"", "", 42)
        self.assertEqual(
            found.hex(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        )
