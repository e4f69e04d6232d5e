"""HTTP Message Signatures (RFC 9421) with HMAC-SHA-256 and Ed25519: how requests are signed (R28).

One signature a request. It covers at least :data:`COVERED`, the digest of the body where there is
one, and carries ``created``, ``nonce``, ``keyid`` and ``alg``. A client signs::

    fields = sign(request, HmacKey(cs_key), keyid=token.hex(), created=unix_time, nonce=random(16))

and a server takes it apart, finds the key, verifies, and then remembers the nonce
(:class:`ntmobile.machines.exchange.nonces.NonceMemory`)::

    signed = parse(request)
    signed.verify(HmacKey(key_of(signed.keyid)), now)
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, Protocol

from attrs import Factory, field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.wire.http_digests import CONTENT_DIGEST
from ntmobile.wire.structured_fields import (
    Bare,
    InnerList,
    Item,
    Parameters,
    parse_dictionary,
    serialize_bare,
    serialize_dictionary,
    serialize_member,
)

#: Names of the algorithms (RFC 9421, section 3.3).
HMAC_SHA256: Final = "hmac-sha256"
ED25519: Final = "ed25519"
#: What every signature covers; ``content-digest`` too, where there is a body.
COVERED: Final = ("@method", "@path", "@query")
#: What a signature towards another realm covers too: the full name of the server that it is for.
SERVER_FIELD: Final = "ntm-server"
#: The field with the device certificate of one who signs with Ed25519, DER in base64.
CERTIFICATE_FIELD: Final = "ntm-certificate"
#: Seconds by which the time of a signature may differ from the verifier's.
FRESH: Final = 300
#: Bytes of a nonce.
NONCE_LENGTH: Final = 16

_LABEL: Final = "ntm"
#: A line break would let one component pass for two.
_VALUE: Final = re.compile(r"[\t -~]*")
_FIELD_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")


class Signer(Protocol):
    """What makes signatures."""

    @property
    def algorithm(self) -> str:
        """Its name in the RFC."""

    def sign(self, data: bytes) -> bytes:
        """A signature over data."""


class Verifier(Protocol):
    """What judges signatures."""

    @property
    def algorithm(self) -> str:
        """Its name in the RFC."""

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature is right."""


@frozen
class HmacKey:
    """A key that both sides know (RFC 9421, section 3.3.3)."""

    key: bytes = field(repr=False)
    algorithm: str = field(default=HMAC_SHA256, init=False)

    def sign(self, data: bytes) -> bytes:
        """The code over data."""
        return hmac.digest(self.key, data, sha256)

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Whether a code is right."""
        return hmac.compare_digest(self.sign(data), signature)


@frozen
class Ed25519Signer:
    """A device's identity key (RFC 9421, section 3.3.6)."""

    key: Ed25519PrivateKey = field(repr=False)
    algorithm: str = field(default=ED25519, init=False)

    def sign(self, data: bytes) -> bytes:
        """A signature over data."""
        return self.key.sign(data)


@frozen
class Ed25519Verifier:
    """The public half of it, raw, as device certificates have it."""

    public: bytes = field(repr=False)
    algorithm: str = field(default=ED25519, init=False)

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature is right; it is not, where the key is none."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


@frozen
class Request:
    """The parts of a request that can be signed.

    :ivar method: such as ``GET``. :ivar path: as it is sent, escapes included.
    :ivar query: what follows ``?``; empty if there is none.
    :ivar authority: host, and port if it is not the usual one, in lower case.
    :ivar fields: name in lower case → its lines, in their order.
    """

    method: str
    path: str
    query: str = ""
    authority: str = ""
    fields: Mapping[str, Sequence[str]] = Factory(dict)

    def component(self, name: str) -> str:
        """The value of a component (RFC 9421, sections 2.1 and 2.2).

        :raises MalformedMessage: the request has none of that name, or it is not supported.
        """
        match name:
            case "@method":
                return self.method
            case "@path":
                return self.path or "/"
            case "@query":
                return f"?{self.query}"
            case "@authority":
                return self.authority.lower()
        lines = self.fields.get(name) if _FIELD_NAME.fullmatch(name) else None
        if not lines:
            raise MalformedMessage(f"a signature over {name[:64]!r}, which the request has not")
        return ", ".join(line.strip(" \t") for line in lines)


def signature_base(request: Request, covered: InnerList) -> bytes:
    """What is signed (RFC 9421, section 2.5).

    :param covered: the components' names, and the signature's parameters.
    :raises MalformedMessage: a component is not there, comes twice, or is not printable.
    """
    lines: dict[str, str] = {}
    for item in covered.items:
        if not isinstance(item.value, str) or item.parameters or item.value in lines:
            raise MalformedMessage("a signature over components that are not supported, or twice")
        lines[item.value] = request.component(item.value)
    lines["@signature-params"] = serialize_member(covered)
    if not all(_VALUE.fullmatch(value) for value in lines.values()):
        raise MalformedMessage("a signature over what is not printable ASCII")
    text = "\n".join(f"{serialize_bare(name)}: {value}" for name, value in lines.items())
    return text.encode("ascii")


