"""Who asks a cache server: a device of its realm, one of another, or its AS (R28, R34)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from ntmobile.errors import AccessDenied, AuthenticationError, MalformedMessage
from ntmobile.machines.exchange.nonces import NonceMemory
from ntmobile.machines.exchange.tokens import TokenTable
from ntmobile.machines.rate import RateLimiter
from ntmobile.protocols.http_routes import Access, Head
from ntmobile.wire import http_signatures, problems
from ntmobile.wire.certificates import DEVICE_LIMIT, DeviceCertificate, TrustStore
from ntmobile.wire.http_digests import CONTENT_DIGEST
from ntmobile.wire.http_signatures import (
    CERTIFICATE_FIELD,
    ED25519,
    SERVER_FIELD,
    Ed25519Verifier,
    HmacKey,
    SignedRequest,
)
from ntmobile.wire.problems import Problem

#: Devices of the own realm; these and devices of other realms; the account server.
DEVICE: Final = "device"
RECEIVER: Final = "receiver"
ACCOUNT_SERVER: Final = "account_server"
#: How each is known, for the OpenAPI document.
LINES: Final = {
    DEVICE: "HTTP Message Signature (RFC 9421), hmac-sha256 with the client-CS key; keyid is the "
    "authentication token in hex",
    RECEIVER: "the same, or, for a device of another realm, ed25519 by its identity; keyid is the "
    "SHA-256 of the certificate in NTM-Certificate, NTM-Server this server's name",
    ACCOUNT_SERVER: "mutual TLS, certificate of the role as",
}
#: Requests of one device at once, as a multiple of those in a second.
_BURST: Final = 8
#: Nonces of one device that are remembered, as a multiple of the same: those of 400 s, for a
#: signature's time may be 300 s off, and they are forgotten by the minute.
_NONCES: Final = 400


@frozen
class Caller:
    """A device that asks.

    :ivar certificate: of a device of another realm; None for one of this realm.
    """

    fqdn: str
    certificate: DeviceCertificate | None = field(default=None, repr=False)


@define(eq=False)
class CacheAccess:
    """Finds out who asks.

    :ivar name: full name of this server. :ivar realm: its realm.
    :ivar unix_time: seconds. :ivar requests: that one device may make in a second.
    """

    name: str
    realm: str
    tokens: TokenTable
    trust: TrustStore
    clock: IReactorTime
    unix_time: Callable[[], float]
    requests: int = 250
    _nonces: NonceMemory = field(init=False)
    _limiter: RateLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = RateLimiter(self.requests, self.requests * _BURST, capacity=100_000)
        self._nonces = NonceMemory(per_key=self.requests * (_NONCES + _BURST))

    def table(self) -> dict[str, Access]:
        """By the names in the routes."""
        return {
            DEVICE: self._device,
            RECEIVER: self._receiver,
            ACCOUNT_SERVER: self._account_server,
        }

    def charge(self, caller: Caller, requests: float) -> None:
        """Count a request that was let in as so many more."""
        self._limiter.charge(caller.fqdn, self.clock.seconds(), requests)

    def tick(self) -> None:
        """Every minute: forget what is over."""
        self.tokens.expire(self.unix_time())
        self._limiter.expire(self.clock.seconds())

    def _account_server(self, head: Head) -> None:
        """The realm's AS, by its certificate.

        :raises AccessDenied: it is not.
        """
        if head.peer != ("as", self.realm):
            raise AccessDenied(f"only the account server of {self.realm} may do this")

    def _device(self, head: Head) -> Caller:
        """A device of the own realm, by its token."""
        signed = self._signed(head)
        return self._admitted(self._by_token(head, signed), signed)

    def _receiver(self, head: Head) -> Caller:
        """A device of the own realm by its token, one of another by its certificate."""
        signed = self._signed(head)
        if signed.algorithm == ED25519:
            return self._admitted(self._by_certificate(head, signed), signed)
        return self._admitted(self._by_token(head, signed), signed)

    def _signed(self, head: Head) -> SignedRequest:
        """A request's signature, while the AS is heard: after a start it has to tell all tokens.

        :raises Problem: it is not.
        """
        if not self.tokens.accepts(self.clock.seconds()):
            raise Problem(
                problems.UNAVAILABLE,
                "the cache server does not hear its account server now; try again later",
                (("Retry-After", "30"),),
            )
        return http_signatures.parse(head.request)

    def _by_token(self, head: Head, signed: SignedRequest) -> Caller:
        """:raises AuthenticationError: the token is not known, or the signature not right."""
        now = self.unix_time()
        try:
            known = self.tokens.find(bytes.fromhex(signed.keyid), now)
        except ValueError:
            known = None
        # An unknown token costs, and says, the same as a wrong signature.
        key = bytes(32) if known is None else known.key
        signed.verify(HmacKey(key), now, required=_required(head))
        if known is None:
            raise AuthenticationError("the signature is not right; log in again and sign anew")
        return Caller(known.fqdn)

    def _by_certificate(self, head: Head, signed: SignedRequest) -> Caller:
        """:raises AuthenticationError: the certificate or the signature is not right."""
        certificate = self._certificate(head)
        if self.trust.is_home(certificate.fqdn):
            raise AuthenticationError(
                f"devices of {self.realm} sign with the token of their login; log in again"
            )
        if signed.keyid != certificate.fingerprint.hex():
            raise AuthenticationError("keyid is not the SHA-256 of the certificate")
        required = (*_required(head), SERVER_FIELD, CERTIFICATE_FIELD)
        signed.verify(Ed25519Verifier(certificate.identity), self.unix_time(), required=required)
        if head.header(SERVER_FIELD) != self.name:
            raise AuthenticationError(f"the request is signed for another server than {self.name}")
        return Caller(certificate.fqdn, certificate)

    def _certificate(self, head: Head) -> DeviceCertificate:
        text = head.header(CERTIFICATE_FIELD) or ""
        if not 0 < len(text) <= 2 * DEVICE_LIMIT:
            raise AuthenticationError("the certificate is missing in NTM-Certificate")
        try:
            der = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise MalformedMessage("NTM-Certificate is not base64") from None
        return self.trust.verify_device(der, self.unix_time())

    def _admitted(self, caller: Caller, signed: SignedRequest) -> Caller:
        """Let one in who is known: once, and not too often.

        :raises Problem: not now. :raises AuthenticationError: the request was made before.
        """
        now = self.clock.seconds()
        if not self._limiter.allow(caller.fqdn, now):
            raise _too_many(self._limiter.wait(caller.fqdn, now))
        self._nonces.use(signed.keyid, signed.nonce, signed.created, self.unix_time())
        return caller


def _required(head: Head) -> tuple[str, ...]:
    """A body must be signed for too."""
    return (CONTENT_DIGEST,) if head.length else ()


def _too_many(wait: float) -> Problem:
    seconds = str(int(wait) + 1)
    return Problem(
        problems.BUSY,
        f"too many requests of this device; try again in {seconds} s",
        (("Retry-After", seconds),),
    )
