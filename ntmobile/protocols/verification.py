"""Who is at the other end of a TLS connection: verified by authority, time and role (rule R1).

OpenSSL builds and checks the chain, :class:`~ntmobile.wire.certificates.TrustStore` decides which
authority may speak for the name, and service-identity compares role and name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast
from weakref import WeakKeyDictionary

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.exceptions import Mismatch
from service_identity.hazmat import CertificatePattern, ServiceID, verify_service_identity

from ntmobile.errors import CertificateError, CertificateNotCurrent
from ntmobile.wire.certificates import TrustStore, role_of

#: X509_V_FLAG_NO_CHECK_TIME: validity is checked here, against an injected clock.
_NO_CHECK_TIME: Final = 0x200000
#: SSL_MODE_NO_AUTO_CHAIN: what is shown is the own chain, not what the trusted roots add to it.
_NO_AUTO_CHAIN: Final = 0x8
#: Unix seconds; None where the time is not known yet, so that validity is checked later (R12).
WallClock = Callable[[], float | None]

_identities: WeakKeyDictionary[SSL.Connection, tuple[str, str]] = WeakKeyDictionary()


class RefusedPeer(CertificateError, SSL.Error):
    """The other side of a TLS connection showed a certificate that is not accepted.

    It is an OpenSSL error too, of the same shape, because Twisted's TLS takes those apart.
    """

    def __init__(self, text: str) -> None:
        super().__init__([("ntmobile", "", text)])
        self.text = text

    def __str__(self) -> str:
        return self.text


class RefusedByTime(CertificateNotCurrent, RefusedPeer):
    """The other side's certificate is expired or not valid yet, or this clock is wrong."""


@frozen
class RoleMismatch(Mismatch):
    """No role URI of the certificate is the expected one."""


@frozen
class RolePattern:
    """A role that a certificate names."""

    role: str
    name: str


@frozen
class RoleID:
    """The role and name that the other side must have, as service-identity wants it."""

    role: str
    name: str
    pattern_class = RolePattern
    error_on_mismatch = RoleMismatch

    def verify(self, pattern: object) -> bool:
        """Whether a certificate's pattern is exactly this role and name."""
        return isinstance(pattern, RolePattern) and (pattern.role, pattern.name) == (
            self.role,
            self.name,
        )


@frozen
class Credentials:
    """What both sides of TLS share: own key and chain, whom to trust, the time, the protocols."""

    key: Ed25519PrivateKey | None = field(repr=False)
    chain: Sequence[x509.Certificate] = field(repr=False)
    trust: TrustStore
    clock: WallClock
    alpn: Sequence[bytes]

    def context(self) -> SSL.Context:
        """A context for TLS 1.3 and nothing else, without any resumption."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS | _NO_AUTO_CHAIN)
        if self.key is not None:
            context.use_privatekey(self.key)
            context.use_certificate(self.chain[0])
            for each in self.chain[1:]:
                context.add_extra_chain_cert(each)
        store = context.get_cert_store()
        assert store is not None  # a new context has one
        store.set_flags(_NO_CHECK_TIME)
        for authority in self.trust.authorities.values():
            store.add_cert(crypto.X509.from_cryptography(authority.root))
        return context

    def verify(self, certificate: x509.Certificate, role: str, name: str) -> None:
        """Verify the other side's certificate for a role and name; :class:`CertificateError`."""
        try:
            patterns = [RolePattern(*role_of(certificate))]
            # service-identity types its patterns and IDs as a closed list, but only calls verify().
            verify_service_identity(
                cast("Sequence[CertificatePattern]", patterns),
                [cast("ServiceID", RoleID(role, name))],
                [],
            )
        except VerificationError:
            raise CertificateError(
                f"expected {role}:{name}, but the certificate is that of "
                f"{patterns[0].role}:{patterns[0].name}"
            ) from None
        chain = [certificate.public_bytes(Encoding.DER)]
        self.trust.verify_server(chain, role, name, self.clock())


#: Finds the role and name that the holder of a certificate must have, or refuses.
Expectation = Callable[[x509.Certificate], tuple[str, str]]


def verification(
    credentials: Credentials, expect: Expectation
) -> Callable[[SSL.Connection, crypto.X509, int, int, int], bool]:
    """OpenSSL's callback: its own verdict on the chain stands, and at the leaf ours is added."""

    def verify(
        connection: SSL.Connection, shown: crypto.X509, error: int, depth: int, chain_is_good: int
    ) -> bool:
        if depth and chain_is_good:
            return True
        try:
            certificate = shown.to_cryptography()
            if depth:
                raise CertificateError(
                    f"signed by a root of {role_of(certificate)[1]} that is not trusted here; "
                    f"compare the ca.pem files"
                )
            identity = expect(certificate)
            credentials.verify(certificate, *identity)
            if not chain_is_good:
                raise CertificateError(f"the chain of {identity[0]}:{identity[1]} fails ({error})")
        except CertificateNotCurrent as problem:
            raise RefusedByTime(str(problem)) from None
        except CertificateError as problem:
            raise RefusedPeer(str(problem)) from None
        except Exception as problem:  # parsers raise what they like on hostile input
            raise RefusedPeer(f"a certificate that does not parse: {problem}") from None
        _identities[connection] = identity
        return True

    return verify


def peer_identity(connection: SSL.Connection) -> tuple[str, str] | None:
    """The verified role and name of the other side; None if it showed no certificate.

    Only true once the handshake is complete.
    """
    return _identities.get(connection)


def own_name(connection: SSL.Connection) -> str | None:
    """The name in the certificate that this side shows; None if it shows none."""
    shown = connection.get_certificate(as_cryptography=True)
    return None if shown is None else role_of(shown)[1]


def verify_again(connection: SSL.Connection, trust: TrustStore, at: float) -> None:
    """Verify the other side of a connection once more, at a time learnt since (rule R12).

    :raises CertificateError: it is not accepted, or there is none.
    """
    identity = peer_identity(connection)
    shown = connection.get_peer_certificate(as_cryptography=True)
    if identity is None or shown is None:
        raise CertificateError("the other side showed no certificate")
    trust.verify_server([shown.public_bytes(Encoding.DER)], *identity, at)
