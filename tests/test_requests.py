from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.machines.effects import Address
from ntmobile.machines.signalling.requests import (
    ANSWERS,
    LONGEST_TIMEOUT,
    MESSAGE_LIMIT,
    REMEMBERED,
    Answered,
    Asked,
    Conversation,
    Event,
    TimedOut,
)
from ntmobile.wire.codec import DATAGRAM_LIMIT, encode
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    KeepAlive,
    PolicyResponse,
    RegistrationRequest,
)

A, B = ("192.0.2.1", 1), ("192.0.2.2", 2)


class Wire:
    """Two conversations and a wire that may lose, repeat and delay; time is virtual."""

    def __init__(self, seed: int = 0, loss: float = 0.0, repeat: float = 0.0) -> None:
        self.asker, self.answerer = Conversation(7), Conversation(1000)
        self.now = 0.0
        self.loss, self.repeat = loss, repeat
        self.random = Random(seed)
        self.flying: list[tuple[float, int, bool, bytes]] = []
        self.sent: list[tuple[float, int, Address | None]] = []
        self.actions: list[object] = []
        self.events: list[Event] = []
        self.number = 0

    def carry(self, until: float) -> None:
        """Let time pass, both ends' timers run, and the answerer answer what it is asked."""
        while True:
            self._exchange()
            times = [at for at, _, _, _ in self.flying]
            times += [
                due
                for due in (self.asker.next_timer(), self.answerer.next_timer())
                if due is not None
            ]
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            self.asker.handle_timer(self.now)
            self.answerer.handle_timer(self.now)
            due = sorted(each for each in self.flying if each[0] <= self.now)
            for each in due:
                self.flying.remove(each)
                end = self.answerer if each[2] else self.asker
                end.received(each[3], A if each[2] else B, self.now)

    def _exchange(self) -> None:
        for event in self.answerer.events():
            assert isinstance(event, Asked)
            self.actions.append(event.message)
            self.answerer.answer(event.identifier, Acknowledgement(0, str(len(self.actions))))
        self.events += self.asker.events()
        for end, forth in ((self.asker, True), (self.answerer, False)):
            for envelope in end.outgoing():
                if forth:
                    self.sent.append((round(self.now, 3), envelope.attempt, envelope.remote))
                copies = (self.random.random() >= self.loss) + (self.random.random() < self.repeat)
                for _ in range(copies):
                    self.number += 1
                    delay = 0.01 + self.random.random() * 0.2 * (self.repeat > 0)
                    self.flying.append((self.now + delay, self.number, forth, envelope.data))


