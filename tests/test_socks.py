"""The SOCKS5 protocol, on transports in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AccessDenied, NTMobileError, UnknownName, Unreachable
from ntmobile.protocols.socks import (
    PATIENCE,
    RefusedRequest,
    Reply,
    SocksFactory,
    SocksProtocol,
    parse_request,
)
from ntmobile.protocols.splicing import Spliced

NAME = b"phone.alice.dc1.ntm.example"
REQUEST = b"\x05\x01\x00\x03" + bytes((len(NAME),)) + NAME + b"\x00\x50"


class RequestTests(SynchronousTestCase):
    """Requests as bytes."""

    def test_name(self) -> None:
        """A name stays a name."""
        self.assertEqual((NAME.decode(), 80, len(REQUEST)), parse_request(REQUEST + b"more"))

    def test_addresses(self) -> None:
        """IPv4 and IPv6 addresses, as text."""
        four = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x1f\x90"
        self.assertEqual(("192.0.2.1", 8080, 10), parse_request(four))
        six = b"\x05\x01\x00\x04\xfd" + bytes(14) + b"\x01\x00\x16"
        self.assertEqual(("fd00::1", 22, 22), parse_request(six))

    def test_not_whole(self) -> None:
        """A request that comes in pieces is waited for."""
        for length in range(len(REQUEST)):
            self.assertIsNone(parse_request(REQUEST[:length]))

    def test_refused(self) -> None:
        """Other versions, commands and kinds of address each have their reply."""
        cases = {
            b"\x04\x01\x00\x03\x01": Reply.FAILED,
            b"\x05\x02\x00\x03\x01": Reply.NO_COMMAND,
            b"\x05\x03\x00\x03\x01": Reply.NO_COMMAND,
            b"\x05\x01\x00\x07\x01": Reply.NO_ADDRESS_TYPE,
            b"\x05\x01\x00\x03\x00": Reply.FAILED,
            b"\x05\x01\x00\x03\x01\xff\x00\x50": Reply.HOST_UNREACHABLE,
        }
        for data, reply in cases.items():
            problem = self.assertRaises(RefusedRequest, parse_request, data)
            self.assertEqual(reply, problem.reply, data)


class ConversationTests(SynchronousTestCase):
    """A client's conversation with the proxy."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, int]] = []
        self.told: list[tuple[str, str]] = []
        self.connecting: Deferred[Spliced] = Deferred()

        def connect(host: str, port: int) -> Deferred[Spliced]:
            self.asked.append((host, port))
            return self.connecting

        factory = SocksFactory(self.clock, connect, lambda *words: self.told.append(words))
        self.proxy: SocksProtocol = factory.buildProtocol(None)
        self.near = StringTransport()
        self.proxy.makeConnection(self.near)

    def far(self) -> StringTransport:
        """The far side is reached."""
        side, transport = Spliced(), StringTransport()
        side.makeConnection(transport)
        self.connecting.callback(side)
        return transport

    def say(self, *pieces: bytes) -> bytes:
        """Bytes of the client; gives the answer."""
        self.near.clear()
        for piece in pieces:
            self.proxy.dataReceived(piece)
        answer: bytes = self.near.value()
        return answer

    def test_connects(self) -> None:
        """Greeting, request, then bytes both ways, those sent too early included."""
        self.assertEqual(b"\x05\x00", self.say(b"\x05\x01\x00"))
        self.assertEqual(b"", self.say(REQUEST, b"early"))
        self.assertEqual([(NAME.decode(), 80)], self.asked)
        self.near.clear()
        far = self.far()
        self.assertEqual(b"\x05\x00\x00\x01" + bytes(6), self.near.value())
        self.assertEqual(b"early", far.value())
        self.say(b" and late")
        self.assertEqual(b"early and late", far.value())
        assert self.proxy.other is not None
        self.near.clear()
        self.proxy.other.dataReceived(b"answer")
        self.assertEqual(b"answer", self.near.value())

    def test_byte_by_byte(self) -> None:
        """It does not matter in which pieces all that comes."""
        self.say(*(bytes((byte,)) for byte in b"\x05\x02\x01\x00" + REQUEST))
        self.assertEqual([(NAME.decode(), 80)], self.asked)

    def test_no_method(self) -> None:
        """A client that insists on a password is told that there is none."""
        self.assertEqual(b"\x05\xff", self.say(b"\x05\x01\x02"))
        self.assertTrue(self.near.disconnecting)

    def test_no_socks(self) -> None:
        """What is no SOCKS5 is dropped."""
        for data in (b"GET / HTTP/1.1\r\n", b"\x04\x01\x00\x50"):
            self.setUp()
            self.say(data)
            self.assertTrue(self.near.disconnecting, data)
            self.assertEqual([], self.asked)

    def test_failures(self) -> None:
        """Each error has the reply that fits it, and is told."""
        cases: dict[Reply, NTMobileError] = {
            Reply.HOST_UNREACHABLE: UnknownName("nobody"),
            Reply.REFUSED: Unreachable("port 80: Connection refused"),
            Reply.NOT_ALLOWED: AccessDenied("no"),
            Reply.FAILED: NTMobileError("something"),
        }
        for reply, problem in cases.items():
            self.setUp()
            self.say(b"\x05\x01\x00", REQUEST)
            self.near.clear()
            self.connecting.errback(Failure(problem))
            self.assertEqual(bytes((5, reply, 0, 1)) + bytes(6), self.near.value())
            self.assertTrue(self.near.disconnecting)
            self.assertEqual([(f"{NAME.decode()}:80", str(problem))], self.told)

    def test_fault(self) -> None:
        """A fault of our own is a plain failure for the client, and in the log."""
        self.say(b"\x05\x01\x00", REQUEST)
        self.connecting.errback(Failure(ZeroDivisionError()))
        self.assertEqual(b"\x05\x01", self.near.value()[-10:-8])
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_silent(self) -> None:
        """A client that says nothing is not waited for longer than a while."""
        self.clock.advance(PATIENCE + 1)
        self.assertTrue(self.near.disconnecting)

    def test_gone(self) -> None:
        """A client that leaves takes the attempt to connect with it."""
        cancelled: list[bool] = []
        self.connecting = Deferred(lambda _: cancelled.append(True))
        self.say(b"\x05\x01\x00", REQUEST)
        self.proxy.connectionLost()
        self.assertEqual([True], cancelled)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_flood(self) -> None:
        """What comes before the far side is there is bounded."""
        self.say(b"\x05\x01\x00", REQUEST, bytes(70000))
        self.assertTrue(self.near.disconnecting)
