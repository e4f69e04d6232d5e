"""Packets shown under other addresses: design section 6 and rule R24."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.packet import parse
from ntmobile.wire.readdressing import rewrite
from tests.packets import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    V4_A,
    V4_B,
    V4_C,
    V6_A,
    V6_B,
    V6_C,
    ipv4,
    ipv4_packets,
    ipv6,
    ipv6_packets,
    mangled,
    plain_sum,
    transport,
)

ADDRESSES_V4 = st.sampled_from([None, V4_C, bytes(4), b"\xff" * 4]) | st.binary(
    min_size=4, max_size=4
)
ADDRESSES_V6 = st.sampled_from([None, V6_C, bytes(16)]) | st.binary(min_size=16, max_size=16)


# Even: of a checksum that is cut in half the other half cannot be known.
LENGTHS_V4 = st.integers(10, 65).map(lambda words: 2 * words)
LENGTHS_V6 = st.integers(20, 75).map(lambda words: 2 * words)


def from_scratch(packet: bytes, source: bytes | None, destination: bytes | None) -> bytes:
    """The packet with other addresses, all its checksums computed anew."""
    view = parse(packet)
    new_source, new_destination = source or view.source, destination or view.destination
    data = bytearray(packet)
    at, size = (12, 4) if view.version == 4 else (8, 16)
    data[at : at + 2 * size] = new_source + new_destination
    message = bytes(data[view.offset :])
    data[view.offset :] = transport(view.protocol, new_source, new_destination, message)
    if view.version == 4:
        data[10:12] = bytes(2)
        data[10:12] = plain_sum(bytes(data[: view.offset])).to_bytes(2, "big")
    return bytes(data)


class RewriteTests(SynchronousTestCase):
    """Addresses replaced, checksums adjusted."""

    @given(ipv4_packets(V4_A, V4_B), ADDRESSES_V4, ADDRESSES_V4)
    def test_ipv4(self, packet: bytes, source: bytes | None, destination: bytes | None) -> None:
        """R24: adjusting an IPv4 packet gives what computing every checksum anew gives."""
        expected = from_scratch(packet, source, destination)
        self.assertEqual(rewrite(packet, source, destination), expected)

    @given(ipv6_packets(V6_A, V6_B), ADDRESSES_V6, ADDRESSES_V6)
    def test_ipv6(self, packet: bytes, source: bytes | None, destination: bytes | None) -> None:
        """The same for IPv6."""
        expected = from_scratch(packet, source, destination)
        self.assertEqual(rewrite(packet, source, destination), expected)

    @given(ipv4_packets(V4_A, V4_B), st.binary(min_size=4, max_size=4))
    def test_there_and_back(self, packet: bytes, alias: bytes) -> None:
        """R24: what is shown under an alias and answered is the correspondent's again."""
        self.assertEqual(rewrite(rewrite(packet, source=alias), source=V4_A), packet)

    def test_no_checksum_stays_none(self) -> None:
        """A UDP datagram without a checksum still has none."""
        message = struct.pack("!HHHH", 1, 2, 8, 0)
        changed = rewrite(ipv4(V4_A, V4_B, UDP, message), V4_C)
        self.assertEqual(changed, ipv4(V4_C, V4_B, UDP, message))

    def test_never_becomes_none(self) -> None:
        """A UDP checksum that comes out as zero is sent as 65535 (RFC 768)."""
        for last in range(65536):
            source = V4_A[:2] + last.to_bytes(2, "big")
            message = transport(UDP, source, V4_B, struct.pack("!HHHH", 1, 2, 8, 0))
            if message[6:8] == b"\xff\xff":
                break
        else:
            self.fail("no address makes the checksum zero")
        plain = transport(UDP, V4_A, V4_B, message)
        self.assertEqual(
            rewrite(ipv4(V4_A, V4_B, UDP, plain), source), ipv4(source, V4_B, UDP, message)
        )

    def test_wrong_stays_wrong(self) -> None:
        """A wrong checksum is not made right."""
        message = transport(TCP, V4_A, V4_B, bytes(20))
        broken = bytes([message[0] ^ 1]) + message[1:]
        changed = rewrite(ipv4(V4_A, V4_B, TCP, broken), V4_C)
        self.assertNotEqual(changed[20:], transport(TCP, V4_C, V4_B, broken))

    def test_fragments(self) -> None:
        """The checksum is adjusted in the first fragment, later ones are payload throughout."""
        message = transport(UDP, V4_A, V4_B, struct.pack("!HHHH", 1, 2, 48, 0) + bytes(range(40)))
        changed = transport(UDP, V4_C, V4_B, message)
        for fragment, part in ((0x2000, slice(0, 24)), (3, slice(24, 48))):
            piece = ipv4(V4_A, V4_B, UDP, message[part], fragment=fragment)
            expected = ipv4(V4_C, V4_B, UDP, changed[part], fragment=fragment)
            self.assertEqual(rewrite(piece, V4_C), expected)

    def test_ipv6_fragments(self) -> None:
        """The same for IPv6."""
        message = transport(UDP, V6_A, V6_B, struct.pack("!HHHH", 1, 2, 48, 0) + bytes(range(40)))
        changed = transport(UDP, V6_C, V6_B, message)
        for field, part in ((1, slice(0, 24)), (24, slice(24, 48))):
            extension = ((44, b"\x00" + field.to_bytes(2, "big") + bytes(4)),)
            piece = ipv6(V6_A, V6_B, UDP, message[part], extension)
            expected = ipv6(V6_C, V6_B, UDP, changed[part], extension)
            self.assertEqual(rewrite(piece, V6_C), expected)

    def test_tiny_fragment(self) -> None:
        """A packet cut off before its checksum cannot be readdressed."""
        tiny = ipv4(V4_A, V4_B, TCP, bytes(16), fragment=0x2000)
        self.assertRaises(MalformedMessage, rewrite, tiny, V4_C)

    def test_other_family(self) -> None:
        """Addresses of the other family, or none at all, are refused."""
        packet = ipv4(V4_A, V4_B, 47, b"")
        for source, destination in ((V6_A, None), (None, V6_A), (b"", None), (b"12", b"345678")):
            self.assertRaises(MalformedMessage, rewrite, packet, source, destination)

    def test_icmpv6_over_ipv4(self) -> None:
        """A protocol number means nothing in the other version."""
        packet = ipv4(V4_A, V4_B, ICMPV6, bytes(8))
        self.assertEqual(rewrite(packet, V4_C), ipv4(V4_C, V4_B, ICMPV6, bytes(8)))

    @given(mangled(), ADDRESSES_V4 | ADDRESSES_V6, ADDRESSES_V4 | ADDRESSES_V6)
    def test_mutations(
        self, packet: bytes, source: bytes | None, destination: bytes | None
    ) -> None:
        """R11: whatever comes is readdressed or malformed, and nothing else."""
        try:
            changed = rewrite(packet, source, destination)
        except MalformedMessage:
            return
        self.assertEqual(len(changed), len(packet))
        view = parse(changed)
        self.assertIn(source, (None, view.source))
        self.assertIn(destination, (None, view.destination))


