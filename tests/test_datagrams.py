"""UDP on virtual addresses inside a process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AlreadyExists, MalformedMessage, QuotaExceeded, Unreachable
from ntmobile.machines.device.datagrams import (
    EPHEMERAL,
    Arrived,
    DatagramStack,
    Effect,
    Emit,
    Pong,
    Refused,
)
from ntmobile.wire import icmp
from ntmobile.wire.packet import parse
from ntmobile.wire.udp import parse_udp, udp_packet
from tests.packets import (
    TCP,
    V4_A,
    V4_B,
    V4_C,
    V6_A,
    V6_B,
    ipv4,
    mangled,
    packets,
    transport,
)

PAIRS = ((V4_A, V4_B), (V6_A, V6_B))


def exchange(sent: list[Emit], to: DatagramStack, now: float = 0.0) -> list[Effect]:
    """Hand packets to a stack; all that comes of it."""
    return [effect for one in sent for effect in to.received(one.packet, now)]


def emitted(effects: list[Effect]) -> list[Emit]:
    """The packets among effects."""
    return [effect for effect in effects if isinstance(effect, Emit)]


class DatagramStackTests(SynchronousTestCase):
    """Two stacks that hand their packets to each other."""

    def setUp(self) -> None:
        self.a = DatagramStack((V6_A, V4_A), random=bytes)
        self.b = DatagramStack((V6_B, V4_B), random=bytes)

    def test_datagram(self) -> None:
        """A datagram arrives at the listening port, in both families."""
        one, two = self.a.listen(5000, "one"), self.b.listen(53, "two")
        for source, destination in PAIRS:
            arrived = exchange(self.a.send(one, b"hello", destination, 53), self.b)
            self.assertEqual(arrived, [Arrived("two", b"hello", source, 5000, destination)])
            answered = exchange(self.b.send(two, b"hi", source, 5000), self.a)
            self.assertEqual(answered, [Arrived("one", b"hi", destination, 53, source)])

    def test_long_datagram(self) -> None:
        """A datagram beyond the MTU goes in fragments and arrives whole."""
        socket = self.a.listen(0, "a")
        self.b.listen(53, "b")
        for source, destination in PAIRS:
            sent = self.a.send(socket, bytes(5000), destination, 53)
            self.assertGreater(len(sent), 3)
            self.assertTrue(all(len(one.packet) <= 1280 for one in sent))
            expected = Arrived("b", bytes(5000), source, socket.port, destination)
            self.assertEqual(exchange(sent, self.b), [expected])

    def test_ping(self) -> None:
        """Pings are answered, also long ones, and their answers told."""
        for _, destination in PAIRS:
            for payload in (b"", b"x" * 3000):
                answers = emitted(exchange(self.a.ping(destination, 7, 8, payload), self.b))
                told = exchange(answers, self.a)
                self.assertEqual(told, [Pong(destination, 7, 8, payload)])

    def test_closed_port(self) -> None:
        """A datagram to a closed port is refused, and the sending socket hears of it."""
        socket = self.a.listen(5000, "sender")
        for _, destination in PAIRS:
            answers = emitted(exchange(self.a.send(socket, b"x", destination, 53), self.b))
            self.assertEqual(len(answers), 1)
            self.assertEqual(exchange(answers, self.a), [Refused("sender", destination, 53)])

    def test_closing(self) -> None:
        """A socket that was closed hears nothing, and its port may be taken again."""
        socket, sender = self.b.listen(53, "old"), self.a.listen(0, "a")
        self.b.close(socket)
        self.b.close(socket)
        new = self.b.listen(53, "new")
        self.b.close(socket)
        (arrived,) = exchange(self.a.send(sender, b"x", V4_B, 53), self.b)
        assert isinstance(arrived, Arrived)
        self.assertEqual((arrived.receiver, new.port), ("new", 53))

    def test_port_taken(self) -> None:
        """A port is listened on once, and ports have bounds."""
        self.a.listen(53, None)
        self.assertRaises(AlreadyExists, self.a.listen, 53, None)
        for port in (-1, 65536):
            self.assertRaises(MalformedMessage, self.a.listen, port, None)

    def test_ephemeral_ports(self) -> None:
        """Port 0 takes a free one of the ephemeral range, until there are no more."""
        for port in EPHEMERAL[:-3]:
            self.a.listen(port, None)
        ports = {self.a.listen(0, None).port for _ in range(3)}
        self.assertEqual(ports, set(EPHEMERAL[-3:]))
        self.assertRaises(QuotaExceeded, self.a.listen, 0, None)

    def test_no_address(self) -> None:
        """Without an address of the family nothing can be sent there."""
        six = DatagramStack((V6_A,))
        socket = six.listen(0, None)
        self.assertRaises(Unreachable, six.send, socket, b"", V4_B, 53)
        self.assertRaises(Unreachable, six.ping, V4_B, 1, 1)
        six.readdress((V6_A, V4_A))
        self.assertEqual(len(six.send(socket, b"", V4_B, 53)), 1)

    def test_not_ours(self) -> None:
        """Packets for others are dropped and counted, without an answer."""
        self.assertEqual(self.a.received(udp_packet(V4_B, V4_C, 1, 53, b""), 0), [])
        self.assertEqual(self.a.dropped, 1)

    def test_damaged(self) -> None:
        """Damaged datagrams are dropped and counted, without an answer."""
        self.a.listen(53, None)
        packet = bytearray(udp_packet(V4_B, V4_A, 1, 53, b"payload"))
        packet[-1] ^= 1
        self.assertEqual(self.a.received(bytes(packet), 0), [])
        self.assertEqual(self.a.dropped, 1)

    def test_other_transports(self) -> None:
        """TCP and others are refused, so that who tries does not wait."""
        syn = ipv4(V4_B, V4_A, TCP, transport(TCP, V4_B, V4_A, bytes(20)))
        (answer,) = emitted(self.a.received(syn, 0))
        error = icmp.parse_icmp(answer.packet)
        self.assertEqual((error.kind, error.code, error.destination), (3, 3, V4_B))

    def test_error_rate(self) -> None:
        """Refusals to one correspondent are limited, and go on later."""
        packet = udp_packet(V4_B, V4_A, 1, 53, b"")
        count = sum(len(self.a.received(packet, 0.0)) for _ in range(100))
        self.assertEqual(count, 20)
        self.assertEqual(len(self.a.received(udp_packet(V4_C, V4_A, 1, 53, b""), 0.0)), 1)
        self.assertEqual(len(self.a.received(packet, 1.0)), 1)

    def test_forged_refusal(self) -> None:
        """A refusal is believed only from the datagram's own destination."""
        self.a.listen(5000, "sender")
        about = udp_packet(V4_A, V4_B, 5000, 53, b"")
        honest = icmp.unreachable(about, icmp.Reason.PORT)
        forged = icmp.unreachable(about, icmp.Reason.PORT, V4_C)
        assert honest is not None and forged is not None
        self.assertEqual(self.a.received(forged, 0), [])
        self.assertEqual(self.a.received(honest, 0), [Refused("sender", V4_B, 53)])

    def test_refusal_of_others(self) -> None:
        """Refusals about unknown sockets, other transports or nonsense are passed over."""
        self.a.listen(5000, "sender")
        for about in (
            udp_packet(V4_A, V4_B, 4999, 53, b""),
            ipv4(V4_A, V4_B, TCP, bytes([0x13, 0x88, 0, 53]) + bytes(16)),
        ):
            error = icmp.unreachable(about, icmp.Reason.HOST)
            assert error is not None
            self.assertEqual(self.a.received(error, 0), [])
        for body in (bytes(4), bytes(4) + b"nonsense", bytes(4) + ipv4(V4_A, V4_B, 17, b"")):
            self.assertEqual(self.a.received(icmp.icmp_packet(V4_B, V4_A, 3, 3, body), 0), [])

    def test_too_big_is_no_refusal(self) -> None:
        """That a packet was too big does not mean that nobody listens."""
        self.a.listen(5000, "sender")
        for source, destination in PAIRS:
            told = icmp.too_big(udp_packet(source, destination, 5000, 53, b""), 1280)
            assert told is not None
            self.assertEqual(self.a.received(told, 0), [])

    def test_ports_in_order(self) -> None:
        """Sending uses the socket's own port and the first address of the family."""
        stack = DatagramStack((V4_A, V4_C, V6_A))
        (sent,) = stack.send(stack.listen(7, None), b"x", V4_B, 9)
        datagram = parse_udp(sent.packet)
        self.assertEqual((datagram.source, datagram.source_port), (V4_A, 7))

    @given(st.lists(mangled() | packets(), max_size=10))
    def test_mutations(self, received: list[bytes]) -> None:
        """R11: whatever comes, nothing is raised, and what is sent are packets to its source."""
        stack = DatagramStack((V4_B, V6_B))
        stack.listen(53, None)
        for packet in received:
            for one in emitted(stack.received(packet, 0)):
                self.assertEqual(parse(one.packet).destination, parse(packet).source)
