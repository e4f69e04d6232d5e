"""Mutual TLS: who is let in, and every way of being refused (rule R1)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import defer, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import AuthenticationError, CertificateError, CertificateNotCurrent
from ntmobile.protocols.tls import (
    ClientTLS,
    MemoryTLS,
    RefusedPeer,
    ServerTLS,
    client_context_factory,
    connection_of,
    exporter,
    negotiated,
    peer_identity,
    server_context_factory,
    tls_problem,
    verify_again,
)
from ntmobile.servers.authority import Signer
from ntmobile.wire.certificates import role_uri
from tests.realms import Credential, MemoryRealm, shake_hands

DC1, DC2, RELAY = "dc1.ntm.example", "dc2.ntm.example", "r1.dc1.ntm.example"


class RefusalTests(SynchronousTestCase):
    """R1: a client accepts exactly the server it expects."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        self.other = MemoryRealm("else.example")

    def connect(
        self, shown: Credential, role: str = "dc", name: str = DC1, at: float | None = None
    ) -> tuple[MemoryTLS, MemoryTLS]:
        """Shake hands, as a client without certificate, with a server that shows ``shown``."""
        server = MemoryTLS(server_context_factory(*shown, self.realm.trust(), peer_roles=()))
        when = time.time() if at is None else at
        client = MemoryTLS(
            client_context_factory(
                None, None, self.realm.trust(self.other), role, name, clock=lambda: when
            )
        )
        shake_hands(client, server)
        return client, server

    def test_expected_server(self) -> None:
        """The server of the expected role and name is accepted and known by them."""
        client, server = self.connect(self.realm.server("dc", DC1))
        self.assertTrue(client.established and server.established)
        self.assertEqual(peer_identity(client.connection), ("dc", DC1))
        self.assertIsNone(peer_identity(server.connection))

    def test_wrong_role(self) -> None:
        """R1: a relay's certificate never passes as that of a coordinator."""
        error = self.assertRaises(RefusedPeer, self.connect, self.realm.server("rs", RELAY))
        self.assertIn("expected dc:dc1.ntm.example", str(error))

    def test_role_under_the_same_name(self) -> None:
        """R1: the name alone is not enough: rs:NAME is not dc:NAME."""
        self.assertRaises(CertificateError, self.connect, self.realm.server("rs", DC1))

    def test_wrong_name(self) -> None:
        """R1: the coordinator of another domain of the same realm is refused."""
        self.assertRaises(CertificateError, self.connect, self.realm.server("dc", DC2))

    def test_authority_of_another_realm(self) -> None:
        """R1: a trusted foreign authority cannot name servers outside its suffix."""
        self.assertRaises(CertificateError, self.connect, self.other.server("dc", DC1))

    def test_foreign_server_under_its_own_suffix(self) -> None:
        """A foreign coordinator is accepted under the name of its own realm."""
        client, _ = self.connect(
            self.other.server("dc", "dc.else.example"), "dc", "dc.else.example"
        )
        self.assertEqual(peer_identity(client.connection), ("dc", "dc.else.example"))

    def test_unknown_authority_of_the_same_name(self) -> None:
        """R1: another root that calls itself by this realm's name is refused."""
        impostor = MemoryRealm(self.realm.domain)
        error = self.assertRaises(CertificateError, self.connect, impostor.server("dc", DC1))
        self.assertIn(f"the root of {self.realm.domain} did not sign", str(error))

    def test_unknown_authority_that_is_shown(self) -> None:
        """R1: so it is if the server shows that root too; what is said is about the root."""
        impostor = MemoryRealm(self.realm.domain)
        key, chain = impostor.server("dc", DC1)
        shown = (key, [*chain, impostor.authority.root])
        error = self.assertRaises(CertificateError, self.connect, shown)
        self.assertIn("compare the ca.pem files", str(error))

    def test_shown_chain(self) -> None:
        """A server shows its certificate and not the root, which the other side must have."""
        client, _ = self.connect(self.realm.server("dc", DC1))
        self.assertEqual(len(client.connection.get_peer_cert_chain() or []), 1)

    def test_expired(self) -> None:
        """R12: an expired certificate is refused, and told apart from a wrong one."""
        shown = self.realm.server("dc", DC1, timedelta(days=1))
        late = time.time() + 2 * 86400
        error = self.assertRaises(CertificateNotCurrent, self.connect, shown, at=late)
        self.assertIn("expired", str(error))

    def test_not_yet_valid(self) -> None:
        """R12: a clock far in the past refuses, and says what time it took it for."""
        shown = self.realm.server("dc", DC1)
        error = self.assertRaises(CertificateNotCurrent, self.connect, shown, at=86400.0)
        self.assertIn("1970-01-02", str(error))

    def test_self_signed(self) -> None:
        """A certificate that signed itself is refused."""
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dc")])
        uri = x509.UniformResourceIdentifier(role_uri("dc", DC1))
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .sign(key, None)
        )
        self.assertRaises(CertificateError, self.connect, (key, [certificate]))

    def test_signed_by_a_made_up_root(self) -> None:
        """R1: a root with the same subject but another key is refused."""
        made_up = Signer(self.realm.root.certificate, Ed25519PrivateKey.generate())
        shown = self.realm.server("dc", DC1, signer=made_up)
        self.assertRaises(CertificateError, self.connect, shown)

    def test_signed_by_the_device_authority(self) -> None:
        """R1: what signs devices' certificates cannot make a server."""
        key, chain = self.realm.server("dc", DC1, signer=self.realm.device_ca)
        shown = (key, [*chain, self.realm.device_ca.certificate])
        self.assertRaises(CertificateError, self.connect, shown)

    def test_the_device_authority_itself(self) -> None:
        """R1: the key that signs devices' certificates cannot serve TLS."""
        shown = (self.realm.device_ca.key, [self.realm.device_ca.certificate])
        self.assertRaises(AuthenticationError, self.connect, shown)

    def test_device_certificate(self) -> None:
        """R1: a device cannot pass as a server."""
        identity, _, certificate = self.realm.device("phone.alice.dc1.ntm.example")
        shown = (identity, [x509.load_der_x509_certificate(certificate.der)])
        self.assertRaises(AuthenticationError, self.connect, shown)

    def test_time_unknown(self) -> None:
        """R12: without a clock the rest is verified, and validity once the time is known."""
        shown = self.realm.server("dc", DC1, timedelta(days=1))
        server = MemoryTLS(server_context_factory(*shown, self.realm.trust(), peer_roles=()))
        trust = self.realm.trust()
        client = MemoryTLS(client_context_factory(None, None, trust, "dc", DC1, clock=lambda: None))
        shake_hands(client, server)
        verify_again(client.connection, trust, time.time())
        late = time.time() + 2 * 86400
        self.assertRaises(CertificateNotCurrent, verify_again, client.connection, trust, late)


