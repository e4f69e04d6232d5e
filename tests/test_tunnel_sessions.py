"""Which session a pair has: glare, restarts, hints (R15, R19)."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ntmobile.machines.tunnel.tunnel import LocalIdentity
from ntmobile.wire.headers import Flag, Header, Kind
from ntmobile.wire.messages.realtime import Purpose
from tests.test_tunnel import TunnelCase
from tests.tunnels import HIGH, LOW, Node


class GlareTests(TunnelCase):
    """Both ask at once."""

    def assertOneSession(self) -> None:
        """Both ends are in the same session, one of them controls, and packets flow."""
        sessions = [node.open._sessions.current for node in (self.a, self.b)]
        self.assertEqual(1, len({each.direction for each in sessions if each is not None}))
        self.assertEqual({True, False}, {node.open.initiator for node in (self.a, self.b)})
        self.assertFlows()

    def requester(self) -> str:
        session = self.a.open._sessions.current
        assert session is not None
        return session.requester

    def test_the_lower_name_wins(self) -> None:
        """R15: of crossed directions the one asked for by the lower FQDN makes the session."""
        self.a.send(b"one")
        self.b.send(b"two")
        self.net.run(1.0)
        self.assertOneSession()
        self.assertEqual(LOW, self.requester())
        self.assertEqual(([b"two"], [b"one"]), (self.a.payloads()[:1], self.b.payloads()[:1]))

    def test_the_paths_of_the_loser_are_added(self) -> None:
        """R15: the other direction's paths belong to the same session."""
        self.test_the_lower_name_wins()
        self.assertEqual(2, len(self.a.open.identifiers))
        used = {path.identifier for path in self.a.open.paths if path.proven is not None}
        self.assertEqual(self.a.open.identifiers, used)

    def test_each_hears_of_the_other_late(self) -> None:
        """R15: however the directions are late at either end, both end in one session."""
        for late in ({LOW: 0.015}, {HIGH: 0.015}, {LOW: 0.1}, {HIGH: 0.5}, {LOW: 0.5}):
            self.setUp()
            self.net.late = late
            self.a.send(b"one")
            self.b.send(b"two")
            self.net.run(3.0)
            self.assertOneSession()

    def test_the_winner_never_comes(self) -> None:
        """R15: if the winning direction is lost, the losing one's initiator goes on in a second."""
        directed = self.b.begin().direct
        dropped = []

        def deaf(direction: Any, *args: Any, **kwargs: Any) -> None:
            if getattr(direction, "requester", "") == LOW:
                dropped.append(direction)
            else:
                directed(direction, *args, **kwargs)

        self.patch(self.b.open, "direct", deaf)  # a DC that loses it
        self.b.asks = self.a.asks = False
        for node in (self.a, self.b):
            node.send(b"x")
            self.net.direct(node, node.other)
        self.net.until(lambda: self.a.payloads() and self.b.payloads(), 4.0)
        self.assertTrue(dropped)

    def test_scattered(self) -> None:
        """R15: with delays that scatter and losses, glare still ends in one session."""
        for seed in range(30):
            self.setUp()
            self.net.random.seed(seed)
            self.net.jitter, self.net.loss = 0.060, 0.1
            for _ in range(3):
                self.a.send(b"one")
                self.b.send(b"two")
                self.net.direct(self.a, self.b)
                self.net.direct(self.b, self.a)
            self.net.run(5.0)
            self.net.jitter = self.net.loss = 0.0
            for _ in range(20):
                self.a.send(b"on")
                self.b.send(b"on")
                self.net.run(0.5)
            self.assertOneSession()


class RestartTests(TunnelCase):
    """A side that lost its keys."""

    def assertNew(self, node: Node) -> None:
        """A session of its own making replaced the first, and packets flow."""
        established = self.established(node.other)
        self.assertEqual(2, len(established))
        self.assertTrue(established[-1].replaced)
        self.assertFlows()

    def test_who_restarted_asks(self) -> None:
        """R15: the restarted side asks; whoever initiates, a new session replaces the old one."""
        for who in (0, 1):
            self.setUp()
            self.establish()
            node = (self.a, self.b)[who]
            node.restart()
            self.net.run(1.0)
            node.send(b"again")
            self.net.run(0.5)
            self.assertIn(b"again", node.other.payloads())
            self.assertNew(node)

    def test_the_other_one_speaks_first(self) -> None:
        """R15: "unknown session" asks for a handshake, after the other side's own checks."""
        for who in (0, 1):
            self.setUp()
            self.establish()
            node = (self.a, self.b)[who]
            node.restart()
            self.net.run(1.0)
            node.other.send(b"hello?")
            self.net.run(1.0)
            self.assertTrue(node.open.established)
            self.assertEqual(Purpose.NEW, node.other.wanted[-1][1].purpose)
            self.net.run(0.5)
            self.assertNew(node)

    def test_through_a_relay(self) -> None:
        """R15: the same where only the relay connects them."""
        self.net.blocked |= {("192.0.2.1", "198.51.100.2"), ("198.51.100.2", "192.0.2.1")}
        self.establish()
        self.b.restart()
        self.net.run(1.0)
        self.a.send(b"hello?")
        self.net.until(lambda: self.b.tunnel and self.b.open.established, 3.0)
        self.net.run(0.5)
        self.assertFlows()

    def test_old_until_new_is_proven(self) -> None:
        """R19: a handshake beside a living session changes nothing before its keys are used."""
        self.establish()
        session = self.b.open._sessions.current
        self.a.restart()
        self.net.tap = lambda node, datagram, *_: (
            not (node is self.a and datagram[0] == Kind.TUNNEL_DATA)
        )
        self.a.send(b"again")
        self.net.run(1.0)
        self.assertTrue(self.a.open.established)
        self.assertIs(session, self.b.open._sessions.current)

    def test_both_restart(self) -> None:
        """Both lost their keys: the next packet makes a tunnel as if there had been none."""
        self.establish()
        self.a.restart()
        self.b.restart()
        self.net.run(1.0)
        self.a.send(b"again")
        self.net.until(lambda: b"again" in self.b.payloads(), 1.0)


