"""Attackers on and off the path of a tunnel (R8, R17, R19, R21, R22)."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.constants import AMPLIFICATION, NOMINATIONS, PROBES
from ntmobile.machines.tunnel.paths import PathState
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.tunnel import PathOffer
from tests.test_tunnel import TunnelCase
from tests.tunnels import RS, Node

VICTIM: Address = ("203.0.113.99", 53)


class AttackCase(TunnelCase):
    """A tunnel in use, and all that passed on its wires."""

    def setUp(self) -> None:
        super().setUp()
        self.captured: list[tuple[bytes, Address, Address]] = []
        self.net.tap = self.tap

    def tap(self, node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
        self.captured.append((datagram, source, remote))
        return True

    def to(self, address: Address) -> int:
        """Bytes sent to an address."""
        return sum(len(datagram) for _, _, datagram, remote in self.net.sent if remote == address)


class ReplayTests(AttackCase):
    """What was recorded comes again."""

    def test_everything_again(self) -> None:
        """R21: the whole recorded conversation, again and in any order, delivers nothing."""
        self.establish()
        before = [len(self.a.received), len(self.b.received)]
        recorded = list(self.captured)
        Random(1).shuffle(recorded)
        sessions = [node.open._sessions.current for node in (self.a, self.b)]
        for datagram, source, remote in recorded * 2:
            self.net.arrive(datagram, source, remote)
        self.net.run(1.0)
        self.assertEqual(before, [len(self.a.received), len(self.b.received)])
        self.assertEqual(sessions, [node.open._sessions.current for node in (self.a, self.b)])
        self.assertFlows()

    def test_message_one_again(self) -> None:
        """R19: a recorded message 1 makes no second session: the answer is repeated, or nothing."""
        self.establish()
        (request,) = {d for d, _, _ in self.captured if d[0] == Kind.TUNNEL_REQUEST}
        session = self.b.open._sessions.current
        self.net.sent.clear()
        self.net.arrive(request, self.a.address, self.b.address)
        answers = [d for _, _, d, _ in self.net.sent]
        self.assertEqual([Kind.TUNNEL_RESPONSE], [d[0] for d in answers])
        self.assertLessEqual(len(answers[0]), len(request))
        self.net.run(1.0)
        self.assertIs(session, self.b.open._sessions.current)
        self.net.run(70.0)
        self.net.sent.clear()
        self.net.arrive(request, VICTIM, self.b.address)
        self.assertLessEqual(self.to(VICTIM), len(request))

    def test_reflection(self) -> None:
        """R21: a side's own datagrams, sent back to it, are nothing."""
        self.establish()
        own = [(d, remote) for d, source, remote in self.captured if source == self.a.address]
        received = len(self.a.received)
        for datagram, remote in own:
            self.net.arrive(datagram, remote, self.a.address)
        self.net.run(0.5)
        self.assertEqual(received, len(self.a.received))
        self.assertFlows()

    def test_to_a_restarted_side(self) -> None:
        """R19: what was recorded before a restart makes nothing after it."""
        self.establish()
        recorded = list(self.captured)
        self.b.restart()
        self.b.begin()
        for datagram, source, remote in recorded:
            self.net.arrive(datagram, source, remote)
        self.assertEqual([], [e for _, e in self.b.events[1:]])


class RubbishTests(AttackCase):
    """Whatever comes, nothing raises."""

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_mutations(self, data: st.DataObject) -> None:
        """R11: truncated, extended and changed datagrams are dropped and counted, never raised."""
        self.setUp()
        self.establish()
        session = self.b.open._sessions.current
        delivered = len(self.b.received)
        for _ in range(20):
            datagram, source, _ = data.draw(st.sampled_from(self.captured))
            place = data.draw(st.integers(0, len(datagram) - 1))
            change = data.draw(st.integers(1, 255))
            changed = datagram[:place] + bytes((datagram[place] ^ change,)) + datagram[place + 1 :]
            if data.draw(st.booleans()):
                changed = datagram[:place]
            elif data.draw(st.booleans()):
                changed = datagram + data.draw(st.binary(min_size=1, max_size=8))
            self.b.open.datagram_received(changed, source, self.net.now)
            self.b.run()
        self.net.run(0.5)
        self.assertEqual(delivered, len(self.b.received))
        self.assertIs(session, self.b.open._sessions.current)
        self.assertFlows()

    @given(st.sampled_from(sorted(Kind)), st.integers(0, 255), st.binary(max_size=200))
    @settings(max_examples=150, deadline=None)
    def test_random_bodies(self, kind: Kind, flags: int, body: bytes) -> None:
        """R11: any kind with any flags and any body is dropped."""
        if not self.captured:
            self.establish()
        index = next(iter(self.b.open.identifiers))
        datagram = Header(kind, flags, index, 1 << 50).pack() + body
        for source in (self.a.address, RS, VICTIM):
            self.b.open.datagram_received(datagram, source, self.net.now)
        self.b.run()

    def test_a_flood_of_handshakes(self) -> None:
        """R8: forged handshakes are few enough in a second to cost little, and spend nothing."""
        self.b.begin()
        self.net.direct(self.a, self.b)
        self.net.tap = lambda node, *_: node is not self.a
        self.net.run(0.1)
        index = next(iter(self.b.open.identifiers))
        forged = Header(Kind.TUNNEL_REQUEST, 0, index, 0).pack() + b"\x09" * 92
        for _ in range(1000):
            self.net.arrive(forged, VICTIM, self.b.address)
        self.net.tap = None
        self.assertEqual(0, self.to(VICTIM))
        self.net.run(4.0)
        self.assertTrue(self.b.open.established)


