"""The proofs of a login and what a client accepts as its answer (rules R2 to R5, R12).

A device signs every login with its identity key, over a hash of the exporter of its own connection
to the DC. So a login that is carried to another connection, or to other keys, is no login.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    MalformedMessage,
    NTMobileError,
    QuotaExceeded,
    Unreachable,
)
from ntmobile.wire import names
from ntmobile.wire.certificates import Authority, DeviceCertificate, TrustStore
from ntmobile.wire.messages.account import (
    EnrolmentRequest,
    LoginOutcomeCode,
    LoginRequest,
    LoginResponse,
    enrolment_statement,
    login_statement,
    succession_statement,
)
from ntmobile.wire.text import printable

#: Longest password, in characters.
PASSWORD_LIMIT: Final = 1024
#: What a login's detail may be without one.
_PLAIN: Final[dict[int, str]] = {
    LoginOutcomeCode.DENIED: "the login was denied",
    LoginOutcomeCode.EXISTS: "there is a device of that name already; --replace takes its place",
    LoginOutcomeCode.LIMITED: "too many attempts; try again later",
    LoginOutcomeCode.REFUSED: "the account server refused the request",
    LoginOutcomeCode.UNAVAILABLE: "the account server cannot serve now; try again",
}
_ERRORS: Final[dict[int, type[NTMobileError]]] = {
    LoginOutcomeCode.DENIED: AuthenticationError,
    LoginOutcomeCode.EXISTS: AlreadyExists,
    LoginOutcomeCode.LIMITED: QuotaExceeded,
    LoginOutcomeCode.REFUSED: AccessDenied,
    LoginOutcomeCode.UNAVAILABLE: Unreachable,
}


@frozen
class DeviceKeys:
    """The public halves of a device's keys, as an enrolment shows them (R4).

    :ivar identity: raw Ed25519. :ivar x25519: raw. :ivar xwing: X-Wing, 1216 bytes.
    """

    identity: bytes
    x25519: bytes
    xwing: bytes = field(repr=False)

    @property
    def xwing_hash(self) -> bytes:
        """SHA-256 of the X-Wing key, as the certificate has it."""
        return sha256(self.xwing).digest()


def binding_of(exported: bytes) -> bytes:
    """What binds a login to a connection: SHA-256 of its exporter (R2)."""
    return sha256(exported).digest()


def check_typed(password: str) -> str:
    """Return a password as it was typed, if it can be sent.

    :raises AuthenticationError: it is too long, or no text.
    """
    if len(password) > PASSWORD_LIMIT:
        raise AuthenticationError(f"the password is longer than {PASSWORD_LIMIT} characters")
    try:
        password.encode("utf-8")
    except UnicodeEncodeError:
        raise AuthenticationError("the password is not valid text in this locale") from None
    return password


def verify_signature(key: bytes, signature: bytes, statement: bytes) -> bool:
    """Whether a raw Ed25519 key signed a statement."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True


# -- the client's requests


def enrolment(
    key: Ed25519PrivateKey,
    keys: DeviceKeys,
    account: tuple[str, str],
    device: str,
    password: str,
    binding: bytes,
    *,
    replace: bool = False,
    former: Ed25519PrivateKey | None = None,
) -> EnrolmentRequest:
    """A device's first login.

    :param account: user label and domain.
    :param former: the identity that the device had so far, which hands its name over (R5).
    """
    user, domain = account
    statement = enrolment_statement(
        binding, f"{user}@{domain}", device, keys.identity, keys.x25519, keys.xwing
    )
    succession = b""
    if former is not None:
        before = former.public_key().public_bytes_raw()
        fqdn = f"{device}.{user}.{domain}"
        succession = former.sign(succession_statement(fqdn, before, keys.identity))
    return EnrolmentRequest(
        user,
        domain,
        device,
        password,
        binding,
        keys.identity,
        keys.x25519,
        keys.xwing,
        key.sign(statement),
        replace,
        succession,
    )


def certificate_login(
    key: Ed25519PrivateKey, certificate: DeviceCertificate, binding: bytes, *, logout: bool = False
) -> LoginRequest:
    """A later login of a device, or its logout."""
    proof = key.sign(login_statement(binding, certificate.fqdn))
    return LoginRequest(certificate.der, binding, proof, logout)


# -- the AS's checks


def is_proven_enrolment(request: EnrolmentRequest) -> bool:
    """Whether the device holds the identity key that it wants certified."""
    account = f"{request.user}@{request.domain}"
    statement = enrolment_statement(
        request.binding, account, request.device, request.identity, request.x25519, request.xwing
    )
    return verify_signature(request.identity, request.proof, statement)


def is_proven_login(request: LoginRequest, certificate: DeviceCertificate) -> bool:
    """Whether the device holds the identity key of its certificate."""
    statement = login_statement(request.binding, certificate.fqdn)
    return verify_signature(certificate.identity, request.proof, statement)


# -- the client's judgement of the answer


def refusal(outcome: int, detail: str) -> NTMobileError:
    """The error for an outcome other than OK; its text is the detail, or a plain line.

    Only DENIED is an :class:`AuthenticationError`: whoever logs in has lost the right to.
    """
    kind = _ERRORS.get(outcome, AccessDenied)
    return kind(printable(detail) or _PLAIN.get(outcome, "the login was refused"))


def accept_certificate(
    response: LoginResponse, fqdn: str, keys: DeviceKeys, trust: TrustStore
) -> DeviceCertificate:
    """The certificate of a successful login: for this device, its keys, valid by the AS's time.

    :raises CertificateError: it is anything else.
    """
    certificate = trust.verify_device(response.certificate, response.time / 1000)
    found = (certificate.fqdn, certificate.identity, certificate.x25519, certificate.xwing_hash)
    if found != (fqdn, keys.identity, keys.x25519, keys.xwing_hash):
        raise CertificateError("the account server certified another device than this one")
    return certificate


def accept_trust(response: LoginResponse, trust: TrustStore) -> TrustStore:
    """The authorities that a login told of: new device-CAs and foreign realms, never a new root.

    The root of the own realm is what the user was given (``--trust``); what an AS could replace
    would be no root of trust. Foreign authorities decide for names outside the realm only (R1).

    :raises CertificateError: another root, or an authority that does not parse.
    """
    home = trust.authorities[trust.home]
    if response.bundle:
        told = Authority.from_pem(home.suffix, response.bundle)
        if told.root != home.root:
            raise CertificateError(
                f"the realm {home.realm} has another root now; enrol again with its new ca.pem"
            )
        home = told
    foreign = []
    for each in response.trusted:
        if names.is_within(each.suffix, home.suffix):
            raise CertificateError(f"a foreign authority for {each.suffix}, within the own realm")
        foreign.append(Authority.from_pem(each.suffix, each.bundle))
    return TrustStore.of(home, *foreign)


def check_response(message: object) -> LoginResponse:
    """The one message that may come back, if it is that and reports success.

    :raises NTMobileError: of the kind that fits the outcome.
    """
    if not isinstance(message, LoginResponse):
        raise MalformedMessage("the account server sent something else than a Login Response")
    if message.outcome != LoginOutcomeCode.OK:
        raise refusal(message.outcome, message.detail)
    return message
