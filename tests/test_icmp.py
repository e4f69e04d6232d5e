"""ICMP about inner packets."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.icmp import (
    Reason,
    echo_reply,
    echo_request,
    icmp_packet,
    parse_icmp,
    too_big,
    unreachable,
)
from ntmobile.wire.packet import header_is_sound, parse
from ntmobile.wire.udp import udp_packet
from tests.packets import (
    ICMP,
    ICMPV6,
    UDP,
    V4_A,
    V4_B,
    V4_C,
    V6_A,
    V6_B,
    V6_C,
    ipv4,
    ipv6,
    mangled,
    packets,
    transport,
)


class EchoTests(SynchronousTestCase):
    """Pings."""

    def test_ping(self) -> None:
        """A ping is answered with the same identifier, number and payload, the other way."""
        for source, destination in ((V4_A, V4_B), (V6_A, V6_B)):
            request = parse_icmp(echo_request(source, destination, 7, 65536 + 8, b"payload"))
            self.assertTrue(request.is_echo_request)
            reply = parse_icmp(echo_reply(request))
            self.assertTrue(reply.is_echo_reply)
            self.assertEqual((reply.source, reply.destination), (destination, source))
            self.assertEqual(reply.body, struct.pack("!HH", 7, 8) + b"payload")
            self.assertFalse(reply.is_error or request.is_error)

    def test_known_bytes(self) -> None:
        """A ping as other systems make it."""
        packet = echo_request(V4_A, V4_B, 1, 1)
        self.assertEqual(packet[20:].hex(), "0800f7fd00010001")
        packet = echo_request(V6_A, V6_B, 1, 1)
        self.assertEqual(packet[40:], transport(ICMPV6, V6_A, V6_B, packet[40:]))

    def test_wrong_checksum(self) -> None:
        """A message that was damaged is malformed."""
        for packet in (echo_request(V4_A, V4_B, 1, 1), echo_request(V6_A, V6_B, 1, 1)):
            for at in (len(packet) - 1, 13):
                damaged = bytearray(packet)
                damaged[at] ^= 1
                self.assertRaises(MalformedMessage, parse_icmp, damaged)

    def test_not_icmp(self) -> None:
        """Other packets, fragments and the other family's ICMP are malformed."""
        for packet in (
            udp_packet(V4_A, V4_B, 1, 2, b"12345678"),
            ipv4(V4_A, V4_B, ICMP, bytes(16), fragment=0x2000),
            ipv4(V4_A, V4_B, ICMPV6, bytes(16)),
            ipv6(V6_A, V6_B, ICMP, bytes(16)),
            ipv4(V4_A, V4_B, ICMP, bytes(7)),
        ):
            self.assertRaises(MalformedMessage, parse_icmp, packet)

    def test_bounds(self) -> None:
        """Addresses of two families, or too long a body, are malformed."""
        self.assertRaises(MalformedMessage, echo_request, V4_A, V6_B, 1, 1)
        self.assertRaises(MalformedMessage, icmp_packet, V6_A, V6_B, 128, 0, bytes(65532))
        self.assertRaises(MalformedMessage, icmp_packet, b"", b"", 128, 0, b"")


