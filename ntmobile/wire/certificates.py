"""Certificates: what a device's says, what a server's says, and which authority decides (R1, R4).

A device certificate is X.509 with an Ed25519 subject key, the FQDN as its only subject alternative
name and one private extension::

    1.3.6.1.4.1.58742.1.1 = x25519 key (32) | SHA-256 of the X-Wing key (32) | IPv6 (16) | IPv4 (4)

A server certificate names exactly one role in a subject alternative name URI, ``ntm:ROLE:NAME``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from ntmobile.errors import CertificateError, CertificateNotCurrent, InvalidName, NTMobileError
from ntmobile.wire import names, virtual
from ntmobile.wire.roles import DEVICE_CA_ROLE as DEVICE_CA_ROLE
from ntmobile.wire.roles import ROOT_ROLE as ROOT_ROLE
from ntmobile.wire.roles import SERVER_ROLES as SERVER_ROLES
from ntmobile.wire.roles import parse_role as parse_role
from ntmobile.wire.roles import role_of as role_of
from ntmobile.wire.roles import role_uri as role_uri
from ntmobile.wire.roles import roles_of as roles_of
from ntmobile.wire.roles import speaks_for as speaks_for

#: Largest device certificate, DER (rule R4).
DEVICE_LIMIT: Final = 400
#: Largest server or authority certificate, DER, and largest bundle, PEM.
SERVER_LIMIT: Final = 2048
BUNDLE_LIMIT: Final = 65536
#: The private extension of a device certificate, and its length.
DEVICE_EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.58742.1.1")
DEVICE_EXTENSION_LENGTH: Final = 32 + 32 + 16 + 4


def key_id(public_key: bytes) -> str:
    """Eight characters that tell device-CA keys apart: base32 of 5 bytes of the key's SHA-256.

    It stands as the issuer's common name in device certificates. It selects, it proves nothing.
    """
    return base64.b32encode(sha256(public_key).digest()[:5]).decode("ascii").lower()


@contextmanager
def _parsing(what: str) -> Iterator[None]:
    """One error for everything: the parser raises what it likes on hostile input (R11).

    Much of a certificate is parsed only when it is looked at, so all that looks belongs in here.
    """
    try:
        yield
    except NTMobileError:
        raise
    except Exception as problem:
        raise CertificateError(f"{what} that does not parse: {problem}") from None


#: How an Ed25519 signature begins at the end of a certificate: a BIT STRING (3) of 65 bytes, no bit
#: of which is unused. Where a signature ends in zeros, other numbers would verify all the same.
_SIGNATURE: Final = b"\x03\x41\x00"


@frozen
class DeviceCertificate:
    """What a device certificate says (rule R4); :meth:`parse` checks form, not trust.

    :ivar der: the certificate itself. :ivar fqdn: the device.
    :ivar serial: number by which the AS revokes it.
    :ivar identity: raw Ed25519 public key, the device's identity.
    :ivar x25519: raw public key for tunnels. :ivar xwing_hash: SHA-256 of the key for stored data.
    :ivar not_before: :ivar not_after: validity, unix seconds.
    :ivar issuer: :func:`key_id` of the device-CA key that is said to have signed it.
    """

    der: bytes = field(repr=False)
    fqdn: str
    serial: int
    identity: bytes = field(repr=False)
    x25519: bytes = field(repr=False)
    xwing_hash: bytes = field(repr=False)
    ipv6: IPv6Address
    ipv4: IPv4Address
    not_before: float
    not_after: float
    issuer: str

    @classmethod
    def parse(cls, der: bytes) -> DeviceCertificate:
        """Take a device certificate apart.

        :raises CertificateError: whatever is wrong with it, be it size, encoding or content.
        """
        if not 0 < len(der) <= DEVICE_LIMIT:
            raise CertificateError(
                f"a device certificate of {len(der)} bytes, more than {DEVICE_LIMIT}"
            )
        with _parsing("a device certificate"):
            certificate = x509.load_der_x509_certificate(der)
            if not der.endswith(_SIGNATURE + certificate.signature):
                raise CertificateError("a device certificate whose signature is encoded otherwise")
            return cls._parse(certificate)

    @classmethod
    def _parse(cls, certificate: x509.Certificate) -> DeviceCertificate:
        fqdn, private = _device_extensions(certificate)
        key = certificate.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise CertificateError(f"the device certificate of {fqdn} has no Ed25519 key")
        ipv4 = IPv4Address(private[80:84])
        if ipv4.is_multicast or ipv4.is_loopback or ipv4.is_unspecified or ipv4.is_reserved:
            raise CertificateError(f"the device certificate of {fqdn} has an unusable {ipv4}")
        return cls(
            der=certificate.public_bytes(Encoding.DER),
            fqdn=fqdn,
            serial=certificate.serial_number,
            identity=key.public_bytes_raw(),
            x25519=private[:32],
            xwing_hash=private[32:64],
            ipv6=IPv6Address(private[64:80]),
            ipv4=ipv4,
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            issuer=common_name(certificate.issuer),
        )

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (rule R19)."""
        return sha256(self.der).digest()