class AdmissionTests(SynchronousTestCase):
    """R1: whom a server lets connect."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        self.other = MemoryRealm("else.example")

    def connect(
        self, shown: Credential | None, require: bool = True, foreign: tuple[str, ...] = ()
    ) -> MemoryTLS:
        """Connect to a coordinator that admits dc and rs; return the server's session."""
        server = MemoryTLS(
            server_context_factory(
                *self.realm.server("dc", DC1),
                self.realm.trust(self.other),
                peer_roles={"dc", "rs"},
                foreign_roles=foreign,
                require_peer=require,
            )
        )
        key, chain = shown or (None, None)
        client = MemoryTLS(client_context_factory(key, chain, self.realm.trust(), "dc", DC1))
        shake_hands(client, server)
        return server

    def test_admitted_role(self) -> None:
        """A relay of the realm is admitted and known by role and name."""
        server = self.connect(self.realm.server("rs", RELAY))
        self.assertEqual(peer_identity(server.connection), ("rs", RELAY))

    def test_other_role(self) -> None:
        """A role that has no business there is refused."""
        error = self.assertRaises(
            CertificateError, self.connect, self.realm.server("cs", "c1.dc1.ntm.example")
        )
        self.assertIn("no business", str(error))

    def test_no_certificate(self) -> None:
        """A client must show a certificate where one is required."""
        self.assertRaises(AuthenticationError, self.connect, None)

    def test_no_certificate_allowed(self) -> None:
        """A device connects without a certificate where that is allowed, and has no role."""
        server = self.connect(None, require=False)
        self.assertTrue(server.established)
        self.assertIsNone(peer_identity(server.connection))

    def test_wrong_certificate_where_none_is_required(self) -> None:
        """A certificate that is shown must be right, required or not."""
        impostor = MemoryRealm().server("rs", RELAY)
        self.assertRaises(CertificateError, self.connect, impostor, require=False)

    def test_foreign_role(self) -> None:
        """A foreign coordinator is admitted only where foreign coordinators are."""
        shown = self.other.server("dc", "dc.else.example")
        server = self.connect(shown, foreign=("dc",))
        self.assertEqual(peer_identity(server.connection), ("dc", "dc.else.example"))
        self.assertRaises(CertificateError, self.connect, shown)

    def test_foreign_relay(self) -> None:
        """A foreign relay is refused where foreign coordinators are admitted."""
        shown = self.other.server("rs", "r.dc.else.example")
        self.assertRaises(CertificateError, self.connect, shown, foreign=("dc",))


