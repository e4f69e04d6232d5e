"""Manifests: what an object is, signed by its sender, its details sealed (R29, R32, R33)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from attrs import frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.exchange.objects import LONGEST_OBJECT, ObjectHeader, padded_length
from ntmobile.machines.exchange.shared_keys import key_identifier
from ntmobile.machines.exchange.signing import (
    Signer,
    check_certificate,
    check_expiry,
    check_signature,
)
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.exchange import Manifest, SignedManifest
from ntmobile.wire.sealing import derive

_LABEL: Final = "ntm1 manifest"
_NONCE: Final = 12
#: Sealed details are padded to a multiple of this (R33).
_PADDED: Final = 256


class Details(Message, frozen=True):
    """What only the destinations may know of an object (R33).

    :ivar name: such as a file's, or empty; never a path. :ivar type: a media type, or empty.
    :ivar length: of the plaintext, without padding. :ivar note: the sender's, for the receiver.
    """

    name: Annotated[str, Meta(max_length=255)]
    type: Annotated[str, Meta(max_length=127)]
    length: Annotated[int, Meta(ge=0, le=LONGEST_OBJECT)]
    note: Annotated[str, Meta(max_length=200)] = ""


@frozen
class Address:
    """Where an object goes, and what servers may know of it.

    :ivar application: :ivar service: :ivar item: what it is to the applications (paper, V-B).
    :ivar message: the notification message, which servers can read (R33).
    """

    destinations: tuple[str, ...]
    application: str
    service: str = ""
    item: str = ""
    message: str = ""


def sign_manifest(
    signer: Signer,
    shared: bytes,
    address: Address,
    header: ObjectHeader,
    root: bytes,
    details: Details,
    expires: int,
    random: Callable[[int], bytes] = os.urandom,
) -> SignedManifest:
    """Describe an object that was sealed with ``shared``, and sign that.

    :param root: of :class:`~ntmobile.machines.exchange.chunks.ChunkSealer`.
    :param expires: unix seconds; not after the end of the shared key.
    :raises ValueError: header and details are of different lengths.
    :raises MalformedMessage: a name or text is out of bounds.
    """
    if padded_length(details.length) != header.length:
        raise ValueError("header and details are of different objects")
    head = header.pack()
    manifest = Manifest(
        label="ntm1 manifest",
        sender=signer.fqdn,
        destinations=address.destinations,
        application=address.application,
        service=address.service,
        item=address.item,
        key=key_identifier(shared),
        object=header.object,
        header=head,
        length=header.sealed_length,
        root=root,
        expires=expires,
        message=address.message,
        details=_seal_details(shared, header, details, random),
    )
    data = msgspec.msgpack.encode(manifest)
    _decode(data)
    return SignedManifest(data, signer.sign(_LABEL, data), signer.certificate)


def claimed_sender(signed: SignedManifest) -> DeviceCertificate:
    """Who a manifest says it is from: by that name the pin is looked up. Nothing is verified yet.

    :raises CertificateError: its certificate does not parse.
    """
    return DeviceCertificate.parse(signed.certificate)


def verify_manifest(
    signed: SignedManifest, *, pin: bytes, now: float, receiver: str | None = None
) -> Manifest:
    """Verify a manifest over the bytes received (R11, R29), and read it.

    :param pin: raw identity key of its sender, as the caller knows it.
    :param receiver: who it must be for; None for servers, which it is for none of.
    :raises AuthenticationError: it is not signed by that identity, or is not for the receiver.
    :raises MalformedMessage: it is signed, and yet no manifest, or contradicts itself.
    :raises ItemExpired: its time is over.
    """
    check_signature(pin, _LABEL, signed.manifest, signed.signature, "an item")
    manifest = _decode(signed.manifest)
    what = f"an item from {manifest.sender}"
    check_certificate(signed.certificate, manifest.sender, pin, what)
    header = ObjectHeader.parse(manifest.header)
    if header.object != manifest.object or header.sealed_length != manifest.length:
        raise MalformedMessage(f"{what} contradicts itself")
    if receiver is not None and receiver not in manifest.destinations:
        raise AuthenticationError(f"{what} is not for this device")
    check_expiry(manifest.expires, now, what)
    return manifest


def open_details(manifest: Manifest, shared: bytes) -> Details:
    """Open the sealed details of a verified manifest.

    :raises AuthenticationError: this is another key than the manifest's, or they do not open.
    :raises MalformedMessage: they open, and yet are none.
    """
    header = ObjectHeader.parse(manifest.header)
    what = f"the details of an item from {manifest.sender}"
    if key_identifier(shared) != manifest.key:
        raise AuthenticationError(f"{what} are sealed with another key")
    nonce, sealed = manifest.details[:_NONCE], manifest.details[_NONCE:]
    try:
        padded = AESGCM(_details_key(shared, header)).decrypt(nonce, sealed, manifest.header)
    except (InvalidTag, ValueError):
        raise AuthenticationError(f"{what} do not open") from None
    size = int.from_bytes(padded[:2], "big")
    try:
        details = msgspec.msgpack.decode(padded[2 : 2 + size], type=Details)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MalformedMessage(f"{what} do not decode") from None
    if padded_length(details.length) != header.length:
        raise MalformedMessage(f"{what} say another length than its header")
    return details


def _details_key(shared: bytes, header: ObjectHeader) -> bytes:
    return derive(shared, header.salt, "ntm1 details")


def _seal_details(
    shared: bytes, header: ObjectHeader, details: Details, random: Callable[[int], bytes]
) -> bytes:
    data = msgspec.msgpack.encode(details)
    try:
        msgspec.msgpack.decode(data, type=Details)
    except (msgspec.MsgspecError, ValueError) as problem:
        raise MalformedMessage(f"an item with details out of bounds: {problem}") from None
    text = len(data).to_bytes(2, "big") + data
    nonce = random(_NONCE)
    padded = text + bytes(-len(text) % _PADDED)
    return nonce + AESGCM(_details_key(shared, header)).encrypt(nonce, padded, header.pack())


def _decode(data: bytes) -> Manifest:
    try:
        return msgspec.msgpack.decode(data, type=Manifest, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise MalformedMessage(f"a manifest that does not decode: {problem}") from None
