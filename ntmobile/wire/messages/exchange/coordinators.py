"""Client and DC: temporal keys, pre-keys, and what waits where (figures 3 and 4; R31)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ntmobile.wire.codec import declare
from ntmobile.wire.messages.exchange.values import (
    ASKED,
    DESTINATIONS,
    LISTED,
    CacheServer,
    Deliveries,
    Delivery,
    Document,
    Label,
    Notice,
    PreKey,
    RequestInfo,
    TemporalKey,
    UnixTime,
)
from ntmobile.wire.messages.fields import Certificate, Digest, Endpoints, Key, Name

_HTTP = "TLS, and a signature of the request (R28)"
_LINK = "mutual TLS between servers"


@declare(
    0x0701,
    "Temporal Key Upload Request",
    sender="client",
    receiver="DC",
    transport="https",
    protection=_HTTP,
)
class TemporalKeyUploadRequest(Document, frozen=True):
    """Temporal keys for the DCs of their destinations: one each."""

    info: RequestInfo
    keys: Annotated[tuple[TemporalKey, ...], Meta(min_length=1, max_length=DESTINATIONS)]
    expires: UnixTime


@declare(
    0x0702,
    "Temporal Key Upload Response",
    sender="DC",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class TemporalKeyUploadResponse(Document, frozen=True):
    """Where the keys have come."""

    results: Deliveries


@declare(
    0x0703,
    "Temporal Key List Download Response",
    sender="DC",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class TemporalKeyListDownloadResponse(Document, frozen=True):
    """The hash values of the temporal keys that wait for this device."""

    identifiers: Annotated[tuple[Digest, ...], Meta(max_length=LISTED)]


@declare(
    0x0704,
    "Temporal Key Download Response",
    sender="DC",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class TemporalKeyDownloadResponse(Document, frozen=True):
    """One of them; it stays until it is confirmed (R31)."""

    sender: Name
    key: Key

    def __repr__(self) -> str:
        """Without the key, so that no log has it (R6)."""
        return f"TemporalKeyDownloadResponse({self.sender!r})"


class CacheEntry(Document, frozen=True):
    """Something that waits for a device at a cache server.

    :ivar cache: full name of the CS. :ivar endpoints: where it is.
    :ivar kind: ``key`` or ``data``. :ivar identifier: hash of the shared key, or object identifier
        and zeros. :ivar root: hash of the object, zeros for a key.
    """

    cache: Name
    endpoints: Endpoints
    kind: Literal["key", "data"]
    identifier: Digest
    root: Digest
    sender: Name
    application: Label
    service: Label
    item: Label
    message: Notice
    expires: UnixTime


@declare(
    0x0705,
    "Cache List Download Response",
    sender="DC",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class CacheListDownloadResponse(Document, frozen=True):
    """What waits for this device, oldest first.

    :ivar more: there is more than this.
    """

    entries: Annotated[tuple[CacheEntry, ...], Meta(max_length=LISTED)]
    more: bool = False


@declare(
    0x0706,
    "Cache Server List Response",
    sender="DC",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class CacheServerListResponse(Document, frozen=True):
    """The cache servers of the client's own DC, the least loaded first."""

    caches: Annotated[tuple[CacheServer, ...], Meta(max_length=64)]


@declare(
    0x0707,
    "Pre-key Upload Request",
    sender="client",
    receiver="DC",
    transport="https",
    protection=_HTTP,
)
class PreKeyUploadRequest(Document, frozen=True):
    """The X-Wing keys under which this device can be written to (R31)."""

    info: RequestInfo
    keys: Annotated[tuple[PreKey, ...], Meta(min_length=1, max_length=4)]


@declare(
    0x0708,
    "Pre-key Request",
    sender="client, DC",
    receiver="DC",
    transport="https",
    protection=f"{_HTTP}; between DCs {_LINK}",
)
class PreKeyRequest(Document, frozen=True):
    """Asks for the newest pre-keys of devices.

    :ivar sender: who wants to write to them (R13).
    """

    sender: Name
    fqdns: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=ASKED)]


class DevicePreKey(Document, frozen=True):
    """A pre-key with the certificate of the device that signed it."""

    key: PreKey
    certificate: Certificate


@declare(
    0x0709,
    "Pre-key Response",
    sender="DC",
    receiver="client, DC",
    transport="https",
    protection=f"{_HTTP}; between DCs {_LINK}",
)
class PreKeyResponse(Document, frozen=True):
    """The newest pre-key of each device.

    :ivar failed: devices that are unknown, or do not admit the sender (R13: the same answer).
    """

    keys: Annotated[tuple[DevicePreKey, ...], Meta(max_length=ASKED)]
    failed: Annotated[tuple[Delivery, ...], Meta(max_length=ASKED)] = ()