class SessionTests(SynchronousTestCase):
    """What an established session gives."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()

    def pair(self, *, offered: bytes = b"ntm/1") -> tuple[MemoryTLS, MemoryTLS]:
        """A client and a server that are not connected yet."""
        trust = self.realm.trust()
        server = server_context_factory(
            *self.realm.server("as", "ntm.example"),
            trust,
            peer_roles=(),
            alpn=(b"http/1.1", b"ntm/1"),
        )
        client = client_context_factory(None, None, trust, "as", "ntm.example", alpn=(offered,))
        verifyObject(IOpenSSLServerConnectionCreator, server)
        verifyObject(IOpenSSLClientConnectionCreator, client)
        return MemoryTLS(client), MemoryTLS(server)

    def test_data(self) -> None:
        """Plaintext goes both ways, whatever the records' cut."""
        client, server = self.pair()
        shake_hands(client, server)
        text = bytes(range(256)) * 300
        records = client.send(text)
        self.assertNotIn(text[:64], records)
        got = b"".join(server.feed(records[i : i + 1000])[0] for i in range(0, len(records), 1000))
        self.assertEqual(got, text)
        self.assertEqual(client.feed(server.send(b"answer"))[0], b"answer")

    def test_version_and_protocol(self) -> None:
        """TLS 1.3 is spoken, and the protocol that the client offered."""
        client, server = self.pair()
        shake_hands(client, server)
        self.assertEqual(client.connection.get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(negotiated(client.connection), b"ntm/1")
        self.assertEqual(negotiated(server.connection), b"ntm/1")

    def test_no_common_protocol(self) -> None:
        """A client that offers only other protocols is refused."""
        client, server = self.pair(offered=b"h2")
        self.assertRaises(AuthenticationError, shake_hands, client, server)

    def test_older_version(self) -> None:
        """A client that cannot do TLS 1.3 is refused, in words."""
        _, server = self.pair()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        old = SSL.Connection(context, None)
        old.set_connect_state()
        self.assertRaises(SSL.WantReadError, old.do_handshake)
        error = self.assertRaises(AuthenticationError, server.feed, old.bio_read(65536))
        self.assertIn("no TLS connection", str(error))

    def test_exporter(self) -> None:
        """R3: both sides export the same key, another for each label and connection."""
        client, server = self.pair()
        shake_hands(client, server)
        key = exporter(client.connection, "EXPORTER ntm session")
        self.assertEqual(len(key), 32)
        self.assertEqual(exporter(server.connection, "EXPORTER ntm session"), key)
        self.assertNotEqual(exporter(client.connection, "EXPORTER ntm other"), key)
        again, other = self.pair()
        shake_hands(again, other)
        self.assertNotEqual(exporter(again.connection, "EXPORTER ntm session"), key)

    def test_no_resumption(self) -> None:
        """A second connection that offers the first one's session shakes hands in full."""
        trust = self.realm.trust()
        listening = server_context_factory(
            *self.realm.server("as", "ntm.example"), trust, peer_roles=()
        )
        connecting = client_context_factory(None, None, trust, "as", "ntm.example")
        client, server = MemoryTLS(connecting), MemoryTLS(listening)
        shake_hands(client, server)
        client.feed(server.send(b"a ticket would have come before this"))
        again, other = MemoryTLS(connecting), MemoryTLS(listening)
        session = client.connection.get_session()
        if session is not None:
            again.connection.set_session(session)
        shake_hands(again, other)
        # The certificate was shown and verified again, which a resumption would leave out.
        self.assertEqual(peer_identity(again.connection), ("as", "ntm.example"))

    def test_close(self) -> None:
        """The end of the session is told to the other side, and data after it refused."""
        client, server = self.pair()
        shake_hands(client, server)
        server.feed(client.close())
        self.assertTrue(server.closed)
        self.assertRaises(AuthenticationError, server.send, b"too late")
        self.assertRaises(AuthenticationError, server.feed, b"too late")

    def test_garbage(self) -> None:
        """Bytes that are no records end the session with one error, not with OpenSSL's."""
        _, server = self.pair()
        self.assertRaises(AuthenticationError, server.feed, b"GET / HTTP/1.1\r\n\r\n" * 10)
        self.assertTrue(server.closed)

    def test_altered_record(self) -> None:
        """R2: a record changed on the way ends the session."""
        client, server = self.pair()
        shake_hands(client, server)
        records = bytearray(client.send(b"the password"))
        records[-1] ^= 1
        self.assertRaises(AuthenticationError, server.feed, bytes(records))

    def test_alert(self) -> None:
        """Who refuses has an alert for the other side, which then says that it was refused."""
        server = self.pair()[1]
        trust = self.realm.trust()
        client = MemoryTLS(client_context_factory(None, None, trust, "as", "else.ntm.example"))
        answer = server.feed(client.start())[1]
        self.assertRaises(RefusedPeer, client.feed, answer)
        error = self.assertRaises(AuthenticationError, server.feed, client.drain())
        self.assertIn("the other side refused", str(error))


class _Recorder(Protocol):
    """Tells what it first receives, and why its connection is lost."""

    def __init__(self) -> None:
        self.received: defer.Deferred[bytes] = defer.Deferred()
        self.lost: defer.Deferred[BaseException] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.received.called:
            self.received.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value or Exception("no reason"))


