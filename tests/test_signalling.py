from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Transmit
from ntmobile.machines.signalling.requests import Answered, Asked
from ntmobile.machines.signalling.session import (
    HELLO_SIZE,
    HELLO_TIMEOUT,
    HINTS_UNTIL_LOST,
    KNOCKS,
    WELCOME_SIZE,
    ClientSession,
    CoordinatorSession,
    Lost,
    Opened,
    Reached,
    check_hello,
    check_welcome,
    hello,
    welcome,
)
from ntmobile.wire.codec import DATAGRAM_LIMIT
from ntmobile.wire.headers import HEADER_SIZE, Flag, Header, Kind
from ntmobile.wire.messages.realtime import Acknowledgement, KeepAlive, RevocationOrder
from tests.signalling import CLIENT4, CLIENT6, DC4, DC6, INDEX, KEY, Flight, Joined

NONCE, OTHER = bytes(range(16)), bytes(range(16, 32))


def kind_of(flight: Flight) -> Kind:
    """What a datagram is."""
    return Header.parse(flight.datagram).kind


class HelloTests(SynchronousTestCase):
    def test_hello(self) -> None:
        """A hello carries a nonce to whoever has the session key."""
        self.assertEqual(check_hello(hello(INDEX, KEY, NONCE), KEY), NONCE)

    def test_welcome(self) -> None:
        """A welcome carries the other nonce to the one whose hello it answers."""
        self.assertEqual(check_welcome(welcome(INDEX, KEY, NONCE, OTHER), KEY, NONCE), OTHER)

    def test_sizes(self) -> None:
        """R8: the answer is not larger than the hello."""
        self.assertEqual(len(hello(INDEX, KEY, NONCE)), HELLO_SIZE)
        self.assertEqual(len(welcome(INDEX, KEY, NONCE, OTHER)), WELCOME_SIZE)
        self.assertLessEqual(WELCOME_SIZE, HELLO_SIZE)

    @given(st.integers(0, 8 * HELLO_SIZE - 1))
    def test_every_bit_counts(self, bit: int) -> None:
        """R7: hello and welcome are authentic to the last bit, header included."""
        for datagram in (hello(INDEX, KEY, NONCE), welcome(INDEX, KEY, NONCE, OTHER)):
            changed = bytearray(datagram)
            changed[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(AuthenticationError):
                check_hello(bytes(changed), KEY)
            with self.assertRaises(AuthenticationError):
                check_welcome(bytes(changed), KEY, NONCE)

    def test_lengths(self) -> None:
        """Any other length is malformed."""
        for size in (0, HEADER_SIZE, HELLO_SIZE - 1, HELLO_SIZE + 1, DATAGRAM_LIMIT):
            with self.assertRaises(MalformedMessage):
                check_hello(bytes(size), KEY)
            with self.assertRaises(MalformedMessage):
                check_welcome(bytes(size), KEY, NONCE)

    def test_welcome_to_another_hello(self) -> None:
        """R7: a recorded welcome answers nothing else than its own hello."""
        with self.assertRaisesRegex(AuthenticationError, "another hello"):
            check_welcome(welcome(INDEX, KEY, NONCE, OTHER), KEY, OTHER)

    def test_one_is_not_the_other(self) -> None:
        """Reflection: a hello is no welcome, although they have the same size."""
        with self.assertRaises(AuthenticationError):
            check_welcome(hello(INDEX, KEY, NONCE), KEY, NONCE)
        with self.assertRaises(AuthenticationError):
            check_hello(welcome(INDEX, KEY, NONCE, OTHER), KEY)

    def test_another_key(self) -> None:
        """R7: without the session key there is neither."""
        with self.assertRaises(AuthenticationError):
            check_hello(hello(INDEX, bytes(32), NONCE), KEY)


class OpeningTests(SynchronousTestCase):
    def test_round(self) -> None:
        """One flight each way, then requests flow both ways."""
        joined = Joined()
        joined.start()
        self.assertEqual(joined.events, [Opened()])
        self.assertEqual(
            [kind_of(one).name for one in joined.flown], ["SIGNAL_HELLO", "SIGNAL_WELCOME"]
        )
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(1.0)
        (asked,) = joined.asked
        self.assertEqual(asked.asked.message, KeepAlive(1))
        (answered,) = joined.client.conversation.events()
        assert isinstance(answered, Answered)
        self.assertEqual(answered.message, Acknowledgement())
        joined.table.request(INDEX, RevocationOrder("a.b.example"), "down", joined.now)
        joined.run(0.05)
        (asked_client,) = joined.client.conversation.events()
        assert isinstance(asked_client, Asked)
        joined.client.conversation.answer(asked_client.identifier, Acknowledgement(1))
        joined.run(0.05)
        self.assertEqual([one.message for one in joined.answered], [Acknowledgement(1)])

    def test_lost_hello(self) -> None:
        """R10: a hello that is lost, or whose answer is, is repeated with back-off."""
        joined = Joined(lost=lambda flight: joined.now < 1.0)
        joined.client.start(0.0)
        joined.run(2.0)
        self.assertEqual(joined.events, [Opened()])
        times = [round(one.at - joined.latency, 3) for one in joined.flown if one.upward]
        self.assertEqual(times, [0.0, 0.1, 0.3, 0.7, 1.5])

    def test_nobody_answers(self) -> None:
        """After ten seconds the session counts as lost, though perhaps not forgotten."""
        joined = Joined(lost=lambda flight: True)
        joined.client.start(0.0)
        joined.run(HELLO_TIMEOUT + 1.0)
        (event,) = joined.events
        assert isinstance(event, Lost)
        self.assertFalse(event.forgotten)
        self.assertIsNone(joined.client.next_timer())

    @given(
        st.floats(0.001, 2.4),
        st.sampled_from([(DC4,), (DC6,), (DC4, DC6), (DC6, DC4)]),
        st.integers(),
    )
    @settings(max_examples=80, deadline=None)
    def test_far_away(
        self, latency: float, remotes: tuple[tuple[str, int], ...], seed: int
    ) -> None:
        """However far the DC is and however many addresses it has: the keys are the same ones.

        Repeated hellos are under way when the first welcome comes; all get the same welcome.
        """
        joined = Joined(latency, remotes, seed)
        joined.client.start(0.0)
        joined.run(2 * latency + 0.001)
        self.assertEqual(joined.events, [Opened()])
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(2 * latency + 0.001)
        self.assertEqual(len(joined.client.conversation.events()), 1)
        self.assertEqual(joined.problems, [])

    def test_first_address_that_answers(self) -> None:
        """Of the DC's addresses the one whose welcome came first is used from then on."""
        joined = Joined(remotes=(DC4, DC6), lost=lambda flight: ":" not in flight.target[0])
        joined.start()
        self.assertEqual(joined.client.remotes, (DC6, DC4))
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.05)
        self.assertEqual(joined.heard, [CLIENT6])

    def test_requests_wait_for_keys(self) -> None:
        """What is asked before there are keys is asked when there are, and only once."""
        joined = Joined()
        joined.client.conversation.request(KeepAlive(1), "early", 0.0)
        joined.client.start(0.0)
        joined.run(1.0)
        self.assertEqual(len(joined.asked), 1)
        sealed = [one for one in joined.flown if kind_of(one) is Kind.SIGNAL_SEALED and one.upward]
        self.assertEqual(len(sealed), 1)

    def test_all_addresses_after_two_attempts(self) -> None:
        """A request that is not answered goes to all addresses of the DC from the third time on."""
        joined = Joined(remotes=(DC4, DC6))
        joined.start()
        first = joined.client.remotes[0]
        joined.lost = lambda flight: flight.target == first
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.6)
        self.assertEqual(len(joined.asked), 1)


