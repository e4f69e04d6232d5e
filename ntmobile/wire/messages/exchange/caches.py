"""Client and CS: keys, objects, confirmations (figures 3 and 4; R29 to R32)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ntmobile.wire.codec import declare
from ntmobile.wire.messages.exchange.values import (
    DESTINATIONS,
    LISTED,
    MANIFESTS,
    Deliveries,
    Document,
    ObjectId,
    RequestInfo,
    SealedKey,
    SignedManifest,
    UnixTime,
)
from ntmobile.wire.messages.fields import Certificate, Count, Digest, Name, Signature, Text

_HTTP = "TLS, and a signature of the request (R28)"


@declare(
    0x0711,
    "Encryption Key Upload Request",
    sender="client",
    receiver="CS",
    transport="https",
    protection=_HTTP,
)
class EncryptionKeyUploadRequest(Document, frozen=True):
    """A shared key, sealed for each destination."""

    info: RequestInfo
    keys: Annotated[tuple[SealedKey, ...], Meta(min_length=1, max_length=DESTINATIONS)]


@declare(
    0x0712,
    "Encryption Key Upload Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptionKeyUploadResponse(Document, frozen=True):
    """What the DCs of the destinations said."""

    results: Deliveries


@declare(
    0x0713,
    "Encryption Key Download Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptionKeyDownloadResponse(Document, frozen=True):
    """The shared key, sealed for who asks."""

    key: SealedKey


@declare(
    0x0714,
    "Encrypted Data Upload Request",
    sender="client",
    receiver="CS",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataUploadRequest(Document, frozen=True):
    """Announces an object; its data follows in parts."""

    info: RequestInfo
    manifest: SignedManifest


@declare(
    0x0715,
    "Encrypted Data Upload Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataUploadResponse(Document, frozen=True):
    """How an object stands.

    :ivar parts: of how many it consists. :ivar missing: numbers of the first that are not there.
    :ivar results: what the DCs of the destinations said, once it is complete.
    """

    object: ObjectId
    parts: Count
    missing: Annotated[tuple[Count, ...], Meta(max_length=LISTED)]
    results: Deliveries = ()


@declare(
    0x0716,
    "Encrypted Data Download Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataDownloadResponse(Document, frozen=True):
    """An object's manifest; its data is downloaded in parts."""

    manifest: SignedManifest
    parts: Count


@declare(
    0x0717,
    "Encrypted Data Confirmation Request",
    sender="client",
    receiver="CS",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataConfirmationRequest(Document, frozen=True):
    """The receiver has an object: its signature over label, object, root, receiver and sender."""

    info: RequestInfo
    object: ObjectId
    root: Digest
    signature: Signature
    certificate: Certificate


@declare(
    0x0718,
    "Encrypted Data Confirmation Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataConfirmationResponse(Document, frozen=True):
    """It is noted."""

    object: ObjectId


class DeliveryStatus(Document, frozen=True):
    """How far an object has come at one destination.

    :ivar state: ``waiting`` (its DC knows), ``not told`` (its DC does not), ``confirmed``.
    :ivar confirmation: the receiver's, where it is confirmed, for the sender to verify (R32).
    """

    destination: Name
    state: Literal["waiting", "not told", "confirmed"]
    reason: Text = ""
    at: UnixTime = 0
    confirmation: EncryptedDataConfirmationRequest | None = None


@declare(
    0x0719,
    "Delivery Status Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class DeliveryStatusResponse(Document, frozen=True):
    """For the sender: how far an object has come."""

    object: ObjectId
    statuses: Annotated[tuple[DeliveryStatus, ...], Meta(max_length=DESTINATIONS)]


class ListedObject(Document, frozen=True):
    """An object of a list: its manifest, and of how many parts it consists."""

    object: ObjectId
    manifest: SignedManifest
    parts: Count


@declare(
    0x071A,
    "Encrypted Data List Request",
    sender="client",
    receiver="CS",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataListRequest(Document, frozen=True):
    """Asks for the manifests of several objects at once."""

    info: RequestInfo
    objects: Annotated[tuple[ObjectId, ...], Meta(min_length=1, max_length=MANIFESTS)]


@declare(
    0x071B,
    "Encrypted Data List Response",
    sender="CS",
    receiver="client",
    transport="https",
    protection=_HTTP,
)
class EncryptedDataListResponse(Document, frozen=True):
    """Those of them that wait there for who asks."""

    objects: Annotated[tuple[ListedObject, ...], Meta(max_length=MANIFESTS)]
