"""Mutual TLS 1.3 between servers, from clients to servers, and inside a login (rules R1 to R3).

Each side's certificate must be signed by the one authority for its name, be valid now, and name the
role (and, for a client, the very name) that is expected; service-identity compares the names.
A :class:`ServerTLS` or :class:`ClientTLS` serves Twisted's ``startTLS``, ``wrapClientTLS`` and
``listenSSL``, and :class:`MemoryTLS` where there is no transport: the inner session of a login.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ISystemHandle,
    ITransport,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ntmobile.errors import AuthenticationError, CertificateError
from ntmobile.protocols.verification import Credentials, WallClock, verification
from ntmobile.protocols.verification import RefusedByTime as RefusedByTime
from ntmobile.protocols.verification import RefusedPeer as RefusedPeer
from ntmobile.protocols.verification import peer_identity as peer_identity
from ntmobile.protocols.verification import verify_again as verify_again
from ntmobile.wire.certificates import TrustStore, role_of

#: What a connection speaks, as ALPN protocol.
NTM_PROTOCOL: Final = b"ntm/1"


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The server's side; made by :func:`server_context_factory`."""

    def __init__(
        self,
        credentials: Credentials,
        peer_roles: Collection[str],
        foreign_roles: Collection[str],
        require_peer: bool,
    ) -> None:
        self._trust = credentials.trust
        self._peer_roles = frozenset(peer_roles)
        self._foreign_roles = frozenset(foreign_roles)
        self._alpn = list(credentials.alpn)
        context = credentials.context()
        if self._peer_roles:
            mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if require_peer else 0)
            context.set_verify(mode, verification(credentials, self._expect))
        context.set_alpn_select_callback(self._select)
        self._context = context

    def _expect(self, certificate: x509.Certificate) -> tuple[str, str]:
        """Any name in one of the roles that may connect here, foreign ones where allowed (R1)."""
        role, name = role_of(certificate)
        if role not in self._peer_roles:
            raise CertificateError(f"{role}:{name} has no business here")
        if role not in self._foreign_roles and not self._trust.is_home(name):
            raise CertificateError(f"{role}:{name} is of another realm")
        return role, name

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        """The first of our protocols that the client offers; none ends the connection."""
        for protocol in self._alpn:
            if protocol in offered:
                return protocol
        raise RefusedPeer("the client speaks none of the protocols of this server")

    def connection(self) -> SSL.Connection:
        """A new connection over memory."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A new connection for a Twisted protocol."""
        return self.connection()


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """The client's side; made by :func:`client_context_factory`."""

    def __init__(self, credentials: Credentials, role: str, name: str) -> None:
        self._name = name
        context = credentials.context()
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, verification(credentials, lambda _: (role, name)))
        context.set_alpn_protos(list(credentials.alpn))
        self._context = context

    def connection(self) -> SSL.Connection:
        """A new connection over memory."""
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._name.encode("ascii"))
        connection.set_connect_state()
        return connection

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A new connection for a Twisted protocol."""
        return self.connection()


def server_context_factory(
    key: Ed25519PrivateKey,
    chain: Sequence[x509.Certificate],
    trust: TrustStore,
    *,
    peer_roles: Collection[str],
    foreign_roles: Collection[str] = (),
    require_peer: bool = True,
    alpn: Sequence[bytes] = (NTM_PROTOCOL,),
    clock: WallClock = time.time,
) -> ServerTLS:
    """The server's side of TLS.

    :param peer_roles: the roles whose servers may connect; none means that no certificate is asked.
    :param foreign_roles: those of them that may also be of another trusted realm.
    :param require_peer: whether a client must show a certificate. Without one it has no role: this
        is how devices connect to log in. One that it does show must be right in any case.
    :param alpn: the protocols served, best first. A client that offers only others is refused.
    :param clock: unix seconds, for validity.
    """
    credentials = Credentials(key, chain, trust, clock, alpn)
    return ServerTLS(credentials, peer_roles, foreign_roles, require_peer)


def client_context_factory(
    key: Ed25519PrivateKey | None,
    chain: Sequence[x509.Certificate] | None,
    trust: TrustStore,
    expected_role: str,
    expected_name: str,
    *,
    alpn: Sequence[bytes] = (NTM_PROTOCOL,),
    clock: WallClock = time.time,
) -> ClientTLS:
    """The client's side of TLS; key and chain are None for a device, which has no role.

    :param expected_role: :param expected_name: whom the server must prove to be. The name is also
        sent as SNI; it is never resolved.
    :param clock: unix seconds, for validity; where it returns None validity is not checked, and
        :func:`verify_again` must follow as soon as the time is known (rule R12).
    """
    credentials = Credentials(key, chain or (), trust, clock, alpn)
    return ClientTLS(credentials, expected_role, expected_name)


def connection_of(transport: ITransport | None) -> SSL.Connection:
    """The TLS connection of a Twisted transport, for the functions here.

    :raises AuthenticationError: the transport is not TLS.
    """
    handle = ISystemHandle(transport).getHandle() if ISystemHandle.providedBy(transport) else None
    if not isinstance(handle, SSL.Connection):
        raise AuthenticationError("the connection is not TLS")
    return handle


def exporter(connection: SSL.Connection, label: str, length: int = 32) -> bytes:
    """Key material of a completed connection for one purpose (RFC 8446, section 7.5)."""
    return connection.export_keying_material(label.encode("ascii"), length)


def negotiated(connection: SSL.Connection) -> bytes:
    """The ALPN protocol of a completed connection; empty if the client offered none."""
    return connection.get_alpn_proto_negotiated()


def tls_problem(error: BaseException) -> str:
    """One line about what ended a TLS connection."""
    if isinstance(error, CertificateError) or not isinstance(error, SSL.Error):
        return str(error) or type(error).__name__
    reasons = [entry[-1] for entry in error.args[0]] if error.args else []
    text = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    if "alert" in text:
        return f"the other side refused this certificate or version ({text})"
    return f"no TLS connection ({text or 'closed'})"


class MemoryTLS:
    """A TLS session without a transport: records in, plaintext and records out.

    After any failure :meth:`drain` still has the alert that should go to the other side.

    :ivar connection: for :func:`peer_identity`, :func:`exporter` and :func:`negotiated`.
    :ivar established: whether the handshake is complete. :ivar closed: whether the session ended.
    """

    def __init__(self, side: ServerTLS | ClientTLS) -> None:
        self.connection = side.connection()
        self.established = False
        self.closed = False

    def start(self) -> bytes:
        """The records that begin the session: the client's hello; nothing for a server."""
        self._advance()
        return self.drain()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take records of any cut from the other side; return plaintext and records to send.

        :raises CertificateError: the other side's certificate is not accepted.
        :raises AuthenticationError: any other failure of the session.
        """
        if self.closed:
            raise AuthenticationError("the TLS session has ended")
        if data:
            self.connection.bio_write(data)
        self._advance()
        plaintext = bytearray()
        while self.established and not self.closed:
            try:
                plaintext += self.connection.recv(65536)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self.closed = True
            except SSL.Error as problem:
                self._fail(problem)
        return bytes(plaintext), self.drain()

    def send(self, plaintext: bytes) -> bytes:
        """Protect application data; the records to send."""
        if not self.established or self.closed:
            raise AuthenticationError("the TLS session is not open")
        for start in range(0, len(plaintext), 16384):
            self.connection.sendall(plaintext[start : start + 16384])
        return self.drain()

    def close(self) -> bytes:
        """End the session; the records that say so, if it was open."""
        if self.established and not self.closed:
            self.connection.shutdown()
        self.closed = True
        return self.drain()

    def drain(self) -> bytes:
        """Records that are waiting to be sent."""
        records = bytearray()
        while True:
            try:
                records += self.connection.bio_read(65536)
            except SSL.Error:
                return bytes(records)

    def _advance(self) -> None:
        """Continue the handshake as far as it goes."""
        if self.established:
            return
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as problem:
            self._fail(problem)
        self.established = True

    def _fail(self, problem: SSL.Error) -> None:
        self.closed = True
        if isinstance(problem, CertificateError):
            raise problem
        raise AuthenticationError(tls_problem(problem)) from None
