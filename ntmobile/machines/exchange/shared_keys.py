"""Shared keys: made by the sender, sealed for each destination twice, kept, and rotated (R29, R31).

A shared key reaches a destination through a CS, and what seals it there comes half from elsewhere:

- HPKE (RFC 9180; X-Wing, HKDF-SHA256, AES-256-GCM) to the destination's pre-key, so that only that
  device opens it;
- around that AES-256-GCM under a temporal key, which travels from DC to DC (paper, IV-B), so that
  a CS alone holds nothing that a later weakness of HPKE could open.

Both bind the same context: label, sender, destination, application, identifiers, pre-key, expiry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

import msgspec
from attrs import evolve, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from ntmobile.errors import AuthenticationError
from ntmobile.machines.exchange import xwing
from ntmobile.machines.exchange.signing import (
    LONGEST,
    Signer,
    check_certificate,
    check_expiry,
    check_signature,
)
from ntmobile.wire.messages.exchange import PreKey, SealedKey, TemporalKey
from ntmobile.wire.sealing import derive

KEY_SIZE: Final = 32
#: A shared key serves for so many seconds, or items, whichever is over first.
KEY_TIME: Final = 86400
KEY_ITEMS: Final = 256

_LABEL: Final = "ntm1 sealed key"
_NONCE: Final = 12
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def key_identifier(key: bytes) -> bytes:
    """The name under which servers know a shared key."""
    return sha256(b"ntm1 shared key" + key).digest()


def temporal_identifier(key: bytes) -> bytes:
    """The name under which DCs know a temporal key."""
    return sha256(b"ntm1 temporal key" + key).digest()


@frozen
class Recipient:
    """A device and the pre-key to write to it under, both verified (:mod:`.prekeys`)."""

    fqdn: str
    prekey: PreKey = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What changes when device or pre-key do."""
        return sha256(
            msgspec.msgpack.encode((self.fqdn, self.prekey.number, self.prekey.public))
        ).digest()


def _digests(recipients: Iterable[Recipient]) -> tuple[bytes, ...]:
    return tuple(sorted(each.digest for each in recipients))


@frozen
class SharedKey:
    """A shared key as its sender keeps it.

    :ivar recipients: digests of those it was sealed for. :ivar made: unix seconds.
    :ivar expires: its signed end; no item of it may last longer. :ivar items: that were sealed.
    """

    key: bytes = field(repr=False)
    application: str
    recipients: tuple[bytes, ...] = field(repr=False)
    made: float
    expires: int
    items: int = 0

    @property
    def identifier(self) -> bytes:
        """:func:`key_identifier` of it."""
        return key_identifier(self.key)

    def serves(
        self, application: str, recipients: Iterable[Recipient], until: float, now: float
    ) -> bool:
        """Whether one more item may be sealed with it; otherwise a new key is to be made (R31).

        It is over after a day or 256 items, and with any change of the devices, such as one that
        was added, removed or enrolled anew, or of their pre-keys.

        :param until: when that item expires.
        """
        return (
            application == self.application
            and self.made <= now < self.made + KEY_TIME
            and self.items < KEY_ITEMS
            and until <= self.expires
            and _digests(recipients) == self.recipients
        )

    def used(self) -> SharedKey:
        """The same after one more item; to be stored before that item is sent."""
        return evolve(self, items=self.items + 1)


@frozen
class KeyExchange:
    """A new shared key and what has to be sent for it.

    :ivar temporal: for the DCs. :ivar sealed: for the CS. Both are kept until they are accepted:
        what is sent again is the same.
    """

    shared: SharedKey
    temporal: tuple[TemporalKey, ...]
    sealed: tuple[SealedKey, ...]


def exchange_key(
    signer: Signer,
    application: str,
    recipients: Iterable[Recipient],
    now: float,
    *,
    lifetime: float = LONGEST,
    random: Callable[[int], bytes] = os.urandom,
) -> KeyExchange:
    """Make a shared key for these devices, and a temporal key for each of them.

    :param lifetime: seconds until its end, at most 30 days.
    """
    wanted = tuple(recipients)
    if not wanted or len({each.fqdn for each in wanted}) != len(wanted):
        raise ValueError("a key is shared with at least one device, and with each once")
    expires = int(now + min(lifetime, LONGEST))
    key = random(KEY_SIZE)
    shared = SharedKey(key, application, _digests(wanted), now, expires)
    temporal = tuple(TemporalKey(each.fqdn, random(KEY_SIZE)) for each in wanted)
    sealed = tuple(
        seal_key(signer, shared, each, its.key, random)
        for each, its in zip(wanted, temporal, strict=True)
    )
    return KeyExchange(shared, temporal, sealed)


