from __future__ import annotations

from os import urandom
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import INotifierProvider, Notification
from ntmobile.machines.signalling.session import check_welcome, hello
from ntmobile.machines.signalling.table import SessionTable
from ntmobile.plugins import find
from ntmobile.protocols.signalling import Signalling
from ntmobile.servers.listening import listen_signalling, listen_tcp, listen_udp
from ntmobile.testing import VirtualInternet
from ntmobile.wire.messages.realtime import NotificationRequest


class Received(DatagramProtocol):
    """Keeps where the first datagram came from."""

    def __init__(self) -> None:
        self.source: Deferred[Any] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Keep it."""
        self.source.callback((datagram, addr))


class RealTests(TestCase):
    """Sockets of this machine."""

    def listen(self, listen: Any, what: Any, host: str, port: int = 0) -> Any:
        """Listen until the end of the test."""
        listening = listen(reactor, port, what, host)
        self.addCleanup(lambda: maybeDeferred(listening.stopListening))
        return listening

    async def test_udp(self) -> None:
        """A UDP port takes datagrams, with the sender's host and port."""
        received = Received()
        listening = self.listen(listen_udp, received, "127.0.0.1")
        sender = DatagramProtocol()
        sending = self.listen(listen_udp, sender, "127.0.0.1")
        assert sender.transport is not None
        sender.transport.write(b"hello", ("127.0.0.1", listening.getHost().port))
        self.assertEqual(await received.source, (b"hello", ("127.0.0.1", sending.getHost().port)))

    def test_both_families(self) -> None:
        """One UDP port number serves "0.0.0.0" and "::" side by side."""
        first = self.listen(listen_udp, DatagramProtocol(), "0.0.0.0")
        try:
            self.listen(listen_udp, DatagramProtocol(), "::", first.getHost().port)
        except ConfigurationError as problem:
            if "family not supported" in str(problem):
                raise self.skipTest("there is no IPv6 here") from None
            raise

    async def test_signalling(self) -> None:
        """Clients' datagrams reach the sessions, and are answered from where they were sent to."""
        table = SessionTable(urandom)
        table.add(bytes(8), bytes(32))
        signalling = Signalling(IReactorTime(reactor), table, lambda event: None)
        self.addCleanup(signalling.stop)
        ports = [signalling.port(ipv6=False) for _ in range(2)]
        opened = [self.listen(listen_signalling, port, "127.0.0.1") for port in ports]
        for each in opened:
            received = Received()
            self.listen(listen_udp, received, "127.0.0.1")
            assert received.transport is not None
            remote = ("127.0.0.1", each.getHost().port)
            nonce = urandom(16)
            received.transport.write(hello(bytes(8), bytes(32), nonce), remote)
            welcome, source = await received.source
            self.assertEqual(source, remote)
            self.assertEqual(len(check_welcome(welcome, bytes(32), nonce)), 16)

    def test_taken(self) -> None:
        """A port that is taken is a clear error, which says what to do."""
        pairs: tuple[tuple[str, Any, Any], ...] = (
            ("UDP", listen_udp, DatagramProtocol()),
            ("TCP", listen_tcp, Factory.forProtocol(Protocol)),
        )
        for kind, listen, what in pairs:
            first = self.listen(listen, what, "127.0.0.1")
            port = first.getHost().port
            with self.assertRaisesRegex(
                ConfigurationError, f"cannot listen on {kind} port {port} of 127.0.0.1: .*in use"
            ):
                listen(reactor, port, what, "127.0.0.1")

    def test_not_ours(self) -> None:
        """An address that this machine has not is a clear error too."""
        pairs: tuple[tuple[Any, Any], ...] = (
            (listen_udp, DatagramProtocol()),
            (listen_tcp, Factory.forProtocol(Protocol)),
        )
        for listen, what in pairs:
            with self.assertRaisesRegex(ConfigurationError, "cannot listen"):
                listen(reactor, 0, what, "203.0.113.99")


class VirtualTests(SynchronousTestCase):
    def test_virtual_internet(self) -> None:
        """The same works on a simulated host."""
        internet = VirtualInternet()
        host = internet.host("server", "203.0.113.1")
        received = Received()
        listen_udp(host.reactor, 4330, received, "203.0.113.1")
        with self.assertRaisesRegex(ConfigurationError, "UDP port 4330"):
            listen_udp(host.reactor, 4330, DatagramProtocol(), "203.0.113.1")


class NoNotifierTests(SynchronousTestCase):
    def test_none(self) -> None:
        """R33: without a notification plugin nobody is told anything, and that is no error."""
        provider: INotifierProvider = find(INotifierProvider, "none")
        notifier = provider.configure({}, reactor)
        request = NotificationRequest("phone.alice.dc1.example", 1)
        self.successResultOf(notifier.notify(Notification(request)))
        self.successResultOf(notifier.close())
        with self.assertRaises(ConfigurationError):
            provider.configure({"url": "x"}, reactor)
