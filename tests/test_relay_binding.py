"""Binding the legs of a relayed tunnel (rule R25)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.server import RelayServer
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.relaying import LegState
from ntmobile.wire.relaying import UNASKED, open_relayed
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

MOVED: Address = ("192.0.2.9", 9999)


class ChallengeTests(SynchronousTestCase):
    """The first bind of a leg."""

    def test_challenge_binds_nothing(self) -> None:
        """R25: a request without a cookie gets one, and is no leg yet."""
        server = relay()
        Leg(1, CAFE).bind(server)
        Leg(0, HOME).challenged(server)
        self.assertIsNone(server.forward(INDEX, HOME, 1, 100, 0.0))

    def test_cookie_binds(self) -> None:
        """R25: the request that brings the cookie back binds its source, and is told it."""
        server = relay()
        leg = Leg(0, HOME)
        (effect,) = leg.bind(server)
        answer = leg.open(effect)
        self.assertEqual((LegState.BOUND, BOOT), (answer.state, answer.boot))
        assert answer.observed is not None
        self.assertEqual(HOME, answer.observed.pair())

    def test_first_binder_learns(self) -> None:
        """R25: when the second side binds, the first is told JOINED, with a nonce of zeros."""
        server = relay()
        near, far = Leg(0, HOME), Leg(1, CAFE)
        near.bind(server)
        own, news = far.bind(server)
        self.assertEqual(LegState.JOINED, far.open(own).state)
        told = near.open(news)
        self.assertEqual((LegState.JOINED, UNASKED, BOOT), (told.state, told.nonce, told.boot))

    def test_lost_answer(self) -> None:
        """A request that is repeated because its answer was lost is answered again."""
        server = relay()
        leg = Leg(0, HOME)
        leg.bind(server)
        for request in (leg.request(), leg.request(b"an old cookie...")):
            for _ in range(2):
                (effect,) = server.datagram_received(request, HOME, 0.3)
                self.assertEqual(LegState.BOUND, leg.open(effect).state)

    def test_lost_challenge(self) -> None:
        """A first request that is repeated because the challenge was lost gets it again."""
        server = relay()
        leg = Leg(0, HOME)
        request = leg.request()
        server.datagram_received(request, HOME, 0.0)
        (effect,) = server.datagram_received(request, HOME, 0.3)
        cookie = leg.open(effect).cookie
        (effect,) = server.datagram_received(leg.request(cookie), HOME, 0.3)
        self.assertEqual(LegState.BOUND, leg.open(effect).state)

    def test_cookie_of_another_address(self) -> None:
        """R25: a cookie proves the address it was sent to, and no other."""
        server = relay()
        leg = Leg(0, HOME)
        cookie = leg.challenged(server)
        (effect,) = server.datagram_received(leg.request(cookie), MOVED, 0.1)
        _, answer = open_relayed(leg.key, effect.datagram)
        self.assertEqual(LegState.CHALLENGE, getattr(answer, "state", None))

    def test_cookie_of_another_side_or_tunnel(self) -> None:
        """R25: nor does it prove another side's leg, or another tunnel's."""
        server = relay()
        server.direct(direction(b"tunnel-2"), 0.0)
        cookie = Leg(0, HOME).challenged(server)
        for other in (Leg(1, HOME), Leg(0, HOME, b"tunnel-2")):
            (effect,) = server.datagram_received(other.request(cookie), HOME, 0.1)
            self.assertEqual(LegState.CHALLENGE, other.open(effect).state)

    def test_cookie_expires(self) -> None:
        """R25: a cookie is good for ten seconds at least, and for no more than twenty."""
        for age, state in ((10.0, LegState.BOUND), (20.0, LegState.CHALLENGE)):
            server = relay()
            leg = Leg(0, HOME)
            cookie = leg.challenged(server, 9.9)
            (effect,) = server.datagram_received(leg.request(cookie), HOME, 9.9 + age)
            self.assertEqual(state, leg.open(effect).state)

    def test_challenges_cost_no_memory(self) -> None:
        """R25: the challenge is stateless: it leaves the tunnel as it was."""
        server = relay()
        for port in range(1, 10):
            server.datagram_received(Leg(0, HOME).request(), ("192.0.2.1", port), 0.0)
        self.assertEqual(9, server.tally.challenged)
        leg = Leg(0, HOME)
        (effect,) = leg.bind(server)
        self.assertEqual(LegState.BOUND, leg.open(effect).state)


class AttackTests(SynchronousTestCase):
    """What those without the key try."""

    def test_replayed_bind(self) -> None:
        """R25: an on-path recorder replays the bind from elsewhere: refused, the leg stays."""
        server = relay()
        near, far = Leg(0, HOME), Leg(1, CAFE)
        recorded = [near.request()]
        (effect,) = server.datagram_received(recorded[0], HOME, 1.0)
        recorded.append(near.request(near.open(effect).cookie, fresh=False))
        server.datagram_received(recorded[1], HOME, 1.0)
        far.bind(server, 1.0)
        for datagram, state in zip(recorded, (LegState.CHALLENGE, LegState.REFUSED), strict=True):
            (effect,) = server.datagram_received(datagram, STRANGER, 1.1)
            _, answer = open_relayed(near.key, effect.datagram)
            self.assertEqual(state, getattr(answer, "state", None))
        self.assertEqual(HOME, server.forward(INDEX, CAFE, 1, 100, 1.2))
        self.assertIsNone(server.forward(INDEX, STRANGER, 1, 100, 1.2))

    def test_replay_of_an_unused_request(self) -> None:
        """R25: a request recorded before it was used gets its thief a cookie he cannot return."""
        server = relay()
        near, _ = joined(server)
        stolen = near.request()
        (effect,) = server.datagram_received(stolen, STRANGER, 1.0)
        self.assertLessEqual(len(effect.datagram), len(stolen))
        self.assertEqual(HOME, server.forward(INDEX, CAFE, 1, 100, 1.2))

    def test_challenge_in_the_middle(self) -> None:
        """R25: the answer that a client gives to a challenge meant for an attacker is of no use.

        He is on the path, has the client's request arrive from his own address too, and gives the
        client the cookie he got.
        """
        server = relay()
        near, _ = joined(server)
        near.address = MOVED
        request = near.request()
        (effect,) = server.datagram_received(request, STRANGER, 1.0)
        _, answer = open_relayed(near.key, effect.datagram)
        proof = near.request(getattr(answer, "cookie", b""), fresh=False)
        server.datagram_received(proof, MOVED, 1.1)
        server.datagram_received(proof, STRANGER, 1.2)
        self.assertEqual(HOME, server.forward(INDEX, CAFE, 1, 100, 1.2))

    def test_replay_after_a_restart(self) -> None:
        """R26: the binds recorded before a restart are void, though the counters are forgotten."""
        server = relay()
        leg = Leg(0, HOME)
        cookie = leg.challenged(server)
        recorded = leg.request(cookie)
        restarted = RelayServer(b"boot-two", random=lambda length: b"\xa5" * length)
        restarted.direct(direction(), 0.0)
        (effect,) = restarted.datagram_received(recorded, HOME, 0.1)
        self.assertEqual(LegState.CHALLENGE, leg.open(effect).state)

    def test_forged_mac(self) -> None:
        """R25: a request under another key is not answered at all."""
        server = relay()
        forged = Leg(0, STRANGER, key=b"f" * 32).request()
        self.assertEqual([], server.datagram_received(forged, STRANGER, 0.0))
        self.assertEqual(1, server.tally.forged)

    def test_stolen_direction_identifier(self) -> None:
        """R25: who knows the identifier and the other side's key cannot bind this side."""
        server = relay()
        thief = Leg(0, STRANGER, key=KEYS[1])
        self.assertEqual([], server.datagram_received(thief.request(), STRANGER, 0.0))

    def test_spoofed_victim(self) -> None:
        """R25: an attacker with a key cannot point the relay at a victim that does not answer."""
        server = relay()
        joined(server)
        attacker = Leg(0, STRANGER, counter=10)
        server.datagram_received(attacker.request(), ("198.51.100.200", 53), 1.0)
        guess = attacker.request(b"g" * 16)
        server.datagram_received(guess, ("198.51.100.200", 53), 1.0)
        self.assertEqual(HOME, server.forward(INDEX, CAFE, 1, 100, 1.0))

    def test_endless_binds(self) -> None:
        """The holder of a key may move its leg, but not without end."""
        server = relay()
        leg = Leg(0, HOME)
        states = []
        for port in range(1, 30):
            leg.address = (HOME[0], port)
            now = port * 0.2
            (effect,) = leg.bind(server, now)
            states.append(leg.open(effect).state)
        self.assertEqual(LegState.REFUSED, states[-1])
        self.assertLessEqual(states.count(LegState.BOUND), 12 + 6)