class RequestTests(SynchronousTestCase):
    def test_answered(self) -> None:
        """A request is answered under its tag, with where from and the round trip."""
        wire = Wire()
        wire.asker.request(KeepAlive(1), "tag", 0.0)
        wire.carry(1.0)
        self.assertEqual(len(wire.events), 1)
        (event,) = wire.events
        assert isinstance(event, Answered)
        self.assertEqual((event.tag, event.message), ("tag", Acknowledgement(0, "1")))
        self.assertEqual(event.remote, B)
        self.assertAlmostEqual(event.seconds, 0.02)
        self.assertTrue(wire.asker.idle)

    def test_back_off(self) -> None:
        """R10: retransmitted with back-off from 100 ms, doubling to 2 s, until the time is over."""
        wire = Wire(loss=1.0)
        wire.asker.request(KeepAlive(1), "tag", 0.0, timeout=8.0)
        wire.carry(20.0)
        self.assertEqual([at for at, _, _ in wire.sent], [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1])
        self.assertEqual(wire.events, [TimedOut("tag")])
        self.assertIsNone(wire.asker.next_timer())

    def test_attempts_are_numbered(self) -> None:
        """Whoever sends an envelope knows the how manieth attempt it is, and where to."""
        wire = Wire(loss=1.0)
        wire.asker.request(KeepAlive(1), "tag", 0.0, remote=B)
        wire.carry(0.5)
        self.assertEqual([(n, remote) for _, n, remote in wire.sent], [(1, B), (2, B), (3, B)])

    def test_round_trip_of_a_repeated_request(self) -> None:
        """An answer after a retransmission measures nothing (Karn's rule)."""
        wire = Wire(loss=1.0)
        wire.asker.request(KeepAlive(1), "tag", 0.0)
        wire.carry(0.15)
        wire.loss = 0.0
        wire.carry(1.0)
        (event,) = wire.events
        assert isinstance(event, Answered)
        self.assertEqual(event.seconds, -1.0)

    def test_withdrawn(self) -> None:
        """A withdrawn request is not repeated and ends in nothing, though an answer comes."""
        wire = Wire()
        wire.asker.request(KeepAlive(1), "tag", 0.0)
        wire.carry(0.005)
        wire.asker.withdraw("tag")
        wire.carry(3.0)
        self.assertEqual(wire.events, [])
        self.assertEqual(len(wire.sent), 1)

    def test_resend(self) -> None:
        """After new keys all open requests go again at once, with a fresh back-off."""
        wire = Wire(loss=1.0)
        wire.asker.request(KeepAlive(1), "one", 0.0)
        wire.asker.request(KeepAlive(2), "two", 0.0)
        wire.carry(1.6)
        wire.sent.clear()
        wire.asker.resend(1.6)
        wire.carry(1.75)
        self.assertEqual([at for at, _, _ in wire.sent], [1.6, 1.6, 1.7, 1.7])

    def test_longest_timeout(self) -> None:
        """R10: no request is repeated for longer than the other end remembers it."""
        wire = Wire(loss=1.0)
        wire.asker.request(KeepAlive(1), "tag", 0.0, timeout=1e6)
        wire.carry(1e5)
        self.assertLess(wire.sent[-1][0], LONGEST_TIMEOUT)
        self.assertLess(LONGEST_TIMEOUT, REMEMBERED)
        self.assertEqual(wire.events, [TimedOut("tag")])

    def test_identifiers_wrap(self) -> None:
        """Identifiers have four bytes and go on at 0."""
        wire = Wire()
        wire.asker = Conversation(0xFFFFFFFF)
        wire.asker.request(KeepAlive(1), 1, 0.0)
        wire.asker.request(KeepAlive(2), 2, 0.0)
        wire.carry(1.0)
        self.assertEqual(
            [event.tag for event in wire.events if isinstance(event, Answered)], [1, 2]
        )

    def test_out_of_bounds(self) -> None:
        """R10, R11: a request that fits no datagram is refused at once and leaves nothing."""
        conversation = Conversation()
        with self.assertRaises(MalformedMessage):
            conversation.request(KeepAlive(-1), "tag", 0.0)
        self.assertTrue(conversation.idle)
        self.assertEqual(conversation.outgoing(), [])
        self.assertEqual(MESSAGE_LIMIT + HEADER_SIZE + TAG_SIZE + 5, DATAGRAM_LIMIT)


