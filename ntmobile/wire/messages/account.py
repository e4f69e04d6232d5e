"""Login, identity and revocation: client, DC and AS (rules R2 to R5, R12, R34; paper, V-A).

A login is an inner TLS 1.3 session between client and AS. Its records travel as
:class:`LoginRelay` inside the client's own TLS connection to the DC and as :class:`LoginData` on
the link from DC to AS; inside it, each message is a frame of four bytes of length and the encoded
message.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ntmobile.wire.codec import Message, declare
from ntmobile.wire.messages.fields import (
    Certificate,
    Counter,
    Digest,
    Endpoint,
    Identifier,
    Key,
    Millis,
    Name,
    Seconds,
    Signature,
    Text,
)

#: Exporter labels of the client's TLS connection to its DC (RFC 8446, 7.5): the session key (R3),
#: and what binds a login to this very connection (R2).
SESSION_LABEL: Final = "EXPORTER-ntm1-session"
BINDING_LABEL: Final = "EXPORTER-ntm1-binding"
#: Size of an X-Wing public key (draft-connolly-cfrg-xwing-kem).
XWING_SIZE: Final = 1216

_INNER = "inner TLS 1.3 session, client and AS"
_LINK = "mutual TLS 1.3"
_OUTER = "TLS 1.3, the DC by certificate"
_Outcome = Annotated[int, Meta(ge=0, le=255)]
_Records = Annotated[bytes, Meta(min_length=1, max_length=32768)]
_Label = Annotated[str, Meta(min_length=1, max_length=63)]
_XWing = Annotated[bytes, Meta(min_length=XWING_SIZE, max_length=XWING_SIZE)]
_Pem = Annotated[bytes, Meta(max_length=16384)]


def enrolment_statement(
    binding: bytes, account: str, device: str, identity: bytes, x25519: bytes, xwing: bytes
) -> bytes:
    """What a device signs with its new identity key when it enrols."""
    fields = (binding, account, device, identity, x25519, xwing)
    return b"ntm/1 enrolment\0" + msgspec.msgpack.encode(fields)


def login_statement(binding: bytes, fqdn: str) -> bytes:
    """What a device signs with its identity key at a certificate login (R3)."""
    return b"ntm/1 login\0" + msgspec.msgpack.encode((binding, fqdn))


def succession_statement(fqdn: str, former: bytes, identity: bytes) -> bytes:
    """What a former identity signs to hand its name to a new one (R5)."""
    return b"ntm/1 succession\0" + msgspec.msgpack.encode((fqdn, former, identity))


def devices_statement(signed: bytes) -> bytes:
    """What the device-CA signs over an encoded :class:`DeviceList` (R5)."""
    return b"ntm/1 devices\0" + signed


@declare(
    0x0101,
    "Enrolment Request",
    sender="client",
    receiver="AS",
    transport="inner",
    protection=_INNER,
)
class EnrolmentRequest(Message, frozen=True):
    """The first login of a device: with the user's password and the device's new public keys.

    :ivar user: :ivar domain: the account. :ivar binding: SHA-256 of the outer exporter (R2).
    :ivar proof: signature over :func:`enrolment_statement`.
    :ivar replace: take over a device name that exists, revoking its certificate (R3).
    :ivar succession: signature of the former identity over :func:`succession_statement`, if it is
        still there.
    """

    user: _Label
    domain: Name
    device: _Label
    password: Annotated[str, Meta(max_length=1024)]
    binding: Digest
    identity: Key
    x25519: Key
    xwing: _XWing
    proof: Signature
    replace: bool = False
    succession: Annotated[bytes, Meta(max_length=64)] = b""

    def __repr__(self) -> str:
        """Without the password, so that no log has it (R6)."""
        return f"EnrolmentRequest({self.device}.{self.user}.{self.domain})"


@declare(
    0x0102,
    "Login Request",
    sender="client",
    receiver="AS",
    transport="inner",
    protection=_INNER,
)
class LoginRequest(Message, frozen=True):
    """A later login: proof of the identity key that was enrolled. Also how certificates renew.

    :ivar proof: signature over :func:`login_statement`. :ivar logout: revoke this device instead.
    """

    certificate: Certificate
    binding: Digest
    proof: Signature
    logout: bool = False


class Trusted(msgspec.Struct, frozen=True, array_like=True):
    """Another realm's authority: which names it decides, and its bundle."""

    suffix: Name
    bundle: _Pem


