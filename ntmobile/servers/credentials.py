"""Loading what servers prove themselves with, and whom they trust, from PEM files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ntmobile.errors import CertificateError, ConfigurationError
from ntmobile.plugins.files import read_file, read_secret
from ntmobile.servers.authority import Signer
from ntmobile.wire.certificates import Authority, TrustStore, role_of


@frozen
class Credentials:
    """A server's own key and certificate, as the TLS factories take them.

    :ivar key: private. :ivar chain: the certificate.
    """

    key: Ed25519PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key; :class:`ConfigurationError` if it is none, or everybody may read it."""
    try:
        key = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path}: no Ed25519 private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: no Ed25519 private key in PEM")
    return key


def key_to_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key as a file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_certificate(path: Path) -> x509.Certificate:
    """Read one certificate; :class:`ConfigurationError` if it is none."""
    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except ValueError:
        raise ConfigurationError(f"{path}: no certificate in PEM") from None


def load_signer(certificate: Path, key: Path) -> Signer:
    """Read an authority's certificate and key; they must belong together."""
    signer = Signer(load_certificate(certificate), load_key(key))
    if signer.certificate.public_key() != signer.key.public_key():
        raise ConfigurationError(f"{certificate}: the certificate is not for the key in {key}")
    return signer


def load_credentials(certificate: Path, key: Path, role: str, name: str) -> Credentials:
    """Read a server's certificate and key.

    :raises ConfigurationError: a file is unreadable, the two do not belong together, or the
        certificate names another role or name.
    """
    signer = load_signer(certificate, key)
    try:
        found = role_of(signer.certificate)
    except CertificateError as problem:
        raise ConfigurationError(f"{certificate}: {problem}") from None
    if found != (role, name):
        raise ConfigurationError(
            f"{certificate}: the certificate of {found[0]}:{found[1]}, not of {role}:{name}"
        )
    return Credentials(signer.key, (signer.certificate,))


def load_authority(suffix: str, path: Path) -> Authority:
    """Read a bundle ``ca.pem`` for the names under ``suffix``."""
    try:
        return Authority.from_pem(suffix, read_file(path))
    except CertificateError as problem:
        raise ConfigurationError(f"{path}: {problem}") from None


def load_trust(realm: str, bundle: Path, foreign: Mapping[str, Path]) -> TrustStore:
    """Read the realm's bundle and those of foreign realms, suffix → file."""
    home = load_authority(realm, bundle)
    if home.realm != realm:
        raise ConfigurationError(f"{bundle}: the authority of {home.realm}, not of {realm}")
    return TrustStore.of(home, *(load_authority(suffix, path) for suffix, path in foreign.items()))