class RebindTests(SynchronousTestCase):
    """A leg that moves."""

    def test_old_leg_until_proven(self) -> None:
        """R25: the old leg carries both ways until the new one has returned its cookie."""
        server = relay()
        near, _ = joined(server)
        near.address = MOVED
        cookie = near.challenged(server, 1.0)
        self.assertEqual(HOME, server.forward(INDEX, CAFE, 1, 100, 1.0))
        self.assertEqual(CAFE, server.forward(INDEX, HOME, 1, 100, 1.0))
        (effect,) = server.datagram_received(near.request(cookie), MOVED, 1.1)
        self.assertEqual(LegState.JOINED, near.open(effect).state)
        self.assertEqual(MOVED, server.forward(INDEX, CAFE, 1, 100, 1.2))
        self.assertEqual(CAFE, server.forward(INDEX, MOVED, 1, 100, 1.2))

    def test_under_way_from_the_old_leg(self) -> None:
        """What was under way from the old address is forwarded for three seconds, no longer."""
        server = relay()
        near, _ = joined(server)
        near.address = MOVED
        near.bind(server, 1.0)
        self.assertEqual([Transmit(data(), CAFE)], server.datagram_received(data(), HOME, 3.9))
        (effect,) = server.datagram_received(data(), HOME, 4.1)
        self.assertEqual(Kind.RELAY_UNKNOWN, effect.datagram[0])

    def test_other_family(self) -> None:
        """A leg may move from IPv4 to IPv6."""
        server = relay()
        near, _ = joined(server)
        near.address = SIX
        near.bind(server, 1.0)
        self.assertEqual(SIX, server.forward(INDEX, CAFE, 1, 100, 1.2))

    def test_keepalive_from_elsewhere(self) -> None:
        """A keep-alive whose NAT rebound is answered with a challenge: a round trip saved."""
        server = relay()
        near, _ = joined(server)
        near.address = (HOME[0], 41111)
        (effect,) = server.datagram_received(near.request(keepalive=True), near.address, 1.0)
        answer = near.open(effect)
        self.assertEqual(LegState.CHALLENGE, answer.state)
        server.datagram_received(near.request(answer.cookie), near.address, 1.0)
        self.assertEqual(near.address, server.forward(INDEX, CAFE, 1, 100, 1.2))

    def test_lost_count(self) -> None:
        """A client that lost count is refused, and finds the count to go on from in the answer."""
        server = relay()
        near, _ = joined(server)
        near.counter = 1000
        server.datagram_received(near.request(keepalive=True), HOME, 1.0)
        afresh = Leg(0, HOME)
        (effect,) = server.datagram_received(afresh.request(), HOME, 2.0)
        self.assertEqual(LegState.REFUSED, afresh.open(effect).state)
        afresh.counter = open_relayed(afresh.key, effect.datagram)[0].counter
        (effect,) = server.datagram_received(afresh.request(), HOME, 2.0)
        self.assertEqual(LegState.JOINED, afresh.open(effect).state)


