from __future__ import annotations

import struct
from collections.abc import Awaitable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import (
    AccessDenied,
    AuthenticationError,
    MalformedMessage,
    NTMobileError,
    Unreachable,
)
from ntmobile.protocols.link import CONCURRENT, DEAD, Link
from ntmobile.wire.codec import FRAME_LIMIT, Message, encode
from ntmobile.wire.messages.account import LoginData
from ntmobile.wire.messages.coordination import LinkAcknowledgement, RelayEnd
from ntmobile.wire.messages.realtime import KeepAlive

ASK, ANSWER, TELL = 0, 1, 2


def frame(flags: int, identifier: int, message: Message | bytes) -> bytes:
    """A frame of a message, or of other bytes."""
    body = message if isinstance(message, bytes) else encode(message)
    return struct.pack("!IBI", 5 + len(body), flags, identifier) + body


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """The frames in some bytes: flags, identifier, encoded message."""
    found = []
    while data:
        (length,) = struct.unpack_from("!I", data)
        flags, identifier = struct.unpack_from("!BI", data, 4)
        found.append((flags, identifier, data[9 : 4 + length]))
        data = data[4 + length :]
    return found


class Plain(StringTransport):
    """A transport that may be aborted, and of a peer whose certificate is judged by the test."""

    aborted = False

    def abortConnection(self) -> None:
        """Drop the connection."""
        self.aborted = True
        self.disconnecting = True


class LinkCase(SynchronousTestCase):
    """One link whose other end is the test."""

    def setUp(self) -> None:
        """Connect it."""
        self.clock = Clock()
        self.asked: list[Message] = []
        self.outcome: list[Deferred[Message | None]] = []
        self.link = Link(self.clock, self.serve, self.verify)
        self.verdict: tuple[str, str] | NTMobileError | None = ("dc", "dc2.ntm.example")
        self.transport = Plain()
        self.link.makeConnection(self.transport)

    def serve(self, message: Message, link: Link) -> Awaitable[Message | None]:
        """What the other end asks; the test answers."""
        self.asked.append(message)
        answer: Deferred[Message | None] = Deferred()
        self.outcome.append(answer)
        return answer

    def verify(self, transport: ITransport) -> tuple[str, str] | None:
        """Who the other end is."""
        if isinstance(self.verdict, NTMobileError):
            raise self.verdict
        return self.verdict

    def lose(self, problem: Exception | None = None) -> None:
        """The connection is gone."""
        self.link.connectionLost(Failure(problem or ConnectionDone()))

    def sent(self) -> list[tuple[int, int, bytes]]:
        """What the link has sent since the last call."""
        found = frames(self.transport.value())
        self.transport.clear()
        return found


