"""What a device signs about stored data, and how it is verified against a pin (R29).

Every signature is Ed25519 over a label, a zero byte and a body. Labels are of one use each, so a
signature given for one thing is never one for another.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ntmobile.errors import AuthenticationError, ItemExpired
from ntmobile.wire.certificates import DeviceCertificate

#: Seconds for which anything is stored at most (R31), and by how much clocks may differ.
LONGEST: Final = 30 * 86400
SKEW: Final = 3600


def statement(label: str, body: bytes) -> bytes:
    """The bytes that are signed."""
    return label.encode("ascii") + b"\0" + body


@frozen
class Signer:
    """A device that signs what it sends.

    :ivar fqdn: its name. :ivar certificate: its device certificate, DER.
    """

    fqdn: str
    certificate: bytes = field(repr=False)
    identity: Ed25519PrivateKey = field(repr=False)

    def sign(self, label: str, body: bytes) -> bytes:
        """A signature over :func:`statement`."""
        return self.identity.sign(statement(label, body))


def check_signature(pin: bytes, label: str, body: bytes, signature: bytes, what: str) -> None:
    """Verify a signature by the identity ``pin``, a raw Ed25519 public key.

    :param what: what it is, for the text of the error.
    :raises AuthenticationError: it is not signed by that identity.
    """
    try:
        Ed25519PublicKey.from_public_bytes(pin).verify(signature, statement(label, body))
    except (InvalidSignature, ValueError):
        raise AuthenticationError(f"{what} is not signed by the identity known of it") from None


def check_certificate(der: bytes, fqdn: str, pin: bytes, what: str) -> DeviceCertificate:
    """See that a certificate is one of ``fqdn`` with the identity ``pin``.

    Its issuer and validity are not looked at: what is stored outlives certificates of a day. Who
    pins an identity has seen to that (R5).

    :raises CertificateError: it does not parse.
    :raises AuthenticationError: it is another's.
    """
    certificate = DeviceCertificate.parse(der)
    if certificate.fqdn != fqdn or certificate.identity != pin:
        raise AuthenticationError(f"{what} came with another certificate than that of {fqdn}")
    return certificate


def check_expiry(expires: int, now: float, what: str) -> None:
    """See that a signed expiry has not passed, nor is further off than anything is kept.

    The second keeps what must be remembered until then (R32) within bounds.

    :raises ItemExpired: it has passed.
    :raises AuthenticationError: it is too far off.
    """
    if now >= expires:
        raise ItemExpired(f"{what} has expired; it has to be sent again")
    if expires > now + LONGEST + SKEW:
        raise AuthenticationError(f"{what} claims to hold for more than 30 days")
