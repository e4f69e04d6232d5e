"""Asking a server over HTTPS: what moves is waited for, what stands still or has moved is not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ntmobile.errors import Unreachable
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.http_asking import HttpServerAt, NetworkChanged
from ntmobile.protocols.tls import client_context_factory, server_context_factory
from tests.platforms import HOST, PlatformTestCase
from tests.realms import MemoryRealm

NAME = "cs1.dc1.ntm.example"
#: Seconds in which something must move.
STILL = 0.5
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Served(Protocol):
    """A connection of a server that does what its test says, at the end of each request."""

    def __init__(self, world: AskingTests) -> None:
        self.world = world
        self.expected: int | None = None
        self.got = bytearray()

    def connectionMade(self) -> None:
        """Count it."""
        self.world.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Wait for the end of a request."""
        self.got += data
        self.world.reads(self)
        head, end, body = bytes(self.got).partition(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length: ")
        length = int(lower[at:].split()[1]) if at >= 0 else 0
        if end and len(body) >= length:
            self.got.clear()
            self.world.answers(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count it out."""
        self.world.connections.remove(self)


class AskingTests(PlatformTestCase):
    """One client, one server, over real TLS."""

    def setUp(self) -> None:
        realm = MemoryRealm()
        trust = realm.trust()
        key, chain = realm.server("cs", NAME)
        tls = server_context_factory(
            key, chain, trust, peer_roles=(), require_peer=False, alpn=(HTTP_PROTOCOL,)
        )
        self.connections: list[Served] = []
        self.answers: Callable[[Served], None] = lambda served: self.write(served, ANSWER)
        self.reads: Callable[[Served], None] = lambda served: None
        factory = Factory.forProtocol(lambda: Served(self))
        factory.noisy = False
        wrapped: Any = TLSMemoryBIOFactory(tls, False, factory)
        port: Any = reactor.listenTCP(0, wrapped, interface=HOST)
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        self.addCleanup(port.stopListening)
        context = client_context_factory(None, None, trust, "cs", NAME, alpn=(HTTP_PROTOCOL,))
        places = [(HOST, port.getHost().port)]
        self.server = HttpServerAt(reactor, NAME, places, context, STILL, most=100)
        self.addCleanup(self.close)

    async def close(self) -> None:
        """Close both ends."""
        await self.server.close()
        for one in list(self.connections):
            self.transport(one).abortConnection()
        await self.eventually(lambda: not self.connections, "all connections are closed")

    def transport(self, served: Served) -> Any:
        """Its transport."""
        return served.transport

    def write(self, served: Served, data: bytes) -> None:
        """Have the server say something."""
        self.transport(served).write(data)

    async def ask(self, body: bytes = b"") -> tuple[int, bytes]:
        """Ask it."""
        return await self.server.ask("POST" if body else "GET", "/", body, {})

    async def test_kept(self) -> None:
        """One connection serves one request after the other."""
        for _ in range(3):
            self.assertEqual(await self.ask(b"hello"), (200, b"hi"))
        self.assertEqual(len(self.connections), 1)

    async def test_still(self) -> None:
        """A server that takes a request and says nothing is given up, and named."""
        self.answers = lambda served: None
        problem = await self.assertRaises_(Unreachable, self.ask(b"hello"))
        self.assertEqual(str(problem), f"{NAME}: no answer within {STILL} s")

    async def test_slow(self) -> None:
        """A request that takes longer in all, but goes on moving, is waited for.

        The server's socket holds little, like a slow line.
        """
        began = reactor.seconds()

        resuming: list[IDelayedCall] = []

        def slowly(served: Served) -> None:
            transport = self.transport(served)
            if not any(one.active() for one in resuming):
                transport.pauseProducing()
                resuming.append(reactor.callLater(STILL / 20, transport.resumeProducing))

        def at_once() -> None:
            for one in (one for one in resuming if one.active()):
                one.reset(0)

        self.addCleanup(at_once)
        self.reads = slowly
        self.assertEqual(await self.ask(bytes(2 << 20)), (200, b"hi"))
        self.assertGreater(reactor.seconds() - began, STILL)

    async def test_moved(self) -> None:
        """What is under way when the network changes ends, and the next has another connection."""
        self.answers = lambda served: None
        for body in (b"", b"hello", bytes(16 << 20)):
            asking = Deferred.fromCoroutine(self.ask(body))
            await self.eventually(lambda: bool(self.connections), "it is asked")
            self.server.abort()
            await self.assertRaises_(NetworkChanged, asking)
            await self.eventually(lambda: not self.connections, "the connection is closed")
        self.answers = lambda served: self.write(served, ANSWER)
        self.assertEqual(await self.ask(), (200, b"hi"))

    async def test_idle_when_moved(self) -> None:
        """A connection that was kept is not used again after the network changed."""
        await self.ask()
        former = self.connections[0]
        self.server.abort()
        self.assertEqual(await self.ask(), (200, b"hi"))
        self.assertNotIn(former, self.connections)

    async def test_given_up(self) -> None:
        """Who asks may give up: that is no error of the server."""
        self.answers = lambda served: None
        asking = Deferred.fromCoroutine(self.ask(b"hello"))
        await self.eventually(lambda: bool(self.connections), "it is asked")
        asking.cancel()
        await self.assertRaises_(CancelledError, asking)

    async def test_broken(self) -> None:
        """A server that goes in the middle, or says too much, is an error in a line."""
        self.answers = lambda served: self.transport(served).abortConnection()
        problem = await self.assertRaises_(Unreachable, self.ask(b"hello"))
        self.assertEqual(len(str(problem).splitlines()), 1)
        much = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000)
        self.answers = lambda served: self.write(served, much)
        problem = await self.assertRaises_(Unreachable, self.ask())
        self.assertEqual(str(problem), f"{NAME}: an answer of more than 100 bytes")
        await deferLater(reactor, 0, lambda: None)
