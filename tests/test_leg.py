"""The client's leg at a relay server, against the machine of the real one (R25, R26)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.relay.server import RelayServer
from ntmobile.machines.tunnel.leg import LegEvent, LegStatus, RelayLeg
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.coordination import RelayDirection
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Relay
from ntmobile.wire.messages.relaying import (
    LegState,
    RelayTooBig,
    RelayTunnelRequest,
    RelayTunnelResponse,
)
from ntmobile.wire.relaying import parse_relayed, seal_relayed

INDEX = b"direct01"
KEYS = (b"\1" * 32, b"\2" * 32)
V4: Address = ("203.0.113.1", 4331)
V6: Address = ("2001:db8::1", 4331)
HERE: Address = ("192.0.2.1", 5000)
THERE: Address = ("192.0.2.99", 5000)


def counted() -> Callable[[int], bytes]:
    """Randomness that never repeats, and is the same in every run."""
    state = [0]

    def random(size: int) -> bytes:
        state[0] += 1
        return state[0].to_bytes(size, "big")

    return random


class LegCase(SynchronousTestCase):
    """A leg, a server, and the wire between them."""

    def setUp(self) -> None:
        self.now = 100.0
        self.server = RelayServer(b"boot0001", random=counted())
        self.server.direct(RelayDirection(INDEX, KEYS, 60), self.now)
        self.leg = self.make(0)
        self.source = HERE
        self.heard: list[LegEvent] = []
        self.silent: set[Address] = set()

    def make(self, side: int) -> RelayLeg:
        relay = Relay("rs1", (Endpoint.of(V4), Endpoint.of(V6)), KEYS[side], side)
        return RelayLeg(INDEX, relay, counted())

    def exchange(self, leg: RelayLeg, source: Address | None = None) -> list[Transmit]:
        """Carry datagrams to and fro until there are none; those to the client at last."""
        last: list[Transmit] = []
        while sent := leg.transmissions():
            for effect in sent:
                if effect.remote in self.silent:
                    continue
                came = source or self.source
                last = self.server.datagram_received(effect.datagram, came, self.now)
                for answer in last:
                    if answer.remote == came:
                        leg.datagram_received(answer.datagram, effect.remote, self.now)
        self.heard += leg.events()
        return last

    def wait(self, seconds: float) -> None:
        """Let time pass, timers and datagrams with it."""
        end = self.now + seconds
        while (due := self.leg.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.leg.handle_timer(self.now)
            self.exchange(self.leg)
        self.now = end

    def bind(self) -> None:
        self.leg.bind(self.now, {4})
        self.exchange(self.leg)


class BindingTests(LegCase):
    """How a leg comes to be."""

    def test_challenge_and_response(self) -> None:
        """R25: a bind is a challenge and a response; the handshake may follow the response."""
        self.bind()
        self.assertEqual([LegEvent.CONFIRMING, LegEvent.BOUND], self.heard)
        self.assertEqual((LegStatus.BOUND, V4), (self.leg.status, self.leg.remote))

    def test_the_first_hears_of_the_second(self) -> None:
        """R25: the first binder learns when its peer is bound."""
        self.bind()
        other = self.make(1)
        other.bind(self.now, {4})
        for answer in self.exchange(other, THERE):
            if answer.remote == HERE:
                self.leg.datagram_received(answer.datagram, V4, self.now)
        self.assertEqual(LegStatus.JOINED, other.status)
        self.assertEqual(LegStatus.JOINED, self.leg.status)
        self.assertEqual([LegEvent.JOINED], self.leg.events())

    def test_both_families_are_asked_and_one_is_bound(self) -> None:
        """Both addresses of the RS are asked; only the first to answer gets the cookie back."""
        self.leg.bind(self.now, {4, 6})
        first = self.leg.transmissions()
        self.assertEqual([V4, V6], [effect.remote for effect in first])
        answers = [
            self.server.datagram_received(effect.datagram, HERE, self.now)[0] for effect in first
        ]
        self.leg.datagram_received(answers[1].datagram, V6, self.now)
        self.assertEqual([V6], [effect.remote for effect in self.leg.transmissions()])
        self.assertRaises(
            AuthenticationError, self.leg.datagram_received, answers[0].datagram, V4, self.now
        )

    def test_no_family(self) -> None:
        """Without an address of a family that the RS has, nothing is sent and nothing is due."""
        leg = RelayLeg(INDEX, Relay("rs1", (Endpoint.of(V6),), KEYS[0], 0), counted())
        leg.bind(self.now, {4})
        self.assertEqual([], leg.transmissions())
        self.assertIsNone(leg.next_timer())
        self.assertEqual(LegStatus.IDLE, leg.status)

    def test_lost_datagrams(self) -> None:
        """R10: a request that gets no answer goes again after 100 ms, then less often."""
        self.silent.add(V4)
        self.bind()
        self.wait(0.099)
        self.silent.clear()
        self.wait(0.002)
        self.assertEqual(LegStatus.BOUND, self.leg.status)

    def test_no_amplification(self) -> None:
        """R8: a request is never smaller than its answer."""
        self.leg.bind(self.now, {4})
        while sent := self.leg.transmissions():
            for effect in sent:
                for answer in self.server.datagram_received(effect.datagram, HERE, self.now):
                    self.assertLessEqual(len(answer.datagram), len(effect.datagram))
                    self.leg.datagram_received(answer.datagram, V4, self.now)


class MovingTests(LegCase):
    """Rebinding."""

    def test_rebind(self) -> None:
        """R25: from another address the leg is bound again, under the next counter."""
        self.bind()
        self.source = THERE
        self.leg.bind(self.now, {4})
        counters = [Header.parse(effect.datagram).counter for effect in self.leg._transmissions]
        self.exchange(self.leg)
        self.assertEqual([2], counters)
        self.assertEqual(LegStatus.BOUND, self.leg.status)

    def test_the_keepalive_finds_a_new_binding(self) -> None:
        """A NAT that rebound is noticed by the next keep-alive, and mended at once."""
        self.bind()
        self.source = THERE
        self.wait(21.0)
        self.assertEqual(LegStatus.BOUND, self.leg.status)
        self.assertIn(LegEvent.BOUND, self.heard[2:])

    def test_a_hint_is_only_a_reason_to_ask(self) -> None:
        """R8: RELAY_UNKNOWN makes a bound leg ask again, at most once a second."""
        self.bind()
        for _ in range(5):
            self.leg.hinted(self.now)
        sent = self.leg.transmissions()
        self.assertEqual(1, len(sent))
        self.leg._transmissions += sent
        self.exchange(self.leg)
        self.assertEqual(LegStatus.BOUND, self.leg.status)


class LosingTests(LegCase):
    """An RS that does not answer, or is another one."""

    def test_keepalive(self) -> None:
        """A bound leg is refreshed every 20 s, and stays."""
        self.bind()
        before = self.server.tally.refreshed
        self.wait(100.0)
        self.assertEqual(5, self.server.tally.refreshed - before)
        self.assertEqual([LegEvent.CONFIRMING, LegEvent.BOUND], self.heard)

    def test_three_missed_answers(self) -> None:
        """R26: three missed answers say that another relay is wanted; the leg goes on trying."""
        self.bind()
        self.silent.add(V4)
        self.wait(19.9)
        self.assertNotIn(LegEvent.MISSED, self.heard)
        self.wait(2.0)
        self.assertEqual(1, self.heard.count(LegEvent.MISSED))
        self.wait(60.0)
        self.silent.clear()
        self.wait(2.1)
        self.assertEqual(LegStatus.BOUND, self.leg.status)

    def test_a_relay_that_never_answers(self) -> None:
        """R26: a bind without answer says so after a second and a half."""
        self.silent.add(V4)
        self.bind()
        self.wait(1.4)
        self.assertNotIn(LegEvent.MISSED, self.heard)
        self.wait(0.2)
        self.assertIn(LegEvent.MISSED, self.heard)

    def test_another_boot(self) -> None:
        """R26: an RS that restarted is known by its boot identifier, and the leg bound again."""
        self.bind()
        self.server = RelayServer(b"boot0002", random=counted())
        self.server.direct(RelayDirection(INDEX, KEYS, 60), self.now)
        self.wait(21.0)
        self.assertIn(LegEvent.RESTARTED, self.heard)
        self.assertEqual((LegStatus.BOUND, b"boot0002"), (self.leg.status, self.leg.boot))


class AttackTests(LegCase):
    """Who is not the RS."""

    def test_only_its_key_speaks_for_the_relay(self) -> None:
        """R25: an answer without the right MAC, of another side or address, changes nothing."""
        self.leg.bind(self.now, {4})
        request = self.leg.transmissions()[0].datagram
        _, message = parse_relayed(request)
        assert isinstance(message, RelayTunnelRequest)
        answer = RelayTunnelResponse(LegState.BOUND, message.nonce, b"boot0666")
        for key, remote in ((KEYS[1], V4), (bytes(32), V4), (KEYS[0], ("203.0.113.9", 4331))):
            forged = seal_relayed(key, INDEX, 1, answer)
            self.assertRaises(
                AuthenticationError, self.leg.datagram_received, forged, remote, self.now
            )
        self.assertEqual(LegStatus.BINDING, self.leg.status)

    def test_old_answers(self) -> None:
        """R25: an answer that was recorded before answers nothing that is asked now."""
        self.leg.bind(self.now, {4})
        request = self.leg.transmissions()[0]
        recorded = self.server.datagram_received(request.datagram, HERE, self.now)[0].datagram
        self.leg.bind(self.now, {4})
        self.assertRaises(AuthenticationError, self.leg.datagram_received, recorded, V4, self.now)

    def test_our_own_requests(self) -> None:
        """A request that comes back is no answer."""
        self.leg.bind(self.now, {4})
        request = self.leg.transmissions()[0].datagram
        self.assertRaises(NTMobileError, self.leg.datagram_received, request, V4, self.now)

    def test_too_big(self) -> None:
        """R27: the signal that a datagram did not fit is authentic, and says what fits."""
        self.bind()
        signal = seal_relayed(KEYS[0], INDEX, 7, RelayTooBig(1316, 1232))
        self.assertEqual(Kind.RELAY_TOO_BIG, signal[0])
        told = self.leg.datagram_received(signal, V4, self.now)
        self.assertEqual(RelayTooBig(1316, 1232), told)
        forged = seal_relayed(KEYS[1], INDEX, 7, RelayTooBig(1316, 1))
        self.assertRaises(AuthenticationError, self.leg.datagram_received, forged, V4, self.now)