class RestartTests(SynchronousTestCase):
    def nonces(self, joined: Joined) -> list[bytes]:
        """The hash of key and nonce is not to be had; sealed bodies of equal text tell as much."""
        return [
            one.datagram[HEADER_SIZE:] for one in joined.flown if kind_of(one) is Kind.SIGNAL_SEALED
        ]

    def test_client_restarts(self) -> None:
        """R7: a client that restarts under the same session key gets fresh keys."""
        joined = Joined()
        for generation in range(3):
            joined.client = joined.new_client()
            joined.start()
            joined.client.conversation.next_identifier = 1
            joined.client.conversation.request(KeepAlive(1), generation, joined.now)
            joined.run(70.0)
        sealed = self.nonces(joined)
        self.assertEqual(len(sealed), 6)
        self.assertEqual(len(set(sealed)), 6)

    def test_coordinator_restarts(self) -> None:
        """R7: a DC that restarts gets fresh keys; the client needs no login, and loses nothing."""
        joined = Joined()
        joined.start()
        for _ in range(3):
            joined.restart_coordinator()
            joined.client.conversation.request(KeepAlive(1), "up", joined.now)
            joined.run(2.0)
        self.assertEqual(len(joined.client.conversation.events()), 3)
        self.assertEqual(joined.events, [Opened()] * 4)
        sealed = self.nonces(joined)
        self.assertEqual(len(sealed), len(set(sealed)))

    def test_same_randomness_on_one_side(self) -> None:
        """R7: one fresh nonce is enough: either side alone makes all keys differ."""
        bodies = set()
        for client_seed, dc_seed in ((1, 1), (1, 2), (2, 1)):
            client = ClientSession(INDEX, KEY, (DC4,), Random(client_seed).randbytes)
            dc = CoordinatorSession(INDEX, KEY, Random(dc_seed).randbytes)
            client.start(0.0)
            (said,) = client.transmissions()
            answer = dc.hello_received(said.datagram, CLIENT4)
            assert answer is not None
            client.datagram_received(answer.datagram, DC4, 0.0)
            client.conversation.next_identifier = 1
            client.conversation.request(KeepAlive(1), "up", 0.0)
            (sealed,) = client.transmissions()
            bodies.add(sealed.datagram)
        self.assertEqual(len(bodies), 3)

    def test_old_keys_until_the_new_are_used(self) -> None:
        """A hello alone changes nothing: the old keys work until something comes under the new."""
        joined = Joined()
        joined.start()
        joined.table.datagram_received(hello(INDEX, KEY, OTHER), CLIENT4, joined.now)
        joined.run(0.1)
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.1)
        self.assertEqual(len(joined.client.conversation.events()), 1)

    def test_answers_across_a_new_start(self) -> None:
        """R10: a request under way during a new start is done once."""
        joined = Joined()
        joined.start()
        joined.lost = lambda flight: not flight.upward
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.05)
        joined.lost = lambda flight: False
        joined.client.start(joined.now)
        joined.run(1.0)
        self.assertEqual(len(joined.asked), 1)
        self.assertEqual(len(joined.client.conversation.events()), 1)


