from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.headers import FORWARDED, HEADER_SIZE, Flag, Header, Kind


class HeaderTests(SynchronousTestCase):
    @given(
        st.sampled_from(list(Kind)),
        st.integers(0, 255),
        st.binary(min_size=8, max_size=8),
        st.integers(0, (1 << 64) - 1),
        st.binary(max_size=40),
    )
    def test_round_trip(
        self, kind: Kind, flags: int, index: bytes, counter: int, body: bytes
    ) -> None:
        """R23: every header comes back as it was, whatever follows it, in any buffer."""
        header = Header(kind, flags, index, counter)
        packed = header.pack()
        self.assertEqual(len(packed), HEADER_SIZE)
        for buffer in (packed + body, bytearray(packed + body), memoryview(packed + body)):
            self.assertEqual(Header.parse(buffer), header)

    def test_layout(self) -> None:
        """R23: the layout is fixed: kind, flags, two zeros, index, counter, big endian."""
        header = Header(Kind.SIGNAL_SEALED, Flag.FROM_COORDINATOR, b"indexes!", 0x0102030405060708)
        self.assertEqual(
            header.pack().hex(" "),
            "23 80 00 00 69 6e 64 65 78 65 73 21 01 02 03 04 05 06 07 08",
        )

    @given(st.binary(max_size=60))
    def test_any_bytes(self, datagram: bytes) -> None:
        """R11: any bytes are a header, which packs to the same bytes, or malformed."""
        try:
            header = Header.parse(datagram)
        except MalformedMessage:
            return
        self.assertEqual(header.pack(), datagram[:HEADER_SIZE])

    def test_too_short(self) -> None:
        """One byte less than a header is malformed."""
        for size in range(HEADER_SIZE):
            with self.assertRaisesRegex(MalformedMessage, f"a datagram of {size} bytes"):
                Header.parse(bytes([Kind.TUNNEL_DATA]) * size)

    def test_reserved(self) -> None:
        """The reserved bytes are zero, so that a later version may use them."""
        packed = bytearray(Header(Kind.TUNNEL_DATA, 0, bytes(8), 0).pack())
        for place in (2, 3):
            packed[place] = 1
            with self.assertRaisesRegex(MalformedMessage, "reserved"):
                Header.parse(packed)
            packed[place] = 0

    def test_unknown_kind(self) -> None:
        """A first byte that nothing has is malformed."""
        known = {int(kind) for kind in Kind}
        for kind in set(range(256)) - known:
            with self.assertRaisesRegex(MalformedMessage, "unknown kind"):
                Header.parse(bytes([kind]) + bytes(HEADER_SIZE))

    def test_first_nibble_tells_the_traffics_apart(self) -> None:
        """R23: tunnel, signalling and relay traffic of one socket differ in the first nibble."""
        for kind in Kind:
            self.assertEqual(kind >> 4, {"T": 1, "S": 2, "R": 3}[kind.name[0]])

    def test_forwarded(self) -> None:
        """An RS forwards what is the tunnel's and nothing else."""
        self.assertEqual(FORWARDED, {kind for kind in Kind if kind.name.startswith("TUNNEL")})

    def test_flags_do_not_overlap(self) -> None:
        """Each flag has its own bits."""
        self.assertEqual(sum(int(flag) for flag in (0x03, *Flag)), 0xF7)
