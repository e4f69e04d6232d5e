"""TLS that moves many records at a time: the same bytes, and the same ends."""

from __future__ import annotations

import os
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ntmobile.protocols.bulk_tls import BULK, RECORD, BulkTLS, BulkTLSFactory
from ntmobile.protocols.tls import client_context_factory, server_context_factory
from tests.realms import MemoryRealm

DC = "dc1.ntm.example"


@define(eq=False)
class End(Protocol):
    """One end; it waits for so many bytes.

    :ivar first: written as soon as TCP stands, before TLS does.
    """

    first: bytes = b""
    data: bytearray = field(factory=bytearray)
    pieces: list[int] = field(factory=list)
    lost: Deferred[Any] = field(factory=Deferred)
    _wanted: int = 0
    _enough: Deferred[bytes] | None = None

    def connectionMade(self) -> None:
        if self.first:
            self.send(self.first)

    def send(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def received(self, count: int) -> Deferred[bytes]:
        self._wanted, self._enough = count, Deferred()
        self.dataReceived(b"")
        return self._enough

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if data:
            self.pieces.append(len(data))
        if self._enough is not None and len(self.data) >= self._wanted:
            enough, self._enough = self._enough, None
            enough.callback(bytes(self.data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.type)


class BulkTests(TestCase):
    """A bulk server on loopback, and a client of Twisted's."""

    timeout = 30

    async def connect(self, far: End, factory: type[Any] = BulkTLSFactory) -> End:
        """The client's end of a connection to ``far``."""
        realm = MemoryRealm()
        trust = realm.trust()
        server = server_context_factory(*realm.server("dc", DC), trust, peer_roles=())
        client = client_context_factory(None, None, trust, "dc", DC)

        class Accepting(Factory[Protocol]):
            def buildProtocol(self, address: Any) -> Protocol:
                return far

        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(factory(server, False, Accepting()))
        self.addCleanup(port.stopListening)
        host = port.getHost()
        assert isinstance(host, IPv4Address)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        near = End()
        await connectProtocol(wrapClientTLS(client, endpoint), near)
        return near

    async def both(self, far: End) -> None:
        """Close the server's end in order, and hear of it at both."""
        transport: Any = far.transport
        transport.loseConnection()
        await far.lost

    async def test_both_ways(self) -> None:
        """What is sent comes, whatever its size: of one byte, one record, and much more."""
        far = End()
        near = await self.connect(far)
        self.assertIsInstance(far.transport, BulkTLS)
        data = os.urandom(2 * BULK + 12345)
        sizes = (1, RECORD - 1, RECORD, RECORD + 1, BULK, BULK + 1, len(data))
        for size in sizes:
            for sender, receiver in ((near, far), (far, near)):
                receiver.data.clear()
                sender.send(data[:size])
                self.assertEqual(await receiver.received(size), data[:size])
        await self.both(far)
        await near.lost

    async def test_together(self) -> None:
        """Many records come as few pieces."""
        far = End()
        near = await self.connect(far)
        near.send(bytes(64 * RECORD))
        await far.received(64 * RECORD)
        self.assertLess(len(far.pieces), 40)
        await self.both(far)
        await near.lost

    async def test_before_handshake(self) -> None:
        """What is written before TLS stands is sent when it does."""
        far = End(first=bytes(3 * RECORD))
        near = await self.connect(far)
        self.assertEqual(await near.received(3 * RECORD), bytes(3 * RECORD))
        await self.both(far)
        await near.lost

    async def test_last_words(self) -> None:
        """What comes with the end of a connection is given before the end is told."""
        far = End()
        near = await self.connect(far)
        near.send(bytes(10 * RECORD))
        transport: Any = near.transport
        transport.loseConnection()
        self.assertIs(await far.lost, ConnectionDone)
        self.assertEqual(len(far.data), 10 * RECORD)
        await near.lost

    async def test_cut(self) -> None:
        """A connection that is cut is lost, as with Twisted's own."""
        kinds = []
        for factory in (BulkTLSFactory, TLSMemoryBIOFactory):
            far = End()
            near = await self.connect(far, factory)
            far.send(b"x")
            await near.received(1)
            transport: Any = near.transport
            transport.transport.abortConnection()
            kinds.append(await far.lost)
            await near.lost
        self.assertEqual(kinds, [ConnectionLost, ConnectionLost])

    async def test_nonsense(self) -> None:
        """What is no record ends the connection, as with Twisted's own."""
        for factory in (BulkTLSFactory, TLSMemoryBIOFactory):
            far = End()
            near = await self.connect(far, factory)
            far.send(b"x")
            await near.received(1)
            transport: Any = near.transport
            transport.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
            await far.lost
            await near.lost
            self.assertEqual(far.data, b"")