class AttackTests(SynchronousTestCase):
    def test_replayed_hello(self) -> None:
        """R7: recorded hellos, sent again from anywhere, change nothing for the client."""
        joined = Joined()
        joined.start()
        recorded = [one.datagram for one in joined.flown if kind_of(one) is Kind.SIGNAL_HELLO]
        joined.client.start(joined.now)
        joined.run(1.0)
        recorded += [one.datagram for one in joined.flown if kind_of(one) is Kind.SIGNAL_HELLO]
        for _ in range(20):
            for datagram in recorded:
                joined.table.datagram_received(datagram, ("198.51.100.66", 6), joined.now)
            joined.run(0.5)
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.05)
        self.assertEqual(len(joined.client.conversation.events()), 1)
        self.assertEqual(joined.heard[-1], CLIENT4)

    def test_replayed_request(self) -> None:
        """R7: a recorded registration is heard no more, even after a restart of the DC."""
        joined = Joined()
        joined.start()
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(1.0)
        recorded = [one.datagram for one in joined.flown if one.upward]
        for restart in (False, True):
            if restart:
                joined.restart_coordinator()
            asked, heard = len(joined.asked), len(joined.heard)
            for datagram in recorded:
                joined.table.datagram_received(datagram, ("198.51.100.66", 6), joined.now)
                joined.run(0.01)
            self.assertEqual((len(joined.asked), len(joined.heard)), (asked, heard))

    def test_reflection_to_the_client(self) -> None:
        """What a client sent is nothing to itself when it comes back."""
        joined = Joined()
        joined.start()
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.005)
        for one in [each for each in joined.flown if each.upward]:
            with self.assertRaises(AuthenticationError):
                joined.client.datagram_received(one.datagram, DC4, joined.now)
        self.assertEqual(joined.client.conversation.events(), [])

    def test_reflection_to_the_coordinator(self) -> None:
        """What a DC sent is nothing to itself when it comes back."""
        joined = Joined()
        joined.start()
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(1.0)
        before, dropped = len(joined.flown), joined.table.dropped
        downward = [each for each in joined.flown if not each.upward]
        for one in downward:
            joined.table.datagram_received(one.datagram, DC4, joined.now)
        joined.run(0.1)
        self.assertEqual(len(joined.flown), before)
        self.assertEqual(joined.table.dropped, dropped + len(downward))

    def test_hint_is_only_a_hint(self) -> None:
        """R7: a forged "unknown session" costs a hello a second at most, and no session."""
        joined = Joined()
        joined.start()
        forged = Header(Kind.SIGNAL_UNKNOWN, Flag.FROM_COORDINATOR, INDEX, 0).pack()
        before = len(joined.flown)
        for _ in range(100):
            joined.client.datagram_received(forged, DC4, joined.now)
            joined.run(0.05)
        hellos = [one for one in joined.flown[before:] if kind_of(one) is Kind.SIGNAL_HELLO]
        self.assertLessEqual(len(hellos), 6)
        self.assertNotIn(Lost, {type(event) for event in joined.events})
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(0.05)
        self.assertEqual(len(joined.client.conversation.events()), 1)

    def test_hint_of_another_session(self) -> None:
        """R8: whoever does not know the index cannot even make the client say hello."""
        joined = Joined()
        joined.start()
        before = len(joined.flown)
        for index in (bytes(8), b"another!"):
            forged = Header(Kind.SIGNAL_UNKNOWN, Flag.FROM_COORDINATOR, index, 0).pack()
            with self.assertRaises(AuthenticationError):
                joined.client.datagram_received(forged, DC4, joined.now)
        joined.run(1.0)
        self.assertEqual(len(joined.flown), before)

    def test_forgotten_session(self) -> None:
        """A DC that knows the session no more says so, and the client logs in again soon."""
        joined = Joined()
        joined.start()
        joined.restart_coordinator(knows=False)
        joined.client.conversation.request(KeepAlive(1), "up", joined.now)
        joined.run(HINTS_UNTIL_LOST + 1.5)
        event = joined.events[-1]
        assert isinstance(event, Lost)
        self.assertTrue(event.forgotten)

    @given(st.binary(max_size=120), st.sampled_from(list(Kind)))
    @settings(deadline=None)
    def test_garbage(self, body: bytes, kind: Kind) -> None:
        """R11: whatever comes to a client raises one of two errors at most, and harms nothing."""
        joined = Joined()
        joined.start()
        for flags in (0, int(Flag.FROM_COORDINATOR)):
            for datagram in (body, Header(kind, flags, INDEX, len(body)).pack() + body):
                try:
                    joined.client.datagram_received(datagram, DC4, joined.now)
                except (AuthenticationError, MalformedMessage):
                    continue
        self.assertTrue(joined.client.open)
        self.assertEqual(joined.client.conversation.events(), [])