class HoldTests(SynchronousTestCase):
    """The handshake datagram that waits (R25)."""

    def test_released_when_the_peer_binds(self) -> None:
        """R25: a Tunnel Request from a bound leg is held, and forwarded when the peer is bound."""
        server = relay()
        near, far = Leg(0, HOME), Leg(1, CAFE)
        near.bind(server, 0.0)
        handshake = data(kind=Kind.TUNNEL_REQUEST)
        self.assertEqual([], server.datagram_received(handshake, HOME, 0.0))
        effects = far.bind(server, 1.9)
        self.assertEqual(Transmit(handshake, CAFE), effects[-1])
        self.assertEqual(3, len(effects))

    def test_two_seconds(self) -> None:
        """R25: after two seconds it is dropped, whether the timer ran or not."""
        for timer in (False, True):
            server = relay()
            Leg(0, HOME).bind(server, 0.0)
            server.datagram_received(data(kind=Kind.TUNNEL_REQUEST), HOME, 0.0)
            if timer:
                server.handle_timer(2.0)
            effects = Leg(1, CAFE).bind(server, 2.0)
            self.assertNotIn(Kind.TUNNEL_REQUEST, [effect.datagram[0] for effect in effects])

    def test_one_only(self) -> None:
        """R25: one is held, the newest."""
        server = relay()
        Leg(0, HOME).bind(server, 0.0)
        for counter in range(5):
            server.datagram_received(data(counter, kind=Kind.TUNNEL_REQUEST), HOME, 0.0)
        effects = Leg(1, CAFE).bind(server, 1.0)
        held = [e.datagram for e in effects if e.datagram[0] == Kind.TUNNEL_REQUEST]
        self.assertEqual([data(4, kind=Kind.TUNNEL_REQUEST)], held)

    def test_only_handshakes_of_their_size(self) -> None:
        """Data waits for nobody, nor do handshakes of more than 1200 bytes."""
        server = relay()
        Leg(0, HOME).bind(server, 0.0)
        server.datagram_received(data(), HOME, 0.0)
        server.datagram_received(data(size=1201, kind=Kind.TUNNEL_REQUEST), HOME, 0.0)
        self.assertEqual(2, len(Leg(1, CAFE).bind(server, 1.0)))

    def test_not_from_the_unproven(self) -> None:
        """R25: who has only asked for a challenge has nothing held."""
        server = relay()
        Leg(0, HOME).challenged(server)
        server.datagram_received(data(kind=Kind.TUNNEL_REQUEST), HOME, 0.0)
        Leg(0, HOME, counter=1).bind(server)
        self.assertEqual(2, len(Leg(1, CAFE).bind(server, 1.0)))

    def test_bind_and_handshake_in_one_flight(self) -> None:
        """A handshake right behind the request with the cookie is forwarded or held."""
        server = relay()
        near, far = Leg(0, HOME), Leg(1, CAFE)
        far.bind(server)
        cookie = near.challenged(server)
        server.datagram_received(near.request(cookie), HOME, 0.0)
        handshake = data(kind=Kind.TUNNEL_REQUEST)
        self.assertEqual(
            [Transmit(handshake, CAFE)], server.datagram_received(handshake, HOME, 0.0)
        )


