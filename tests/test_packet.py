"""Inner packets: the view, and the checksums under it."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import adjust, checksum, ones_sum, pseudo_sum
from ntmobile.wire.packet import build, header_is_sound, parse
from tests.packets import (
    TCP,
    UDP,
    V4_A,
    V4_B,
    V6_A,
    V6_B,
    ipv4,
    ipv4_packets,
    ipv6,
    ipv6_packets,
    mangled,
    plain_sum,
)

PORTS = struct.pack("!HH", 5000, 53)


class ChecksumTests(SynchronousTestCase):
    """The Internet checksum."""

    def test_rfc_1071(self) -> None:
        """The example of RFC 1071, section 3."""
        data = bytes.fromhex("0001f203f4f5f6f7")
        self.assertEqual((ones_sum(data), checksum(data)), (0xDDF2, 0x220D))

    def test_rfc_1624(self) -> None:
        """The example of RFC 1624, section 4, where simpler formulas give 0xFFFF."""
        self.assertEqual(adjust(0xDD2F, b"\x55\x55", b"\x32\x85"), 0x0000)

    @given(st.binary(max_size=200))
    def test_as_words(self, data: bytes) -> None:
        """It is the sum by words, also of odd lengths."""
        self.assertEqual(checksum(data), plain_sum(data))

    @given(st.binary(min_size=4, max_size=60).filter(any), st.data())
    def test_adjust(self, data: bytes, draw: st.DataObject) -> None:
        """Adjusting by difference gives what a full computation gives."""
        at = draw.draw(st.integers(0, len(data) // 2 - 1)) * 2
        new = draw.draw(st.binary(min_size=2, max_size=2))
        changed = data[:at] + new + data[at + 2 :]
        if any(changed):
            adjusted = adjust(checksum(data), data[at : at + 2], new)
            self.assertEqual(adjusted, checksum(changed))

    def test_pseudo_header(self) -> None:
        """The pseudo-headers are those of RFC 9293 and RFC 8200."""
        four = V4_A + V4_B + struct.pack("!BBH", 0, 17, 300)
        six = V6_A + V6_B + struct.pack("!IxxxB", 300, 17)
        self.assertEqual(pseudo_sum(V4_A, V4_B, 17, 300), ones_sum(four))
        self.assertEqual(pseudo_sum(V6_A, V6_B, 17, 300), ones_sum(six))


class ParseTests(SynchronousTestCase):
    """What is seen of a packet."""

    def refuse(self, *packets: bytes) -> None:
        """Each of them is malformed."""
        for packet in packets:
            self.assertRaises(MalformedMessage, parse, packet)

    def test_ipv4(self) -> None:
        """An IPv4 packet with options."""
        view = parse(ipv4(V4_A, V4_B, UDP, PORTS + bytes(4), bytes([1, 1, 1, 0])))
        self.assertEqual((view.version, view.source, view.destination), (4, V4_A, V4_B))
        self.assertEqual((view.protocol, view.offset, view.length), (UDP, 24, 32))
        self.assertEqual((view.first, view.whole, view.ports), (True, True, (5000, 53)))

    def test_ipv6(self) -> None:
        """An IPv6 packet with extension headers."""
        extensions = ((0, b"\x00" + bytes(6)), (60, b"\x01" + bytes(14)))
        view = parse(ipv6(V6_A, V6_B, TCP, PORTS + bytes(16), extensions))
        self.assertEqual((view.version, view.source, view.destination), (6, V6_A, V6_B))
        self.assertEqual((view.protocol, view.offset, view.length), (TCP, 64, 84))
        self.assertEqual((view.first, view.whole, view.ports), (True, True, (5000, 53)))

    def test_no_ports(self) -> None:
        """Protocols without ports, and packets too short for them, show none."""
        self.assertIsNone(parse(ipv4(V4_A, V4_B, 47, PORTS)).ports)
        self.assertIsNone(parse(ipv4(V4_A, V4_B, UDP, PORTS[:3])).ports)

    def test_any_buffer(self) -> None:
        """Bytes, bytearrays and memoryviews are read alike."""
        packet = ipv6(V6_A, V6_B, UDP, PORTS + bytes(4))
        self.assertEqual(parse(packet), parse(bytearray(packet)))
        self.assertEqual(parse(packet), parse(memoryview(packet)))

    def test_ipv4_fragments(self) -> None:
        """A first fragment has ports, a later one has none."""
        first = parse(ipv4(V4_A, V4_B, UDP, PORTS + bytes(12), fragment=0x2000))
        later = parse(ipv4(V4_A, V4_B, UDP, PORTS + bytes(12), fragment=0x0002))
        self.assertEqual((first.first, first.whole, first.ports), (True, False, (5000, 53)))
        self.assertEqual((later.first, later.whole, later.ports), (False, False, None))

    def test_ipv6_fragments(self) -> None:
        """The same for IPv6; an atomic fragment is whole."""
        found = []
        for field in (b"\x00\x01", b"\x00\x10", b"\x00\x00"):
            extensions = ((44, b"\x00" + field + bytes(4)),)
            view = parse(ipv6(V6_A, V6_B, UDP, PORTS + bytes(12), extensions))
            found.append((view.first, view.whole, view.ports))
        expected = [(True, False, (5000, 53)), (False, False, None), (True, True, (5000, 53))]
        self.assertEqual(found, expected)

    def test_overlapping_fragment(self) -> None:
        """A fragment that would overwrite a TCP header is refused (RFC 3128)."""
        extensions = ((44, b"\x00\x00\x08" + bytes(4)),)
        self.refuse(
            ipv4(V4_A, V4_B, TCP, bytes(16), fragment=1),
            ipv6(V6_A, V6_B, TCP, bytes(16), extensions),
        )

    def test_fragment_beyond_the_end(self) -> None:
        """A fragment that would make a packet beyond 65535 bytes is refused."""
        extensions = ((44, b"\x00\xff\xf8" + bytes(4)),)
        self.refuse(
            ipv4(V4_A, V4_B, UDP, bytes(16), fragment=0x1FFF),
            ipv6(V6_A, V6_B, UDP, bytes(16), extensions),
        )

    def test_lengths(self) -> None:
        """A packet fills its buffer exactly."""
        for packet in (ipv4(V4_A, V4_B, UDP, bytes(8)), ipv6(V6_A, V6_B, UDP, bytes(8))):
            self.refuse(packet + b"\x00", packet[:-1], packet[:7], b"")

    def test_header_length(self) -> None:
        """An IPv4 header is at least 20 bytes, and within the packet."""
        packet = ipv4(V4_A, V4_B, UDP, b"")
        self.refuse(b"\x44" + packet[1:], b"\x4f" + packet[1:])

    def test_other_versions(self) -> None:
        """Other versions of IP are refused."""
        self.refuse(bytes(40), b"\x55" + bytes(39))

    def test_source_routes(self) -> None:
        """Source-routed packets are refused: their destination is not where they go."""
        self.refuse(
            ipv4(V4_A, V4_B, UDP, bytes(8), bytes([131, 7, 4, 10, 0, 0, 1, 0])),
            ipv4(V4_A, V4_B, UDP, bytes(8), bytes([1, 137, 7, 4, 10, 0, 0, 1])),
            ipv6(V6_A, V6_B, UDP, bytes(8), ((43, b"\x02\x00\x01" + bytes(20)),)),
        )

    def test_bad_options(self) -> None:
        """Options that reach beyond the header are refused."""
        for options in (bytes([7, 9, 4, 0]), bytes([7, 0, 4, 0]), bytes([1, 1, 1, 7])):
            self.refuse(ipv4(V4_A, V4_B, UDP, bytes(8), options))

    def test_bad_extensions(self) -> None:
        """Extension headers that are cut off, or too many, are refused."""
        hop = (60, b"\x00" + bytes(6))
        parse(ipv6(V6_A, V6_B, UDP, bytes(8), (hop,) * 8))
        self.refuse(
            ipv6(V6_A, V6_B, UDP, bytes(8), (hop,) * 9),
            ipv6(V6_A, V6_B, 0, bytes(7)),
            ipv6(V6_A, V6_B, 0, b"\x11\x01" + bytes(6)),
        )

    @given(ipv4_packets(V4_A, V4_B) | ipv6_packets(V6_A, V6_B))
    def test_generated(self, packet: bytes) -> None:
        """Every sound packet is seen whole, with its addresses."""
        view = parse(packet)
        self.assertIn((view.source, view.destination), ((V4_A, V4_B), (V6_A, V6_B)))
        self.assertTrue(view.whole and view.first and header_is_sound(packet, view))

    @given(mangled())
    @example(b"\x45")
    def test_mutations(self, packet: bytes) -> None:
        """R11: whatever comes is a packet within its buffer, or malformed, and nothing else."""
        try:
            view = parse(packet)
        except MalformedMessage:
            return
        self.assertEqual(view.length, len(packet))
        self.assertTrue(20 <= view.offset <= view.length)


class BuildTests(SynchronousTestCase):
    """Packets that we make."""

    def test_build(self) -> None:
        """Both families are built with sound headers."""
        for source, destination, version in ((V4_A, V4_B, 4), (V6_A, V6_B, 6)):
            packet = build(source, destination, 253, b"payload", 7)
            view = parse(packet)
            self.assertEqual((view.version, view.protocol), (version, 253))
            self.assertTrue(header_is_sound(packet, view))
            self.assertEqual(packet[view.offset :], b"payload")
            self.assertEqual(packet[8 if version == 4 else 7], 7)

    def test_bounds(self) -> None:
        """What no packet holds is malformed."""
        self.assertRaises(MalformedMessage, build, V4_A, V4_B, 1, bytes(65516))
        self.assertRaises(MalformedMessage, build, V6_A, V6_B, 1, bytes(65536))
        self.assertRaises(MalformedMessage, build, V4_A, V6_B, 1, b"")
        self.assertRaises(MalformedMessage, build, b"", b"", 1, b"")
        self.assertEqual(len(build(V4_A, V4_B, 1, bytes(65515))), 65535)
