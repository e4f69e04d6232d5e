"""A DC's view of its relay servers (rules R25 and R26)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.direction.relays import RelayLost, RelayRegistry
from ntmobile.wire.messages.coordination import (
    RelayCount,
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayReport,
)
from ntmobile.wire.messages.fields import Endpoint

FOUR = Endpoint.of(("203.0.113.1", 4331))
SIX = Endpoint.of(("2001:db8::1", 4331))
BOTH = frozenset({4, 6})
ONLY4, ONLY6 = frozenset({4}), frozenset({6})
NOBODY: frozenset[str] = frozenset()
KEYS = (b"0" * 32, b"1" * 32)


def name(number: int) -> str:
    """The name of an RS."""
    return f"rs{number}.dc1.ntm.example"


def registration(
    number: int = 1,
    boot: bytes = b"boot-one",
    endpoints: tuple[Endpoint, ...] = (FOUR, SIX),
    capacity: int = 100,
) -> RelayRegistration:
    """An RS's registration."""
    return RelayRegistration(name(number), boot, endpoints, capacity)


def order(number: int, lifetime: int = 60) -> RelayDirection:
    """A Relay Direction."""
    return RelayDirection(number.to_bytes(8, "big"), KEYS, lifetime)


def report(*alive: int, tunnels: int | None = None, ended: tuple[int, ...] = ()) -> RelayReport:
    """A report in which these directions live and those ended."""
    counts = tuple(RelayCount(each.to_bytes(8, "big"), 1, 100, 0) for each in alive)
    return RelayReport(
        len(alive) if tunnels is None else tunnels,
        0,
        counts,
        tuple(each.to_bytes(8, "big") for each in ended),
    )


def registry(*registrations: RelayRegistration) -> RelayRegistry:
    """A registry with these RSs, at time 0."""
    made = RelayRegistry()
    for each in registrations or (registration(),):
        made.register(each, 0.0)
    return made


class ChoiceTests(SynchronousTestCase):
    """Which RS a tunnel gets."""

    def chosen(
        self,
        relays: RelayRegistry,
        first: frozenset[int] = BOTH,
        second: frozenset[int] = BOTH,
        avoid: frozenset[str] = NOBODY,
    ) -> str | None:
        """The name of the RS chosen."""
        choice = relays.choose((first, second), avoid)
        return None if choice is None else choice[0]

    def test_none(self) -> None:
        """Without an RS there is none to choose."""
        self.assertIsNone(self.chosen(RelayRegistry()))

    def test_name_and_endpoints(self) -> None:
        """The choice names the RS and where its data port is."""
        self.assertEqual((name(1), (FOUR, SIX)), registry().choose((BOTH, BOTH), NOBODY))

    def test_families(self) -> None:
        """IPv4-only meets IPv6-only at an RS that has both, and only there."""
        relays = registry(
            registration(1, endpoints=(FOUR,)), registration(2, endpoints=(FOUR, SIX))
        )
        self.assertEqual(name(2), self.chosen(relays, ONLY4, ONLY6))
        self.assertEqual(name(1), self.chosen(relays, ONLY4, BOTH))
        self.assertIsNone(self.chosen(registry(registration(1, endpoints=(FOUR,))), ONLY4, ONLY6))
        self.assertIsNone(self.chosen(relays, frozenset(), ONLY4))

    def test_avoided(self) -> None:
        """R26: an RS that failed a client is not named to it again; the next takes over."""
        relays = registry(registration(1), registration(2))
        self.assertEqual(name(2), self.chosen(relays, avoid=frozenset({name(1)})))
        self.assertIsNone(self.chosen(relays, avoid=frozenset({name(1), name(2)})))

    def test_least_loaded(self) -> None:
        """Tunnels go where the smallest share of the capacity is in use, by report or placement."""
        relays = registry(registration(1, capacity=100), registration(2, capacity=1000))
        relays.report(name(1), report(tunnels=10), 1.0)
        relays.report(name(2), report(tunnels=50), 1.0)
        self.assertEqual(name(2), self.chosen(relays))
        for number in range(150):
            relays.placed(name(2), order(number), 1.0)
        self.assertEqual(name(1), self.chosen(relays))

    def test_spread(self) -> None:
        """Two idle RSs share what comes, without waiting for reports."""
        relays = registry(registration(1), registration(2))
        for number in range(20):
            chosen = self.chosen(relays)
            assert chosen is not None
            relays.placed(chosen, order(number), 0.0)
        self.assertEqual(10, len(relays.directions_of(name(1))))

    def test_full(self) -> None:
        """A full RS gets no more; neither does one that said BUSY, until it reports."""
        relays = registry(registration(1, capacity=2))
        relays.report(name(1), report(tunnels=2), 1.0)
        self.assertIsNone(self.chosen(relays))
        relays.report(name(1), report(tunnels=1), 2.0)
        self.assertEqual(name(1), self.chosen(relays))
        relays.busy(name(1), 2.0)
        self.assertIsNone(self.chosen(relays))
        relays.report(name(1), report(tunnels=1), 3.0)
        self.assertEqual(name(1), self.chosen(relays))

    def test_full_of_dead_tunnels(self) -> None:
        """An RS that was full is used again when its tunnels are over."""
        relays = registry(registration(1, capacity=1))
        relays.placed(name(1), order(1, lifetime=10), 0.0)
        self.assertIsNone(self.chosen(relays))
        relays.handle_timer(11.0)
        self.assertEqual(name(1), self.chosen(relays))

    def test_silent_or_gone(self) -> None:
        """An RS whose link is gone, or that stopped to report, gets no new tunnels."""
        relays = registry(registration(1), registration(2))
        relays.gone(name(1), 1.0)
        self.assertEqual(name(2), self.chosen(relays))
        relays.handle_timer(31.0)
        self.assertIsNone(self.chosen(relays))


