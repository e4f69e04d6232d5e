"""A tunnel of two machines: how it begins, carries, ends (R15, R19, R22, R23; design 5)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.constants import INNER_MTU, NARROW_MTU, NARROW_PAYLOAD, QUEUE
from ntmobile.machines.tunnel.events import Doubted, Established, RoundTrip
from ntmobile.machines.tunnel.tunnel import unknown_hint
from ntmobile.wire.headers import Flag, Header, Kind
from ntmobile.wire.messages.realtime import Purpose
from tests.tunnels import HIGH, Internet, Nat, Node, certified, packet


def behind(inner: str, outer: str) -> tuple[str, Nat]:
    """A place behind a NAT of its own."""
    return inner, Nat(outer)


class TunnelCase(SynchronousTestCase):
    """Two devices with global addresses, unless a test places them elsewhere."""

    places: tuple[tuple[str, Nat | None], tuple[str, Nat | None]] = (
        ("192.0.2.1", None),
        ("198.51.100.2", None),
    )

    def setUp(self) -> None:
        self.net = Internet()
        self.a, self.b = self.net.pair(*self.places)

    def establish(self) -> None:
        """A packet each way, and time for all probes."""
        self.a.send(b"first")
        self.net.until(lambda: self.b.received)
        self.b.send(b"answer")
        self.net.until(lambda: self.a.received)
        self.net.run(1.0)

    def assertFlows(self, within: float = 0.1) -> None:
        """Packets go both ways."""
        for node in (self.a, self.b):
            node.send(b"flows from " + node.name.encode())
        self.net.run(within)
        for node in (self.a, self.b):
            self.assertIn(b"flows from " + node.other.name.encode(), node.payloads())

    def established(self, node: Node) -> list[Established]:
        return [effect for _, effect in node.events if isinstance(effect, Established)]


class EstablishingTests(TunnelCase):
    """From the first packet to the first answer."""

    def test_flights(self) -> None:
        """R19: after the direction, one round trip and a half carry the first packet across."""
        self.a.send(b"first")
        seconds = self.net.until(lambda: self.b.received)
        # The direction takes 20 ms; then message 1, message 2 and the packet, 10 ms each.
        self.assertAlmostEqual(0.020 + 3 * 0.010, seconds, 5)

    def test_both_know(self) -> None:
        """Both ends hear of the session, one as initiator, on a direct path."""
        self.establish()
        (one,), (two,) = self.established(self.a), self.established(self.b)
        self.assertEqual((True, False), (one.initiator, two.initiator))
        self.assertEqual(("direct", "direct"), (one.path.kind, two.path.kind))
        self.assertEqual(one.direction, two.direction)
        self.assertEqual([b"first"], self.b.payloads())

    def test_nobody_knows_the_loser(self) -> None:
        """R18: no temporal key is kept once the handshake is made."""
        self.establish()
        for node in (self.a, self.b):
            for direction in node.open._association.directions:
                self.assertIsNone(direction._psk)

    def test_responder_waits_for_proof(self) -> None:
        """R19: the responder sends nothing under the keys before something came under them."""
        self.net.tap = lambda node, datagram, *_: (
            not (node is self.a and datagram[0] == Kind.TUNNEL_DATA)
        )
        self.b.asks = False
        self.a.send(b"first")
        self.b.send(b"eager")
        self.net.run(3.0)
        self.assertEqual(0, self.net.count(Kind.TUNNEL_DATA, self.b))
        self.assertFalse(self.b.open.established)
        self.net.tap = None
        self.net.until(lambda: self.b.open.established)
        self.assertFlows()

    def test_lost_handshake(self) -> None:
        """R10: lost messages are sent again from 100 ms on, the same bytes."""
        lost = iter([False, False])
        self.net.tap = lambda _, datagram, *__: (
            datagram[0] not in (Kind.TUNNEL_REQUEST, Kind.TUNNEL_RESPONSE) or next(lost, True)
        )
        self.net.relayed = False
        self.a.send(b"first")
        seconds = self.net.until(lambda: self.b.received)
        self.assertLess(seconds, 0.05 + 0.1 + 0.2 + 0.01)
        requests = {d for _, _, d, _ in self.net.sent if d[0] == Kind.TUNNEL_REQUEST}
        self.assertEqual(1, len(requests))

    def test_the_initiator_has_something_to_say_at_once(self) -> None:
        """R19: where the initiator has no packet, a keep-alive gives the responder its keys."""
        self.b.begin().send(packet(self.b.certificate, self.a.certificate, b"x"), self.net.now)
        self.a.begin()
        self.net.direct(self.a, self.b)
        self.net.until(lambda: self.a.received, 0.2)

    def test_queue(self) -> None:
        """Packets wait for the session; of too many, the oldest are dropped and counted."""
        for number in range(QUEUE + 3):
            self.a.send(b"%d" % number)
        self.net.run(1.0)
        self.assertEqual([b"%d" % number for number in range(3, QUEUE + 3)], self.b.payloads())
        self.assertEqual(3, self.a.open.drops["queue full"])

    def test_no_answer(self) -> None:
        """R18: a handshake that nobody answers ends with the temporal key, after 60 s."""
        self.b.up = False
        self.a.asks = False
        self.a.send(b"first")
        self.net.direct(self.a, self.b)
        self.net.run(59.0)
        self.assertEqual([], self.a.ended())
        self.net.run(2.0)
        self.assertEqual(["no answer"], self.a.ended())

    def test_a_direction_is_wanted(self) -> None:
        """A packet without any direction wants one, and again less and less often."""
        self.a.asks = False
        self.a.send(b"first")
        self.net.run(8.0)
        self.assertEqual([Purpose.NEW] * 4, [effect.purpose for _, effect in self.a.wanted])

    def test_no_direction(self) -> None:
        """Where none comes, it is over a minute after the last packet; no more is asked."""
        self.a.asks = False
        self.a.send(b"first")
        self.net.run(40.0)
        self.a.send(b"second")
        self.net.run(59.0)
        self.assertEqual([], self.a.ended())
        self.net.run(2.0)
        self.assertEqual(["no direction"], self.a.ended())
        asked = len(self.a.wanted)
        self.net.run(120.0)
        self.assertEqual(asked, len(self.a.wanted))


class RelayedTests(TunnelCase):
    """Both behind NATs of their own: the relay carries."""

    places = (behind("10.0.0.1", "192.0.2.1"), behind("10.0.0.2", "198.51.100.2"))

    def test_flights(self) -> None:
        """R25: the handshake follows the leg's proof at once, so binding costs one round trip."""
        self.a.send(b"first")
        seconds = self.net.until(lambda: self.b.received)
        # The direction 20 ms, the challenge 20 ms, then three flights through the RS, 20 ms each.
        self.assertAlmostEqual(0.020 + 0.020 + 3 * 0.020, seconds, 5)
        self.assertEqual("relay", self.b.open.active and self.b.open.active.kind)

    def test_one_side_is_late(self) -> None:
        """R25: the RS holds the handshake until the other side is bound."""
        self.net.late[self.b.name] = 1.0
        self.a.send(b"first")
        seconds = self.net.until(lambda: self.b.received)
        self.assertLess(seconds, 1.0 + 0.2)

    def test_a_head_start_for_direct(self) -> None:
        """Design 5: a relay that is not first is used when no direct answer came in 300 ms."""
        net = Internet()
        a, b = net.pair()
        net.blocked |= {("192.0.2.1", "198.51.100.2")}
        a.send(b"first")
        seconds = net.until(lambda: b.received)
        self.assertAlmostEqual(0.020 + 0.300 + 0.060, seconds, 2)
        self.assertEqual("relay", a.open.active and a.open.active.kind)

    def test_direct_takes_over(self) -> None:
        """Design 5: if direct answers later, it takes over."""
        net = Internet()
        a, b = net.pair()
        net.blocked |= {("192.0.2.1", "198.51.100.2")}
        net.at(net.now + 0.7, net.blocked.clear)
        a.send(b"first")
        net.until(lambda: b.received)
        net.run(2.0)
        for node in (a, b):
            self.assertEqual("direct", node.open.active and node.open.active.kind)

    def test_stateful_firewalls(self) -> None:
        """Design 5: while relayed both probe the other's candidates, which opens firewalls."""
        net = Internet()
        a, b = net.pair()
        opened: set[tuple[str, str]] = set()

        def firewall(node: Node | None, datagram: bytes, source: object, remote: object) -> bool:
            hosts = {"192.0.2.1", "198.51.100.2"}
            assert isinstance(source, tuple) and isinstance(remote, tuple)
            if node is None or {source[0], remote[0]} != hosts:
                return True
            opened.add((source[0], remote[0]))
            return (remote[0], source[0]) in opened

        net.tap = firewall
        a.send(b"first")
        net.run(3.0)
        self.assertEqual([b"first"], b.payloads())
        for node in (a, b):
            self.assertEqual("direct", node.open.active and node.open.active.kind)


