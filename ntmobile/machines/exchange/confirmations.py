"""Confirmations: the receiver signs that it has an object, and takes no object twice (R32)."""

from __future__ import annotations

from typing import Final

import msgspec

from ntmobile.errors import AuthenticationError
from ntmobile.machines.exchange.signing import SKEW, Signer, check_certificate, check_signature
from ntmobile.wire.messages.exchange import (
    EncryptedDataConfirmationRequest,
    Manifest,
    RequestInfo,
)

_LABEL: Final = "ntm1 confirmation"


def sign_confirmation(
    signer: Signer, manifest: Manifest, info: RequestInfo
) -> EncryptedDataConfirmationRequest:
    """Confirm, as its receiver, the object of a verified manifest.

    It is signed after the object was opened whole and stored, never before.

    :param info: of the request that carries it.
    """
    body = _body(manifest.object, manifest.root, signer.fqdn, manifest.sender)
    return EncryptedDataConfirmationRequest(
        info, manifest.object, manifest.root, signer.sign(_LABEL, body), signer.certificate
    )


def verify_confirmation(
    confirmation: EncryptedDataConfirmationRequest,
    *,
    object: bytes,
    root: bytes,
    sender: str,
    receiver: str,
    pin: bytes,
) -> None:
    """See that a receiver has confirmed this very object.

    :param object: :param root: :param sender: as in the manifest that was sent.
    :param receiver: whose confirmation it must be. :param pin: raw identity key of the receiver.
    :raises AuthenticationError: it is none of that receiver for that object.
    """
    what = f"a confirmation by {receiver}"
    if (confirmation.object, confirmation.root) != (object, root):
        raise AuthenticationError(f"{what} is for another item")
    body = _body(object, root, receiver, sender)
    check_signature(pin, _LABEL, body, confirmation.signature, what)
    check_certificate(confirmation.certificate, receiver, pin, what)


def _body(object: bytes, root: bytes, receiver: str, sender: str) -> bytes:
    return msgspec.msgpack.encode((object, root, receiver, sender))


class Received:
    """Which objects were delivered to the application, until their signed expiry.

    The owner stores what :meth:`take` returns in the transaction that delivers, and makes this of
    it again after a restart. Whatever a CS serves again, renamed or in another list, is known by
    sender and object.
    """

    def __init__(self, known: dict[tuple[str, bytes], int] | None = None) -> None:
        """:param known: (sender, object) → expiry, from the storage."""
        self._known = dict(known or {})

    def __contains__(self, of: Manifest) -> bool:
        return (of.sender, of.object) in self._known

    def take(self, manifest: Manifest) -> tuple[str, bytes, int] | None:
        """Sender, object and expiry to store with the delivery; None: it was delivered before."""
        if manifest in self:
            return None
        self._known[manifest.sender, manifest.object] = manifest.expires
        return manifest.sender, manifest.object, manifest.expires

    def forget(self, now: float) -> list[tuple[str, bytes]]:
        """Forget what :func:`~.manifests.verify_manifest` refuses by now, an hour late.

        :return: what the owner may erase from its storage.
        """
        gone = [each for each, expires in self._known.items() if now > expires + SKEW]
        for each in gone:
            del self._known[each]
        return gone