class AnswerTests(SynchronousTestCase):
    def ask(self, conversation: Conversation, identifier: int, now: float = 0.0) -> list[Event]:
        """Give it a request."""
        data = b"\0" + identifier.to_bytes(4, "big") + encode(KeepAlive(identifier))
        conversation.received(data, A, now)
        return conversation.events()

    def test_at_most_once(self) -> None:
        """R10: a request that comes again gets the same answer, and its action is not repeated."""
        conversation = Conversation()
        self.assertEqual(self.ask(conversation, 5), [Asked(5, KeepAlive(5), A)])
        self.assertEqual(self.ask(conversation, 5), [])
        self.assertEqual(conversation.outgoing(), [])  # it is still being worked on
        conversation.answer(5, Acknowledgement(1), A)
        first = conversation.outgoing()
        self.assertEqual(self.ask(conversation, 5, LONGEST_TIMEOUT), [])
        self.assertEqual(
            [(each.data, each.remote) for each in conversation.outgoing()],
            [(each.data, each.remote) for each in first],
        )

    def test_second_answer(self) -> None:
        """R10: one answer to one request, whoever is in doubt and answers again."""
        conversation = Conversation()
        self.ask(conversation, 5)
        conversation.answer(5, Acknowledgement(1))
        conversation.answer(5, Acknowledgement(2))
        self.assertEqual(len(conversation.outgoing()), 1)

    def test_batch(self) -> None:
        """R10: a batch of requests, as after a move, keeps its answers until nobody asks again."""
        conversation = Conversation()
        for identifier in range(200):
            self.ask(conversation, identifier)
            conversation.answer(identifier, Acknowledgement())
        conversation.outgoing()
        for identifier in range(200):
            self.assertEqual(self.ask(conversation, identifier, 12.0), [])
        self.assertEqual(len(conversation.outgoing()), 200)

    def test_flood(self) -> None:
        """R10: memory is bounded; what is more than can be remembered waits, and is not lost."""
        conversation = Conversation()
        taken = [len(self.ask(conversation, identifier)) for identifier in range(ANSWERS + 10)]
        self.assertEqual(taken, [1] * ANSWERS + [0] * 10)
        self.assertEqual(len(self.ask(conversation, ANSWERS + 3, REMEMBERED)), 1)

    def test_forgotten(self) -> None:
        """What nobody repeats any more is forgotten when the next request comes."""
        conversation = Conversation()
        for second in range(0, 10_000, 20):
            self.ask(conversation, second, float(second))
            conversation.answer(second, Acknowledgement())
        self.assertLessEqual(len(conversation._answers or ()), 4)

    def test_answer_to_what_was_forgotten(self) -> None:
        """An answer that took too long is sent all the same."""
        conversation = Conversation()
        self.ask(conversation, 1)
        self.ask(conversation, 2, REMEMBERED + 1)
        conversation.answer(1, Acknowledgement())
        self.assertEqual(len(conversation.outgoing()), 1)

    def test_unknown_answer(self) -> None:
        """An answer to nothing, or a second one, is ignored."""
        conversation = Conversation()
        conversation.request(KeepAlive(1), "tag", 0.0)
        data = b"\1" + (1).to_bytes(4, "big") + encode(PolicyResponse(1))
        conversation.received(b"\1\0\0\0\x63" + data[5:], B, 0.0)
        self.assertEqual(conversation.events(), [])
        conversation.received(data, B, 0.0)
        conversation.received(data, B, 0.0)
        self.assertEqual(len(conversation.events()), 1)

    @given(st.binary(max_size=64))
    def test_malformed(self, plaintext: bytes) -> None:
        """R11: anything that is no envelope is malformed, and leaves the conversation as it was."""
        conversation = Conversation()
        conversation.request(KeepAlive(1), "tag", 0.0)
        conversation.outgoing()
        try:
            conversation.received(plaintext, B, 0.0)
        except MalformedMessage:
            self.assertEqual(conversation.events(), [])
            self.assertEqual(conversation.outgoing(), [])
            self.assertFalse(conversation.idle)

    def test_malformed_answer(self) -> None:
        """R11: a malformed answer ends nothing: the true one may still come."""
        conversation = Conversation()
        conversation.request(KeepAlive(1), "tag", 0.0)
        with self.assertRaises(MalformedMessage):
            conversation.received(b"\1\0\0\0\1\xff\xff\x90", B, 0.0)
        conversation.received(b"\1\0\0\0\1" + encode(PolicyResponse(1)), B, 0.0)
        self.assertEqual(len(conversation.events()), 1)


class LossyTests(SynchronousTestCase):
    @given(st.integers(0, 1 << 30), st.integers(1, 40))
    @settings(max_examples=60, deadline=None)
    def test_lossy_wire(self, seed: int, count: int) -> None:
        """R10: over a wire that loses, repeats and reorders, each request acts at most once."""
        wire = Wire(seed, loss=0.3, repeat=0.3)
        for number in range(count):
            wire.asker.request(RegistrationRequest(number, (), 1, 20), number, 0.0, timeout=30.0)
        wire.carry(100.0)
        self.assertEqual(len(wire.actions), len(set(map(repr, wire.actions))))
        self.assertEqual(len(wire.events), count)
        answered = [event.tag for event in wire.events if isinstance(event, Answered)]
        # Fifteen attempts or so at a loss of one half both ways: next to all come through.
        self.assertGreaterEqual(len(answered), count - 1)