class CarryingTests(TunnelCase):
    """Packets."""

    def test_only_certified_addresses(self) -> None:
        """R22: source and destination of an inner packet are those of the two certificates."""
        self.establish()
        (a, b), stranger = (self.a.certificate, self.b.certificate), certified(HIGH, 9)[0]
        before = len(self.b.received)
        ipv4 = b"\x45" + bytes(11)
        for wrong in (
            packet(stranger, b, b"x"),
            packet(a, stranger, b"x"),
            packet(b, a, b"x"),
            packet(a, b, b"x")[:39],
            ipv4 + stranger.ipv4.packed + b.ipv4.packed,
            ipv4 + a.ipv4.packed + stranger.ipv4.packed,
            b"",
            b"\x00" * 60,
        ):
            self.a.open.send(wrong, self.net.now)
        self.a.run()
        self.net.run(0.1)
        self.assertEqual(before, len(self.b.received))
        self.assertEqual(8, self.b.open.drops["inner address"])

    def test_ipv4_inside(self) -> None:
        """R22: IPv4 inside goes by the certified IPv4 addresses."""
        self.establish()
        inner = b"\x45" + bytes(11) + self.a.certificate.ipv4.packed
        self.a.open.send(inner + self.b.certificate.ipv4.packed + bytes(30), self.net.now)
        self.a.run()
        before = len(self.b.received)
        self.net.run(0.1)
        self.assertEqual(before + 1, len(self.b.received))

    def test_full_size(self) -> None:
        """R23: on a path that takes them, packets of 1280 bytes travel whole."""
        self.establish()
        self.net.sent.clear()
        self.a.send(bytes(INNER_MTU - 40))
        self.assertEqual([1316], [len(datagram) for _, _, datagram, _ in self.net.sent])
        self.net.run(0.1)
        self.assertEqual(bytes(INNER_MTU - 40), self.b.payloads()[-1])

    def test_counters(self) -> None:
        """Inner bytes are counted at both ends."""
        self.establish()
        self.assertEqual(45, self.a.open.sent_bytes)
        self.assertEqual(45, self.b.open.received_bytes)

    def test_too_long(self) -> None:
        """A packet beyond two halves is dropped and counted; it is none of this tunnel's MTU."""
        self.establish()
        self.a.send(bytes(3000))
        self.assertEqual(1, self.a.open.drops["packet too long"])

    def test_ping(self) -> None:
        """The other agent answers a ping; the round trip is told in seconds."""
        self.establish()
        self.a.open.ping(7, self.net.now)
        self.a.run()
        self.net.run(0.1)
        (answer,) = [effect for _, effect in self.a.events if isinstance(effect, RoundTrip)]
        self.assertEqual(7, answer.sequence)
        self.assertAlmostEqual(0.020, answer.seconds, 5)
        self.assertAlmostEqual(0.020, self.a.open.rtt or 0.0, 5)