class RestartTests(SynchronousTestCase):
    """An RS that comes back."""

    def test_first_registration(self) -> None:
        """An RS that is new is directed nothing again."""
        self.assertEqual([], RelayRegistry().register(registration(), 0.0))

    def test_restarted(self) -> None:
        """R26: an RS with a new boot identifier gets its living Relay Directions again."""
        relays = registry()
        for number in (1, 2, 3):
            relays.placed(name(1), order(number, lifetime=10), 0.0)
        relays.report(name(1), report(2, ended=(3,)), 5.0)
        relays.gone(name(1), 12.0)
        self.assertEqual(
            [order(2, lifetime=10)], relays.register(registration(boot=b"boot-two"), 20.0)
        )
        self.assertEqual((order(2).direction,), relays.directions_of(name(1)))

    def test_same_boot(self) -> None:
        """An RS whose link only broke keeps its tunnels and is directed nothing again."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        relays.gone(name(1), 1.0)
        self.assertEqual([], relays.register(registration(), 2.0))
        self.assertEqual(name(1), relays.relay_of(order(1).direction))

    def test_directed_again_lives_its_lifetime(self) -> None:
        """R26: what is directed again counts as alive for its lifetime from then on."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        relays.register(registration(boot=b"boot-two"), 50.0)
        relays.report(name(1), report(), 100.0)
        relays.handle_timer(105.0)
        self.assertEqual((order(1).direction,), relays.directions_of(name(1)))
        relays.handle_timer(110.0)
        self.assertEqual((), relays.directions_of(name(1)))

    def test_moved_to_another(self) -> None:
        """R26: a tunnel that the next RS took over is not directed to the first one again."""
        relays = registry(registration(1), registration(2))
        relays.placed(name(1), order(1), 0.0)
        relays.placed(name(2), order(1), 5.0)
        self.assertEqual([], relays.register(registration(1, b"boot-two"), 6.0))
        self.assertEqual(name(2), relays.relay_of(order(1).direction))