class QuotedTests(SynchronousTestCase):
    """ICMP errors, which quote the packet they are about."""

    @given(ipv4_packets(V4_B, V4_A), st.sampled_from([3, 4, 5, 11, 12]), LENGTHS_V4)
    def test_ipv4(self, quoted: bytes, kind: int, length: int) -> None:
        """R24: the quoted packet too is readdressed, checksums included, as far as it is there."""
        # We sent B to A, where A is shown to us as C; A answers with an error.
        shown = rewrite(quoted, destination=V4_C)
        header = bytes((kind, 1, 0, 0)) + bytes(4)
        error = transport(ICMP, V4_A, V4_B, header + quoted[:length])
        expected = transport(ICMP, V4_C, V4_B, header + shown[:length])
        changed = rewrite(ipv4(V4_A, V4_B, ICMP, error), source=V4_C)
        self.assertEqual(changed, ipv4(V4_C, V4_B, ICMP, expected))

    @given(ipv4_packets(V4_B, V4_A), LENGTHS_V4)
    def test_ipv4_outward(self, quoted: bytes, length: int) -> None:
        """An error that we send about a packet from C has A's address in both places again."""
        shown = rewrite(quoted, source=V4_C)
        header = bytes((3, 3, 0, 0)) + bytes(4)
        error = transport(ICMP, V4_A, V4_C, header + shown[:length])
        expected = transport(ICMP, V4_A, V4_B, header + quoted[:length])
        changed = rewrite(ipv4(V4_A, V4_C, ICMP, error), destination=V4_B)
        self.assertEqual(changed, ipv4(V4_A, V4_B, ICMP, expected))

    @given(ipv6_packets(V6_B, V6_A), st.sampled_from([1, 2, 3, 4]), LENGTHS_V6)
    def test_ipv6(self, quoted: bytes, kind: int, length: int) -> None:
        """The same for ICMPv6."""
        shown = rewrite(quoted, destination=V6_C)
        header = bytes((kind, 0, 0, 0)) + bytes(4)
        error = transport(ICMPV6, V6_A, V6_B, header + quoted[:length])
        expected = transport(ICMPV6, V6_C, V6_B, header + shown[:length])
        changed = rewrite(ipv6(V6_A, V6_B, ICMPV6, error), source=V6_C)
        self.assertEqual(changed, ipv6(V6_C, V6_B, ICMPV6, expected))

    def test_quoted_fragment(self) -> None:
        """A quoted later fragment has no transport checksum."""
        quoted = ipv4(V4_B, V4_A, UDP, bytes(range(24)), fragment=3)
        shown = ipv4(V4_B, V4_C, UDP, bytes(range(24)), fragment=3)
        header = bytes((11, 1, 0, 0)) + bytes(4)
        error = transport(ICMP, V4_A, V4_B, header + quoted)
        expected = transport(ICMP, V4_C, V4_B, header + shown)
        changed = rewrite(ipv4(V4_A, V4_B, ICMP, error), source=V4_C)
        self.assertEqual(changed, ipv4(V4_C, V4_B, ICMP, expected))

    def test_nonsense_quoted(self) -> None:
        """What is no packet is left as it is."""
        for nonsense in (b"", bytes(30), b"\x41" + bytes(30), b"\x60" + bytes(50), b"\x45" * 10):
            error = transport(ICMP, V4_A, V4_B, bytes((3, 1, 0, 0)) + bytes(4) + nonsense)
            changed = rewrite(ipv4(V4_A, V4_B, ICMP, error), source=V4_C)
            self.assertEqual(changed, ipv4(V4_C, V4_B, ICMP, error))

    def test_quotes_of_others(self) -> None:
        """A quoted packet between other addresses keeps them."""
        quoted = ipv4(bytes([1, 1, 1, 1]), bytes([2, 2, 2, 2]), UDP, bytes(8))
        error = transport(ICMP, V4_A, V4_B, bytes((3, 1, 0, 0)) + bytes(4) + quoted)
        changed = rewrite(ipv4(V4_A, V4_B, ICMP, error), source=V4_C)
        self.assertEqual(changed, ipv4(V4_C, V4_B, ICMP, error))

    @given(st.binary(max_size=80), st.sampled_from([3, 11, 1, 2]))
    def test_mutations(self, quoted: bytes, kind: int) -> None:
        """R11: whatever is quoted, an error is readdressed without another failure."""
        header = bytes((kind, 0, 0, 0)) + bytes(4)
        for version in (b"\x45", b"\x60", b""):
            body = header + version + quoted
            rewrite(ipv4(V4_A, V4_B, ICMP, body), V4_C)
            rewrite(ipv6(V6_A, V6_B, ICMPV6, body), V6_C)
