"""Entries of cache lists, made of what cache servers say of keys and objects (figures 3 and 4)."""

from __future__ import annotations

from ntmobile.errors import AuthenticationError
from ntmobile.machines.exchange.manifests import verify_manifest
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.exchange import (
    CacheEntry,
    CacheServer,
    EncryptedDataExchangeRequest,
    EncryptionKeyExchangeRequest,
)


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


def data_entry(
    request: EncryptedDataExchangeRequest, sender: DeviceCertificate, at: float
) -> CacheEntry:
    """The entry of an object, if the sender signed its manifest for these destinations (R29).

    :param sender: the verified certificate of who asks. :param at: unix seconds.
    :raises NTMobileError: it did not, or its time is over, or it is no manifest.
    """
    manifest = verify_manifest(request.manifest, pin=sender.identity, now=at)
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
