"""Roles that certificates name in a subject alternative name URI, ``ntm:ROLE:NAME`` (rule R1)."""

from __future__ import annotations

from typing import Final

from cryptography import x509

from ntmobile.errors import CertificateError, InvalidName
from ntmobile.wire import names

#: The roles of servers: they may hold a TLS certificate signed by the root.
SERVER_ROLES: Final = frozenset({"as", "dc", "rs", "cs"})
#: The role of the certificate that signs device certificates, which no TLS connection accepts.
DEVICE_CA_ROLE: Final = "device-ca"
#: The role that the root names for itself.
ROOT_ROLE: Final = "root"
ROLES: Final = SERVER_ROLES | {DEVICE_CA_ROLE, ROOT_ROLE}


def role_uri(role: str, name: str) -> str:
    """The URI that names a role, such as ``ntm:dc:dc1.ntm.example``."""
    if role not in ROLES:
        raise CertificateError(f"{role!r} is no role of a server")
    return f"ntm:{role}:{names.check_server(name)}"


def parse_role(uri: str) -> tuple[str, str]:
    """Split a role URI into role and name; anything else is :class:`CertificateError`."""
    scheme, _, rest = uri.partition(":")
    role, _, name = rest.partition(":")
    if scheme != "ntm" or role not in ROLES:
        raise CertificateError(f"{uri[:100]!r} names no role of a server")
    try:
        return role, names.check_server(name)
    except InvalidName as problem:
        raise CertificateError(f"a certificate with an invalid name: {problem}") from None


def roles_of(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """The roles and names in a certificate's ``ntm:`` URIs; none if it has no such URI."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as problem:
        raise CertificateError(f"a certificate that does not parse: {problem}") from None
    return [parse_role(uri) for uri in uris if uri.startswith("ntm:")]


def role_of(certificate: x509.Certificate) -> tuple[str, str]:
    """The one role and name of a certificate; none or several is :class:`CertificateError`."""
    roles = roles_of(certificate)
    if len(roles) != 1:
        raise CertificateError(f"a certificate that names {len(roles)} roles instead of one")
    return roles[0]


def speaks_for(role: str, name: str, fqdn: str) -> bool:
    """Whether a server may speak for a device: a DC for its own domain, a CS for its DC's (R1)."""
    if role == "dc":
        return names.is_device_of(fqdn, name)
    return role == "cs" and "." in name and names.is_device_of(fqdn, name.split(".", 1)[1])