class ErrorTests(SynchronousTestCase):
    """Errors about packets."""

    def test_reasons(self) -> None:
        """Each reason has its type and code in both families; the addresses are turned round."""
        four, six = udp_packet(V4_A, V4_B, 1, 2, b"x"), udp_packet(V6_A, V6_B, 1, 2, b"x")
        for reason, codes in (
            (Reason.NO_ROUTE, ((3, 0), (1, 0))),
            (Reason.PROHIBITED, ((3, 13), (1, 1))),
            (Reason.HOST, ((3, 1), (1, 3))),
            (Reason.PORT, ((3, 3), (1, 4))),
        ):
            for packet, expected in zip((four, six), codes, strict=True):
                answer = unreachable(packet, reason)
                assert answer is not None
                error = parse_icmp(answer)
                view = parse(packet)
                self.assertEqual((error.kind, error.code), expected)
                self.assertEqual((error.source, error.destination), (view.destination, view.source))
                self.assertEqual(error.body, bytes(4) + packet)
                self.assertTrue(error.is_error)

    def test_source(self) -> None:
        """Somebody else than the destination may say it, of the same family."""
        answer = unreachable(udp_packet(V4_A, V4_B, 1, 2, b""), Reason.HOST, V4_C)
        assert answer is not None
        self.assertEqual(parse(answer).source, V4_C)
        packet = udp_packet(V4_A, V4_B, 1, 2, b"")
        self.assertRaises(MalformedMessage, unreachable, packet, Reason.HOST, V6_C)

    def test_too_big(self) -> None:
        """The MTU is told, in the family's own form and bounds."""
        four, six = udp_packet(V4_A, V4_B, 1, 2, bytes(1400)), udp_packet(V6_A, V6_B, 1, 2, b"")
        for packet, mtu, kind, word in (
            (four, 1280, (3, 4), 1280),
            (four, 3, (3, 4), 68),
            (four, 1 << 20, (3, 4), 65535),
            (six, 1400, (2, 0), 1400),
            (six, 3, (2, 0), 1280),
        ):
            answer = too_big(packet, mtu)
            assert answer is not None
            error = parse_icmp(answer)
            self.assertEqual((error.kind, error.code), kind)
            self.assertEqual(int.from_bytes(error.body[:4], "big"), word)

    def test_amount_quoted(self) -> None:
        """As much is quoted as fits 576 bytes, or 1280 for IPv6."""
        for packet, size in (
            (udp_packet(V4_A, V4_B, 1, 2, bytes(2000)), 576),
            (udp_packet(V6_A, V6_B, 1, 2, bytes(2000)), 1280),
        ):
            answer = unreachable(packet, Reason.PORT)
            assert answer is not None
            self.assertEqual(len(answer), size)
            self.assertTrue(packet.startswith(parse_icmp(answer).body[4:]))

    def silent(self, packet: bytes) -> None:
        """No error is made about a packet."""
        self.assertIsNone(unreachable(packet, Reason.HOST))
        self.assertIsNone(too_big(packet, 1280))

    def test_never_about_errors(self) -> None:
        """Errors, redirects and what may be errors are not answered; queries are."""
        for kind in (3, 4, 5, 11, 12, 99):
            self.silent(icmp_packet(V4_A, V4_B, kind, 0, bytes(4)))
        for kind in (1, 2, 3, 4, 100, 127, 137):
            self.silent(icmp_packet(V6_A, V6_B, kind, 0, bytes(4)))
        self.silent(ipv4(V4_A, V4_B, ICMP, b""))
        self.assertIsNotNone(unreachable(echo_request(V4_A, V4_B, 1, 1), Reason.HOST))
        self.assertIsNotNone(unreachable(echo_request(V6_A, V6_B, 1, 1), Reason.HOST))

    def test_never_about_later_fragments(self) -> None:
        """Only a first fragment is answered."""
        self.silent(ipv4(V4_A, V4_B, UDP, bytes(16), fragment=0x0003))
        self.silent(ipv6(V6_A, V6_B, UDP, bytes(16), ((44, b"\x00\x00\x18" + bytes(4)),)))
        first = ipv4(V4_A, V4_B, UDP, bytes(16), fragment=0x2000)
        self.assertIsNotNone(unreachable(first, Reason.HOST))

    def test_never_to_or_about_many(self) -> None:
        """Multicast, broadcast, loopback and unspecified addresses are not answered."""
        many_v4 = [bytes(one) for one in ([224, 0, 0, 251], [255] * 4, [127, 0, 0, 1], [0] * 4)]
        many_v6 = [b"\xff\x02" + bytes(13) + b"\xfb", bytes(16), bytes(15) + b"\x01"]
        for one, other in [(many, V4_A) for many in many_v4] + [(many, V6_A) for many in many_v6]:
            self.silent(udp_packet(one, other, 1, 2, b""))
            self.silent(udp_packet(other, one, 1, 2, b""))

    @given(packets())
    def test_about_anything(self, packet: bytes) -> None:
        """An error about a sound packet is a sound packet to its sender."""
        answer = unreachable(packet, Reason.PROHIBITED)
        if answer is not None:
            error, view = parse_icmp(answer), parse(packet)
            self.assertTrue(header_is_sound(answer, parse(answer)))
            self.assertEqual(error.destination, view.source)
            self.silent(answer)

    @given(mangled(), st.sampled_from(Reason), st.integers(0, 70000))
    def test_mutations(self, packet: bytes, reason: Reason, mtu: int) -> None:
        """R11: whatever comes is answered, passed over or malformed, and nothing else."""
        for call in (
            lambda: unreachable(packet, reason),
            lambda: too_big(packet, mtu),
            lambda: parse_icmp(packet),
        ):
            try:
                call()
            except MalformedMessage:
                continue