class RenewalTests(TunnelCase):
    """Certificates: those of the tests end at 86 400 s, which is in half an hour."""

    def setUp(self) -> None:
        super().setUp()
        self.net.unix_time = 84500.0

    def test_a_fresh_direction_before_the_certificate_ends(self) -> None:
        """R20: before a certificate or 24 h end, new keys are made under a fresh direction."""
        self.establish()
        for _ in range(25):
            self.a.send(b"still here")
            self.net.run(100.0)
        self.assertEqual(Purpose.NEW, self.a.wanted[-1][1].purpose)
        established = self.established(self.a)
        self.assertEqual((False, True), (established[0].replaced, established[-1].replaced))
        self.assertEqual([], self.a.ended())
        self.assertFlows()

    def test_whichever_ends_first(self) -> None:
        """R20: the certificate that ends first counts at both ends, so that both want new keys."""
        for node in (self.a, self.b):
            self.setUp()
            soon = (self.a, self.b)[node.name == HIGH]
            soon.certificate = evolve(soon.certificate, not_after=85400.0)
            self.establish()
            for _ in range(9):
                self.a.send(b"still here")
                self.net.run(60.0)
            for each in (self.a, self.b):
                self.assertTrue(self.established(each)[-1].replaced)

    def test_without_a_fresh_one(self) -> None:
        """R20, R34: with no fresh certificate the tunnel goes on until its next rekey only."""
        self.establish()
        self.a.asks = self.b.asks = False
        for _ in range(25):
            if not self.a.ended():
                self.a.send(b"still here")
            self.net.run(100.0)
        self.assertEqual(1, len(self.a.ended()))
        self.assertIn("certificate", self.a.ended()[0])

    def test_an_own_new_certificate(self) -> None:
        """R3, R19: after a renewal, handshakes are made with the new certificate."""
        self.establish()
        fresh = evolve(self.a.certificate, der=b"renewed" + bytes(100))
        self.a.certificate = fresh
        self.a.open.renew(LocalIdentity.of(fresh, self.a.key))
        self.assertFlows()
        self.b.restart()
        self.b.send(b"again")
        self.net.until(lambda: b"again" in self.a.payloads(), 1.0)


class SpoofedHintTests(TunnelCase):
    """TUNNEL_UNKNOWN is unauthenticated."""

    def hint(self, flags: int = 0, counter: int = 0) -> None:
        identifier = next(iter(self.a.open.identifiers))
        datagram = Header(Kind.TUNNEL_UNKNOWN, flags, identifier, counter).pack()
        self.net.arrive(datagram, self.b.address, self.a.address)

    def test_it_never_drops_keys(self) -> None:
        """R15: forged hints, however many, cost a probe a second and change nothing."""
        self.establish()
        session = self.a.open._sessions.current
        self.net.run(1.0)
        self.net.sent.clear()
        for _ in range(1000):
            for flags in (0, int(Flag.CONTROL)):
                self.hint(flags)
            self.net.run(0.005)
        self.assertLess(self.net.count(Kind.TUNNEL_DATA, self.a), 60)
        self.assertEqual(0, self.net.count(Kind.TUNNEL_REQUEST))
        self.assertIs(session, self.a.open._sessions.current)
        self.assertEqual([], self.a.wanted[1:])
        self.assertFlows()

    def test_from_elsewhere(self) -> None:
        """R8: a hint from an address that is no path of this tunnel is not even looked into."""
        self.establish()
        self.net.run(1.0)
        self.net.sent.clear()
        identifier = next(iter(self.a.open.identifiers))
        hint = Header(Kind.TUNNEL_UNKNOWN, 0, identifier, 0).pack()
        self.net.arrive(hint, ("203.0.113.66", 66), self.a.address)
        self.assertEqual([], self.net.sent)

    def test_never_larger_than_what_it_answers(self) -> None:
        """R8: data of no session gets one bare header a second, whoever sends however much."""
        self.b.begin()
        self.net.direct(self.a, self.b)
        self.net.tap = lambda node, *_: node is not self.a
        self.net.run(0.1)
        identifier = next(iter(self.b.open.identifiers))
        data = Header(Kind.TUNNEL_DATA, 0, identifier, 5).pack() + bytes(30)
        self.net.sent.clear()
        for _ in range(100):
            self.net.arrive(data, ("203.0.113.66", 66), self.b.address)
        hints = [d for _, name, d, _ in self.net.sent if d[0] == Kind.TUNNEL_UNKNOWN]
        self.assertEqual(
            [Header(Kind.TUNNEL_UNKNOWN, int(Flag.CONTROL), identifier, 5).pack()], hints
        )