def sign(
    request: Request,
    key: Signer,
    *,
    keyid: str,
    created: int,
    nonce: bytes,
    label: str = _LABEL,
) -> dict[str, str]:
    """Sign a request: the two fields to add to it.

    It covers :data:`COVERED`, and ``content-digest``, ``ntm-server`` and ``ntm-certificate`` if
    the request has them.

    :param keyid: by which the verifier finds the key. :param created: unix seconds.
    :param nonce: random bytes, :data:`NONCE_LENGTH` of them.
    """
    optional = (CONTENT_DIGEST, SERVER_FIELD, CERTIFICATE_FIELD)
    components = [*COVERED, *(name for name in optional if name in request.fields)]
    parameters: Parameters = (
        ("created", created),
        ("nonce", base64.b64encode(nonce).decode("ascii")),
        ("keyid", keyid),
        ("alg", key.algorithm),
    )
    return sign_components(request, key, components, parameters, label)


def sign_components(
    request: Request,
    key: Signer,
    components: Sequence[str],
    parameters: Parameters,
    label: str,
) -> dict[str, str]:
    """Sign whatever is named, with parameters as they are (RFC 9421, section 3.1)."""
    covered = InnerList(tuple(Item(name) for name in components), parameters)
    signature = key.sign(signature_base(request, covered))
    return {
        "signature-input": serialize_dictionary({label: covered}),
        "signature": serialize_dictionary({label: Item(signature)}),
    }


@frozen
class SignedRequest:
    """A request with its signature, which :meth:`verify` has still to judge.

    :ivar keyid: names the key. :ivar algorithm: what it says it is signed with.
    :ivar created: unix seconds, as it says. :ivar nonce: to be remembered by the verifier.
    :ivar covered: names of what is signed.
    """

    request: Request
    keyid: str
    algorithm: str
    created: int
    nonce: bytes
    covered: frozenset[str]
    _list: InnerList = field(alias="list", repr=False)
    _signature: bytes = field(alias="signature", repr=False)

    def verify(self, key: Verifier, now: float, *, required: Sequence[str] = ()) -> None:
        """Verify it: what it covers, its time, and then the signature.

        :param now: unix seconds. :param required: components beside those that always are; a body
            is covered by ``content-digest``, which the caller compares with the body.
        :raises AuthenticationError: it is not right; the text says in which way.
        """
        missing = [name for name in (*COVERED, *required) if name not in self.covered]
        if CONTENT_DIGEST in self.request.fields and CONTENT_DIGEST not in self.covered:
            missing.append(CONTENT_DIGEST)
        if missing:
            raise AuthenticationError(f"the signature does not cover {', '.join(missing)}")
        if abs(now - self.created) > FRESH:
            raise AuthenticationError(
                f"the signature is {_age(now - self.created)}; set the clock, and sign anew"
            )
        if self.algorithm != key.algorithm or not key.is_valid(
            signature_base(self.request, self._list), self._signature
        ):
            raise AuthenticationError("the signature is not right; log in again and sign anew")


def _age(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'old' if seconds > 0 else 'in the future'}"


def parse(request: Request) -> SignedRequest:
    """Take the signature of a request apart.

    :raises AuthenticationError: it has none.
    :raises MalformedMessage: it has several, or one that is not of the form that is asked for.
    """
    if not request.fields.get("signature-input") or not request.fields.get("signature"):
        raise AuthenticationError("the request is not signed (RFC 9421); log in and sign it")
    inputs = parse_dictionary(request.component("signature-input"))
    signatures = parse_dictionary(request.component("signature"))
    if len(inputs) != 1 or inputs.keys() != signatures.keys():
        raise MalformedMessage("not exactly one signature with its input")
    (covered,), (signature,) = inputs.values(), signatures.values()
    if not isinstance(covered, InnerList) or not isinstance(signature, Item):
        raise MalformedMessage("a signature without a list of what it covers")
    if not isinstance(signature.value, bytes) or signature.parameters:
        raise MalformedMessage("a signature that is no bytes")
    parameters = dict(covered.parameters)
    return SignedRequest(
        request=request,
        keyid=_text(parameters, "keyid"),
        algorithm=_text(parameters, "alg"),
        created=_created(parameters),
        nonce=_nonce(_text(parameters, "nonce")),
        covered=frozenset(str(item.value) for item in covered.items),
        list=covered,
        signature=signature.value,
    )


def _text(parameters: Mapping[str, Bare], name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise MalformedMessage(f"a signature without {name}, or one that is too long")
    return value


def _created(parameters: Mapping[str, Bare]) -> int:
    value = parameters.get("created")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedMessage("a signature without the time when it was created")
    return value


def _nonce(text: str) -> bytes:
    try:
        nonce = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != NONCE_LENGTH or base64.b64encode(nonce).decode("ascii") != text:
        raise MalformedMessage(f"a signature whose nonce is not base64 of {NONCE_LENGTH} bytes")
    return nonce
