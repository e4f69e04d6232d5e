"""Connecting in the virtual internet, and TLS over its streams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509, PKey
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NotConnectingError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ServerFactory
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS

from ntmobile.testing import Event, run_tls_in
from tests.stream_cases import Attempts, Keeper, Keepers, StreamTestCase


def self_signed(name: str) -> tuple[PKey, X509]:
    """A key, and a certificate of it for a server's name."""
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, None)
    )
    return PKey.from_cryptography_key(key), X509.from_cryptography(certificate)


class ConnectingTests(StreamTestCase):
    """What can become of an attempt."""

    def attempt(self, host: str, port: int = 4330, **how: Any) -> Attempts:
        """An attempt, a minute later."""
        factory = Attempts()
        self.client_host.reactor.connectTCP(host, port, factory, **how)
        self.assertEqual(factory.failed, [])
        self.internet.advance(60)
        return factory

    def test_refused(self) -> None:
        """A closed port refuses."""
        self.attempt("203.0.113.1", 1).failed[0].trap(ConnectionRefusedError)

    def test_silence(self) -> None:
        """Where nobody answers, the time runs out."""
        start = self.internet.clock.seconds()
        failed: list[float] = []
        endpoint = TCP4ClientEndpoint(self.client_host.reactor, "203.0.113.77", 1, timeout=7)
        attempt: Deferred[Any] = connectProtocol(endpoint, Keeper())
        attempt.addErrback(lambda reason: failed.append(self.internet.clock.seconds()))
        self.internet.advance(30)
        self.assertEqual(failed, [start + 7])

    def test_silence_error(self) -> None:
        """That is a ``TimeoutError``."""
        self.attempt("203.0.113.77", timeout=5).failed[0].trap(TimeoutError)

    def test_unknown_name(self) -> None:
        """A name nobody knows is a ``DNSLookupError``."""
        self.attempt("nobody.example").failed[0].trap(DNSLookupError)

    def test_no_route(self) -> None:
        """Without an address of the family there is a connection error."""
        self.attempt("2001:db8::1").failed[0].trap(ConnectError)

    def test_bind_address(self) -> None:
        """The local address and port may be chosen; a foreign one fails."""
        factory = self.attempt("203.0.113.1", bindAddress=("203.0.113.2", 7777))
        self.assertEqual(factory.protocols[0].transport.getHost().port, 7777)
        foreign = self.attempt("203.0.113.1", bindAddress=("203.0.113.9", 0))
        foreign.failed[0].trap(ConnectBindError)

    def test_stop(self) -> None:
        """An attempt may be stopped."""
        factory = Attempts()
        connector = self.client_host.reactor.connectTCP("203.0.113.77", 1, factory)
        connector.stopConnecting()
        factory.failed[0].trap(UserError)
        self.internet.advance(60)
        self.assertEqual((len(factory.failed), self.internet.clock.calls), (1, []))

    def test_again(self) -> None:
        """A connector may connect again after its connection is lost."""
        factory = Attempts()
        connector = self.client_host.reactor.connectTCP("203.0.113.1", 4330, factory)
        self.internet.advance(1)
        connector.disconnect()
        self.internet.advance(1)
        self.assertEqual(len(factory.lost), 1)
        connector.connect()
        self.internet.advance(1)
        self.assertEqual((len(factory.protocols), connector.state), (2, "connected"))

    def test_states(self) -> None:
        """A connector is used as its state allows, and knows where it goes."""
        connector = self.client_host.reactor.connectTCP("nobody.example", 1, Attempts())
        self.assertEqual(connector.getDestination(), IPv4Address("TCP", "nobody.example", 1))
        self.assertRaises(RuntimeError, connector.connect)
        connector.disconnect()
        self.assertEqual((connector.state, self.internet.clock.calls), ("disconnected", []))
        self.assertRaises(NotConnectingError, connector.stopConnecting)
        connector.disconnect()
        connector.remote = ("203.0.113.1", 4330)
        connector.connect()
        self.internet.advance(1)
        self.assertEqual(connector.state, "connected")
        self.assertEqual(connector.getDestination(), IPv4Address("TCP", "203.0.113.1", 4330))

    def test_given_up_at_once(self) -> None:
        """A factory may stop the attempt as it starts."""

        class Reluctant(Attempts):
            def startedConnecting(self, connector: IConnector) -> None:
                connector.stopConnecting()

        factory = Reluctant()
        self.client_host.reactor.connectTCP("203.0.113.1", 4330, factory, timeout=None)
        self.internet.advance(1)
        self.assertEqual((len(factory.failed), factory.protocols), (1, []))

    def test_client_declines(self) -> None:
        """A client factory that gives no protocol ends the connection."""

        class Declining(Attempts):
            def buildProtocol(self, addr: object) -> Any:
                return None

        factory = Declining()
        self.client_host.reactor.connectTCP("203.0.113.1", 4330, factory)
        self.internet.advance(1)
        self.assertEqual(len(factory.lost), 1)
        self.assertEqual(self.internet.clock.calls, [])

    def test_name_and_ipv6(self) -> None:
        """``HostnameEndpoint`` finds a name's addresses and falls back from IPv6 to IPv4."""
        six = Keepers()
        self.internet.names.set("dc1.ntm.example", "2001:db8::1", "203.0.113.1")
        self.internet.result(TCP6ServerEndpoint(self.server_host.reactor, 4331).listen(six))
        dual = self.internet.host("dual", "203.0.113.3", "2001:db8::3")
        for host, server in ((dual, six), (self.client_host, self.factory)):
            port = 4331 if server is six else 4330
            endpoint = HostnameEndpoint(host.reactor, "dc1.ntm.example", port)
            self.internet.result(connectProtocol(endpoint, Keeper()))
            self.internet.advance(1)
            self.assertEqual(len(server.protocols), 1)

    def test_server_declines(self) -> None:
        """A factory that gives no protocol closes the connection."""

        class Declining(ServerFactory):
            def buildProtocol(self, addr: object) -> None:
                return None

        self.server_host.reactor.listenTCP(1, Declining())
        factory = self.attempt("203.0.113.1", 1)
        self.assertEqual((len(factory.protocols), len(factory.lost)), (1, 1))