def seal_key(
    signer: Signer,
    shared: SharedKey,
    recipient: Recipient,
    temporal: bytes,
    random: Callable[[int], bytes] = os.urandom,
) -> SealedKey:
    """Seal a shared key for one device under one temporal key, and sign that."""
    unsigned = SealedKey(
        sender=signer.fqdn,
        destination=recipient.fqdn,
        application=shared.application,
        identifier=shared.identifier,
        temporal=temporal_identifier(temporal),
        prekey=recipient.prekey.number,
        sealed=b"",
        expires=shared.expires,
        signature=bytes(64),
        certificate=signer.certificate,
    )
    context = _context(unsigned)
    inner = _SUITE.encrypt(shared.key, xwing.public_key(recipient.prekey.public), info=context)
    nonce = random(_NONCE)
    outer = AESGCM(_outer_key(temporal, unsigned)).encrypt(nonce, inner, context)
    sealed = msgspec.structs.replace(unsigned, sealed=nonce + outer)
    return msgspec.structs.replace(sealed, signature=signer.sign(_LABEL, _body(sealed)))


def verify_key(sealed: SealedKey, *, pin: bytes, now: float) -> None:
    """See that a sealed key is from whom it says, as far as anybody can who cannot open it (R29).

    :param pin: raw identity key of ``sealed.sender``, as the caller knows it.
    :raises AuthenticationError: it is not, or the sender's certificate is another's.
    :raises ItemExpired: its time is over.
    """
    what = f"a key from {sealed.sender}"
    check_signature(pin, _LABEL, _body(sealed), sealed.signature, what)
    check_certificate(sealed.certificate, sealed.sender, pin, what)
    check_expiry(sealed.expires, now, what)


def open_key(
    sealed: SealedKey,
    *,
    pin: bytes,
    receiver: str,
    temporal: bytes,
    private: MLKEM768X25519PrivateKey,
    now: float,
) -> bytes:
    """Open a shared key; everything is verified first (R29).

    :param pin: raw identity key of ``sealed.sender``. :param receiver: own FQDN.
    :param temporal: that the own DC has for it. :param private: of pre-key ``sealed.prekey``.
    :raises AuthenticationError: it is not from that sender, not for this device, or does not open.
    :raises ItemExpired: its time is over.
    """
    verify_key(sealed, pin=pin, now=now)
    what = f"a key from {sealed.sender}"
    if sealed.destination != receiver:
        raise AuthenticationError(f"{what} is for {sealed.destination}, not for this device")
    if temporal_identifier(temporal) != sealed.temporal:
        raise AuthenticationError(f"{what} belongs to another temporal key")
    context = _context(sealed)
    nonce, outer = sealed.sealed[:_NONCE], sealed.sealed[_NONCE:]
    try:
        inner = AESGCM(_outer_key(temporal, sealed)).decrypt(nonce, outer, context)
        key = _SUITE.decrypt(inner, private, info=context)
    except (InvalidTag, ValueError):
        raise AuthenticationError(f"{what} does not open with this device's keys") from None
    if len(key) != KEY_SIZE or key_identifier(key) != sealed.identifier:
        raise AuthenticationError(f"{what} is not the one that it says it is")
    return key


def _outer_key(temporal: bytes, sealed: SealedKey) -> bytes:
    return derive(temporal, sealed.identifier, "ntm1 sealed key")


def _fields(sealed: SealedKey) -> tuple[str | bytes | int, ...]:
    return (
        sealed.sender,
        sealed.destination,
        sealed.application,
        sealed.identifier,
        sealed.temporal,
        sealed.prekey,
        sealed.expires,
    )


def _context(sealed: SealedKey) -> bytes:
    """What both seals bind: MessagePack of label and fields."""
    return msgspec.msgpack.encode(("ntm1 key", *_fields(sealed)))


def _body(sealed: SealedKey) -> bytes:
    """What is signed: MessagePack of the fields and the sealed bytes."""
    return msgspec.msgpack.encode((*_fields(sealed), sealed.sealed))