class TwistedTests(TestCase):
    """The same, on Twisted's transports."""

    async def _connect(self, server: ServerTLS, client: ClientTLS) -> tuple[_Recorder, _Recorder]:
        accepted: defer.Deferred[_Recorder] = defer.Deferred()

        class Accepting(Factory):
            def buildProtocol(self, addr: object) -> Protocol:
                protocol = _Recorder()
                accepted.callback(protocol)
                return protocol

        connecting = _Recorder()
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(TLSMemoryBIOFactory(server, False, Accepting()))
        self.addCleanup(port.stopListening)
        host = port.getHost()
        assert isinstance(host, IPv4Address)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        await connectProtocol(wrapClientTLS(client, endpoint), connecting)
        return connecting, await accepted

    async def test_connection(self) -> None:
        """Both sides know each other by role and name, and exchange data."""
        realm = MemoryRealm()
        trust = realm.trust()
        server = server_context_factory(*realm.server("dc", DC1), trust, peer_roles={"rs"})
        client = client_context_factory(*realm.server("rs", RELAY), trust, "dc", DC1)
        near, far = await self._connect(server, client)
        assert near.transport is not None
        assert far.transport is not None
        near.transport.write(b"hello")
        self.assertEqual(await far.received, b"hello")
        self.assertEqual(peer_identity(connection_of(near.transport)), ("dc", DC1))
        self.assertEqual(peer_identity(connection_of(far.transport)), ("rs", RELAY))
        near.transport.loseConnection()
        await near.lost
        await far.lost

    async def test_refusal(self) -> None:
        """The connection is lost with the reason, on both sides."""
        realm = MemoryRealm()
        trust = realm.trust()
        server = server_context_factory(*realm.server("dc", DC1), trust, peer_roles=())
        client = client_context_factory(None, None, trust, "dc", DC2)
        near, far = await self._connect(server, client)
        reason = await near.lost
        self.assertIsInstance(reason, CertificateError)
        self.assertIn("expected dc:dc2.ntm.example", tls_problem(reason))
        self.assertIn("the other side refused", tls_problem(await far.lost))