def _device_extensions(certificate: x509.Certificate) -> tuple[str, bytes]:
    """FQDN and private extension of a device certificate; no other critical one is allowed."""
    fqdn: str | None = None
    private: bytes | None = None
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            entries = list(value)
            if len(entries) != 1 or not isinstance(entries[0], x509.DNSName):
                raise CertificateError("a device certificate that does not name exactly one FQDN")
            fqdn = entries[0].value
        elif extension.oid == DEVICE_EXTENSION and isinstance(value, x509.UnrecognizedExtension):
            private = value.value
        elif extension.critical or isinstance(value, x509.BasicConstraints):
            raise CertificateError("a device certificate with an extension that it must not have")
    if fqdn is None or private is None or len(private) != DEVICE_EXTENSION_LENGTH:
        raise CertificateError("a device certificate without FQDN or keys")
    try:
        return names.check_fqdn(fqdn), private
    except InvalidName as problem:
        raise CertificateError(f"a device certificate with an invalid name: {problem}") from None


def common_name(name: x509.Name) -> str:
    """The one common name of a subject or issuer, or the empty string."""
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 and len(list(name)) == 1 else ""


@frozen
class Authority:
    """The certificates that decide for one suffix: a realm's root and its device-CAs.

    :ivar suffix: every name under this domain, and no other, is its.
    :ivar realm: the realm's own name, as its root says.
    """

    suffix: str
    realm: str
    root: x509.Certificate = field(repr=False)
    device_cas: tuple[x509.Certificate, ...] = field(repr=False)

    @classmethod
    def from_pem(cls, suffix: str | None, pem: bytes) -> Authority:
        """Read a bundle ``ca.pem``: one root and the device-CA certificates that it signed.

        Validity is not looked at here but when something is verified.

        :param suffix: None stands for the realm's own domain, as its root says.

        :raises CertificateError: no such bundle.
        """
        if len(pem) > BUNDLE_LIMIT:
            raise CertificateError(f"a bundle of more than {BUNDLE_LIMIT} bytes")
        with _parsing("a bundle"):
            try:
                certificates = x509.load_pem_x509_certificates(pem)
            except ValueError:
                text = "no PEM certificates; a realm's bundle is its ca.pem"
                raise CertificateError(text) from None
            return cls._of(suffix, certificates)

    @classmethod
    def _of(cls, suffix: str | None, certificates: Sequence[x509.Certificate]) -> Authority:
        roots = [each for each in certificates if each.issuer == each.subject]
        if len(roots) != 1:
            raise CertificateError(f"{len(roots)} root certificates instead of one")
        root = roots[0]
        role, realm = role_of(root)
        if role != ROOT_ROLE:
            raise CertificateError(f"a root certificate with the role {role!r}")
        _check_signed(root, root)
        device_cas = tuple(each for each in certificates if each is not root)
        for each in device_cas:
            _check_signed(each, root)
            if role_of(each) != (DEVICE_CA_ROLE, realm):
                raise CertificateError(f"a bundle with a certificate that is no device-CA: {each}")
        if not device_cas:
            raise CertificateError("a bundle without the certificate of the device-CA")
        return cls(names.check_domain(suffix or realm), realm, root, device_cas)

    def to_pem(self) -> bytes:
        """The bundle as a file."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in (self.root, *self.device_cas))

    def check_device(self, certificate: DeviceCertificate, at: float | None) -> None:
        """Check that a device-CA of this authority signed ``certificate``, and when it is valid."""
        loaded = x509.load_der_x509_certificate(certificate.der)
        for issuer in self.device_cas:
            if common_name(issuer.subject) == certificate.issuer:
                _check_signed(loaded, issuer)
                if at is not None:
                    _check_time(issuer, f"the device authority of {self.realm}", at)
                    _check_time(loaded, f"the device certificate of {certificate.fqdn}", at)
                return
        raise CertificateError(
            f"the device certificate of {certificate.fqdn} is of no authority for {self.suffix}"
        )

    def check_server(self, certificate: x509.Certificate, at: float | None) -> None:
        """Check that the root itself signed a server's certificate, and when it is valid."""
        if certificate.issuer != self.root.subject:
            raise CertificateError(f"a certificate that the root of {self.suffix} did not sign")
        _check_signed(certificate, self.root)
        _check_not_authority(certificate)
        if at is not None:
            _check_time(self.root, f"the root certificate of {self.realm}", at)
            _check_time(certificate, "the certificate of " + ":".join(role_of(certificate)), at)


