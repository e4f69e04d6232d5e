from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ntmobile.errors import AuthenticationError
from ntmobile.protocols.link import Link
from ntmobile.protocols.tls import ServerTLS
from ntmobile.servers.incoming import HANDSHAKE, VISIT, IncomingLinks
from ntmobile.wire.codec import Message


@implementer(IOpenSSLServerConnectionCreator)
class NoTLS:
    """Stands for a server's TLS, which no test here comes to."""

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """Not called before there is a transport."""
        raise AssertionError("no connection is made here")


class IncomingLinksTests(SynchronousTestCase):
    """Who may stay connected, and for how long."""

    def setUp(self) -> None:
        """At most four connections, two of one network; nobody has a certificate yet."""
        self.clock = Clock()
        self.peer: tuple[str, str] | None = None
        self.incoming = IncomingLinks(self.clock, self.make, most=4, each=2)
        self.factory: Any = self.incoming.factory(cast(ServerTLS, NoTLS()))

    def make(self) -> Link:
        """A link whose peer has the certificate that the test says."""
        link = Link(self.clock, self.asked, self.verify)
        link.ready.addErrback(lambda failure: failure.trap(AuthenticationError, ConnectionDone))
        return link

    async def asked(self, message: Message, link: Link) -> None:
        """Nothing is asked here."""

    def verify(self, transport: ITransport) -> tuple[str, str] | None:
        """Who it is."""
        return self.peer

    def connect(self, host: str = "203.0.113.1") -> Link | None:
        """A connection in its handshake; None if it was refused."""
        kind = IPv6Address if ":" in host else IPv4Address
        built = self.factory.buildProtocol(kind("TCP", host, 1))
        if built is None:
            return None
        link = built.wrappedProtocol
        assert isinstance(link, Link)
        link.transport = cast(Any, StringTransport())
        return link

    def connected(self, host: str = "203.0.113.1") -> Link:
        """One that was not refused."""
        link = self.connect(host)
        assert link is not None
        return link

    def aborted(self, link: Link) -> bool:
        """Whether the connection was dropped."""
        transport: Any = link.transport
        return bool(transport.disconnected)

    def lose(self, link: Link) -> None:
        """The connection is gone."""
        link.connectionLost(Failure(ConnectionDone()))

    def test_all(self) -> None:
        """A connection over the limit is refused, and not half made; one that ends makes room."""
        links = [self.connected(f"203.0.113.{last}") for last in range(4)]
        self.assertIsNone(self.connect("198.51.100.1"))
        self.assertEqual(len(self.incoming), 4)
        self.lose(links[0])
        self.connected("198.51.100.1")

    def test_share(self) -> None:
        """One network, an IPv4 address or an IPv6 /64, takes no more than its share."""
        first = self.connected()
        self.connected()
        self.assertIsNone(self.connect())
        self.connected("2001:db8::1")
        self.connected("2001:db8::2")
        self.assertIsNone(self.connect("2001:db8::3"))
        self.lose(first)
        self.connected()

    def test_handshake(self) -> None:
        """Who does not finish the handshake is dropped."""
        link = self.connected()
        self.clock.advance(HANDSHAKE - 1)
        self.assertFalse(self.aborted(link))
        self.clock.advance(1)
        self.assertTrue(self.aborted(link))

    def test_visit(self) -> None:
        """Who shows no certificate has time for a login, and then has to go."""
        link = self.connected()
        link.handshakeCompleted()
        self.clock.advance(VISIT - 1)
        self.assertFalse(self.aborted(link))
        self.clock.advance(1)
        self.assertTrue(self.aborted(link))

    def test_server(self) -> None:
        """A server, which has a certificate, stays."""
        self.peer = ("rs", "rs1.dc1.ntm.example")
        link = self.connected()
        link.handshakeCompleted()
        self.clock.advance(10 * VISIT)
        self.assertFalse(self.aborted(link))

    def test_no_timer_remains(self) -> None:
        """A connection that ended leaves nothing behind, however it ended."""
        early, late = self.connected(), self.connected()
        late.handshakeCompleted()
        for link in (early, late):
            self.lose(link)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(list(self.incoming), [])
