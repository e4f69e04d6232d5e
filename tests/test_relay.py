"""The relay server's machine (design, section 5; rules R8, R25 to R27)."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Transmit
from ntmobile.machines.relay import binding as relay_binding
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.server import UNBOUND
from ntmobile.wire.headers import HEADER_SIZE, Header, Kind
from ntmobile.wire.messages.coordination import RelayDirection, RelayEnd
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.messages.relaying import LegState, RelayTooBig, RelayTunnelRequest
from ntmobile.wire.relaying import REQUEST_SIZE, open_relayed, relay_mac, seal_relayed
from tests.relay_clients import (
    BOOT,
    CAFE,
    HOME,
    INDEX,
    KEYS,
    SIX,
    STRANGER,
    Leg,
    data,
    direction,
    joined,
    relay,
)


class ForwardingTests(SynchronousTestCase):
    """What passes between two bound legs."""

    def test_both_ways(self) -> None:
        """R25: a datagram from one leg goes to the other, unchanged, whatever is in it."""
        server = relay()
        joined(server)
        for kind in (Kind.TUNNEL_REQUEST, Kind.TUNNEL_RESPONSE, Kind.TUNNEL_DATA):
            there, back = data(1, kind=kind), data(2, kind=kind)
            self.assertEqual([Transmit(there, CAFE)], server.datagram_received(there, HOME, 1.0))
            self.assertEqual([Transmit(back, HOME)], server.datagram_received(back, CAFE, 1.0))

    def test_unknown_session_hint_passes(self) -> None:
        """R15: peers that have only the relay hear of each other's restart through it."""
        server = relay()
        joined(server)
        hint = Header(Kind.TUNNEL_UNKNOWN, 0, INDEX, 5).pack()
        self.assertEqual([Transmit(hint, HOME)], server.datagram_received(hint, CAFE, 1.0))

    def test_ipv4_meets_ipv6(self) -> None:
        """A leg may be IPv4 and its other IPv6."""
        server = relay()
        joined(server, far=SIX)
        self.assertEqual([Transmit(data(), SIX)], server.datagram_received(data(), HOME, 1.0))
        self.assertEqual([Transmit(data(), HOME)], server.datagram_received(data(), SIX, 1.0))

    def test_a_run(self) -> None:
        """A run of datagrams of one tunnel is one question, and counted as many."""
        server = relay()
        joined(server)
        self.assertEqual(CAFE, server.forward(INDEX, HOME, 40, 48_000, 1.0))
        (report,) = server.reports(2.0)
        self.assertEqual((40, 48_000), (report.counts[0].datagrams, report.counts[0].octets))

    def test_nothing_before_both_are_proven(self) -> None:
        """R25: with one leg bound, nothing passes either way."""
        server = relay()
        Leg(0, HOME).bind(server)
        self.assertEqual([], server.datagram_received(data(), HOME, 0.1))
        self.assertNotIn(
            HOME, [effect.remote for effect in server.datagram_received(data(), CAFE, 0.1)]
        )

    def test_off_path_source(self) -> None:
        """R25: who knows the index, but is no leg, has nothing forwarded."""
        server = relay()
        joined(server)
        effects = server.datagram_received(data(), STRANGER, 1.0)
        self.assertEqual([STRANGER], [effect.remote for effect in effects])
        near_miss = (HOME[0], HOME[1] + 1)
        effects = server.datagram_received(data(), near_miss, 1.0)
        self.assertNotIn(CAFE, [effect.remote for effect in effects])

    def test_other_tunnels_legs(self) -> None:
        """A leg of one tunnel is a stranger to all others."""
        server = relay()
        joined(server)
        server.direct(direction(b"tunnel-2"), 0.0)
        Leg(0, STRANGER, b"tunnel-2").bind(server)
        Leg(1, ("192.0.2.67", 1), b"tunnel-2").bind(server)
        effects = server.datagram_received(data(), STRANGER, 1.0)
        self.assertEqual([Kind.RELAY_UNKNOWN], [effect.datagram[0] for effect in effects])


