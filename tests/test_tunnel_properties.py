"""Two tunnels under whatever may happen to them: they lose nothing for good, and repeat nothing."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address
from tests.tunnels import Internet, Nat, Node

SIDES = st.integers(0, 1)
#: Networks a device can be in; the last two are behind one NAT.
PLACES = st.integers(0, 4)


class Journeys(RuleBasedStateMachine):
    """Roam, restart, partition, glare, over a network that loses, delays, repeats, reorders."""

    @initialize(seed=st.integers(0, 1000), places=st.tuples(PLACES, PLACES))
    def begin(self, seed: int, places: tuple[int, int]) -> None:
        self.internet = Internet(random=Random(seed))
        self.sides = self.internet.pair()
        self.homes = Nat("203.0.113.50")
        self.sequence = 0
        self.sent: set[bytes] = set()
        self.moves = 0
        self.captured: list[tuple[bytes, Address, Address]] = []
        self.internet.tap = self.tap
        for side, place in zip(self.sides, places, strict=True):
            address, nat = self.network(place)
            side.address, side.nat = address, nat

    def tap(self, node: Node | None, datagram: bytes, source: Address, remote: Address) -> bool:
        """An attacker on the path keeps what passes."""
        if len(self.captured) < 500:
            self.captured.append((datagram, source, remote))
        return True

    def network(self, place: int) -> tuple[Address, Nat | None]:
        """A place never seen before."""
        self.moves += 1
        number = self.moves
        if place < 2:
            return (f"192.0.2.{number % 250 + 1}", 5000), None
        if place < 4:
            return ("10.0.0.2", 5000), Nat(f"198.51.100.{number % 250 + 1}", symmetric=place == 3)
        return (f"10.9.0.{number % 250 + 1}", 5000), self.homes

    def say(self, side: int) -> bytes:
        self.sequence += 1
        payload = b"%d of %d" % (self.sequence, side)
        self.sent.add(payload)
        self.sides[side].send(payload)
        return payload

    @rule(side=SIDES)
    def send(self, side: int) -> None:
        self.say(side)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.1, 0.4, 1.0, 3.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.internet.run(seconds)

    @rule()
    def glare(self) -> None:
        """Both ask for a tunnel at once."""
        for side in (0, 1):
            self.sides[side].begin()
            self.sides[side].ask()

    @rule(side=SIDES, place=PLACES, tell=st.booleans())
    def roam(self, side: int, place: int, tell: bool) -> None:
        address, nat = self.network(place)
        self.sides[side].move(address, nat, tell=tell)

    @rule(places=st.tuples(PLACES, PLACES))
    def both_roam(self, places: tuple[int, int]) -> None:
        for side, place in zip(self.sides, places, strict=True):
            address, nat = self.network(place)
            side.move(address, nat)

    @rule(side=SIDES)
    def restart(self, side: int) -> None:
        self.sides[side].restart()

    @rule(side=SIDES)
    def rebind(self, side: int) -> None:
        nat = self.sides[side].nat
        if nat is not None:
            nat.rebind()

    @rule()
    def restart_relay(self) -> None:
        self.internet.restart_relay()

    @rule(seconds=st.sampled_from([0.2, 2.0, 20.0]))
    def partition(self, seconds: float) -> None:
        self.internet.partitioned = True
        self.internet.run(seconds)
        self.internet.partitioned = False

    @rule(
        loss=st.sampled_from([0.0, 0.05, 0.3]),
        duplication=st.sampled_from([0.0, 0.2]),
        jitter=st.sampled_from([0.0, 0.05]),
    )
    def weather(self, loss: float, duplication: float, jitter: float) -> None:
        self.internet.loss, self.internet.duplication = loss, duplication
        self.internet.jitter = jitter

    @precondition(lambda self: self.captured)
    @rule(which=st.integers(0, 499), change=st.integers(0, 4000), elsewhere=st.booleans())
    def attack(self, which: int, change: int, elsewhere: bool) -> None:
        """What was captured comes again, perhaps changed, perhaps from another address."""
        datagram, source, remote = self.captured[which % len(self.captured)]
        if change < len(datagram):
            datagram = (
                datagram[:change] + bytes((datagram[change] ^ 0x41,)) + datagram[change + 1 :]
            )
        elif change % 3 == 0:
            datagram = datagram[: change % (len(datagram) + 1)]
        self.internet.arrive(datagram, ("203.0.113.66", 66) if elsewhere else source, remote)

    def check(self) -> None:
        """What arrived was sent by the other side, and arrived once."""
        for side in self.sides:
            payloads = side.payloads()
            assert len(payloads) == len(set(payloads)), "delivered twice"
            assert set(payloads) <= self.sent, "delivered what nobody sent"

    def teardown(self) -> None:
        """When the weather clears up, packets flow both ways, over one session."""
        if not hasattr(self, "internet"):
            return
        self.check()
        internet = self.internet
        internet.loss = internet.duplication = internet.jitter = 0.0
        internet.random = Random(5)
        for _ in range(90):
            for side in (0, 1):
                self.say(side)
            internet.run(0.5)
        last = [self.say(side) for side in (0, 1)]
        internet.run(1.0)
        assert last[0] in self.sides[1].payloads(), "nothing from the first side"
        assert last[1] in self.sides[0].payloads(), "nothing from the second side"
        roles = {side.open.initiator for side in self.sides}
        assert roles == {True, False}, "both or none control"
        self.check()


class JourneyTests(SynchronousTestCase):
    """R15, R19, R21, R26: whatever happens, tunnels come back and nothing is repeated."""

    def test_journeys(self) -> None:
        """A tunnel survives any order of moves, restarts, partitions, glare and attacks."""
        case = Journeys.TestCase
        case.settings = settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        case("runTest").runTest()