class EndTests(SynchronousTestCase):
    """Tunnels that a DC ends."""

    def test_end(self) -> None:
        """R34: the RS to tell is known, once."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        end = RelayEnd(order(1).direction)
        self.assertEqual((name(1), end), relays.end(order(1).direction))
        self.assertIsNone(relays.end(order(1).direction))
        self.assertIsNone(relays.relay_of(order(1).direction))

    def test_told_when_it_is_back(self) -> None:
        """R34: an RS that was away hears of the end when it is back, until it acknowledges."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        relays.gone(name(1), 1.0)
        relays.end(order(1).direction)
        for now in (2.0, 3.0):
            relays.register(registration(), now)
            self.assertEqual([RelayEnd(order(1).direction)], relays.ends(name(1)))
        relays.acknowledged(name(1), RelayEnd(order(1).direction))
        self.assertEqual([], relays.ends(name(1)))

    def test_restart_ends_all(self) -> None:
        """An RS that restarted has nothing to end, and is not directed an ended tunnel."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        relays.end(order(1).direction)
        self.assertEqual([], relays.register(registration(boot=b"boot-two"), 1.0))
        self.assertEqual([], relays.ends(name(1)))

    def test_ends_are_bounded(self) -> None:
        """R8: no more than a thousand ends are remembered for an RS."""
        relays = registry(registration(capacity=10_000))
        for number in range(1500):
            relays.placed(name(1), order(number), 0.0)
            relays.end(order(number).direction)
        self.assertEqual(1000, len(relays.ends(name(1))))


class LossTests(SynchronousTestCase):
    """RSs that do not come back, and tunnels that are over."""

    def test_given_up(self) -> None:
        """R26: after a minute of silence an RS is given up, and its tunnels are named."""
        relays = registry(registration(1), registration(2))
        relays.placed(name(1), order(1), 0.0)
        relays.report(name(2), report(), 50.0)
        relays.gone(name(1), 5.0)
        self.assertEqual([], relays.handle_timer(59.0))
        lost = relays.handle_timer(60.0)
        self.assertEqual([RelayLost(name(1), (order(1).direction,))], lost)
        self.assertIsNone(relays.relay_of(order(1).direction))
        self.assertEqual([name(2)], [relay.name for relay in relays.relays])

    def test_reported_tunnels_live(self) -> None:
        """A tunnel lives beyond its Relay Direction's lifetime for as long as it is reported."""
        relays = registry()
        relays.placed(name(1), order(1), 0.0)
        relays.placed(name(1), order(2), 0.0)
        for now in range(10, 3600, 10):
            relays.report(name(1), report(1), float(now))
            relays.handle_timer(float(now))
        self.assertEqual((order(1).direction,), relays.directions_of(name(1)))

    def test_reports_of_strangers(self) -> None:
        """An RS's report says nothing of tunnels that are not its own."""
        relays = registry(registration(1), registration(2))
        relays.placed(name(1), order(1), 0.0)
        relays.report(name(2), report(1, 7, ended=(1,)), 1.0)
        self.assertEqual(name(1), relays.relay_of(order(1).direction))
        self.assertEqual((), relays.directions_of(name(2)))

    def test_unknown_names(self) -> None:
        """What is said of an RS that is not known changes nothing."""
        relays = RelayRegistry()
        relays.report(name(1), report(1), 0.0)
        relays.gone(name(1), 0.0)
        relays.busy(name(1), 0.0)
        relays.placed(name(1), order(1), 0.0)
        relays.acknowledged(name(1), RelayEnd(order(1).direction))
        self.assertEqual((0, None), (len(relays), relays.relay_of(order(1).direction)))
        self.assertIsNone(relays.next_timer())


class Registering(RuleBasedStateMachine):
    """RSs come, go, restart and report in any order; each tunnel is at one RS at most."""

    def __init__(self) -> None:
        super().__init__()
        self.relays = RelayRegistry()
        self.now = 0.0
        self.boots = [0, 0, 0]

    relay = st.integers(0, 2)
    tunnel = st.integers(0, 6)

    @rule(number=relay, restart=st.booleans())
    def register(self, number: int, restart: bool) -> None:
        """Register, after a restart or not; what comes again is what it had."""
        self.boots[number] += restart
        before = set(self.relays.directions_of(name(number)))
        boot = self.boots[number].to_bytes(8, "big")
        again = self.relays.register(registration(number, boot, capacity=5), self.now)
        assert {each.direction for each in again} <= before

    @rule(number=relay)
    def gone(self, number: int) -> None:
        """Its link breaks."""
        self.relays.gone(name(number), self.now)

    @rule(number=tunnel)
    def place(self, number: int) -> None:
        """Place a tunnel where the choice says: on an RS that is there and not full."""
        choice = self.relays.choose((BOTH, BOTH), NOBODY)
        if choice is not None:
            assert len(self.relays.directions_of(choice[0])) < 5
            self.relays.placed(choice[0], order(number), self.now)

    @rule(number=relay, alive=st.lists(tunnel), ended=st.lists(tunnel))
    def report(self, number: int, alive: list[int], ended: list[int]) -> None:
        """Report anything."""
        self.relays.report(name(number), report(*alive, ended=tuple(ended)), self.now)

    @rule(number=tunnel)
    def end(self, number: int) -> None:
        """End a tunnel."""
        self.relays.end(order(number).direction)
        assert self.relays.relay_of(order(number).direction) is None

    @rule(seconds=st.sampled_from([1.0, 9.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for lost in self.relays.handle_timer(self.now):
            for direction in lost.directions:
                assert self.relays.relay_of(direction) is None

    @invariant()
    def each_at_one(self) -> None:
        """Both ways of looking agree."""
        found = {
            direction: relay.name
            for relay in self.relays.relays
            for direction in self.relays.directions_of(relay.name)
        }
        directions = [order(number).direction for number in range(7)]
        assert found == {
            each: where for each in directions if (where := self.relays.relay_of(each)) is not None
        }
        assert len(found) == sum(
            len(self.relays.directions_of(relay.name)) for relay in self.relays.relays
        )


class RegisteringTests(SynchronousTestCase):
    """The registry under all orders of events."""

    def test_any_order(self) -> None:
        """R26: whatever comes in whatever order, a tunnel is placed at one RS at most."""
        run_state_machine_as_test(
            Registering, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