class RateTests(SynchronousTestCase):
    """The rate limit of a tunnel."""

    def relayed(self, rate: int, offered: int, seconds: float) -> int:
        """Bytes that pass of a flood of ``offered`` bytes a second."""
        server = relay(RelayLimits(rate=rate))
        joined(server)
        size, step, now, passed = 1000, 0.01, 0.0, 0
        while now < seconds:
            for _ in range(int(offered * step / size)):
                passed += size * (server.forward(INDEX, HOME, 1, size, now) is not None)
            now += step
        return passed

    def test_flood_is_bounded(self) -> None:
        """A flood passes at the configured rate, after one burst."""
        passed = self.relayed(rate=1_000_000, offered=10_000_000, seconds=4.0)
        self.assertLess(passed, 4_000_000 + 250_000 + 20_000)
        self.assertGreater(passed, 4_000_000)

    def test_below_the_rate_all_passes(self) -> None:
        """Who keeps to the rate loses nothing."""
        self.assertEqual(2_000_000, self.relayed(1_000_000, 1_000_000, 2.0) // 10_000 * 10_000)

    def test_directed_rate_goes_before(self) -> None:
        """The rate in the Relay Direction replaces the configured one, also when it is repeated."""
        server = relay(RelayLimits(rate=1_000_000_000))
        joined(server)
        server.direct(direction(rate=1000), 0.0)
        passed = sum(server.forward(INDEX, HOME, 1, 1000, 1.0) is not None for _ in range(1000))
        self.assertEqual(131, passed)
        self.assertEqual(869, server.tally.limited)

    def test_limited_datagrams_get_no_answer(self) -> None:
        """What is over the rate is dropped without a word."""
        server = relay(RelayLimits(rate=1000))
        joined(server)
        for _ in range(200):
            server.datagram_received(data(size=1000), HOME, 1.0)
        self.assertEqual([], server.datagram_received(data(size=1000), HOME, 1.0))


class DirectionTests(SynchronousTestCase):
    """What the DC says."""

    def test_answer(self) -> None:
        """OK, with the boot identifier (R26)."""
        response = relay(directed=False).direct(direction(), 0.0)
        self.assertEqual(
            (INDEX, Outcome.OK, BOOT), (response.direction, response.outcome, response.boot)
        )

    def test_repeating_is_harmless(self) -> None:
        """R26: a Relay Direction that comes again leaves the legs as they are."""
        server = relay()
        joined(server)
        self.assertEqual(Outcome.OK, server.direct(direction(), 30.0).outcome)
        self.assertEqual(CAFE, server.forward(INDEX, HOME, 1, 100, 31.0))

    def test_other_keys_start_afresh(self) -> None:
        """The legs of the old keys are unbound."""
        server = relay()
        joined(server)
        server.direct(RelayDirection(INDEX, (b"2" * 32, b"3" * 32), 60), 1.0)
        self.assertIsNone(server.forward(INDEX, HOME, 1, 100, 1.0))

    def test_busy_at_capacity(self) -> None:
        """Beyond its capacity an RS says BUSY, and still takes repeated directions."""
        server = relay(RelayLimits(capacity=2))
        server.direct(direction(b"tunnel-2"), 0.0)
        self.assertEqual(Outcome.BUSY, server.direct(direction(b"tunnel-3"), 0.0).outcome)
        self.assertEqual(Outcome.OK, server.direct(direction(b"tunnel-2"), 0.0).outcome)
        self.assertEqual(2, len(server))

    def test_end(self) -> None:
        """R34: an ended tunnel forwards nothing more."""
        server = relay()
        joined(server)
        self.assertTrue(server.end(RelayEnd(INDEX)))
        self.assertFalse(server.end(RelayEnd(INDEX)))
        self.assertIsNone(server.forward(INDEX, HOME, 1, 100, 1.0))

    def test_never_bound_expires(self) -> None:
        """A direction whose ends never both come is over after its lifetime, and reported."""
        server = relay(directed=False)
        server.direct(direction(lifetime=60), 100.0)
        Leg(0, HOME).bind(server, 150.0)
        server.handle_timer(159.0)
        self.assertEqual(1, len(server))
        server.handle_timer(160.0)
        self.assertEqual(0, len(server))
        self.assertEqual((INDEX,), server.reports(161.0)[0].ended)

    def test_idle_expires(self) -> None:
        """A tunnel is over when a leg has been silent for the idle time."""
        server = relay(RelayLimits(idle=300.0))
        near, _ = joined(server)
        for now in (100.0, 200.0, 299.0):
            server.datagram_received(near.request(keepalive=True), HOME, now)
            server.handle_timer(now)
        self.assertEqual(1, len(server))
        server.handle_timer(300.0)
        self.assertEqual(0, len(server))

    def test_traffic_or_refreshing_keeps_it(self) -> None:
        """Datagrams from one leg and keep-alives from the other are enough."""
        server = relay(RelayLimits(idle=300.0))
        _, far = joined(server)
        for now in range(100, 2000, 100):
            server.datagram_received(data(now), HOME, float(now))
            server.datagram_received(far.request(keepalive=True), CAFE, float(now))
            server.handle_timer(float(now))
        self.assertEqual(1, len(server))

    def test_timer(self) -> None:
        """There is a next time exactly while there are tunnels."""
        server = relay(directed=False)
        self.assertIsNone(server.next_timer())
        server.direct(direction(), 50.0)
        self.assertEqual(51.0, server.next_timer())
        server.handle_timer(51.0)
        self.assertEqual(52.0, server.next_timer())
        server.end(RelayEnd(INDEX))
        self.assertIsNone(server.next_timer())


class ReportTests(SynchronousTestCase):
    """Relay Reports."""

    def test_counts_and_rate(self) -> None:
        """Datagrams, bytes of both ways, idle seconds and the load."""
        server = relay()
        joined(server)
        server.reports(0.0)
        for _ in range(10):
            server.datagram_received(data(size=500), HOME, 5.0)
            server.datagram_received(data(size=500), CAFE, 5.0)
        (report,) = server.reports(10.0)
        self.assertEqual((1, 1000), (report.tunnels, report.rate))
        (count,) = report.counts
        self.assertEqual(
            (INDEX, 20, 10_000, 5), (count.direction, count.datagrams, count.octets, count.idle)
        )
        self.assertEqual(0, server.reports(20.0)[0].rate)

    def test_ended_until_it_is_heard(self) -> None:
        """An ended tunnel is reported until the DC has the report, and then no more."""
        server = relay()
        server.handle_timer(100.0)
        self.assertEqual((INDEX,), server.reports(101.0)[0].ended)
        (report,) = server.reports(102.0)
        self.assertEqual((INDEX,), report.ended)
        server.reported(report)
        self.assertEqual((), server.reports(103.0)[0].ended)

    def test_many_tunnels(self) -> None:
        """More tunnels than fit one report make several, which all keep to the frame's limit."""
        server = relay(directed=False)
        for number in range(2500):
            server.direct(direction(number.to_bytes(8, "big")), 0.0)
        reports = server.reports(1.0)
        self.assertEqual(2500, len({c.direction for r in reports for c in r.counts}))
        self.assertEqual([1000, 1000, 500], [len(report.counts) for report in reports])

    def test_ended_are_bounded(self) -> None:
        """R8: while the DC is away no more than the capacity is remembered of what ended."""
        server = relay(RelayLimits(capacity=10), directed=False)
        for number in range(100):
            server.direct(direction(number.to_bytes(8, "big"), lifetime=1), float(number))
            server.handle_timer(number + 1.0)
        self.assertEqual(10, sum(len(report.ended) for report in server.reports(200.0)))


class HintTests(SynchronousTestCase):
    """Unauthenticated hints."""

    def test_unknown_tunnel(self) -> None:
        """Who speaks of a tunnel that is not here is told so, in 20 bytes that echo his header."""
        server = relay(directed=False)
        (effect,) = server.datagram_received(data(77), HOME, 0.0)
        self.assertEqual(HOME, effect.remote)
        self.assertEqual(Header(Kind.RELAY_UNKNOWN, 0, INDEX, 77).pack(), effect.datagram)

    def test_unknown_tunnel_of_a_request(self) -> None:
        """R26: a client hears at its next request that the RS has restarted without its tunnel."""
        server = relay(directed=False)
        (effect,) = server.datagram_received(Leg(0, HOME).request(), HOME, 0.0)
        self.assertEqual(Kind.RELAY_UNKNOWN, effect.datagram[0])

    def test_unbound_source(self) -> None:
        """A client whose NAT rebound hears at its next datagram that this address is no leg."""
        server = relay()
        joined(server)
        (effect,) = server.datagram_received(data(77), (HOME[0], 1234), 1.0)
        self.assertEqual(Header(Kind.RELAY_UNKNOWN, UNBOUND, INDEX, 77).pack(), effect.datagram)

    def test_reflection_is_bounded(self) -> None:
        """R8: however many spoofed datagrams come, hints are few, and none is the larger."""
        server = relay(RelayLimits(hints=100), directed=False)
        sent = 0
        for number in range(10_000):
            datagram = data(number, size=20)
            for effect in server.datagram_received(datagram, STRANGER, number / 10_000):
                self.assertLessEqual(len(effect.datagram), len(datagram))
                sent += 1
        self.assertLessEqual(sent, 201)

    def test_no_hint_answers_a_hint(self) -> None:
        """Two relay servers cannot be set against each other."""
        server = relay(directed=False)
        for kind in (Kind.RELAY_UNKNOWN, Kind.RELAY_RESPONSE, Kind.RELAY_TOO_BIG):
            datagram = Header(kind, 0, INDEX, 0).pack() + bytes(120)
            self.assertEqual([], server.datagram_received(datagram, STRANGER, 0.0))


class TooBigTests(SynchronousTestCase):
    """R27: an RS never fragments."""

    def test_signal(self) -> None:
        """The sender hears what did not fit and what would, MACed with its own key."""
        server = relay()
        near, _ = joined(server)
        datagram = data(99, size=1400)
        server.datagram_received(datagram, HOME, 1.0)
        self.assertTrue(server.unsent(datagram, HOME, 1.0, too_big=True))
        (effect,) = server.too_big(datagram, HOME, 1252)
        header, message = open_relayed(near.key, effect.datagram)
        self.assertEqual((HOME, 99), (effect.remote, header.counter))
        self.assertEqual(RelayTooBig(1400, 1252), message)
        self.assertLess(len(effect.datagram), len(datagram))
        self.assertEqual(0, server.reports(2.0)[0].counts[0].octets)

    def test_signals_are_few(self) -> None:
        """A sender that does not listen gets a few signals a second."""
        server = relay()
        joined(server)
        due = [server.unsent(data(size=1400), HOME, 1.0, too_big=True) for _ in range(100)]
        self.assertEqual(5, sum(due))

    def test_other_failures_are_counted(self) -> None:
        """What the system does not take for another reason is counted, and nobody is told."""
        server = relay()
        joined(server)
        self.assertFalse(server.unsent(data(), HOME, 1.0, too_big=False))
        self.assertEqual(1, server.tally.unsent)


class BadInputTests(SynchronousTestCase):
    """Whatever comes: nothing raises, and it costs bounded work (R8)."""

    def test_unknown_index_costs_no_cryptography(self) -> None:
        """R8: a stranger's request for no tunnel is dropped before any MAC is computed."""
        server = relay()
        request = Leg(0, HOME, b"elsewher").request()
        with patch.object(relay_binding, "authentic", side_effect=AssertionError("a MAC")):
            server.datagram_received(request, STRANGER, 0.0)
            server.datagram_received(request[:60], STRANGER, 0.0)
            server.datagram_received(Leg(0, HOME).request()[:100], STRANGER, 0.0)

    def test_flood_of_requests_is_bounded(self) -> None:
        """R8: of a flood of forged requests only a few are worth a MAC, none is answered."""
        server = relay()
        forged = Leg(0, STRANGER, key=b"x" * 32).request()
        for number in range(2000):
            self.assertEqual([], server.datagram_received(forged, STRANGER, number / 2000))
        self.assertLessEqual(server.tally.forged, 41)
        self.assertEqual(2000, server.tally.forged + server.tally.throttled)

    def test_flood_does_not_lock_a_leg_out(self) -> None:
        """While strangers flood requests, a bound leg still refreshes itself."""
        server = relay()
        near, _ = joined(server)
        forged = Leg(0, STRANGER, key=b"x" * 32).request()
        for _ in range(500):
            server.datagram_received(forged, STRANGER, 1.0)
        (effect,) = server.datagram_received(near.request(keepalive=True), HOME, 1.0)
        self.assertEqual(LegState.JOINED, near.open(effect).state)

    def test_requests_smaller_than_answers(self) -> None:
        """R8: a request that its answer would exceed gets none, though its MAC is good."""
        server = relay()
        leg = Leg(0, SIX)
        small = leg.request()
        body = Header(Kind.RELAY_REQUEST, 0, INDEX, 1).pack() + small[20:22]
        self.assertEqual(REQUEST_SIZE, len(small))
        self.assertEqual([], server.datagram_received(body, SIX, 0.0))
        (effect,) = server.datagram_received(leg.request(), SIX, 0.0)
        self.assertLessEqual(len(effect.datagram), REQUEST_SIZE)

    def test_source_port_zero(self) -> None:
        """A datagram from port 0, which nobody can answer, is dropped."""
        server = relay()
        self.assertEqual([], server.datagram_received(Leg(0, HOME).request(), (HOME[0], 0), 0.0))

    @given(st.binary(max_size=300), st.sampled_from([HOME, CAFE, SIX, STRANGER]))
    def test_random_datagrams(self, datagram: bytes, source: tuple[str, int]) -> None:
        """Random bytes never raise, and are never answered by more bytes."""
        server = relay()
        joined(server)
        for effect in server.datagram_received(datagram, source, 1.0):
            self.assertLessEqual(len(effect.datagram), len(datagram))

    @given(st.integers(0, REQUEST_SIZE - 1), st.integers(1, 255), st.booleans())
    def test_mutated_requests(self, position: int, flip: int, from_leg: bool) -> None:
        """A request with any byte changed binds and answers nothing but a hint."""
        server = relay()
        near, _ = joined(server)
        request = bytearray(near.request())
        request[position] ^= flip
        effects = server.datagram_received(bytes(request), HOME if from_leg else STRANGER, 1.0)
        kinds = {effect.datagram[0] for effect in effects}
        self.assertLessEqual(kinds, {Kind.RELAY_UNKNOWN, request[0]})
        self.assertEqual(CAFE, server.forward(INDEX, HOME, 1, 100, 1.0))

    @settings(max_examples=50)
    @given(st.binary(min_size=1, max_size=90), st.integers(0, 2**64 - 1), st.integers(0, 1))
    def test_authentic_nonsense(self, body: bytes, counter: int, side: int) -> None:
        """Not even the holder of a key makes the RS raise with what he MACs."""
        server = relay()
        joined(server)
        base = seal_relayed(KEYS[side], INDEX, counter, RelayTunnelRequest(side, bytes(16)))
        crafted = base[:HEADER_SIZE] + body + bytes(90 - len(body))
        mac = relay_mac(KEYS[side], crafted)
        for source in (HOME, STRANGER):
            server.datagram_received(crafted + mac, source, 1.0)
            for effect in server.datagram_received(base, source, 1.0):
                self.assertLessEqual(len(effect.datagram), len(base))
