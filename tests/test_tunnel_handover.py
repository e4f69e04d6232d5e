"""Handover: moves of one side, of both, losses, and what an application sees of them (design 5)."""

from __future__ import annotations

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.events import PathChanged
from ntmobile.machines.tunnel.paths import PathState
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.realtime import Purpose
from tests.test_tunnel import TunnelCase, behind
from tests.tunnels import RS, Nat, Node

#: Seconds between the packets of the flow, both ways.
PACE = 0.010
#: A round trip between the two, and one through the RS.
DIRECT, RELAYED = 0.020, 0.040


class HandoverCase(TunnelCase):
    """A flow both ways, and the longest gap in it."""

    def setUp(self) -> None:
        super().setUp()
        self.establish()
        self.flowing = True
        self._tick()

    def _tick(self) -> None:
        if self.flowing:
            self.a.send(b"a")
            self.b.send(b"b")
            self.net.at(self.net.now + PACE, self._tick)

    def gap(self, node: Node, since: float) -> float:
        """The longest gap a node's application saw, from then until now."""
        times = [time for time, _ in node.received if time >= since - 2 * PACE]
        return max(
            later - earlier
            for earlier, later in zip(times, [*times[1:], self.net.now], strict=True)
        )

    def after(self, seconds: float = 3.0) -> tuple[float, float]:
        """Let it settle; the longest gaps at both ends, without the flow's own pace."""
        start = self.net.now
        self.net.run(seconds)
        return self.gap(self.a, start) - PACE, self.gap(self.b, start) - PACE

    def assertKinds(self, kind: str) -> None:
        """Both ends use such a path, and it works."""
        for node in (self.a, self.b):
            active = node.open.active
            assert active is not None
            self.assertEqual((kind, PathState.VALID), (active.kind, active.state))


ELSEWHERE: Address = ("192.0.2.77", 5000)


class DirectHandoverTests(HandoverCase):
    """Both global, direct."""

    def test_one_moves(self) -> None:
        """One round trip without packets at the side that moved, none at the other; keys go on."""
        for mover in (self.a, self.b):
            sessions = [node.open._sessions.current for node in (self.a, self.b)]
            mover.move((mover.address[0][:-1] + "7", 5000))
            gaps = dict(zip((self.a, self.b), self.after(), strict=True))
            self.assertLessEqual(gaps[mover], DIRECT + 0.001)
            self.assertLessEqual(gaps[mover.other], 0.001)
            self.assertKinds("direct")
            self.assertEqual(sessions, [node.open._sessions.current for node in (self.a, self.b)])
            self.assertEqual(
                mover.address, mover.other.open.active and mover.other.open.active.remote
            )

    def test_all_at_once(self) -> None:
        """Section 5: in the instant of the move: probes, legs bound again, a direction wanted."""
        self.net.run(0.1)
        self.net.sent.clear()
        start = self.net.now
        self.a.move(ELSEWHERE)
        kinds = {(datagram[0], remote) for _, name, datagram, remote in self.net.sent}
        self.assertIn((Kind.TUNNEL_DATA, self.b.address), kinds)
        self.assertIn((Kind.RELAY_REQUEST, RS), kinds)
        self.assertEqual(
            (start, Purpose.REPAIR), (self.a.wanted[-1][0], self.a.wanted[-1][1].purpose)
        )

    def test_into_a_nat(self) -> None:
        """From a global address behind a NAT: still direct, still one round trip."""
        for mover, outer in ((self.a, "192.0.2.99"), (self.b, "198.51.100.99")):
            if mover is self.b:
                self.a.move(("192.0.2.1", 5000))
                self.net.run(3.0)
            mover.move(("10.7.0.1", 5000), Nat(outer))
            self.assertLessEqual(max(self.after()), DIRECT + 0.001)
            self.assertKinds("direct")

    def test_both_move(self) -> None:
        """Both at once: the relay and new directions repair it within three round trips."""
        self.a.move(("192.0.2.50", 5000))
        self.b.move(("198.51.100.50", 5000))
        self.assertLessEqual(max(self.after()), RELAYED + DIRECT)
        self.assertKinds("direct")

    def test_both_move_into_nats(self) -> None:
        """Both at once behind NATs: the relay carries, after two of its round trips."""
        self.a.move(("10.1.0.1", 5000), Nat("192.0.2.99"))
        self.b.move(("10.2.0.1", 5000), Nat("198.51.100.99"))
        self.assertLessEqual(max(self.after()), 2 * RELAYED)
        self.assertKinds("relay")

    def test_nobody_noticed(self) -> None:
        """A move that nobody told of is found by silence, and the correspondent follows it."""
        self.b.move(("198.51.100.50", 5000), tell=False)
        self.assertLessEqual(max(self.after()), DIRECT + 0.001)
        self.assertKinds("direct")

    def test_the_direct_path_breaks(self) -> None:
        """Where a path silently breaks, the relay carries after a second, and direct comes back."""
        hosts = [("192.0.2.1", "198.51.100.2"), ("198.51.100.2", "192.0.2.1")]
        self.net.blocked |= set(hosts)
        self.assertLessEqual(max(self.after()), 1.0 + 0.3)
        self.assertKinds("relay")
        self.net.blocked.clear()
        self.net.run(40.0)
        self.assertKinds("direct")

    def test_one_way_breaks(self) -> None:
        """A path that breaks one way only is left by both ends."""
        for pair in (("192.0.2.1", "198.51.100.2"), ("198.51.100.2", "192.0.2.1")):
            self.net.blocked = {pair}
            self.net.run(3.0)
            self.assertKinds("relay")
            self.assertFlows()
            self.net.blocked.clear()
            self.net.run(70.0)
            self.assertKinds("direct")

    def test_no_flapping(self) -> None:
        """Nothing changes where nothing changes, however the delays scatter."""
        self.net.jitter = 0.005
        before = [len(node.events) for node in (self.a, self.b)]
        self.net.run(60.0)
        for node, events in zip((self.a, self.b), before, strict=True):
            changes = [e for _, e in node.events[events:] if isinstance(e, PathChanged)]
            self.assertEqual([], changes)

    def test_suspend_and_resume(self) -> None:
        """A device that slept for a minute goes on with the same keys as soon as it wakes."""
        session = self.a.open._sessions.current
        self.flowing = False
        self.b.up = False
        self.net.run(60.0)
        self.b.up = True
        self.b.open.handle_timer(self.net.now)
        self.b.run()
        self.net.run(0.5)
        self.assertFlows()
        self.assertIs(session, self.a.open._sessions.current)

    def test_network_lost_and_found(self) -> None:
        """No address at all: nothing is sent anywhere new; with one again it goes on at once."""
        self.a.open.network_changed([], self.net.now)
        self.a.run()
        self.a.up = False
        self.net.run(5.0)
        self.a.up = True
        self.a.move(ELSEWHERE)
        self.net.run(0.3)
        self.assertFlows()

    def test_handovers_are_counted(self) -> None:
        """Each move is one handover at the side that moved, and one at the other that follows."""
        for number in range(3):
            self.a.move((f"192.0.2.{number + 10}", 5000))
            self.net.run(2.0)
        self.assertEqual((3, 3), (self.a.open.handovers, self.b.open.handovers))

    def test_the_dc_is_gone(self) -> None:
        """Live tunnels outlive their DC's outage: a move is repaired without any direction."""
        self.a.asks = self.b.asks = False
        self.a.move(ELSEWHERE)
        self.assertLessEqual(max(self.after()), DIRECT + 0.001)
        self.net.run(60.0)
        self.assertFlows()