class KnockTests(SynchronousTestCase):
    """Questions whether the DC can be reached by some way."""

    def setUp(self) -> None:
        """A session with its keys."""
        self.joined = Joined()
        self.joined.start()
        self.joined.events.clear()

    def answer(self, transmit: Transmit) -> None:
        """The DC receives a question, from an address that it does not know."""
        self.joined.table.datagram_received(transmit.datagram, ("192.0.2.99", 9), self.joined.now)
        self.joined.run(1.0)

    def test_answered(self) -> None:
        """The answer names the way, once; keys and addresses stay as they are at both ends."""
        self.joined.heard.clear()
        question = self.joined.client.knock("wifi", DC4)
        self.answer(question)
        self.assertEqual(self.joined.events, [Reached("wifi")])
        self.assertEqual(self.joined.heard, [])
        self.joined.client.conversation.request(KeepAlive(1, 15), "alive", self.joined.now)
        self.joined.run(1.0)
        self.assertEqual(self.joined.problems, [])

    def test_asked_again(self) -> None:
        """A question that is repeated has one answer; one of another way has its own."""
        first, again = (self.joined.client.knock("wifi", DC4) for _ in range(2))
        other = self.joined.client.knock("cable", DC4)
        self.assertEqual(first, again)
        for question in (first, other, again):
            self.answer(question)
        self.assertEqual(self.joined.events, [Reached("wifi"), Reached("cable")])

    def test_forged_answer(self) -> None:
        """R7: an answer without the session key is none."""
        nonce = self.joined.client.knock("wifi", DC4).datagram[HEADER_SIZE : HEADER_SIZE + 16]
        forged = welcome(INDEX, bytes(len(KEY)), nonce, OTHER)
        with self.assertRaises(AuthenticationError):
            self.joined.client.datagram_received(forged, DC4, self.joined.now)
        self.assertEqual(self.joined.client.events(), [])

    def test_many_questions(self) -> None:
        """Questions that are never answered are forgotten, the oldest first."""
        questions = [self.joined.client.knock(way, DC4) for way in range(KNOCKS + 1)]
        self.answer(questions[0])
        self.answer(questions[-1])
        self.assertEqual(self.joined.events, [Reached(KNOCKS)])