class LoginOutcomeCode:
    """Outcomes of a login; the detail is the line that people read."""

    OK: Final = 0
    DENIED: Final = 1  #: unknown user, wrong password, disabled or revoked: not told apart
    EXISTS: Final = 2  #: the device name is taken; ``--replace`` takes it over
    LIMITED: Final = 3  #: too many attempts; try again later
    REFUSED: Final = 4  #: the request is wrong: binding, proof or name
    UNAVAILABLE: Final = 5  #: AS or DC cannot serve now


@declare(
    0x0103, "Login Response", sender="AS", receiver="client", transport="inner", protection=_INNER
)
class LoginResponse(Message, frozen=True):
    """The end of a login.

    :ivar time: the AS's clock (R12). :ivar bundle: the realm's trust bundle, as of now.
    :ivar trusted: authorities of other realms. :ivar cache_key: for cache servers: token (16) and
        client-CS key (32), see :meth:`token` (R3, R28).
    :ivar version: of the user's device list (R5).
    """

    outcome: _Outcome
    time: Millis
    detail: Text = ""
    certificate: Annotated[bytes, Meta(max_length=400)] = b""
    bundle: _Pem = b""
    trusted: Annotated[tuple[Trusted, ...], Meta(max_length=64)] = ()
    cache_key: Annotated[bytes, Meta(max_length=48)] = b""
    version: Counter = 0

    @property
    def token(self) -> tuple[bytes, bytes] | None:
        """Authentication token and client-CS key; None if the AS gave none."""
        return (self.cache_key[:16], self.cache_key[16:]) if len(self.cache_key) == 48 else None

    def __repr__(self) -> str:
        """Without the key, so that no log has it (R6)."""
        return f"LoginResponse({self.outcome}, {self.detail!r})"


@declare(
    0x0111,
    "Login Data",
    sender="DC or AS",
    receiver="AS or DC",
    transport="link",
    protection=_LINK,
)
class LoginData(Message, frozen=True):
    """TLS records of one login, relayed opaquely. No data: that login is over.

    :ivar login: number that the DC gave it. :ivar source: address of the client, in the first one.
    """

    login: Counter
    data: Annotated[bytes, Meta(max_length=32768)]
    source: Text = ""


@declare(
    0x0112, "Assignment Request", sender="AS", receiver="DC", transport="link", protection=_LINK
)
class AssignmentRequest(Message, frozen=True):
    """The login is authentic: name the device and its addresses, if the binding is the DC's own."""

    login: Counter
    user: _Label
    device: _Label
    binding: Digest


@declare(
    0x0113, "Assignment Response", sender="DC", receiver="AS", transport="link", protection=_LINK
)
class AssignmentResponse(Message, frozen=True):
    """The DC assigns FQDN and virtual addresses; the AS signs them into the certificate."""

    outcome: _Outcome
    fqdn: Annotated[str, Meta(max_length=100)] = ""
    ipv6: Annotated[bytes, Meta(max_length=16)] = b""
    ipv4: Annotated[bytes, Meta(max_length=4)] = b""
    detail: Text = ""


@declare(0x0114, "Login Outcome", sender="AS", receiver="DC", transport="link", protection=_LINK)
class LoginOutcome(Message, frozen=True):
    """Who logged in, with which device certificate, and until when (R2). Acknowledged."""

    login: Counter
    fqdn: Name
    certificate: Certificate
    lifetime: Seconds


@declare(
    0x0121,
    "Login Relay",
    sender="client or DC",
    receiver="DC or client",
    transport="link",
    protection=_OUTER,
)
class LoginRelay(Message, frozen=True):
    """TLS records of the inner session, opaque to the DC."""

    data: _Records


@declare(
    0x0122, "Session Grant", sender="DC", receiver="client", transport="link", protection=_OUTER
)
class SessionGrant(Message, frozen=True):
    """The signalling session that follows the login; its key is the exporter of this connection.

    :ivar index: session index. :ivar lifetime: seconds. :ivar endpoints: UDP ports of the DC.
    """

    index: Identifier
    lifetime: Seconds
    endpoints: Annotated[tuple[Endpoint, ...], Meta(min_length=1, max_length=8)]


