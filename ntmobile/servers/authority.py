"""Issuing certificates: a realm's root, its device-CA, its servers, and devices (rules R1, R4).

The root's key signs only when the operator adds something; the device-CA's key is the account
server's, signs device certificates, and cannot serve TLS.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ntmobile.errors import CertificateError
from ntmobile.wire import names
from ntmobile.wire.certificates import (
    DEVICE_CA_ROLE,
    DEVICE_EXTENSION,
    DEVICE_EXTENSION_LENGTH,
    DEVICE_LIMIT,
    ROOT_ROLE,
    SERVER_ROLES,
    DeviceCertificate,
    key_id,
    role_uri,
)

#: How long the authorities' certificates live (until they would need four-digit years: 2049).
AUTHORITY_LIFETIME: Final = timedelta(days=20 * 365)
#: How long a server's certificate lives; ``ntm realm add-*`` renews it in its last third.
SERVER_LIFETIME: Final = timedelta(days=5 * 365)
#: How far certificates are dated back, so that clocks a little slow accept them at once.
BACKDATE: Final = timedelta(minutes=10)
#: The only purpose of a device-CA: an OID of our own, so that TLS refuses all that it signs.
DEVICE_CA_PURPOSE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.58742.1.2")


@frozen
class Signer:
    """A certificate that may sign others, with its private key."""

    certificate: x509.Certificate = field(repr=False)
    key: Ed25519PrivateKey = field(repr=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _serial() -> int:
    """A random serial of exactly 8 bytes in DER: positive, and never shorter."""
    return secrets.randbits(62) | 1 << 62


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(_serial())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _named(role: str, name: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(role_uri(role, name))])


def issue_root(realm: str, now: datetime) -> Signer:
    """Make the key and self-signed certificate of a realm's root."""
    key = Ed25519PrivateKey.generate()
    subject = _name(
        f"{names.check_domain(realm)} root {key_id(key.public_key().public_bytes_raw())}"
    )
    certificate = (
        _builder(subject, key.public_key(), now, AUTHORITY_LIFETIME)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(_named(ROOT_ROLE, realm), critical=False)
        .sign(key, None)
    )
    return Signer(certificate, key)


def issue_device_ca(root: Signer, realm: str, now: datetime) -> Signer:
    """Make the key and certificate of a device-CA; its common name is its key's identifier."""
    key = Ed25519PrivateKey.generate()
    subject = _name(key_id(key.public_key().public_bytes_raw()))
    certificate = (
        _builder(subject, key.public_key(), now, AUTHORITY_LIFETIME)
        .issuer_name(root.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([DEVICE_CA_PURPOSE]), critical=True)
        .add_extension(_named(DEVICE_CA_ROLE, realm), critical=False)
        .sign(root.key, None)
    )
    return Signer(certificate, key)


def issue_server(
    root: Signer,
    role: str,
    name: str,
    key: Ed25519PublicKey,
    now: datetime,
    lifetime: timedelta = SERVER_LIFETIME,
) -> x509.Certificate:
    """Certify a server's key for exactly one role and name, for both sides of TLS."""
    if role not in SERVER_ROLES:
        raise CertificateError(f"{role!r} is no role of a server")
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _builder(_name(f"{role} {name}"[:64]), key, now, lifetime)
        .issuer_name(root.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
        .add_extension(_named(role, name), critical=False)
        .sign(root.key, None)
    )


def issue_device(
    device_ca: Signer,
    *,
    fqdn: str,
    identity: bytes,
    x25519: bytes,
    xwing_hash: bytes,
    ipv6: IPv6Address,
    ipv4: IPv4Address,
    now: float,
    lifetime: float = 86400.0,
) -> DeviceCertificate:
    """Certify a device (rules R3, R4).

    :param identity: raw Ed25519 public key. :param x25519: raw public key.
    :param xwing_hash: SHA-256 of the X-Wing public key.
    :param now: unix seconds. :param lifetime: seconds.
    :raises CertificateError: keys of a wrong length, or more than 400 bytes.
    :raises InvalidName: ``fqdn`` is no device's name.
    """
    names.check_fqdn(fqdn)
    private = x25519 + xwing_hash + ipv6.packed + ipv4.packed
    if len(identity) != 32 or len(x25519) != 32 or len(private) != DEVICE_EXTENSION_LENGTH:
        raise CertificateError(f"keys of {fqdn} that are not 32 bytes long")
    begin = datetime.fromtimestamp(now, UTC)
    certificate = (
        _builder(
            x509.Name([]),
            Ed25519PublicKey.from_public_bytes(identity),
            begin,
            timedelta(seconds=lifetime),
        )
        .issuer_name(device_ca.certificate.subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(fqdn)]), critical=True)
        .add_extension(x509.UnrecognizedExtension(DEVICE_EXTENSION, private), critical=False)
        .sign(device_ca.key, None)
    )
    der = certificate.public_bytes(Encoding.DER)
    if len(der) > DEVICE_LIMIT:
        raise CertificateError(f"the certificate of {fqdn} would have {len(der)} bytes")
    return DeviceCertificate.parse(der)
