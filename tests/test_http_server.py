"""The HTTP server of the APIs: judged by the head, bounded, and problem documents for all else."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AlreadyExists, AuthenticationError, UnknownName
from ntmobile.protocols.http_limits import Limits, Room
from ntmobile.protocols.http_routes import Answer, Call, Head, Route, Table, number, octets
from ntmobile.protocols.http_server import HttpApi
from ntmobile.testing.clock import ExactClock
from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.messages.exchange import TokenAcknowledgement
from ntmobile.wire.problems import error_of
from tests.http_bytes import Transport, answers


def signed(head: Head) -> str:
    """Who has said the word."""
    if head.header("x-word") != "open":
        raise AuthenticationError("the word is missing; say it")
    return "friend"


class ApiTests(SynchronousTestCase):
    """A small API, spoken to in bytes."""

    limits = Limits(connections=3, per_address=3, bodies=300_000, served=250_000)

    def setUp(self) -> None:
        self.clock = ExactClock()
        self.calls: list[Call] = []
        self.waiting: Deferred[Answer] | None = None
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        thing, part = octets("id", 2, "a thing"), number("n", 99, "a number")
        routes = [
            Route("GET", "/v1/things/{id}", "Get.", "open", self.get, (thing,)),
            Route(
                "PUT", "/v1/things/{id}/parts/{n}", "Put.", "signed", self.put, (thing, part),
                octets=200_000, status=204,
            ),
            Route(
                "POST", "/v1/things", "Post.", "open", self.post, body=TokenAcknowledgement,
                query=(number("after", 9, "a number"),),
            ),
            Route("GET", "/v1/pieces", "Get pieces.", "open", self.pieces),
        ]  # fmt: skip
        self.api = HttpApi(
            Table(routes),
            {"open": lambda head: None, "signed": signed},
            self.clock,
            self.limits,
            self.directory,
        )
        self.connection, self.transport = self.connect()

    def connect(self) -> tuple[Any, Transport]:
        """A new connection."""
        connection = self.api.buildProtocol(None)
        assert connection is not None
        transport = Transport()
        connection.makeConnection(transport)
        return connection, transport

    async def get(self, call: Call) -> Answer:
        self.calls.append(call)
        if call.value("id") == b"\0\0":
            raise UnknownName("there is no such thing")
        if call.value("id") == b"\xff\xff":
            raise ZeroDivisionError("secret")
        if self.waiting is not None:
            return await self.waiting
        return Answer(body=call.value("id"))

    async def put(self, call: Call) -> Answer:
        self.calls.append(call)
        if call.value("n") == 9:
            raise AlreadyExists("there is another one")
        if self.waiting is not None:
            return await self.waiting
        return Answer(status=204)

    async def post(self, call: Call) -> Answer:
        self.calls.append(call)
        return Answer(document=call.message)

    async def pieces(self, call: Call) -> Answer:
        async def each() -> AsyncGenerator[bytes, None]:
            for letter in (b"a", b"b", b"c"):
                yield letter * 1000

        return Answer(pieces=each(), length=3000)

    def say(self, text: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """Send bytes; the answers to them."""
        self.transport.clear()
        self.connection.dataReceived(text)
        return list(answers(self.transport.value()))

    def refused(self, text: bytes) -> tuple[int, str]:
        """Status and detail of the one problem that bytes are answered with."""
        [(status, headers, body)] = self.say(text)
        self.assertEqual(headers["content-type"], "application/problem+json")
        document = json.loads(body)
        self.assertEqual(document["status"], status)
        self.assertEqual(str(error_of(status, body)), document["detail"])
        return status, document["detail"]

    def test_get(self) -> None:
        """What is asked for is answered, one after the other on a connection."""
        request = b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n"
        found = self.say(request + request)
        self.assertEqual([(status, body) for status, _, body in found], [(200, b"\x0a\x0b")] * 2)

    def test_paths(self) -> None:
        """Everything that is not exactly a path of a route is unknown."""
        for path in (
            b"/", b"/v1/things/0A0B", b"/v1/things/0a0b/", b"/v1/things/../things/0a0b",
            b"/v1/things/%30a0b", b"//v1/things/0a0b", b"/v1/things/0a0b%00",
            b"/v1/things/" + b"0" * 99, b"http://x/v1/things/0a0b", b"*",
            b"/v1/%2e%2e/v1/things/0a0b", b"/v1/things%2f0a0b", b"/v1/things/0a0b;x",
            b"/v1/things/0a0b/parts/1/../../0a0b", b"/v1/things/" + b"%2e" * 4000,
            b"/v1/./things/0a0b", b"\\v1\\things\\0a0b",
        ):  # fmt: skip
            status, detail = self.refused(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(status, 404, path)
            self.assertIn("/v1/openapi.json", detail)
        self.assertEqual(self.calls, [])

    def test_strange_targets(self) -> None:
        """A target that is not ASCII, or longer than any, is malformed; the query is no path."""
        for target in ("/v1/things/0a0bä".encode(), b"/v1/things/\xc0\xae", b"/" + b"a" * 20_000):
            self.connection, self.transport = self.connect()
            status, detail = self.refused(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual((status, detail.isascii()), (400, True), target[:30])
            self.connection.connectionLost()
        self.connection, self.transport = self.connect()
        for query in (b"?id=../../x", b"?%2e%2e%2f", b"?" + b"a" * 9000, b"?\\"):
            [(status, _, body)] = self.say(
                b"GET /v1/things/0a0b" + query + b" HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            self.assertEqual((status, body), (200, b"\x0a\x0b"))
        self.assertEqual(self.refused(self.post_text(b"{}", b"?after=1&%61fter=2"))[0], 400)
        self.assertEqual(self.refused(self.post_text(b"{}", b"?after=%ff"))[0], 400)
        self.assertEqual(self.refused(self.post_text(b"{}", b"?" + b"x=1&" * 40))[0], 400)

    def test_method(self) -> None:
        """What cannot be done is told, with what can."""
        [(status, headers, _)] = self.say(b"PATCH /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((status, headers["allow"]), (405, "GET"))

    def test_errors(self) -> None:
        """Errors are problems; what is not ours says nothing of itself."""
        self.assertEqual(
            self.refused(b"GET /v1/things/0000 HTTP/1.1\r\nHost: x\r\n\r\n"),
            (404, "there is no such thing"),
        )
        status, detail = self.refused(b"GET /v1/things/ffff HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(status, 500)
        self.assertNotIn("secret", detail)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def put_head(self, length: int, extra: bytes = b"X-Word: open\r\n", n: int = 1) -> bytes:
        """The head of an upload."""
        line = b"PUT /v1/things/0a0b/parts/%d HTTP/1.1\r\nHost: x\r\n" % n
        return line + b"Content-Length: %d\r\n%s\r\n" % (length, extra)

    def test_put(self) -> None:
        """A body comes whole, in whatever pieces it came."""
        body = bytes(range(256)) * 300
        self.assertEqual(self.say(self.put_head(len(body)) + body[:5]), [])
        self.assertEqual([each[0] for each in self.say(body[5:])], [204])
        self.assertEqual(self.calls[0].body, body)
        self.assertEqual(self.calls[0].caller, "friend")

    def test_refused_by_head(self) -> None:
        """Who may not send is told when the body is through, and the connection goes on."""
        body = bytes(100_000)
        self.assertEqual(self.say(self.put_head(len(body), b"") + body[1:]), [])
        [(status, headers, _)] = self.say(body[:1])
        self.assertEqual((status, headers["www-authenticate"]), (401, "Signature"))
        self.assertEqual([each[0] for each in self.say(self.put_head(0))], [204])

    def test_expect(self) -> None:
        """Who asks before it sends the body hears at once."""
        expect = b"Expect: 100-continue\r\n"
        self.transport.clear()
        self.connection.dataReceived(self.put_head(5, expect + b"X-Word: open\r\n"))
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual([each[0] for each in self.say(b"12345")], [204])
        status, _ = self.refused(self.put_head(5, expect))
        self.assertEqual(status, 401)
        self.assertTrue(self.transport.disconnecting)

    def test_length(self) -> None:
        """A body without length is refused at once, as is one that is too long by far."""
        status, _ = self.refused(
            b"PUT /v1/things/0a0b/parts/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.assertEqual(status, 411)
        self.assertTrue(self.transport.disconnecting)
        self.connection, self.transport = self.connect()
        self.assertEqual(self.refused(self.put_head(1 << 40))[0], 413)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.say(self.put_head(0)), [])

    def test_too_long(self) -> None:
        """A body over the route's bound is dropped and refused."""
        self.assertEqual(self.say(self.put_head(200_001) + bytes(200_000)), [])
        self.assertEqual(self.refused(b"x")[0], 413)
        status, detail = self.refused(
            b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        )
        self.assertEqual((status, detail), (413, "a body of 1 bytes, where no body may be"))

    def test_digest(self) -> None:
        """A body that is not what its digest says is refused, before anything is done with it."""
        field = f"Content-Digest: {content_digest(b'right')}\r\nX-Word: open\r\n".encode()
        self.assertEqual([each[0] for each in self.say(self.put_head(5, field) + b"right")], [204])
        status, _ = self.refused(self.put_head(5, field) + b"wrong")
        self.assertEqual((status, len(self.calls)), (422, 1))
        bad = b"Content-Digest: sha-256=1\r\nX-Word: open\r\n"
        self.assertEqual(self.refused(self.put_head(5, bad) + b"right")[0], 400)

    def post_text(
        self, body: bytes, query: bytes = b"", media: bytes = b"application/json"
    ) -> bytes:
        """A request with a document."""
        line = b"POST /v1/things%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n" % (query, media)
        return line + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

    def test_documents(self) -> None:
        """A document is read, and answered with one."""
        [(status, headers, body)] = self.say(self.post_text(b'{"sequence": 5}', b"?after=3&x=1"))
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        self.assertEqual(json.loads(body), {"sequence": 5})
        self.assertEqual(self.calls[0].value("after"), 3)
        for wrong in (b"", b"{}", b"[]", b'{"sequence": -1}', b'{"sequence": "5"}', b"\xff"):
            self.assertEqual(self.refused(self.post_text(wrong))[0], 400, wrong)
        self.assertEqual(self.refused(self.post_text(b"{}", b"?after=10"))[0], 400)
        self.assertEqual(self.refused(self.post_text(b"{}", b"?after=1&after=1"))[0], 400)
        self.assertEqual(self.refused(self.post_text(b"{}", media=b"text/plain"))[0], 415)

    def test_pieces(self) -> None:
        """An answer in pieces has its length, and goes at the client's pace."""
        self.connection.pauseProducing()
        [(status, _, body)] = self.say(b"GET /v1/pieces HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((status, body), (200, b"a" * 1000 + b"b" * 1000 + b"c" * 1000))

    def test_not_http(self) -> None:
        """What is no HTTP is told so, and cut off."""
        for text in (b"\x16\x03\x01\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"):
            self.connection, self.transport = self.connect()
            self.assertEqual(self.refused(text)[0], 400)
            self.assertTrue(self.transport.disconnecting)
            self.connection.connectionLost()

    def test_lengths_that_contradict(self) -> None:
        """A body whose end may be read in two ways is refused, and nothing after it is taken."""
        for fields in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 5",
            b"Content-Length: +5", b"Content-Length: -5", b"Content-Length: 0x5",
            b"Content-Length: 5_0", b"Content-Length:", b"Content-Length : 5",
        ):  # fmt: skip
            self.connection, self.transport = self.connect()
            head = b"PUT /v1/things/0a0b/parts/1 HTTP/1.1\r\nHost: x\r\nX-Word: open\r\n"
            after = b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n"
            self.assertEqual(self.refused(head + fields + b"\r\n\r\n12345" + after)[0], 400, fields)
            self.assertTrue(self.transport.disconnecting)
            self.connection.connectionLost()
        self.assertEqual(self.calls, [])

    def test_large_head(self) -> None:
        """A head without end is cut off."""
        line = b"X: " + b"y" * 1000 + b"\r\n"
        status, _ = self.refused(b"GET / HTTP/1.1\r\n" + line * 20)
        self.assertEqual(status, 400)
        self.assertTrue(self.transport.disconnecting)

    def test_slow_head(self) -> None:
        """Who does not finish a head is told so, and cut off at last."""
        self.connection.dataReceived(b"GET /v1/things/0a0b HTTP/1.1\r\n")
        for _ in range(19):
            self.clock.advance(1)
            self.connection.dataReceived(b"X: y\r\n")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(1)
        [(status, _, _)] = answers(self.transport.value())
        self.assertEqual(status, 408)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(15)
        self.assertTrue(self.transport.aborted)

    def test_silent(self) -> None:
        """Who connects and says nothing, and who says nothing more, is cut off."""
        _, transport = self.connect()
        self.say(b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.clock.advance(20)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(40)
        self.assertTrue(self.transport.disconnecting)

    def test_slow_body(self) -> None:
        """A body that comes too slowly is cut off, even if it never stops."""
        self.connection.dataReceived(self.put_head(65536))
        for _ in range(33):
            self.clock.advance(1)
            self.connection.dataReceived(b"x")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(1)
        self.assertEqual([each[0] for each in answers(self.transport.value())], [408])

    def test_connections(self) -> None:
        """There are no more connections than may be; one that ends makes room."""
        connections = [self.connection, *(self.connect()[0] for _ in range(2))]
        self.waiting = Deferred()
        for each in connections:
            each.dataReceived(b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIsNone(self.api.buildProtocol(None))
        self.connection.connectionLost()
        self.connect()

    def test_idle_connections(self) -> None:
        """Who only holds connections keeps nobody out: the one that waits longest makes room."""
        _, second = self.connect()
        _, third = self.connect()
        self.say(b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.waiting = Deferred()
        self.connect()
        self.assertEqual(
            [each.aborted for each in (self.transport, second, third)], [False, True, False]
        )
        self.connection.dataReceived(b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(4):
            self.connect()
        self.assertFalse(self.transport.aborted)
        self.waiting.callback(Answer(body=b"x"))
        self.assertIn(b"200 OK", self.transport.value())

    def test_half_a_head(self) -> None:
        """A head that does not end is no reason to stay, half a body is one."""
        half, transport = self.connect()
        half.dataReceived(b"GET /v1/things/0a0b HTTP/1.1\r\n")
        self.connection.dataReceived(self.put_head(5) + b"1234")
        self.connect()
        self.connect()
        self.assertEqual((transport.aborted, self.transport.aborted), (True, False))
        self.assertEqual([each[0] for each in self.say(b"5")], [204])

    def test_servers_stay(self) -> None:
        """A server of the realm, such as the AS, is not sent away for others."""
        self.patch(self.connection, "peer", lambda: ("as", "ntm.example"))
        for _ in range(5):
            self.connect()
        self.assertFalse(self.transport.aborted)

    def test_networks(self) -> None:
        """Addresses of one IPv6 network count together, as its owner has as many as he likes."""
        api = HttpApi(
            Table([]), {}, self.clock, Limits(connections=9, per_address=2), self.directory
        )
        transports = []
        for host in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::1", "192.0.2.1"):
            connection = api.buildProtocol(IPv6Address("TCP", host, 1))
            assert connection is not None
            transports.append(Transport())
            connection.makeConnection(transports[-1])
        self.assertEqual([each.aborted for each in transports], [True] + [False] * 4)

    def test_slow_bodies(self) -> None:
        """However many bodies come slowly, another one is taken at its own pace."""
        body = bytes(range(250)) * 800
        slow = []
        for _ in range(2):
            connection, transport = self.connect()
            connection.dataReceived(self.put_head(len(body)) + body[1:])
            self.assertFalse(transport.paused)
            slow.append(connection)
        self.assertEqual([each[0] for each in self.say(self.put_head(len(body)) + body)], [204])
        self.assertEqual(self.calls[0].body, body)
        for each in slow:
            each.dataReceived(body[:1])
        self.assertEqual([len(each.body) for each in self.calls], [len(body)] * 3)
        self.assertEqual(self.api.bodies.coming._free, 300_000)

    def test_filed(self) -> None:
        """A body that goes to a file leaves no name there, and waits its turn to be served."""
        body = bytes(200_000)
        connections = [self.connect() for _ in range(2)]
        connections[0][0].dataReceived(self.put_head(len(body)))
        self.waiting = Deferred()
        connections[1][0].dataReceived(self.put_head(len(body)) + body)
        self.assertEqual(len(self.calls), 1)
        self.connection.dataReceived(self.put_head(len(body)) + body)
        self.assertEqual(len(self.calls), 1)
        self.assertEqual(list(self.directory.iterdir()), [])
        waiting, self.waiting = self.waiting, None
        waiting.callback(Answer(status=204))
        self.assertEqual(len(self.calls), 2)
        for connection in (self.connection, *(each for each, _ in connections)):
            connection.connectionLost()
        rooms = self.api.bodies.coming, self.api.bodies.served
        self.assertEqual([each._free for each in rooms], [300_000, 250_000])

    def test_gone_while_filed(self) -> None:
        """A client that goes while it waits for its turn takes no room after that."""
        body = bytes(200_000)
        connections = [self.connect()[0] for _ in range(2)]
        connections[0].dataReceived(self.put_head(len(body)))
        self.waiting = Deferred()
        connections[1].dataReceived(self.put_head(len(body)) + body)
        self.connection.dataReceived(self.put_head(len(body)) + body)
        self.connection.connectionLost()
        waiting, self.waiting = self.waiting, None
        waiting.callback(Answer(status=204))
        self.assertEqual(self.api.bodies.served._free, 250_000)

    def test_no_room_for_files(self) -> None:
        """Where there is no room for files either, the client is told so after its body."""
        body = bytes(200_000)
        self.connect()[0].dataReceived(self.put_head(len(body)))
        self.directory.rmdir()
        self.assertEqual(self.refused(self.put_head(len(body)) + body)[0], 503)

        def full(**kwargs: object) -> object:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(tempfile, "TemporaryFile", full)
        status, detail = self.refused(self.put_head(len(body)) + body)
        self.assertEqual(status, 507)
        self.assertIn("No space left", detail)
        self.assertNotIn(str(self.directory), detail)

    def test_gone(self) -> None:
        """A client that goes while it is served disturbs nothing."""
        self.waiting = Deferred()
        self.assertEqual(self.say(b"GET /v1/things/0a0b HTTP/1.1\r\nHost: x\r\n\r\n"), [])
        self.connection.connectionLost()
        self.waiting.callback(Answer(body=b"x"))
        self.assertEqual(self.transport.value(), b"")

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=4), st.integers(0, 80))
    def test_any_bytes(self, pieces: list[bytes], at: int) -> None:
        """Whatever comes raises nothing, and is answered with problems if at all."""
        right = self.put_head(3) + b"abc"
        connection = self.api.buildProtocol(None)
        assert connection is not None
        transport = Transport()
        connection.makeConnection(transport)
        for data in (right[:at], *pieces, right[at:]):
            connection.dataReceived(data)
        for status, headers, _ in answers(transport.value()):
            self.assertTrue(status == 204 or headers["content-type"].endswith("problem+json"))
        connection.connectionLost()


class RoomTests(SynchronousTestCase):
    """Memory for bodies."""

    def test_order(self) -> None:
        """Who waits longest enters first; who would not wait takes nobody's place."""
        room = Room(10)
        entered: list[str] = []
        self.assertTrue(room.take(8))
        for name in "abc":
            self.assertFalse(room.take(5, partial(entered.append, name)))
        self.assertFalse(room.take(1))
        room.leave(8)
        self.assertEqual(entered, ["a", "b"])
        room.leave(5)
        self.assertEqual(entered, ["a", "b", "c"])

    def test_larger_than_all(self) -> None:
        """What is larger than all the room has it alone."""
        room = Room(10)
        self.assertTrue(room.take(100))
        self.assertFalse(room.take(1))
        room.leave(100)
        self.assertTrue(room.take(10))