class NarrowTests(TunnelCase):
    """An outer path of 1280 bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.a.mtu = self.b.mtu = 1280

    def test_halves(self) -> None:
        """R23: inner packets of 1280 bytes pass an outer path of 1280, in two halves."""
        self.establish()
        self.net.sent.clear()
        self.a.send(bytes(INNER_MTU - 40))
        sent = [datagram for _, _, datagram, _ in self.net.sent]
        flags = [Header.parse(datagram).flags for datagram in sent]
        self.assertEqual([int(Flag.FIRST), int(Flag.SECOND)], flags)
        counters = [Header.parse(datagram).counter for datagram in sent]
        self.assertEqual(counters[0] + 1, counters[1])
        self.assertLessEqual(max(map(len, sent)), NARROW_PAYLOAD)
        self.net.run(0.1)
        self.assertEqual(bytes(INNER_MTU - 40), self.b.payloads()[-1])

    def test_nothing_stalls(self) -> None:
        """R23: packets of every size arrive from the first on, whatever is known of the path."""
        sizes = (1, 500, 1156, 1157, 1240)
        for size in sizes:
            self.a.send(bytes(size))
        self.net.run(1.0)
        self.assertEqual([bytes(size) for size in sizes], self.b.payloads())

    def test_a_path_that_becomes_narrow(self) -> None:
        """R23: full size is proven again and again, so that a path that shrinks is noticed."""
        net = Internet()
        a, b = net.pair()
        a.send(b"first")
        net.run(2.0)
        self.assertEqual(INNER_MTU, a.open.active and a.open.active.mtu)
        a.mtu = b.mtu = 1280
        for _ in range(30):
            a.send(bytes(INNER_MTU - 40))
            b.send(b"small")
            net.run(0.1)
        self.assertEqual(NARROW_MTU, a.open.active and a.open.active.mtu)


class OneWayTests(TunnelCase):
    """Datagrams of one side are lost, those of the other arrive."""

    def test_noticed(self) -> None:
        """Who is heard no more learns so from the correspondent's challenges, not from silence."""
        for deaf in (0, 1):
            self.setUp()
            self.establish()
            self.net.run(1.0)
            lost, heard = (self.b, self.a) if deaf else (self.a, self.b)
            self.net.blocked.add((lost.address[0], heard.address[0]))
            began = self.net.now
            for _ in range(30):
                lost.send(b"lost")
                heard.send(b"arrives")
                self.net.run(0.1)
            doubted = [at for at, effect in lost.events if isinstance(effect, Doubted)]
            self.assertLess(doubted[0], began + 2.0)


