"""What a cache server has its storage keep: documents that the storage does not look into."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ntmobile.errors import AccessDenied, StorageFailed
from ntmobile.interfaces import StoredKey, StoredObject
from ntmobile.machines.exchange.objects import SEALED_PART
from ntmobile.wire.messages.exchange import (
    EncryptedDataConfirmationRequest,
    Manifest,
    RequestInfo,
    SealedKey,
    SignedManifest,
)

_T = TypeVar("_T")


class KeyRecord(msgspec.Struct, frozen=True):
    """A sealed key, and what was said with it."""

    info: RequestInfo
    key: SealedKey


class ObjectRecord(msgspec.Struct, frozen=True):
    """An object's manifest, and what was said with it."""

    info: RequestInfo
    manifest: SignedManifest

    def read(self) -> Manifest:
        """The manifest, which was verified before it was kept."""
        return _decode(self.manifest.manifest, Manifest)


def stored_key(info: RequestInfo, key: SealedKey) -> StoredKey:
    """A sealed key for the storage."""
    return StoredKey(
        destination=key.destination,
        identifier=key.identifier,
        sender=key.sender,
        application=key.application,
        expires=key.expires,
        document=msgspec.msgpack.encode(KeyRecord(info, key)),
    )


def stored_object(info: RequestInfo, signed: SignedManifest, manifest: Manifest) -> StoredObject:
    """An object for the storage."""
    return StoredObject(
        identifier=manifest.object,
        sender=manifest.sender,
        application=manifest.application,
        destinations=manifest.destinations,
        length=manifest.length,
        part_size=SEALED_PART,
        expires=manifest.expires,
        document=msgspec.msgpack.encode(ObjectRecord(info, signed)),
    )


def read_key(document: bytes) -> KeyRecord:
    """A sealed key of the storage. :raises StorageFailed: it is damaged."""
    return _decode(document, KeyRecord)


def read_object(document: bytes) -> ObjectRecord:
    """An object of the storage. :raises StorageFailed: it is damaged."""
    return _decode(document, ObjectRecord)


def write_confirmation(confirmation: EncryptedDataConfirmationRequest) -> bytes:
    """A confirmation for the storage."""
    return msgspec.msgpack.encode(confirmation)


def read_confirmation(document: bytes) -> EncryptedDataConfirmationRequest | None:
    """A confirmation of the storage, None if there is none.

    :raises StorageFailed: it is damaged.
    """
    return _decode(document, EncryptedDataConfirmationRequest) if document else None


def check_info(caller: str, info: RequestInfo) -> None:
    """See that a request names the device that signed it.

    :raises AccessDenied: it names another.
    """
    if info.fqdn != caller:
        raise AccessDenied(f"the request names {info.fqdn}, but {caller} has signed it")


def _decode(document: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(document, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise StorageFailed(f"the storage gave a damaged {kind.__name__}: {problem}") from None