def _check_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check one Ed25519 signature, and that ``issuer`` may sign certificates at all."""
    key = issuer.public_key()
    if (
        not isinstance(key, Ed25519PublicKey)
        or certificate.signature_algorithm_oid != SignatureAlgorithmOID.ED25519
    ):
        raise CertificateError("a certificate that is not signed with Ed25519")
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        raise CertificateError("a certificate whose issuer is no authority") from None
    if not constraints.ca or certificate.issuer != issuer.subject:
        raise CertificateError("a certificate whose issuer is no authority")
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature:
        raise CertificateError("a certificate with a wrong signature") from None


def _check_not_authority(certificate: x509.Certificate) -> None:
    """A server's certificate is no CA and is made for TLS on both sides."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        raise CertificateError("a certificate that is not made for servers") from None
    if constraints.ca or not {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }.issubset(usages):
        raise CertificateError("a certificate that is not made for servers")


def _check_time(certificate: x509.Certificate, what: str, at: float) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if at < begin.timestamp():
        raise CertificateNotCurrent(f"{what} is valid only from {_date(begin)} UTC; is {_now(at)}")
    if at > end.timestamp():
        raise CertificateNotCurrent(f"{what} expired at {_date(end)} UTC; is {_now(at)}")


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _now(at: float) -> str:
    return f"{_date(datetime.fromtimestamp(at, UTC))} the right time?"


@frozen
class TrustStore:
    """Which authority decides for which names: the realm's own, and configured foreign ones.

    :ivar home: the suffix of the realm's own authority.
    :ivar authorities: suffix → authority. The longest label-wise suffix of a name selects the one
        authority that is asked about it; no other is (rule R1).
    """

    home: str
    authorities: Mapping[str, Authority]

    @classmethod
    def of(cls, home: Authority, *foreign: Authority) -> TrustStore:
        """A store of the realm's own authority and foreign ones, each under its suffix."""
        return cls(home.suffix, {each.suffix: each for each in (*foreign, home)})

    def is_home(self, name: str) -> bool:
        """Whether a name belongs to the own realm, and not to a foreign one within it."""
        return names.suffix_match(name, self.authorities) == self.home

    def authority_for(self, name: str) -> Authority:
        """The one authority for a name.

        :raises CertificateError: no realm is trusted for it.
        """
        suffix = names.suffix_match(name, self.authorities)
        if suffix is None:
            raise CertificateError(f"no authority is trusted for {name}; see ntm realm trust")
        return self.authorities[suffix]

    def trusts(self, name: str) -> bool:
        """Whether some authority is configured for a name."""
        return names.suffix_match(name, self.authorities) is not None

    def verify_device(
        self, certificate: DeviceCertificate | bytes, at: float | None
    ) -> DeviceCertificate:
        """Verify a device certificate at a time (unix seconds; None where time is unknown, R12).

        Its authority, signature, validity, and that its IPv6 address is of its domain (R22).

        :return: the certificate, parsed.
        :raises CertificateNotCurrent: it, or its issuer, is expired or not valid yet.
        :raises CertificateError: anything else is wrong.
        """
        if not isinstance(certificate, DeviceCertificate):
            certificate = DeviceCertificate.parse(certificate)
        self.authority_for(certificate.fqdn).check_device(certificate, at)
        if not virtual.is_virtual_of(names.domain_of(certificate.fqdn), certificate.ipv6):
            raise CertificateError(
                f"{certificate.fqdn} has {certificate.ipv6}, which is not of its domain"
            )
        return certificate

    def verify_server(
        self, chain: Sequence[bytes], role: str, name: str, at: float | None
    ) -> x509.Certificate:
        """Verify that the first certificate of ``chain`` (DER) is that of server ``name``.

        Servers are signed by the root itself, so what follows the first is ignored.

        :raises CertificateNotCurrent: it, or the root, is expired or not valid yet.
        :raises CertificateError: another realm, role or name, or anything else is wrong.
        """
        certificate = load_server(chain)
        with _parsing("a certificate"):
            found = role_of(certificate)
            if role not in SERVER_ROLES or found != (role, name):
                raise CertificateError(
                    f"expected {role}:{name}, but the certificate is that of {found[0]}:{found[1]}"
                )
            self.authority_for(name).check_server(certificate, at)
        return certificate


def load_server(chain: Sequence[bytes]) -> x509.Certificate:
    """The first certificate of a chain, parsed but not verified."""
    if not chain or not 0 < len(chain[0]) <= SERVER_LIMIT:
        raise CertificateError("no certificate, or one that is too large")
    with _parsing("a certificate"):
        return x509.load_der_x509_certificate(chain[0])
