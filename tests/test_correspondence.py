from __future__ import annotations

from collections.abc import Iterator
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import ntmobile.machines.tunnel.correspondence as module
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.tunnel.correspondence import AskDirection, Correspondence, Effect, Of
from ntmobile.machines.tunnel.events import Deliver, DeliverRun, Ended, Established, RoundTrip
from ntmobile.machines.tunnel.identity import LocalIdentity
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE, Header, Kind
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Purpose, RouteDirection
from tests.tunnels import certified, packet

NAMES = [f"d{n}.user.dc1.ntm.example" for n in range(4)]
ADDRESSES: list[Address] = [(f"203.0.113.{n + 1}", 4000) for n in range(4)]
STRANGER = ("198.51.100.66", 6)


class World:
    """Some correspondences on one wire without loss."""

    def __init__(self) -> None:
        random = Random(2)
        self.now = 0.0
        self.certificates = [certified(name, n + 1) for n, name in enumerate(NAMES)]
        self.ends = [
            Correspondence(
                LocalIdentity.of(certificate, key), random.randbytes, addresses=(ADDRESSES[n],)
            )
            for n, (certificate, key) in enumerate(self.certificates)
        ]
        self.events: list[list[Effect]] = [[] for _ in self.ends]
        self.sent: list[tuple[int, Transmit]] = []

    def direction(self, mn: int, cn: int, identifier: bytes, to: int) -> RouteDirection:
        """The Route Direction that one end of a pair gets."""
        other = cn if to == mn else mn
        return RouteDirection(
            direction=identifier,
            generation=1,
            peer=NAMES[other],
            certificate=self.certificates[other][0].der,
            requester=NAMES[mn],
            initiator=to == mn,
            candidates=(Endpoint.of(ADDRESSES[other]),),
            temporal_key=bytes(32),
            lifetime=60,
        )

    def direct(self, mn: int, cn: int, identifier: bytes) -> None:
        """Direct both ends of a pair, and let them shake hands."""
        for to in (cn, mn):
            message = self.direction(mn, cn, identifier, to)
            other = cn if to == mn else mn
            self.ends[to].directed(message, self.certificates[other][0], self.now, 0.0)
        self.run()

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass and carry datagrams."""
        end = self.now + seconds
        while True:
            while self._carry():
                pass
            dues = [due for one in self.ends if (due := one.next_timer()) is not None]
            if not dues or min(dues) > end:
                self.now = end
                return
            self.now = max(self.now, min(dues))
            for one in self.ends:
                one.handle_timer(self.now)

    def _carry(self) -> bool:
        carried = False
        for number, one in enumerate(self.ends):
            for effect in one.effects():
                carried = True
                if not isinstance(effect, Transmit):
                    self.events[number].append(effect)
                    continue
                self.sent.append((number, effect))
                if effect.remote in ADDRESSES:
                    target = self.ends[ADDRESSES.index(effect.remote)]
                    target.datagram_received(effect.datagram, ADDRESSES[number], self.now)
        return carried

    def of(self, number: int, kind: type) -> Iterator[tuple[str, object]]:
        """Tunnel effects of a kind at one end, with the peer."""
        for event in self.events[number]:
            if isinstance(event, Of) and isinstance(event.effect, kind):
                yield event.peer, event.effect

    def packet(self, source: int, destination: int, payload: bytes = b"data") -> bytes:
        """An inner packet."""
        return packet(self.certificates[source][0], self.certificates[destination][0], payload)


class CorrespondenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nobody knows anybody."""
        self.world = World()

    def test_tunnel(self) -> None:
        """Two ends that are directed have a tunnel, and packets pass both ways."""
        self.world.direct(0, 1, b"direct01")
        self.assertEqual([peer for peer, _ in self.world.of(0, Established)], [NAMES[1]])
        forth, back = self.world.packet(0, 1), self.world.packet(1, 0)
        self.assertTrue(self.world.ends[0].send(NAMES[1], forth, self.world.now))
        self.assertTrue(self.world.ends[1].send(NAMES[0], back, self.world.now))
        self.world.run()
        self.assertEqual(list(self.world.of(1, Deliver)), [(NAMES[0], Deliver(forth))])
        self.assertEqual(list(self.world.of(0, Deliver)), [(NAMES[1], Deliver(back))])

    def test_mixed_run(self) -> None:
        """A relay, or the system, joins datagrams of several tunnels: each tunnel gets its own."""
        world = self.world
        for cn in (1, 2):
            world.direct(0, cn, b"direct0%d" % cn)
        world.events[0].clear()
        datagrams = []
        for step in range(6):
            source = 1 + step // 2 % 2
            packet = world.packet(source, 0, b"payload %d" % step)
            world.ends[source].send(NAMES[0], packet, world.now)
            sent = [one for one in world.ends[source].effects() if isinstance(one, Transmit)]
            datagrams += [one.datagram for one in sent]
        run, size = memoryview(b"".join(datagrams)), len(datagrams[0])
        begin = 0
        while begin < len(run):
            begin += world.ends[0].run_received(run[begin:], size, ADDRESSES[1], world.now)
        world.run(0.0)
        delivered = [(peer, getattr(one, "packet", b"")) for peer, one in world.of(0, Deliver)]
        for peer, run_of in world.of(0, DeliverRun):
            delivered += [(peer, bytes(one)) for one in getattr(run_of, "packets", ())]
        expected = {
            (NAMES[1 + step // 2 % 2], world.packet(1 + step // 2 % 2, 0, b"payload %d" % step))
            for step in range(6)
        }
        self.assertEqual(set(delivered), expected)

    def test_overtaken_direction(self) -> None:
        """A Tunnel Request that comes before its direction is answered as soon as that comes."""
        world, identifier = self.world, b"direct01"
        for to, other in ((0, 1), (1, 0)):
            message = world.direction(0, 1, identifier, to)
            certificate = world.certificates[other][0]
            world.ends[to].directed(message, certificate, world.now, 0.0)
            world.run(0.04)
        self.assertEqual([peer for peer, _ in world.of(0, Established)], [NAMES[1]])

    def test_several(self) -> None:
        """Each correspondent's packets come under its own name."""
        for cn in (1, 2, 3):
            self.world.direct(0, cn, b"direct0%d" % cn)
        for source in (1, 2, 3):
            self.world.ends[source].send(NAMES[0], self.world.packet(source, 0), self.world.now)
        self.world.run()
        self.assertEqual(
            {(peer, effect) for peer, effect in self.world.of(0, Deliver)},
            {(NAMES[n], Deliver(self.world.packet(n, 0))) for n in (1, 2, 3)},
        )
        self.assertEqual(len(self.world.ends[0]), 3)

    def test_order_of_use(self) -> None:
        """R17: tunnels are told last used first, and repaired in that order."""
        for cn in (1, 2, 3):
            self.world.direct(0, cn, b"direct0%d" % cn)
        for cn in (3, 1, 2):
            self.world.now += 1.0
            self.world.ends[0].send(NAMES[cn], self.world.packet(0, cn), self.world.now)
        end = self.world.ends[0]
        self.assertEqual([one.peer for one in end.tunnels], [NAMES[2], NAMES[1], NAMES[3]])
        end.effects()
        end.network_changed([("203.0.113.77", 4000)], self.world.now)
        asked = [one.peer for one in end.effects() if isinstance(one, AskDirection)]
        self.assertEqual(asked, [NAMES[2], NAMES[1], NAMES[3]])

    def test_no_tunnel(self) -> None:
        """Without a tunnel a packet is refused; a tunnel that is opened asks, and keeps it."""
        end = self.world.ends[0]
        self.assertFalse(end.send(NAMES[1], self.world.packet(0, 1), 0.0))
        self.assertFalse(end.ping(NAMES[1], 1, 0.0))
        end.open(NAMES[1], self.world.packet(0, 1), 0.0)
        self.assertIn(AskDirection(NAMES[1], Purpose.NEW, ()), end.effects())
        self.world.direct(0, 1, b"direct01")
        self.assertEqual(len(list(self.world.of(1, Deliver))), 1)

    def test_ping(self) -> None:
        """A ping comes back with its number."""
        self.world.direct(0, 1, b"direct01")
        self.assertTrue(self.world.ends[0].ping(NAMES[1], 7, self.world.now))
        self.world.run()
        ((peer, effect),) = self.world.of(0, RoundTrip)
        assert isinstance(effect, RoundTrip)
        self.assertEqual((peer, effect.sequence), (NAMES[1], 7))

    def test_end(self) -> None:
        """A tunnel that ends is forgotten at both ends, with its timer and its index."""
        self.world.direct(0, 1, b"direct01")
        self.world.ends[0].end(NAMES[1], "enough", self.world.now)
        self.world.run()
        for number, peer in ((0, NAMES[1]), (1, NAMES[0])):
            self.assertEqual([name for name, _ in self.world.of(number, Ended)], [peer])
            self.assertIsNone(self.world.ends[number].find(peer))
            self.assertEqual(len(self.world.ends[number]), 0)
        self.world.run(1000.0)
        self.assertIsNone(self.world.ends[0].next_timer())
        self.world.ends[0].end(NAMES[1], "again", self.world.now)

    def test_idle(self) -> None:
        """Idle tunnels end by themselves."""
        self.world.direct(0, 1, b"direct01")
        self.world.run(1000.0)
        self.assertEqual([len(one) for one in self.world.ends], [0, 0, 0, 0])

    def test_capacity(self) -> None:
        """A client's tunnels are bounded: the one used least recently ends for a new one."""
        self.patch(module, "CAPACITY", 2)
        for cn in (1, 2):
            self.world.direct(0, cn, b"direct0%d" % cn)
        self.world.now += 1.0
        self.world.ends[0].send(NAMES[1], self.world.packet(0, 1), self.world.now)
        self.world.direct(0, 3, b"direct03")
        self.assertIsNone(self.world.ends[0].find(NAMES[2]))
        self.assertIsNotNone(self.world.ends[0].find(NAMES[1]))
        self.assertIsNotNone(self.world.ends[0].find(NAMES[3]))

    def test_identifier_of_another(self) -> None:
        """R15: a direction with the identifier of another correspondent's takes nothing from it."""
        self.world.direct(0, 1, b"direct01")
        thief = self.world.direction(2, 0, b"direct01", 0)
        self.world.ends[0].directed(thief, self.world.certificates[2][0], self.world.now, 0.0)
        self.assertIsNone(self.world.ends[0].find(NAMES[2]))
        self.world.ends[1].send(NAMES[0], self.world.packet(1, 0), self.world.now)
        self.world.run()
        self.assertEqual([peer for peer, _ in self.world.of(0, Deliver)], [NAMES[1]])

    def test_renewed(self) -> None:
        """A fresh certificate of our own is what later tunnels show."""
        certificate, key = certified(NAMES[0], 9)
        self.world.ends[0].renew(LocalIdentity.of(certificate, key))
        self.world.certificates[0] = (certificate, key)
        self.world.direct(0, 1, b"direct01")
        self.assertEqual(len(list(self.world.of(0, Established))), 1)


class StrayTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A client without tunnels."""
        self.end = World().ends[0]

    def give(self, datagram: bytes, remote: Address = STRANGER, now: float = 0.0) -> list[Effect]:
        """Give it a datagram."""
        self.end.datagram_received(datagram, remote, now)
        return self.end.effects()

    def test_hint(self) -> None:
        """R8, R15: data of no tunnel gets a bare hint, smaller than itself."""
        datagram = Header(Kind.TUNNEL_DATA, 0, b"unknown!", 5).pack() + bytes(TAG_SIZE)
        (effect,) = self.give(datagram)
        assert isinstance(effect, Transmit)
        self.assertEqual(effect.remote, STRANGER)
        self.assertEqual(len(effect.datagram), HEADER_SIZE)
        self.assertLess(len(effect.datagram), len(datagram))
        self.assertEqual(Header.parse(effect.datagram).index, b"unknown!")

    def test_rationed(self) -> None:
        """R8: hints to one address are few, however much comes under it."""
        datagram = Header(Kind.TUNNEL_DATA, 0, b"unknown!", 5).pack() + bytes(1000)
        count = sum(len(self.give(datagram, now=step / 100)) for step in range(1000))
        self.assertLessEqual(count, 12)

    def test_nothing_else(self) -> None:
        """R8: nothing else of no tunnel is answered, least of all a hint."""
        for kind in set(Kind) - {Kind.TUNNEL_DATA}:
            self.assertEqual(self.give(Header(kind, 0, b"unknown!", 5).pack() + bytes(200)), [])
        self.assertEqual(self.give(Header(Kind.TUNNEL_DATA, 0, b"unknown!", 5).pack()), [])

    @given(st.binary(max_size=100))
    @settings(deadline=None)
    def test_garbage(self, datagram: bytes) -> None:
        """R11: whatever comes raises nothing and is answered with less than itself."""
        for effect in self.give(datagram):
            assert isinstance(effect, Transmit)
            self.assertLess(len(effect.datagram), len(datagram))
