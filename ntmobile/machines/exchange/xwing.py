"""X-Wing keys for HPKE: ML-KEM-768 and X25519 from one seed (draft-connolly-cfrg-xwing-kem)."""

from __future__ import annotations

from hashlib import shake_256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from ntmobile.errors import MalformedMessage

SEED_SIZE: Final = 32
#: Of these, the ML-KEM-768 key comes first, 1184 bytes.
PUBLIC_SIZE: Final = 1216
_MLKEM_SIZE: Final = 1184


def expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """The two halves of a private key (section 5.2).

    :param seed: 32 bytes; anything else is a ``ValueError``.
    """
    if len(seed) != SEED_SIZE:
        raise ValueError(f"an X-Wing seed of {len(seed)} bytes instead of {SEED_SIZE}")
    expanded = shake_256(seed).digest(96)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def private_key(seed: bytes) -> MLKEM768X25519PrivateKey:
    """The private key of a seed, as HPKE takes it."""
    return MLKEM768X25519PrivateKey(*expand(seed))


def public_bytes(seed: bytes) -> bytes:
    """The public key of a seed, 1216 bytes."""
    mlkem, x25519 = expand(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def public_key(data: bytes) -> MLKEM768X25519PublicKey:
    """A public key, as HPKE takes it.

    :raises MalformedMessage: it is none.
    """
    if len(data) != PUBLIC_SIZE:
        raise MalformedMessage(f"an X-Wing key of {len(data)} bytes instead of {PUBLIC_SIZE}")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_SIZE]),
            X25519PublicKey.from_public_bytes(data[_MLKEM_SIZE:]),
        )
    except ValueError:
        raise MalformedMessage("bytes that are no X-Wing key") from None
