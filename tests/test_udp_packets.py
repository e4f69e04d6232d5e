"""UDP in inner packets."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.packet import header_is_sound, parse
from ntmobile.wire.udp import LARGEST_PAYLOAD, Datagram, parse_udp, udp_packet
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
    transport,
)

FAMILIES = ((V4_A, V4_B), (V6_A, V6_B))


class UDPPacketTests(SynchronousTestCase):
    """Built and read."""

    @given(
        st.sampled_from(FAMILIES),
        st.integers(0, 65535),
        st.integers(1, 65535),
        st.binary(max_size=100),
    )
    def test_round_trip(
        self, addresses: tuple[bytes, bytes], source: int, destination: int, payload: bytes
    ) -> None:
        """What was built is read, and its checksums are those computed by words."""
        packet = udp_packet(*addresses, source, destination, payload)
        self.assertEqual(parse_udp(packet), Datagram(*addresses, source, destination, payload))
        view = parse(packet)
        self.assertTrue(header_is_sound(packet, view))
        message = packet[view.offset :]
        self.assertEqual(message, transport(UDP, *addresses, message))

    @given(ipv4_packets(V4_A, V4_B, UDP) | ipv6_packets(V6_A, V6_B, UDP))
    def test_others(self, packet: bytes) -> None:
        """Packets of others are read, with options and extension headers."""
        self.assertTrue(packet.endswith(parse_udp(packet).payload))

    def test_largest(self) -> None:
        """The largest payloads pass, larger ones are malformed."""
        for version, addresses in zip((4, 6), FAMILIES, strict=True):
            largest = LARGEST_PAYLOAD[version]
            packet = udp_packet(*addresses, 1, 2, bytes(largest))
            self.assertEqual(len(parse_udp(packet).payload), largest)
            self.assertRaises(MalformedMessage, udp_packet, *addresses, 1, 2, bytes(largest + 1))

    def test_bad_arguments(self) -> None:
        """Mixed families, odd addresses and impossible ports are malformed."""
        for arguments in (
            (V4_A, V6_A, 1, 2),
            (b"", b"", 1, 2),
            (V4_A, V4_B, -1, 2),
            (V4_A, V4_B, 1, 0),
            (V4_A, V4_B, 1, 65536),
        ):
            self.assertRaises(MalformedMessage, udp_packet, *arguments, b"")

    def test_no_checksum(self) -> None:
        """IPv4 may go without a checksum, IPv6 may not."""
        message = struct.pack("!HHHH", 1, 2, 9, 0) + b"x"
        self.assertEqual(parse_udp(ipv4(V4_A, V4_B, UDP, message)).payload, b"x")
        self.assertRaises(MalformedMessage, parse_udp, ipv6(V6_A, V6_B, UDP, message))

    def test_length_within(self) -> None:
        """A datagram may be shorter than its packet, never longer, nor than its header."""
        short = transport(UDP, V4_A, V4_B, struct.pack("!HHHH", 1, 2, 9, 0) + b"x")
        self.assertEqual(parse_udp(ipv4(V4_A, V4_B, UDP, short + b"padding")).payload, b"x")
        for length in (7, 10):
            message = struct.pack("!HHHH", 1, 2, length, 0) + b"x"
            self.assertRaises(MalformedMessage, parse_udp, ipv4(V4_A, V4_B, UDP, message))

    def test_not_udp(self) -> None:
        """Other protocols, fragments and headers cut off are malformed."""
        for packet in (
            ipv4(V4_A, V4_B, TCP, bytes(20)),
            ipv4(V4_A, V4_B, UDP, bytes(16), fragment=0x2000),
            ipv4(V4_A, V4_B, UDP, bytes(7)),
            ipv4(V4_A, V4_B, UDP, struct.pack("!HHHH", 1, 0, 8, 0)),
        ):
            self.assertRaises(MalformedMessage, parse_udp, packet)

    def test_damage(self) -> None:
        """Any single byte changed is noticed, but those that no checksum covers."""
        for addresses in FAMILIES:
            packet = udp_packet(*addresses, 5000, 53, b"payload")
            # IPv6: traffic class, flow label and hop limit, which routers may change.
            free = () if len(addresses[0]) == 4 else (0, 1, 2, 3, 7)
            for at in range(len(packet)):
                if at in free:
                    continue
                damaged = bytearray(packet)
                damaged[at] ^= 0x10
                self.assertRaises(MalformedMessage, parse_udp, damaged)

    @given(mangled())
    def test_mutations(self, packet: bytes) -> None:
        """R11: whatever comes is a datagram or malformed, and nothing else."""
        try:
            datagram = parse_udp(packet)
        except MalformedMessage:
            return
        self.assertGreater(datagram.destination_port, 0)
