"""New keys inside a session (R20)."""

from __future__ import annotations

from ntmobile.errors import AuthenticationError
from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.session import Session
from ntmobile.wire.headers import Flag, Kind
from tests.test_tunnel import TunnelCase
from tests.tunnels import Node


class RekeyingTests(TunnelCase):
    """R20: a new KKpsk0 every 120 s of use, with a psk of the session."""

    def session(self, node: Node) -> Session:
        session = node.open._sessions.current
        assert session is not None
        return session

    def epochs(self) -> tuple[int, int]:
        """The epochs that both ends send under."""
        numbers = []
        for node in (self.a, self.b):
            epoch = self.session(node).ring.current
            assert epoch is not None
            numbers.append(epoch.number)
        return numbers[0], numbers[1]

    def use(self, seconds: float, pace: float = 0.5) -> None:
        """Packets both ways for a while."""
        end = self.net.now + seconds
        while self.net.now < end:
            self.a.send(b"a")
            self.b.send(b"b")
            self.net.run(pace)

    def test_every_two_minutes_of_use(self) -> None:
        """R20: after 120 s both ends are in the next epoch, without a DC, without a lost packet."""
        self.establish()
        self.a.asks = self.b.asks = False
        self.use(constants.REKEY_AFTER - 2.0)
        self.assertEqual((0, 0), self.epochs())
        self.use(3.0)
        self.assertEqual((1, 1), self.epochs())
        self.use(500.0, 2.0)
        self.assertEqual((5, 5), self.epochs())
        self.net.run(0.1)
        for node, payload in ((self.a, b"b"), (self.b, b"a")):
            sent = self.net.count(Kind.TUNNEL_DATA, node.other)
            self.assertGreater(sent, node.payloads().count(payload))
        self.assertEqual(self.a.payloads().count(b"b"), self.b.payloads().count(b"a"))

    def test_the_header_names_the_epoch(self) -> None:
        """R19: two bits of the header tell epochs apart."""
        self.establish()
        self.use(125.0)
        self.net.sent.clear()
        self.a.send(b"x")
        self.assertEqual(1, self.net.sent[-1][2][1] & int(Flag.EPOCH))

    def test_not_while_idle(self) -> None:
        """R20: what is not used is not rekeyed; its next use is."""
        self.establish()
        self.net.run(280.0)
        self.assertEqual((0, 0), self.epochs())
        self.use(20.0)
        self.assertEqual((1, 1), self.epochs())

    def test_after_many_datagrams(self) -> None:
        """R20: 2^28 datagrams are enough for one epoch, whatever its age."""
        self.establish()
        epoch = self.session(self.a).ring.current
        assert epoch is not None
        self.use(15.0)
        self.assertEqual((0, 0), self.epochs())
        epoch.counter = constants.REKEY_DATAGRAMS
        self.use(1.0)
        self.assertEqual((1, 1), self.epochs())

    def test_lost_messages(self) -> None:
        """R20: request and answer are repeated, the same bytes, until they arrive."""
        self.establish()
        self.use(119.0)
        self.net.loss = 0.5
        self.use(15.0)
        self.net.loss = 0.0
        self.use(10.0)
        self.assertEqual((1, 1), self.epochs())
        self.assertFlows()

    def test_the_other_side_if_overdue(self) -> None:
        """R20: where the initiator does not, the other side makes the next epoch."""
        self.establish()
        rekeying = self.a.open._association.rekeying
        assert rekeying is not None
        self.patch(rekeying, "due", lambda: None)  # an initiator that forgets
        self.use(constants.REKEY_AFTER + constants.REKEY_GRACE + 2.0)
        self.assertEqual((1, 1), self.epochs())

    def test_both_at_once(self) -> None:
        """R20: of two requests at once the lower FQDN's goes on, and both ends have one epoch."""
        for jitter in (0.0, 0.05):
            self.setUp()
            self.net.jitter = jitter
            self.establish()
            for node in (self.a, self.b):
                rekeying = node.open._association.rekeying
                assert rekeying is not None
                rekeying.begin(self.net.now)
                node.open._association.settle(self.net.now)
                node.run()
            self.use(5.0)
            self.assertEqual((1, 1), self.epochs())
            ends = [self.session(node).ring.current for node in (self.a, self.b)]
            self.assertEqual(ends[0] and ends[0].export, ends[1] and ends[1].export)

    def test_old_datagrams(self) -> None:
        """R19: what was sealed before a rekeying and comes within 10 s is still opened."""
        self.establish()
        self.use(119.5)
        held: list[tuple[bytes, Address, Address]] = []

        def hold(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if node is self.a and len(datagram) == 36 + 40 + 4 and not held:
                held.append((datagram, source, remote))
                return False
            return True

        self.net.tap = hold
        self.a.send(b"late")
        self.net.tap = None
        self.use(5.0)
        self.assertEqual((1, 1), self.epochs())
        self.net.arrive(*held[0])
        self.assertIn(b"late", self.b.payloads())
        self.use(10.0)
        self.net.arrive(*held[0])
        self.assertEqual(1, self.b.payloads().count(b"late"))

    def test_forward_secrecy(self) -> None:
        """R20: keys and secrets of former epochs are gone after 10 s."""
        self.establish()
        before = [self.session(node).ring.current for node in (self.a, self.b)]
        self.use(140.0)
        for node, epoch in zip((self.a, self.b), before, strict=True):
            ring = self.session(node).ring
            self.assertNotIn(epoch, (ring.current, ring.previous, ring.upcoming))
            self.assertIsNone(ring.opening(0))

    def test_a_foreign_request(self) -> None:
        """R20: a request that was not made with this session's secret changes nothing."""
        self.establish()
        rekeying = self.a.open._association.rekeying
        assert rekeying is not None
        rekeying.begin(self.net.now)
        request = rekeying.pending(self.net.now)
        assert request is not None
        other = TunnelCase("assertFlows")
        other.setUp()
        other.net.random.seed(99)
        other.establish()
        foreign = other.b.open._association.rekeying
        assert foreign is not None
        self.assertRaises(AuthenticationError, foreign.requested, request, other.net.now)
        self.assertIsNone(foreign._session.ring.upcoming)