class RequestTests(LinkCase):
    def test_answered(self) -> None:
        """A request goes in a frame, and its answer comes to whoever asked."""
        answer = self.link.request(KeepAlive(7))
        ((flags, identifier, body),) = self.sent()
        self.assertEqual((flags, body), (ASK, encode(KeepAlive(7))))
        self.link.dataReceived(frame(ANSWER, identifier, LinkAcknowledgement(0, "yes")))
        self.assertEqual(self.successResultOf(answer), LinkAcknowledgement(0, "yes"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_concurrent(self) -> None:
        """Many requests at once: each answer finds its own, in whatever order they come."""
        answers = [self.link.request(KeepAlive(number)) for number in range(100)]
        identifiers = [identifier for _, identifier, _ in self.sent()]
        self.assertEqual(len(set(identifiers)), 100)
        for number in reversed(range(100)):
            answer = frame(ANSWER, identifiers[number], LinkAcknowledgement(0, str(number)))
            self.link.dataReceived(answer)
        for number, each in enumerate(answers):
            self.assertEqual(self.successResultOf(each), LinkAcknowledgement(0, str(number)))

    def test_time_out(self) -> None:
        """A request without an answer fails in its time; an answer after that is ignored."""
        answer = self.link.request(KeepAlive(7), timeout=2.0)
        ((_, identifier, _),) = self.sent()
        self.clock.advance(1.9)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        failure = self.failureResultOf(answer, Unreachable)
        self.assertEqual(failure.getErrorMessage(), "no answer to a Keep Alive")
        self.link.dataReceived(frame(ANSWER, identifier, LinkAcknowledgement()))
        self.assertTrue(self.link.alive)

    def test_dead_peer(self) -> None:
        """A peer that says nothing at all while requests wait is taken for dead."""
        answers = [self.link.request(KeepAlive(number), timeout=DEAD + number) for number in (0, 9)]
        self.clock.advance(DEAD)
        self.failureResultOf(answers[0], Unreachable)
        self.assertTrue(self.transport.aborted)
        self.assertFalse(self.link.alive)
        self.lose()
        self.failureResultOf(answers[1], Unreachable)

    def test_slow_peer(self) -> None:
        """A peer that is slow to answer one request, but not silent, is not dead."""
        answer = self.link.request(KeepAlive(1), timeout=20.0)
        for _ in range(20):
            self.clock.advance(1.0)
            self.link.dataReceived(frame(TELL, 0, KeepAlive(1)))
        self.failureResultOf(answer, Unreachable)
        self.assertTrue(self.link.alive)

    def test_short_time_outs(self) -> None:
        """One short time-out is no death; several in a row without a word are."""
        for count in (1, 2, 3):
            answer = self.link.request(KeepAlive(1), timeout=2.0)
            self.clock.advance(2.0)
            self.failureResultOf(answer, Unreachable)
            self.assertEqual(self.link.alive, count < 3)

    def test_cancelled(self) -> None:
        """A request that is cancelled leaves nothing behind."""
        answer = self.link.request(KeepAlive(7))
        answer.addErrback(lambda failure: None)
        answer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.link.dataReceived(frame(ANSWER, 1, LinkAcknowledgement()))
        self.assertTrue(self.link.alive)

    def test_closed_before_the_answer(self) -> None:
        """What waits when the connection goes fails at once."""
        answers = [self.link.request(KeepAlive(number)) for number in range(3)]
        self.lose(ConnectionLost())
        for answer in answers:
            self.failureResultOf(answer, Unreachable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_end(self) -> None:
        """A request over a link that is gone fails, a message that wants no answer is lost."""
        self.lose()
        self.failureResultOf(self.link.request(KeepAlive(7)), Unreachable)
        self.link.tell(KeepAlive(7))
        self.assertEqual(self.sent(), [])

    def test_out_of_bounds(self) -> None:
        """R11: a message of ours that is out of bounds is not sent, and leaves nothing."""
        with self.assertRaises(MalformedMessage):
            self.link.request(KeepAlive(-1))
        with self.assertRaises(MalformedMessage):
            self.link.tell(KeepAlive(-1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.sent(), [])

    def test_tell(self) -> None:
        """A message that wants no answer goes as such."""
        self.link.tell(KeepAlive(7))
        self.assertEqual(self.sent(), [(TELL, 0, encode(KeepAlive(7)))])


class ServingTests(LinkCase):
    def test_served(self) -> None:
        """A request of the other end is answered under its identifier, whenever it is done."""
        for identifier in (5, 6):
            self.link.dataReceived(frame(ASK, identifier, KeepAlive(identifier)))
        self.assertEqual(self.asked, [KeepAlive(5), KeepAlive(6)])
        self.outcome[1].callback(LinkAcknowledgement(6))
        self.outcome[0].callback(LinkAcknowledgement(5))
        self.assertEqual(
            self.sent(),
            [
                (ANSWER, 6, encode(LinkAcknowledgement(6))),
                (ANSWER, 5, encode(LinkAcknowledgement(5))),
            ],
        )

    def test_one_way(self) -> None:
        """A message that wants no answer gets none; nor does one that nobody answers."""
        self.link.dataReceived(frame(TELL, 0, KeepAlive(1)) + frame(ASK, 1, KeepAlive(1)))
        self.outcome[0].callback(LinkAcknowledgement())
        self.outcome[1].callback(None)
        self.assertEqual(self.sent(), [])

    def test_refused(self) -> None:
        """What is refused gets no answer; the link stays."""
        self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
        self.outcome[0].errback(AccessDenied("not for you"))
        self.assertEqual(self.sent(), [])
        self.assertTrue(self.link.alive)

    def test_not_acceptable(self) -> None:
        """R1: who asks what it may not, or for whom it does not speak, is cut off."""
        for problem in (AuthenticationError("not yours"), MalformedMessage("no such thing")):
            self.setUp()
            self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
            self.outcome[0].errback(problem)
            self.assertTrue(self.transport.aborted)
            self.assertFalse(self.link.alive)
            self.outcome.clear()

    def test_fault(self) -> None:
        """A fault of ours is logged; the link stays and serves on."""
        self.link.dataReceived(frame(ASK, 1, KeepAlive(1)) + frame(ASK, 2, KeepAlive(2)))
        self.outcome[0].errback(ZeroDivisionError("a fault"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.outcome[1].callback(LinkAcknowledgement())
        self.assertEqual(len(self.sent()), 1)

    def test_answer_out_of_bounds(self) -> None:
        """R11: an answer of ours that is out of bounds is our fault: logged, and the link stays."""
        self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
        self.outcome[0].callback(LinkAcknowledgement(0, "x" * 300))
        self.assertEqual(len(self.flushLoggedErrors(MalformedMessage)), 1)
        self.assertTrue(self.link.alive)

    def test_too_many_at_once(self) -> None:
        """More requests at once than any server has are an attack: the link closes."""
        for identifier in range(CONCURRENT):
            self.link.dataReceived(frame(ASK, identifier, KeepAlive(1)))
        self.assertTrue(self.link.alive)
        self.link.dataReceived(frame(ASK, 9999, KeepAlive(1)))
        self.assertTrue(self.transport.aborted)

    def test_many_in_turn(self) -> None:
        """What was answered counts no more."""
        for identifier in range(CONCURRENT + 100):
            self.link.dataReceived(frame(ASK, identifier, KeepAlive(1)))
            self.outcome.pop().callback(LinkAcknowledgement())
        self.assertTrue(self.link.alive)

    def test_done_after_the_end(self) -> None:
        """What is done when the link has gone is answered to nobody."""
        self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
        self.lose()
        self.outcome[0].callback(LinkAcknowledgement())
        self.assertEqual(self.sent(), [])


class FrameTests(LinkCase):
    @given(st.data())
    @settings(deadline=None)
    def test_any_pieces(self, data: st.DataObject) -> None:
        """Frames arrive in any pieces."""
        self.setUp()
        stream = b"".join(frame(ASK, number, KeepAlive(number)) for number in range(5))
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            self.link.dataReceived(stream[:size])
            stream = stream[size:]
        self.assertEqual(self.asked, [KeepAlive(number) for number in range(5)])

    def test_largest(self) -> None:
        """A frame of the largest size passes; one byte more, by its length alone, does not."""
        self.link.dataReceived(struct.pack("!I", FRAME_LIMIT + 5) + bytes(100))
        self.assertTrue(self.link.alive)
        self.setUp()
        self.link.dataReceived(struct.pack("!I", FRAME_LIMIT + 6))
        self.assertTrue(self.transport.aborted)

    def test_shortest(self) -> None:
        """R11: a frame that cannot hold a message closes the link."""
        for length in range(6):
            self.setUp()
            self.link.dataReceived(struct.pack("!I", length) + bytes(length))
            self.assertTrue(self.transport.aborted, length)

    def test_memory(self) -> None:
        """R11: a peer that sends half a frame without end keeps no more than one frame's bytes."""
        self.link.dataReceived(frame(ASK, 1, LoginData(1, bytes(32_768)))[:-1])
        self.assertLess(len(self.link._buffer), FRAME_LIMIT)
        for _ in range(100):
            self.link.dataReceived(bytes(4096))
        self.assertLess(len(self.link._buffer), FRAME_LIMIT + 4096)

    @given(st.binary(min_size=1, max_size=100))
    @settings(deadline=None)
    def test_garbage(self, garbage: bytes) -> None:
        """R11: whatever comes, nothing is raised, and a link that was aborted takes no more."""
        self.setUp()
        self.link.dataReceived(garbage)
        self.link.dataReceived(frame(ASK, 1, garbage) * 2)
        before = len(self.asked)
        if self.transport.aborted:
            self.assertFalse(self.link.alive)
            self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
            self.assertEqual(len(self.asked), before)

    def test_malformed_message(self) -> None:
        """R11: a frame whose message does not decode closes the link."""
        self.link.dataReceived(frame(ASK, 1, b"\xff\xff\x90"))
        self.assertTrue(self.transport.aborted)

    def test_nothing_after_the_abort(self) -> None:
        """What stood behind a bad frame is not served."""
        self.link.dataReceived(frame(ASK, 1, b"\xff\xff\x90") + frame(ASK, 2, KeepAlive(1)))
        self.assertEqual(self.asked, [])

    def test_http(self) -> None:
        """A browser that strays here is sent off at its first bytes."""
        self.link.dataReceived(b"GET / HTTP/1.1\r\nHost: dc1.ntm.example\r\n\r\n")
        self.assertTrue(self.transport.aborted)


class LifeTests(LinkCase):
    def test_ready(self) -> None:
        """A link is ready when its peer is verified, and says who that is."""
        self.assertIs(self.successResultOf(self.link.ready), self.link)
        self.assertEqual(self.link.peer, ("dc", "dc2.ntm.example"))

    def test_unverified(self) -> None:
        """R1: a peer that is not who it should be is cut off; nothing of it was served."""
        self.link = Link(self.clock, self.serve, self.verify)
        self.verdict = AuthenticationError("another one")
        self.transport = Plain()
        self.link.makeConnection(self.transport)
        self.failureResultOf(self.link.ready, AuthenticationError)
        self.assertTrue(self.transport.aborted)
        self.link.dataReceived(frame(ASK, 1, KeepAlive(1)))
        self.assertEqual(self.asked, [])

    def test_bytes_before_the_handshake(self) -> None:
        """Nothing is served before the peer was verified."""

        class Waiting(Plain):
            def getPeerCertificate(self) -> None:
                """TLS, not done yet."""

        link, transport = Link(self.clock, self.serve, self.verify), Waiting()
        link.makeConnection(transport)
        self.assertFalse(link.alive)
        link.dataReceived(frame(ASK, 1, KeepAlive(1)))
        self.assertEqual(self.asked, [])
        self.assertTrue(transport.aborted)

    def test_lost_during_the_handshake(self) -> None:
        """Who waits for a link that never stands hears why, in one of our errors."""

        class Waiting(Plain):
            def getPeerCertificate(self) -> None:
                """TLS, not done yet."""

        for problem, text in (
            (ConnectionDone(), "closed the connection during the TLS handshake"),
            (ConnectionLost("reset"), "the connection failed"),
            (AuthenticationError("no such authority"), "no such authority"),
        ):
            link = Link(self.clock, self.serve, self.verify)
            link.makeConnection(Waiting())
            link.connectionLost(Failure(problem))
            failure = self.failureResultOf(link.ready, NTMobileError)
            self.assertIn(text, failure.getErrorMessage())

    def test_closed(self) -> None:
        """Who wants to know hears when and why the connection went; once, as a value."""
        reasons: list[object] = []
        self.link.closed.addCallback(reasons.append)
        problem = ConnectionLost()
        self.lose(problem)
        self.assertEqual(reasons, [problem])

    def test_close(self) -> None:
        """Closing lets go out what was written; doing so again, or too late, is no error."""
        self.link.close()
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)
        self.link.close()
        self.lose()
        self.link.close()

    def test_relay_end(self) -> None:
        """Every declared message may travel on a link."""
        self.link.dataReceived(frame(ASK, 1, RelayEnd(bytes(8))))
        self.assertEqual(self.asked, [RelayEnd(bytes(8))])
