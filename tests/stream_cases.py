"""Protocols and a case that the tests of streams share."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import (
    IConnector,
    IHalfCloseableProtocol,
)
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ntmobile.testing import Host, Link, VirtualInternet
from ntmobile.testing.streams import StreamTransport


class Keeper(Protocol):
    """Keeps what it receives and why it ended."""

    transport: StreamTransport

    def __init__(self) -> None:
        self.data = b""
        self.made = 0
        self.reason: Failure | None = None

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class HalfKeeper(Keeper):
    """Knows half-closed connections."""

    def __init__(self) -> None:
        super().__init__()
        self.halves: list[str] = []

    def readConnectionLost(self) -> None:
        self.halves.append("read")

    def writeConnectionLost(self) -> None:
        self.halves.append("write")


class Keepers(ServerFactory):
    """A server of keepers."""

    def __init__(self, kind: type[Keeper] = Keeper) -> None:
        self.kind = kind
        self.protocols: list[Any] = []

    def buildProtocol(self, addr: object) -> Keeper:
        protocol = self.kind()
        protocol.factory = self
        self.protocols.append(protocol)
        return protocol


class Attempts(ClientFactory[Keeper]):
    """Notes what becomes of a connector."""

    def __init__(self) -> None:
        self.failed: list[Failure] = []
        self.lost: list[Failure] = []
        self.protocols: list[Keeper] = []

    def buildProtocol(self, addr: object) -> Keeper:
        self.protocols.append(Keeper())
        return self.protocols[-1]

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.failed.append(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self.lost.append(reason)


class StreamTestCase(SynchronousTestCase):
    """Two hosts, one of which listens."""

    link = Link()

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.server_host = self.internet.host("server", "203.0.113.1", "2001:db8::1")
        self.client_host = self.internet.host("client", "203.0.113.2", link=self.link.copy())
        self.factory = Keepers()
        self.port = self.server_host.reactor.listenTCP(4330, self.factory)

    def connect(
        self, host: Host | None = None, kind: type[Keeper] = Keeper
    ) -> tuple[Keeper, Keeper]:
        """A connection: the client's protocol and the server's."""
        reactor = (host or self.client_host).reactor
        endpoint = TCP4ClientEndpoint(reactor, "203.0.113.1", 4330)
        client = self.internet.result(connectProtocol(endpoint, kind()))
        self.internet.run_until(lambda: bool(self.factory.protocols))
        return client, self.factory.protocols[-1]