@declare(
    0x0123, "Session Refusal", sender="DC", receiver="client", transport="link", protection=_OUTER
)
class SessionRefusal(Message, frozen=True):
    """The DC cannot relay the login, or refuses the session; the detail says why."""

    outcome: _Outcome
    detail: Text = ""


@declare(
    0x0130,
    "Session Proof",
    sender="client",
    receiver="DC",
    transport="link",
    protection=_OUTER,
)
class SessionProof(Message, frozen=True):
    """Proves a session on a new TLS connection: HMAC-SHA256 with the session key over its exporter.

    Answered by a Link Acknowledgement; then Identity Requests may follow.
    """

    index: Identifier
    mac: Digest


@declare(
    0x0131,
    "Identity Request",
    sender="client or DC",
    receiver="DC or AS",
    transport="link",
    protection="TLS 1.3; session proof, or mutual between servers",
)
class IdentityRequest(Message, frozen=True):
    """Ask for the device list of a user, ``USER.DOMAIN``, or of a device's user."""

    name: Name


class ListedDevice(msgspec.Struct, frozen=True, array_like=True):
    """One device in a signed list. ``succession``: see :func:`succession_statement`; or empty."""

    fqdn: Name
    serial: Annotated[bytes, Meta(max_length=20)]
    identity: Key
    xwing: Digest
    former: Annotated[bytes, Meta(max_length=32)] = b""
    succession: Annotated[bytes, Meta(max_length=64)] = b""


class DeviceList(msgspec.Struct, frozen=True, array_like=True):
    """What the AS signs: a user's devices. ``version`` never goes back (R5)."""

    user: Name
    version: Counter
    issued: Millis
    devices: Annotated[tuple[ListedDevice, ...], Meta(max_length=64)]


@declare(
    0x0132,
    "Identity Response",
    sender="AS or DC",
    receiver="DC or client",
    transport="link",
    protection="signed by the AS's device authority",
)
class IdentityResponse(Message, frozen=True):
    """The signed list, the certificates in it, and on demand the X-Wing keys.

    :ivar signed: MessagePack of a :class:`DeviceList`.
    :ivar signature: Ed25519 of the device-CA over "ntm/1 devices", a zero byte, and ``signed``.
    :ivar issuer: :func:`~ntmobile.wire.certificates.key_id` of that device-CA.
    """

    outcome: _Outcome
    signed: Annotated[bytes, Meta(max_length=32768)] = b""
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    issuer: Annotated[str, Meta(max_length=16)] = ""
    certificates: Annotated[tuple[Certificate, ...], Meta(max_length=64)] = ()


class Revoked(msgspec.Struct, frozen=True, array_like=True):
    """A device whose certificate holds no more. An empty serial: all its certificates."""

    fqdn: Name
    serial: Annotated[bytes, Meta(max_length=20)] = b""


@declare(0x0141, "Revocation Push", sender="AS", receiver="DC", transport="link", protection=_LINK)
class RevocationPush(Message, frozen=True):
    """What was revoked after ``since`` up to ``sequence`` (R34), in the DC's domain.

    A DC that has carried out less than ``since`` asks for the rest with a :class:`ChangesRequest`.
    """

    sequence: Counter
    revoked: Annotated[tuple[Revoked, ...], Meta(max_length=256)]
    since: Counter = 0


@declare(0x0142, "Lease", sender="AS", receiver="DC", transport="link", protection=_LINK)
class Lease(Message, frozen=True):
    """The AS lives: new work may go on for so many seconds (R34). Sent at connection and often.

    :ivar sequence: of the AS's changes; a DC that is behind asks with :class:`ChangesRequest`.
    """

    seconds: Seconds
    time: Millis
    sequence: Counter


@declare(0x0143, "Changes Request", sender="DC", receiver="AS", transport="link", protection=_LINK)
class ChangesRequest(Message, frozen=True):
    """What was revoked in the DC's domain since this sequence? Answered by a Revocation Push."""

    since: Counter
