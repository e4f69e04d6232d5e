"""Joined streams, over real sockets on loopback."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ntmobile.errors import Unreachable
from ntmobile.protocols.splicing import ForwardingFactory, Spliced, SplicedFactory

HOST = "127.0.0.1"
PATIENCE = 10.0


class Upper(Protocol):
    """Answers in capitals what it got, once the other end has said all."""

    def __init__(self, closed: list[Deferred[None]]) -> None:
        self.data = b""
        self._closed: Deferred[None] = Deferred()
        closed.append(self._closed)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if data.endswith(b"\n"):
            assert self.transport is not None
            self.transport.write(self.data.upper())
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed.callback(None)


class ForwardTests(TestCase):
    """From a port to another."""

    timeout = 30

    def setUp(self) -> None:
        self.closed: list[Deferred[None]] = []
        self.told: list[str] = []
        server = Factory.forProtocol(lambda: Upper(self.closed))
        self.server = self.listen(server)
        self.addCleanup(self.all_closed)

    async def all_closed(self) -> None:
        """The server's connections are gone."""
        for one in self.closed:
            await one

    def listen(self, factory: Any) -> int:
        """Listen on loopback; gives the port."""
        port: Any = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def forward(self, connect: Any = None) -> int:
        """Forward to the server."""
        endpoint: Any = TCP4ClientEndpoint(reactor, HOST, self.server)
        reach = connect or (lambda: endpoint.connect(SplicedFactory()))
        return self.listen(ForwardingFactory(reach, self.told.append))

    async def exchange(self, port: int, data: bytes, *, shut: bool = False) -> bytes:
        """Send, perhaps say that it is all, and read to the end."""

        def run() -> bytes:
            with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
                connection.sendall(data)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as answer:
                    return answer.read()

        return await deferToThread(run)

    async def test_both_ways(self) -> None:
        """Bytes go there and back, and the end is passed on."""
        self.assertEqual(b"HELLO\n", await self.exchange(self.forward(), b"hello\n"))

    async def test_much(self) -> None:
        """Megabytes pass, with neither side held in memory as a whole."""
        data = b"abcdefg\n" * (1 << 18)
        closed: list[Deferred[None]] = self.closed

        class Counter(Protocol):
            count = 0

            def __init__(self) -> None:
                self.gone: Deferred[None] = Deferred()
                closed.append(self.gone)

            def dataReceived(self, piece: bytes) -> None:
                self.count += len(piece)
                if self.count == len(data):
                    assert self.transport is not None
                    self.transport.write(b"%d" % self.count)
                    self.transport.loseConnection()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                self.gone.callback(None)

        self.server = self.listen(Factory.forProtocol(Counter))
        answer = await self.exchange(self.forward(), data)
        self.assertEqual(b"%d" % len(data), answer)

    async def test_half_close(self) -> None:
        """Who has said all still hears the answer."""

        class AtEnd(Spliced):
            """Answers when the other end has said all."""

            data = b""

            def dataReceived(self, data: bytes) -> None:
                self.data += data

            def readConnectionLost(self) -> None:
                assert self.transport is not None
                self.transport.write(self.data[::-1])
                self.transport.loseConnection()

        self.server = self.listen(Factory.forProtocol(AtEnd))
        self.assertEqual(b"cba", await self.exchange(self.forward(), b"abc", shut=True))

    async def test_early_end(self) -> None:
        """Who has said all before the far side is there is heard too."""
        endpoint = TCP4ClientEndpoint(reactor, HOST, self.server)
        waiting: Deferred[None] = Deferred()

        async def slowly() -> Any:
            await waiting
            return await endpoint.connect(SplicedFactory())

        port = self.forward(lambda: Deferred.fromCoroutine(slowly()))
        exchanging = Deferred.fromCoroutine(self.exchange(port, b"early\n", shut=True))
        reactor.callLater(0.1, waiting.callback, None)
        self.assertEqual(b"EARLY\n", await exchanging)

    async def test_unreached(self) -> None:
        """Where the far side cannot be reached, that is told, and the connection closed."""

        async def fail() -> Any:
            raise Unreachable("nobody is there")

        port = self.forward(lambda: Deferred.fromCoroutine(fail()))
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b"", await self.exchange(port, b""))
        self.assertEqual(["nobody is there"], self.told)