class HijackTests(AttackCase):
    """Moving the traffic to somebody else."""

    def steal(self, datagrams: int) -> None:
        """Hold back what the first side sends, and forward it as if the victim had sent it."""
        self.net.run(0.1)
        stolen: list[bytes] = []

        def tap(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if node is self.a and remote == self.b.address and len(stolen) < datagrams:
                stolen.append(datagram)
                self.net.arrive(datagram, VICTIM, self.b.address)
                return False
            return True

        self.net.tap = tap
        self.net.sent.clear()
        for _ in range(datagrams):
            self.a.send(b"newest")
            self.b.send(b"answer")
            self.net.run(0.01)
        self.net.run(3.0)
        self.stolen = sum(map(len, stolen))

    def test_the_newest_datagram_from_another_source(self) -> None:
        """R21: an address that cannot echo never becomes the path, whatever came from it."""
        self.establish()
        self.steal(1)
        self.assertEqual(self.a.address, self.b.open.active and self.b.open.active.remote)
        self.assertFlows()

    def test_amplification(self) -> None:
        """R21: to an address that has not proven itself go at most three times its bytes."""
        self.establish()
        for datagrams in (1, 3, 50):
            self.steal(datagrams)
            self.assertLessEqual(self.to(VICTIM), AMPLIFICATION * self.stolen)

    def test_probes_nominate_nothing(self) -> None:
        """R21: a probe from another source is answered there at most at its own size, no more."""
        self.establish()
        self.net.run(21.0)
        probes = [(d, s) for d, s, r in self.captured[-40:] if r == self.b.address and len(d) == 84]
        self.assertTrue(probes)
        stolen: list[bytes] = []

        def tap(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if node is self.a and remote == self.b.address and len(datagram) == 84 and not stolen:
                stolen.append(datagram)
                self.net.arrive(datagram, VICTIM, self.b.address)
                return False
            return True

        self.net.tap = tap
        self.net.sent.clear()
        self.net.run(30.0)
        self.assertEqual(1, len(stolen))
        self.assertLessEqual(self.to(VICTIM), 84)
        self.assertEqual(self.a.address, self.b.open.active and self.b.open.active.remote)

    def test_many_sources(self) -> None:
        """R21: addresses that did not prove themselves are few, and are forgotten."""
        self.establish()
        self.net.run(0.1)
        number = [0]

        def tap(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if node is self.a and remote == self.b.address:
                number[0] += 1
                self.net.arrive(datagram, (f"203.0.113.{number[0] % 250}", 9), self.b.address)
                return False
            return True

        self.net.tap = tap
        for _ in range(200):
            self.a.send(b"x")
        limited = [path for path in self.b.open.paths if path.limited]
        self.assertLessEqual(len(limited), NOMINATIONS)
        self.net.tap = None
        self.net.run(5.0)
        self.assertEqual([], [path for path in self.b.open.paths if path.limited])

    def test_responder_is_no_amplifier_at_the_start(self) -> None:
        """R21: message 1 and first data from a spoofed source move nothing there for good."""
        moved: list[bytes] = []

        def tap(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if node is self.a and remote == self.b.address:
                moved.append(datagram)
                self.net.arrive(datagram, VICTIM, self.b.address)
                return datagram[0] == Kind.TUNNEL_REQUEST
            return True

        self.net.tap = tap
        self.net.relayed = False
        self.a.send(b"first")
        for _ in range(100):
            self.b.send(bytes(1000))
            self.net.run(0.02)
        self.assertLessEqual(self.to(VICTIM), AMPLIFICATION * sum(map(len, moved)))


class CandidateTests(AttackCase):
    """R17: candidates are no attack list."""

    def sent_to(self, remote: Address) -> int:
        return sum(to == remote for _, _, _, to in self.net.sent)

    def test_five_probes(self) -> None:
        """R17: a candidate that never answers gets five datagrams, handshake included."""
        self.net.blocked |= {("192.0.2.1", "198.51.100.2"), ("198.51.100.2", "192.0.2.1")}
        self.a.send(b"first")
        self.net.run(60.0)
        for node in (self.a, self.b):
            self.assertLessEqual(self.sent_to(node.address), PROBES)
        self.assertLessEqual(self.net.count(Kind.TUNNEL_REQUEST, self.a, self.b.address), PROBES)

    def test_forbidden_candidates(self) -> None:
        """R17: loopback, multicast, own gateway and own addresses are never probed."""
        refused = [
            "127.0.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "169.254.1.1",
            "10.0.0.254",
        ]
        self.a.begin().network_changed([self.a.address], self.net.now, refused=["10.0.0.254"])
        endpoints = tuple(Endpoint.of((host, 9)) for host in refused[:3])
        more = tuple(Endpoint.of((host, 9)) for host in refused[3:])
        for candidates in (endpoints, more, (Endpoint.of(self.a.address),)):
            self.offer_by_direction(candidates)
        self.assertEqual(0, sum(self.sent_to((host, 9)) for host in refused))
        own = [
            to for _, name, _, to in self.net.sent if (name, to) == (self.a.name, self.a.address)
        ]
        self.assertEqual([], own)

    def offer_by_direction(self, candidates: tuple[Endpoint, ...]) -> None:
        self.net.direct(self.a, self.b)
        self.net.run(0.015)
        direction = replace(
            next(d for node, d in reversed(self.net.directions) if node is self.a),
            direction=self.net.random.randbytes(8),
            candidates=candidates,
            initiator=True,
        )
        self.a.open.direct(direction, self.b.certificate, self.net.now, 1000.0)
        self.a.run()
        self.net.run(2.0)

    def test_offers(self) -> None:
        """R17: in an offer nobody observed the public addresses: only those heard from count."""
        self.establish()
        association = self.b.open._association
        active = association.paths.active
        assert active is not None
        hosts = ["203.0.113.99", "198.51.100.2", "10.1.2.3", "127.0.0.1"]
        offer = PathOffer(5, tuple(Endpoint.of((host, 7777)) for host in hosts))
        self.net.sent.clear()
        association.tell(active, offer, self.net.now)
        self.b.run()
        self.net.run(30.0)
        probed = {host for host in hosts if self.sent_to((host, 7777))}
        self.assertEqual({"198.51.100.2", "10.1.2.3"}, probed)
        self.assertLessEqual(self.sent_to(("10.1.2.3", 7777)), PROBES)

    def test_old_offers(self) -> None:
        """R9: of offers, the newest wins; an older one that comes late is nothing."""
        self.establish()
        association = self.b.open._association
        active = association.paths.active
        assert active is not None
        for generation, host in ((5, "10.1.2.3"), (4, "10.1.2.4"), (5, "10.1.2.5")):
            offer = PathOffer(generation, (Endpoint.of((host, 7777)),))
            association.tell(active, offer, self.net.now)
        self.b.run()
        self.net.run(3.0)
        self.assertEqual(
            (0, 0), (self.sent_to(("10.1.2.4", 7777)), self.sent_to(("10.1.2.5", 7777)))
        )


class MaliciousRelayTests(AttackCase):
    """An RS sees and drops, and no more."""

    def test_it_can_only_drop(self) -> None:
        """Design 4: an RS that changes, repeats, reorders or redirects gets nothing through."""
        self.net.blocked |= {("192.0.2.1", "198.51.100.2"), ("198.51.100.2", "192.0.2.1")}
        self.establish()
        random = Random(3)

        def tap(node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
            if source == RS and datagram[0] == Kind.TUNNEL_DATA:
                place = random.randrange(len(datagram))
                changed = datagram[:place] + bytes((datagram[place] ^ 1,)) + datagram[place + 1 :]
                self.net.arrive(changed, source, remote)
                self.net.arrive(datagram, source, remote)
                self.net.arrive(datagram, source, remote)
                return False
            return True

        self.net.tap = tap
        for number in range(50):
            self.a.send(b"packet %d" % number)
        self.net.run(0.2)
        payloads = self.b.payloads()
        self.assertEqual(len(payloads), len(set(payloads)))
        self.assertEqual({b"packet %d" % n for n in range(50)}, set(payloads) - {b"first"})

    def test_it_cannot_impersonate(self) -> None:
        """R25: an RS that has both relay keys, and the identifiers, still is no correspondent."""
        self.establish()
        index = next(iter(self.b.open.identifiers))
        forged = Header(Kind.TUNNEL_DATA, 0, index, 1000).pack() + bytes(100)
        before = len(self.b.received)
        self.net.arrive(forged, RS, self.b.address)
        self.assertEqual(before, len(self.b.received))
        self.assertEqual(PathState.VALID, self.b.open.active and self.b.open.active.state)
