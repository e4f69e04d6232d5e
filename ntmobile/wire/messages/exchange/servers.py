"""Between servers: temporal keys, what waits at a CS, and tokens (figures 3 and 4; R28, R34)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ntmobile.wire.codec import declare
from ntmobile.wire.messages.exchange.values import (
    DESTINATIONS,
    LISTED,
    CacheServer,
    Deliveries,
    Document,
    Label,
    Octets,
    RequestInfo,
    SignedManifest,
    TemporalKey,
    UnixTime,
)
from ntmobile.wire.messages.fields import (
    Certificate,
    Counter,
    Digest,
    Key,
    Millis,
    Name,
    Seconds,
)

_LINK = "mutual TLS between servers"


@declare(
    0x0721,
    "Temporal Key Transfer Request",
    sender="DC",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class TemporalKeyTransferRequest(Document, frozen=True):
    """Temporal keys for devices of the other domain.

    :ivar certificate: of the sender.
    """

    sender: Name
    certificate: Certificate
    application: Label
    keys: Annotated[tuple[TemporalKey, ...], Meta(min_length=1, max_length=DESTINATIONS)]
    expires: UnixTime


@declare(
    0x0722,
    "Temporal Key Transfer Response",
    sender="DC",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class TemporalKeyTransferResponse(Document, frozen=True):
    """What became of each."""

    results: Deliveries


@declare(
    0x0723,
    "Encryption Key Exchange Request",
    sender="CS",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class EncryptionKeyExchangeRequest(Document, frozen=True):
    """A shared key waits at this CS for devices of the DC's domain."""

    cache: CacheServer
    info: RequestInfo
    identifier: Digest
    certificate: Certificate
    expires: UnixTime


@declare(
    0x0724,
    "Encryption Key Exchange Response",
    sender="DC",
    receiver="CS",
    transport="link",
    protection=_LINK,
)
class EncryptionKeyExchangeResponse(Document, frozen=True):
    """Which devices were told, or will be."""

    results: Deliveries


@declare(
    0x0725,
    "Encrypted Data Exchange Request",
    sender="CS",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class EncryptedDataExchangeRequest(Document, frozen=True):
    """An object waits at this CS for devices of the DC's domain."""

    cache: CacheServer
    info: RequestInfo
    manifest: SignedManifest


@declare(
    0x0726,
    "Encrypted Data Exchange Response",
    sender="DC",
    receiver="CS",
    transport="link",
    protection=_LINK,
)
class EncryptedDataExchangeResponse(Document, frozen=True):
    """Which devices were told, or will be."""

    results: Deliveries


@declare(
    0x0727,
    "Cache Registration",
    sender="CS",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class CacheRegistration(Document, frozen=True):
    """A cache server of the DC's domain is here.

    :ivar free: bytes that it can still store.
    """

    cache: CacheServer
    free: Octets


class Token(Document, frozen=True):
    """An authentication token: what a CS knows a device by (paper, V-A; R28).

    :ivar token: its name, in each signature. :ivar key: the client-CS key.
    """

    token: Annotated[bytes, Meta(min_length=16, max_length=16)]
    fqdn: Name
    key: Key
    expires: UnixTime

    def __repr__(self) -> str:
        """Without the key, so that no log has it (R6)."""
        return f"Token({self.token.hex()}, {self.fqdn!r})"


@declare(
    0x0731,
    "Authentication Token Update",
    sender="AS",
    receiver="CS",
    transport="https",
    protection="mutual TLS, role as",
)
class TokenUpdate(Document, frozen=True):
    """Authentication data changed (paper, V-A), or, where ``lease`` alone is new, did not (R34).

    :ivar sequence: of the last change. :ivar since: changes up to here are known already; 0: this
        is all there is. :ivar revoked: devices whose tokens hold no more.
    :ivar lease: seconds for which the CS may go by this; 0: there is more to tell first.
    :ivar time: of the AS, in milliseconds since 1970 (R12); 0: it is not said.
    """

    sequence: Counter
    since: Counter
    tokens: Annotated[tuple[Token, ...], Meta(max_length=LISTED)] = ()
    revoked: Annotated[tuple[Name, ...], Meta(max_length=LISTED)] = ()
    lease: Seconds = 600
    time: Millis = 0


@declare(
    0x0732,
    "Authentication Token Acknowledgement",
    sender="CS",
    receiver="AS",
    transport="https",
    protection="mutual TLS, role as",
)
class TokenAcknowledgement(Document, frozen=True):
    """Up to which change the CS knows everything; after a restart 0."""

    sequence: Counter
