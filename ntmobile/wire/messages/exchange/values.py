"""Stored data: field types and structures that its messages carry (paper, V-B; R28 to R33)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import (
    Certificate,
    Count,
    Digest,
    Endpoints,
    Key,
    Name,
    Signature,
    Text,
)

#: Destinations of one item.
DESTINATIONS: Final = 64
#: Entries of one list.
LISTED: Final = 1000
#: Manifests in one answer: it must fit a document.
MANIFESTS: Final = 64
#: Devices of one question for pre-keys: the answer must fit a frame.
ASKED: Final = 32

#: What an application, its service and the item in it are called (paper, V-B).
Label = Annotated[str, Meta(max_length=64, pattern=r"\A[A-Za-z0-9._-]*\Z")]
Names = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=DESTINATIONS)]
ObjectId = Annotated[bytes, Meta(min_length=16, max_length=16)]
#: An X-Wing public key.
PublicKey = Annotated[bytes, Meta(min_length=1216, max_length=1216)]
#: The shared key, sealed by HPKE and then under the temporal key.
SealedBytes = Annotated[bytes, Meta(min_length=64, max_length=2048)]
#: Unix seconds, of the AS's clock (R12).
UnixTime = Annotated[int, Meta(ge=0, lt=1 << 40)]
Notice = Annotated[str, Meta(max_length=256)]
Octets = Annotated[int, Meta(ge=0, lt=1 << 50)]
#: Of :class:`~ntmobile.wire.messages.realtime.Outcome`; later ones may be unknown.
OutcomeNumber = Annotated[int, Meta(ge=0, le=255)]


class Document(Message, frozen=True, array_like=False):
    """A message that travels over HTTP: by names, as a JSON object."""


class RequestInfo(Document, frozen=True):
    """What each request carries (paper, V-B); the authentication token is the signature's key name.

    :ivar version: of the client. :ivar fqdn: who asks. :ivar destinations: for whom it is.
    :ivar message: the notification message, which servers see (R33).
    """

    version: Annotated[str, Meta(max_length=32)]
    fqdn: Name
    destinations: Annotated[tuple[Name, ...], Meta(max_length=DESTINATIONS)] = ()
    application: Label = ""
    service: Label = ""
    item: Label = ""
    message: Notice = ""


class SealedKey(Document, frozen=True):
    """A shared key for one destination, which servers cannot open (R29).

    :ivar sender: who made it. :ivar destination: who can open it, with the temporal key too.
    :ivar identifier: of the shared key. :ivar temporal: identifier of the temporal key.
    :ivar prekey: number of the destination's X-Wing prekey; 0 is the one of its identity.
    :ivar sealed: nonce (12), then AES-256-GCM under the temporal key of the HPKE ciphertext.
    :ivar expires: when the sender wants it forgotten. :ivar signature: the sender's, over the rest.
    :ivar certificate: the sender's, DER.
    """

    sender: Name
    destination: Name
    application: Label
    identifier: Digest
    temporal: Digest
    prekey: Count
    sealed: SealedBytes
    expires: UnixTime
    signature: Signature
    certificate: Certificate


class PreKey(Document, frozen=True):
    """An X-Wing public key of a device, signed by its identity (R31).

    :ivar number: 0 for the key of the identity itself, then counting up, one a week.
    """

    fqdn: Name
    number: Count
    public: PublicKey
    expires: UnixTime
    signature: Signature


class Delivery(Document, frozen=True):
    """What became of something for one destination.

    :ivar outcome: OK where it is there, or waits. :ivar reason: a line, where it is not OK.
    """

    destination: Name
    outcome: OutcomeNumber
    reason: Text = ""


Deliveries = Annotated[tuple[Delivery, ...], Meta(max_length=DESTINATIONS)]


class TemporalKey(Document, frozen=True):
    """A temporal key for one destination."""

    destination: Name
    key: Key

    def __repr__(self) -> str:
        """Without the key, so that no log has it (R6)."""
        return f"TemporalKey({self.destination!r})"


class CacheServer(Document, frozen=True):
    """A cache server.

    :ivar name: its full name, which its certificate has. :ivar endpoints: where it is.
    """

    name: Name
    endpoints: Endpoints


class Manifest(Document, frozen=True):
    """What an object is, as far as servers may know (R29). It is signed as MessagePack.

    :ivar label: ``ntm1 manifest``. :ivar key: identifier of the shared key.
    :ivar header: of the encrypted data, 64 bytes (R30). :ivar length: bytes of the encrypted data.
    :ivar root: hash over all its chunks. :ivar expires: when it is forgotten.
    :ivar details: sealed: its name, type, true length and note (R33).
    """

    label: Literal["ntm1 manifest"]
    sender: Name
    destinations: Names
    application: Label
    service: Label
    item: Label
    key: Digest
    object: ObjectId
    header: Annotated[bytes, Meta(min_length=64, max_length=64)]
    length: Octets
    root: Digest
    expires: UnixTime
    message: Notice
    details: Annotated[bytes, Meta(max_length=4096)]


class SignedManifest(Document, frozen=True):
    """A manifest as it was signed (R29).

    :ivar manifest: MessagePack of a :class:`Manifest`, as map. :ivar certificate: of the sender.
    :ivar signature: Ed25519 over "ntm1 manifest", a zero byte, and ``manifest``.
    """

    manifest: Annotated[bytes, Meta(min_length=1, max_length=16384)]
    signature: Signature
    certificate: Certificate