class EndingTests(TunnelCase):
    """Idle, told, forgotten."""

    def test_idle(self) -> None:
        """Design 5: a tunnel without inner packets for 300 s ends, at both ends."""
        self.establish()
        self.net.run(290.0)
        self.assertEqual(([], []), (self.a.ended(), self.b.ended()))
        self.net.run(15.0)
        self.assertEqual((["idle"], ["idle"]), (self.a.ended(), self.b.ended()))

    def test_quiet_when_idle(self) -> None:
        """An idle tunnel costs a few datagrams every 20 s, and wants nothing."""
        self.establish()
        self.net.sent.clear()
        self.net.run(100.0)
        self.assertLess(len(self.net.sent), 100)
        self.assertEqual([1, 1], [len(node.wanted) for node in (self.a, self.a)])
        self.assertEqual([], self.b.wanted)

    def test_told(self) -> None:
        """Tunnel End ends both ends with its reason; then nothing is sent or due any more."""
        self.establish()
        self.a.open.end("logged out", self.net.now)
        self.a.run()
        self.net.run(0.1)
        self.assertEqual((["logged out"], ["logged out"]), (self.a.ended(), self.b.ended()))
        for node in (self.a, self.b):
            self.assertIsNone(node.open.next_timer())
            node.open.send(b"late", self.net.now)
            node.open.handle_timer(self.net.now)
            node.open.network_changed([("192.0.2.9", 1)], self.net.now)
            node.open.ping(1, self.net.now)
            self.assertEqual([], node.open.effects())

    def test_unreachable(self) -> None:
        """A correspondent that is gone for good: after 300 s of silence the tunnel ends."""
        self.establish()
        self.b.up = False
        for _ in range(310):
            if not self.a.ended():
                self.a.send(b"anybody?")
            self.net.run(1.0)
        self.assertEqual(["unreachable"], self.a.ended())
        wanted = [effect for _, effect in self.a.wanted if effect.purpose is Purpose.REPAIR]
        self.assertLess(len(wanted), 20)

    def test_a_new_tunnel_after_the_end(self) -> None:
        """After the end the next packet makes a new tunnel."""
        self.establish()
        self.net.run(310.0)
        self.a.send(b"again")
        self.net.until(lambda: b"again" in self.b.payloads())


class HintTests(SynchronousTestCase):
    """The hint of who has no tunnel at all."""

    def test_hint(self) -> None:
        """R8, R15: only data gets a hint: its index and counter, and never more bytes than came."""
        data = Header(Kind.TUNNEL_DATA, 0, b"direct01", 77).pack() + bytes(16)
        hint = unknown_hint(data)
        self.assertEqual(Header(Kind.TUNNEL_UNKNOWN, 0, b"direct01", 77).pack(), hint)
        self.assertIsNone(unknown_hint(data[:-1]))
        for kind in set(Kind) - {Kind.TUNNEL_DATA}:
            self.assertIsNone(unknown_hint(bytes((kind,)) + data[1:]))
