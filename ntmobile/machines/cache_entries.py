"""Entries of cache lists, made of what cache servers say of keys and objects (figures 3 and 4)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.exchange import (
    CacheEntry,
    CacheServer,
    EncryptedDataExchangeRequest,
    EncryptionKeyExchangeRequest,
    Manifest,
    SignedManifest,
)

#: What a manifest's signature covers before the manifest itself (R29).
_MANIFEST: Final = b"ntm1 manifest\0"
_TEMPORAL: Final = b"ntm1 temporal key"
_DECODER: Final = msgspec.msgpack.Decoder(Manifest, strict=True)


def temporal_identifier(key: bytes) -> bytes:
    """Hash value by which a temporal key is listed (R31)."""
    return sha256(_TEMPORAL + key).digest()


def check_cache(cache: CacheServer, name: str) -> None:
    """Check that a cache server speaks of itself, by the name of its certificate (R1)."""
    if cache.name != name:
        raise AuthenticationError(f"{name} speaks for the cache server {cache.name}")


def key_entry(request: EncryptionKeyExchangeRequest) -> CacheEntry:
    """The entry of a shared key."""
    info = request.info
    return CacheEntry(
        request.cache.name,
        request.cache.endpoints,
        "key",
        request.identifier,
        bytes(32),
        info.fqdn,
        info.application,
        info.service,
        info.item,
        info.message,
        request.expires,
    )


def data_entry(request: EncryptedDataExchangeRequest, sender: DeviceCertificate) -> CacheEntry:
    """The entry of an object, if the sender signed its manifest for these destinations (R29).

    :param sender: the verified certificate of who asks.
    :raises AuthenticationError: it did not. :raises MalformedMessage: it is no manifest.
    """
    manifest = read_manifest(request.manifest, sender)
    unknown = set(request.info.destinations) - set(manifest.destinations)
    if unknown:
        raise AuthenticationError(f"the object is not for {min(unknown)}")
    return CacheEntry(
        request.cache.name,
        request.cache.endpoints,
        "data",
        manifest.object + bytes(16),
        manifest.root,
        manifest.sender,
        manifest.application,
        manifest.service,
        manifest.item,
        manifest.message,
        manifest.expires,
    )


def read_manifest(signed: SignedManifest, sender: DeviceCertificate) -> Manifest:
    """A manifest that this device signed."""
    try:
        key = Ed25519PublicKey.from_public_bytes(sender.identity)
        key.verify(signed.signature, _MANIFEST + signed.manifest)
    except (InvalidSignature, ValueError):
        raise AuthenticationError("the manifest's signature is not the sender's") from None
    try:
        manifest = _DECODER.decode(signed.manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise MalformedMessage(f"not a manifest: {problem}") from None
    if manifest.sender != sender.fqdn:
        raise AuthenticationError("the manifest names another sender")
    return manifest
