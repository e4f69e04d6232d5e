"""Pre-keys: X-Wing keys under which a device can be written to while it is off (R31).

Number 0 is the key of the device's identity, whose hash its certificate has; it is for when no
other is at hand. The others are made weekly, signed by the identity, and erased as soon as nothing
needs them any more, so that what was sent under them can never be read again by whoever takes the
device later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

import msgspec
from attrs import field, frozen
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from ntmobile.errors import AuthenticationError, ItemExpired, KeyErased
from ntmobile.machines.exchange import xwing
from ntmobile.machines.exchange.shared_keys import Recipient
from ntmobile.machines.exchange.signing import (
    LONGEST,
    SKEW,
    Signer,
    check_certificate,
    check_signature,
)
from ntmobile.wire.messages.exchange import DevicePreKey, PreKey

WEEK: Final = 7 * 86400
#: A pre-key may be written to for two weeks, so that a device may be off for one.
PREKEY_TIME: Final = 2 * WEEK
_LABEL: Final = "ntm1 prekey"


def sign_prekey(signer: Signer, number: int, public: bytes, expires: int) -> PreKey:
    """Sign an X-Wing public key as pre-key of the signer."""
    unsigned = PreKey(signer.fqdn, number, public, expires, bytes(64))
    return msgspec.structs.replace(unsigned, signature=signer.sign(_LABEL, _body(unsigned)))


def verify_prekey(found: DevicePreKey, *, fqdn: str, pin: bytes, now: float) -> Recipient:
    """See that a pre-key is the one of the device that is meant, before anything is sealed to it.

    :param pin: raw identity key of ``fqdn``, as the caller knows it.
    :raises AuthenticationError: it is another's, or number 0 and not the key in the certificate.
    :raises ItemExpired: its time is over; ask for a newer one.
    """
    key, what = found.key, f"the pre-key of {fqdn}"
    if key.fqdn != fqdn:
        raise AuthenticationError(f"{what} is that of {key.fqdn}")
    check_signature(pin, _LABEL, _body(key), key.signature, what)
    certificate = check_certificate(found.certificate, fqdn, pin, what)
    if key.number == 0 and sha256(key.public).digest() != certificate.xwing_hash:
        raise AuthenticationError(f"{what} is not the key in its certificate")
    if now >= key.expires:
        raise ItemExpired(f"{what} has expired; {fqdn} has to come online once")
    xwing.public_key(key.public)
    return Recipient(fqdn, key)


def _body(key: PreKey) -> bytes:
    return msgspec.msgpack.encode((key.fqdn, key.number, key.public, key.expires))


@frozen
class PreKeySecret:
    """The private half of a pre-key, as the device keeps it.

    :ivar seed: 32 bytes. :ivar made: :ivar expires: unix seconds, the second as it was signed.
    """

    number: int
    seed: bytes = field(repr=False)
    made: float
    expires: int


class PreKeyRing:
    """The private halves that a device holds, and when each is made and erased.

    :ivar secrets: those there are; the owner stores them durably when they change.
    """

    def __init__(self, identity_seed: bytes, secrets: Iterable[PreKeySecret] = ()) -> None:
        """:param identity_seed: of pre-key 0, which lasts as long as the identity."""
        self._identity = identity_seed
        self._held: dict[int, set[bytes]] = {}
        self.secrets: dict[int, PreKeySecret] = {each.number: each for each in secrets}

    def due(self, now: float) -> bool:
        """Whether a new pre-key is to be made: there is none, or the newest is a week old."""
        return not any(each.made <= now < each.made + WEEK for each in self.secrets.values())

    def rotate(
        self, signer: Signer, now: float, random: Callable[[int], bytes] = os.urandom
    ) -> PreKey:
        """Make the next pre-key. Its secret has to be stored before it is published.

        Its number is one that was never used, not even before all secrets were lost: numbers go up
        with time.
        """
        number = max(max(self.secrets, default=0) + 1, int(now) // WEEK % (1 << 31))
        seed = random(xwing.SEED_SIZE)
        expires = int(now) + PREKEY_TIME
        self.secrets[number] = PreKeySecret(number, seed, now, expires)
        return sign_prekey(signer, number, xwing.public_bytes(seed), expires)

    def identity_prekey(self, signer: Signer, expires: int) -> PreKey:
        """Pre-key 0, signed."""
        return sign_prekey(signer, 0, xwing.public_bytes(self._identity), expires)

    def private(self, number: int) -> MLKEM768X25519PrivateKey:
        """The private half of a pre-key.

        :raises KeyErased: it is not there any more.
        """
        if number == 0:
            return xwing.private_key(self._identity)
        secret = self.secrets.get(number)
        if secret is None:
            raise KeyErased(
                "the key for an item was erased, or lost with a former enrolment; "
                "ask its sender to send it again"
            )
        return xwing.private_key(secret.seed)

    def hold(self, number: int, identifier: bytes) -> None:
        """Note that a shared key waits that only this pre-key opens, and could not be opened yet.

        :param identifier: of the shared key.
        """
        self._held.setdefault(number, set()).add(identifier)

    def release(self, identifier: bytes) -> None:
        """Note that a shared key was opened and stored, or will never be wanted."""
        for waiting in self._held.values():
            waiting.discard(identifier)

    def erase(self, listed: float, now: float) -> tuple[int, ...]:
        """Erase what nothing needs any more, and say which: the owner erases it from its storage.

        A pre-key that nobody may write to any more is needed by keys that wait already. When all
        that waits has been listed since, and opened, it goes; after 30 more days in any case,
        because nothing waits longer.

        :param listed: when everything that waits at the DC was last listed and opened, but for
            what is held.
        """
        gone = tuple(
            number
            for number, each in self.secrets.items()
            if (listed > each.expires + SKEW and not self._held.get(number))
            or now > each.expires + SKEW + LONGEST
        )
        for number in gone:
            del self.secrets[number]
            self._held.pop(number, None)
        return gone