PLACES = [HOME, CAFE, SIX, MOVED, STRANGER]


class Roaming(RuleBasedStateMachine):
    """Two clients roam, ask, repeat and send; a model says which addresses are proven."""

    def __init__(self) -> None:
        super().__init__()
        self.server = relay(RelayLimits(requests=1e6, checks=1e6, binds=1e6, overlap=0.0))
        self.now = 1.0
        self.legs = (Leg(0, HOME), Leg(1, CAFE))
        self.cookies: list[dict[Address, bytes]] = [{}, {}]
        self.proven: list[Address | None] = [None, None]
        self.sent: list[bytes] = []

    side = st.integers(0, 1)

    def ask(self, side: int, datagram: bytes) -> LegState:
        """Send a request from where the client is; what it is told."""
        leg = self.legs[side]
        self.now += 0.01
        self.sent.append(datagram)
        effects = self.server.datagram_received(datagram, leg.address, self.now)
        header, answer = open_relayed(leg.key, effects[0].datagram)
        assert header.kind == Kind.RELAY_RESPONSE and effects[0].remote == leg.address
        if cookie := getattr(answer, "cookie", b""):
            self.cookies[side][leg.address] = cookie
        return LegState(getattr(answer, "state", 255))

    @rule(side=side, place=st.sampled_from(PLACES))
    def move(self, side: int, place: Address) -> None:
        """Go elsewhere, where the other is not."""
        if place != self.legs[1 - side].address and place not in self.proven:
            self.legs[side].address = place

    @rule(side=side, keepalive=st.booleans())
    def request(self, side: int, keepalive: bool) -> None:
        """A request without a cookie tells whether this very address is proven."""
        state = self.ask(side, self.legs[side].request(keepalive=keepalive))
        bound = self.proven[side] == self.legs[side].address
        assert (state in (LegState.BOUND, LegState.JOINED)) == bound

    @rule(side=side)
    def prove(self, side: int) -> None:
        """A cookie that was sent here binds; any other does not."""
        leg = self.legs[side]
        cookies = self.cookies[side]
        challenged = leg.address in cookies
        cookie = cookies.get(leg.address, next(iter(cookies.values()), b""))
        state = self.ask(side, leg.request(cookie))
        if challenged:
            assert state in (LegState.BOUND, LegState.JOINED)
            self.proven[side] = leg.address
        elif self.proven[side] != leg.address:
            assert state == LegState.CHALLENGE

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 10_000), place=st.sampled_from(PLACES))
    def replay(self, pick: int, place: Address) -> None:
        """Anything recorded, from anywhere else, changes nothing."""
        if place not in self.proven:
            self.server.datagram_received(self.sent[pick % len(self.sent)], place, self.now)

    @invariant()
    def forwards_between_the_proven(self) -> None:
        """Datagrams pass between the two proven addresses, and from nowhere else."""
        near, far = self.proven
        for place in PLACES:
            remote = self.server.forward(INDEX, place, 1, 100, self.now)
            if near is None or far is None or place not in self.proven:
                assert remote is None
            else:
                assert remote == (far if place == near else near)


class RoamingTests(SynchronousTestCase):
    """The machine under all orders of events."""

    def test_roaming(self) -> None:
        """R25: whatever is sent, moved and replayed, only proven addresses are forwarded."""
        run_state_machine_as_test(
            Roaming, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
        )