class RelayedHandoverTests(HandoverCase):
    """Both behind NATs, relayed."""

    places = (behind("10.0.0.1", "192.0.2.1"), behind("10.0.0.2", "198.51.100.2"))

    def test_one_moves(self) -> None:
        """R25: from NAT to NAT, a round trip to the RS and the way through it."""
        self.a.move(("10.7.0.1", 5000), Nat("192.0.2.99"))
        gaps = self.after()
        self.assertLessEqual(gaps[0], RELAYED + 0.001)
        self.assertLessEqual(gaps[1], DIRECT + 0.001)
        self.assertKinds("relay")

    def test_both_move(self) -> None:
        """Both at once: as long as for one."""
        self.a.move(("10.7.0.1", 5000), Nat("192.0.2.99"))
        self.b.move(("10.8.0.1", 5000), Nat("198.51.100.99"))
        self.assertLessEqual(max(self.after()), RELAYED + 0.001)

    def test_nat_rebinding(self) -> None:
        """A NAT that forgets its binding is noticed by the RS's hint, and the leg bound again."""
        assert self.b.nat is not None
        self.b.nat.rebind()
        self.assertLessEqual(max(self.after()), 2 * RELAYED)

    def test_out_of_the_nat(self) -> None:
        """From behind a NAT to a global address: the relay goes on, direct takes over."""
        self.a.move(ELSEWHERE)
        self.assertLessEqual(max(self.after()), 2 * RELAYED)
        self.assertKinds("direct")

    def test_relay_restart(self) -> None:
        """R26: an RS that restarted and was directed again is used again."""
        self.net.restart_relay()
        self.assertLessEqual(max(self.after()), 2 * RELAYED)

    def test_relay_lost(self) -> None:
        """R26: a relay that is gone is named when a direction is wanted, to be avoided."""
        self.net.relay_up = False
        self.net.run(5.0)
        for node in (self.a, self.b):
            avoiding = [effect for _, effect in node.wanted if effect.avoid]
            self.assertEqual(("rs.dc1.ntm.example",), avoiding[0].avoid)
            self.assertEqual(Purpose.REPAIR, avoiding[0].purpose)
        self.net.relay_up = True
        self.net.run(3.0)
        self.assertFlows()

    def test_a_direction_comes_and_the_relay_is_another(self) -> None:
        """R15: a direction for a living session adds paths, never keys."""
        session = self.a.open._sessions.current
        self.net.direct(self.b, self.a)
        self.net.run(1.0)
        self.assertEqual(2, len(self.a.open.identifiers))
        relays = [path for path in self.a.open.paths if path.relay]
        self.assertEqual([PathState.VALID] * 2, [path.state for path in relays])
        self.assertIs(session, self.a.open._sessions.current)
        self.assertEqual(1, len(self.established(self.a)))


class FamilyTests(HandoverCase):
    """From one family to the other."""

    def test_to_ipv6(self) -> None:
        """A move to a network of the other family goes on through a dual-stack relay."""
        self.a.move(("2001:db8:1::1", 5000))
        self.net.run(1.0)
        self.assertKinds("relay")
        self.assertFlows()
        self.a.move(("192.0.2.1", 5000))
        self.net.run(3.0)
        self.assertFlows()
        self.assertKinds("direct")