class TLSTests(StreamTestCase):
    """TLS over the streams, by Twisted's own means."""

    def secret(self, clocks: bool) -> None:
        """Say something over TLS, with or without giving Twisted's TLS a clock."""
        key, certificate = self_signed("server.example")
        server_options = CertificateOptions(privateKey=key, certificate=certificate)
        server, client = self.server_host.reactor, self.client_host.reactor
        listening = wrapServerTLS(
            server_options, TCP4ServerEndpoint(server, 443), server if clocks else None
        )
        self.internet.result(listening.listen(self.factory))
        creator = optionsForClientTLS("server.example", trustRoot=Certificate(certificate))
        plain = TCP4ClientEndpoint(client, "203.0.113.1", 443)
        endpoint = wrapClientTLS(creator, plain, client if clocks else None)
        protocol = self.internet.result(connectProtocol(endpoint, Keeper()))
        protocol.transport.write(b"secret")
        self.internet.advance(1)
        self.assertEqual(self.factory.protocols[0].data, b"secret")
        seen = self.internet.captures(Event.SENT, protocol="tcp")
        self.assertFalse(any(b"secret" in one.datagram.payload for one in seen))
        protocol.transport.loseConnection()
        self.internet.advance(1)
        self.assertIsNotNone(self.factory.protocols[0].reason)
        self.assertEqual(self.internet.clock.calls, [])

    def test_tls(self) -> None:
        """A TLS session runs over a stream in virtual time."""
        self.secret(clocks=True)

    def test_tls_without_clock(self) -> None:
        """So it does where the program gives no clock and the test sees to it."""
        run_tls_in(self.internet, self)
        self.secret(clocks=False)
