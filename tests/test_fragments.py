"""Fragments of inner packets, cut and joined."""

from __future__ import annotations

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.machines.tunnel.reassembly import CAPACITY, LIFETIME, Reassembly
from ntmobile.wire.fragments import fragments, piece_of
from ntmobile.wire.packet import header_is_sound, parse
from ntmobile.wire.udp import parse_udp, udp_packet
from tests.packets import UDP, V4_A, V4_B, V6_A, V6_B, ipv4, ipv6, mangled

FAMILIES = ((V4_A, V4_B), (V6_A, V6_B))


def four(behind: int, data: bytes, more: bool, identification: int = 1) -> bytes:
    """An IPv4 fragment; ``behind`` is in bytes."""
    packet = bytearray(ipv4(V4_A, V4_B, UDP, data, fragment=behind // 8 | more << 13))
    packet[4:6] = identification.to_bytes(2, "big")
    return bytes(packet)


class FragmentTests(SynchronousTestCase):
    """Cutting."""

    def test_fits(self) -> None:
        """A packet that fits stays as it is."""
        packet = udp_packet(V4_A, V4_B, 1, 2, bytes(100))
        self.assertEqual(fragments(packet, 128, 1), [packet])

    def test_cut(self) -> None:
        """Fragments fit the MTU, have sound headers, and say where they belong."""
        for addresses in FAMILIES:
            packet = udp_packet(*addresses, 1, 2, bytes(range(256)) * 20)
            cut = fragments(packet, 1280, 0x12345678)
            self.assertGreater(len(cut), 4)
            pieces = []
            for piece in cut:
                view = parse(piece)
                self.assertLessEqual(len(piece), 1280)
                self.assertTrue(header_is_sound(piece, view))
                self.assertFalse(view.whole)
                pieces.append(piece_of(piece))
            self.assertEqual(len({piece.key for piece in pieces}), 1)
            self.assertEqual([piece.more for piece in pieces], [True] * (len(cut) - 1) + [False])
            data = b"".join(piece.data for piece in pieces)
            self.assertTrue(packet.endswith(data))
            self.assertEqual({piece.protocol for piece in pieces}, {UDP})

    def test_cannot(self) -> None:
        """Fragments, packets with options or extensions, and tiny MTUs are malformed."""
        for packet, mtu in (
            (four(0, bytes(160), True), 100),
            (ipv4(V4_A, V4_B, UDP, bytes(160), bytes([1, 1, 1, 0])), 100),
            (ipv6(V6_A, V6_B, UDP, bytes(160), ((60, b"\x00" + bytes(6)),)), 100),
            (udp_packet(V4_A, V4_B, 1, 2, bytes(100)), 27),
        ):
            self.assertRaises(MalformedMessage, fragments, packet, mtu, 1)

    def test_no_piece(self) -> None:
        """Whole packets, empty fragments and odd sizes before the last are malformed."""
        for packet in (
            udp_packet(V4_A, V4_B, 1, 2, b""),
            four(8, b"", False),
            four(0, bytes(15), True),
        ):
            self.assertRaises(MalformedMessage, piece_of, packet)

    def test_behind_extensions(self) -> None:
        """A fragment header is found behind other extension headers."""
        hop = (0, b"\x00" + bytes(6))
        fragment = (44, b"\x00" + struct.pack("!HI", 16 | 1, 77))
        piece = piece_of(ipv6(V6_A, V6_B, UDP, bytes(24), (hop, fragment)))
        self.assertEqual((piece.key, piece.behind), ((V6_A, V6_B, 0, 77), 16))
        self.assertEqual((piece.protocol, piece.more, len(piece.data)), (UDP, True, 24))

    @given(mangled())
    def test_mutations(self, packet: bytes) -> None:
        """R11: whatever comes is a fragment or malformed, and nothing else."""
        try:
            piece_of(packet)
        except MalformedMessage:
            return


class ReassemblyTests(SynchronousTestCase):
    """Joining."""

    def setUp(self) -> None:
        self.reassembly = Reassembly()

    @given(
        st.sampled_from(FAMILIES), st.integers(1300, 9000), st.integers(0, 1 << 32), st.booleans()
    )
    def test_any_order(
        self, addresses: tuple[bytes, bytes], size: int, seed: int, twice: bool
    ) -> None:
        """Fragments in any order, also twice, give the datagram once."""
        reassembly = Reassembly()
        random = Random(seed)
        payload = random.randbytes(size)
        cut = fragments(udp_packet(*addresses, 1, 2, payload), 1280, seed)
        last = cut.pop(random.randrange(len(cut)))
        cut = cut * (2 if twice else 1)
        random.shuffle(cut)
        self.assertEqual({reassembly.add(piece, 0) for piece in cut}, {None})
        whole = reassembly.add(last, 0)
        assert whole is not None
        self.assertEqual(parse_udp(whole).payload, payload)
        self.assertEqual((len(reassembly), reassembly.lost), (0, 0))

    def test_largest(self) -> None:
        """The largest datagrams are joined."""
        for addresses, size in zip(FAMILIES, (65507, 65527), strict=True):
            cut = fragments(udp_packet(*addresses, 1, 2, bytes(size)), 1280, 1)
            whole = [self.reassembly.add(piece, 0) for piece in cut][-1]
            assert whole is not None
            self.assertEqual(len(parse_udp(whole).payload), size)

    def test_overlap(self) -> None:
        """Overlapping fragments end their packet, whatever comes later."""
        self.reassembly.add(four(0, bytes(24), True), 0)
        self.reassembly.add(four(16, bytes(16), True), 0)
        self.assertIsNone(self.reassembly.add(four(24, bytes(8), False), 0))
        self.assertEqual((self.reassembly.lost, len(self.reassembly)), (1, 1))
        self.assertIsNone(self.reassembly.add(four(0, bytes(8), True, 2), LIFETIME + 1))
        self.assertEqual(self.reassembly.lost, 1)

    def test_contradictions(self) -> None:
        """Two ends, bytes beyond the end, or other bytes at one place end a packet."""
        for pair in (
            ((16, bytes(8), False), (24, bytes(8), False)),
            ((16, bytes(8), False), (24, bytes(8), True)),
            ((24, bytes(8), True), (16, bytes(8), False)),
            ((16, bytes(8), True), (16, b"12345678", True)),
        ):
            reassembly = Reassembly()
            for behind, data, more in pair:
                self.assertIsNone(reassembly.add(four(behind, data, more), 0))
            self.assertEqual(reassembly.lost, 1)

    def test_time(self) -> None:
        """What is not complete in time is forgotten."""
        payload = udp_packet(V4_A, V4_B, 1, 2, bytes(100))
        one, two = fragments(payload, 100, 1)
        self.reassembly.add(one, 0)
        self.assertIsNone(self.reassembly.add(two, LIFETIME + 1))
        self.assertEqual((self.reassembly.lost, len(self.reassembly)), (1, 1))
        self.assertIsNotNone(self.reassembly.add(one, LIFETIME + 2))

    def test_bounded(self) -> None:
        """Only so many packets are in the making, of only so many fragments."""
        for number in range(CAPACITY + 10):
            self.reassembly.add(four(0, bytes(8), True, number), 0)
        self.assertEqual((len(self.reassembly), self.reassembly.lost), (CAPACITY, 10))
        reassembly = Reassembly()
        for number in range(200):
            reassembly.add(four(8 * number + 16, bytes(8), True), 0)
        self.assertEqual(reassembly.lost, 1)

    def test_too_long_together(self) -> None:
        """Fragments that make more than a packet can hold are given up."""
        self.reassembly.add(four(65512, bytes(16), False), 0)
        for at in range(0, 65512, 8000):
            self.reassembly.add(four(at, bytes(min(8000, 65512 - at)), True), 0)
        self.assertEqual((len(self.reassembly), self.reassembly.lost), (0, 1))

    @given(st.lists(mangled(), max_size=20))
    def test_mutations(self, packets: list[bytes]) -> None:
        """R11: whatever comes is taken or malformed, and nothing else."""
        reassembly = Reassembly()
        for packet in packets:
            try:
                reassembly.add(packet, 0)
            except MalformedMessage:
                continue
