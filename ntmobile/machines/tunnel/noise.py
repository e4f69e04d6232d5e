"""The Noise Protocol Framework (revision 34) as far as a tunnel needs it.

Interactive patterns with static keys known beforehand (KK), with pre-shared keys, over X25519,
AES-256-GCM and SHA-256. ``Noise_KKpsk0_25519_AESGCM_SHA256`` is what tunnels use (R19, R20); the
others are there because the public vectors of cacophony and snow check the same code with them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from copy import copy
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Final

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ntmobile.errors import AuthenticationError

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
#: AES-GCM's nonce in Noise (section 12.4): 32 bits of zeros, the counter big endian.
_NONCE: Final = struct.Struct("!IQ")


@frozen
class Pattern:
    """A handshake: its name and the tokens of each message; both static keys are known before."""

    name: str
    messages: tuple[tuple[str, ...], ...]

    @property
    def uses_psk(self) -> bool:
        """With a pre-shared key, ephemeral keys are mixed into the chaining key too (9.2)."""
        return any("psk" in tokens for tokens in self.messages)


KK: Final = Pattern("Noise_KK_25519_AESGCM_SHA256", (("e", "es", "ss"), ("e", "ee", "se")))
KKPSK0: Final = Pattern(
    "Noise_KKpsk0_25519_AESGCM_SHA256", (("psk", "e", "es", "ss"), ("e", "ee", "se"))
)


@frozen
class Secrets:
    """What a finished handshake leaves.

    :ivar sending: key of what this side seals. :ivar receiving: key of what it opens.
    :ivar handshake_hash: names the session, public.
    :ivar chaining_key: secret; further keys are exported from it and from nothing else.
    """

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    handshake_hash: bytes
    chaining_key: bytes = field(repr=False)


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise's HKDF (section 4.3): two or three outputs of 32 bytes."""
    secret = hmac_digest(chaining_key, material, "sha256")
    result: list[bytes] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac_digest(secret, last + bytes((number,)), "sha256")
        result.append(last)
    return result


class SymmetricState:
    """Chaining key, handshake hash and cipher of a running handshake (section 5.2)."""

    __slots__ = ("_cipher", "_counter", "chaining_key", "hash")

    def __init__(self, name: str) -> None:
        raw = name.encode("ascii")
        self.hash = raw.ljust(32, b"\0") if len(raw) <= 32 else sha256(raw).digest()
        self.chaining_key = self.hash
        self._cipher: AESGCM | None = None
        self._counter = 0

    def mix_hash(self, data: bytes) -> None:
        """Bind data into the hash."""
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        """Mix key material into the chaining key, and key the cipher afresh."""
        self.chaining_key, key = hkdf(self.chaining_key, material, 2)
        self._cipher, self._counter = AESGCM(key), 0

    def mix_key_and_hash(self, material: bytes) -> None:
        """As :meth:`mix_key`, and into the hash too: how a pre-shared key goes in."""
        self.chaining_key, bound, key = hkdf(self.chaining_key, material, 3)
        self.mix_hash(bound)
        self._cipher, self._counter = AESGCM(key), 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt a payload under the hash, and bind it in."""
        ciphertext = plaintext
        if self._cipher is not None:
            ciphertext = self._cipher.encrypt(self._nonce(), plaintext, self.hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """The inverse. :raises AuthenticationError: it is not authentic."""
        plaintext = ciphertext
        if self._cipher is not None:
            try:
                plaintext = self._cipher.decrypt(self._nonce(), ciphertext, self.hash)
            except (InvalidTag, ValueError):
                raise AuthenticationError("a handshake message that is not authentic") from None
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys of both directions, the initiator's first."""
        first, second = hkdf(self.chaining_key, b"", 2)
        return first, second

    def _nonce(self) -> bytes:
        nonce = _NONCE.pack(0, self._counter)
        self._counter += 1
        return nonce


class Handshake:
    """One side of one handshake; messages are written and read in turn.

    A message that fails to be read leaves the state unusable: read with a :meth:`fork`.

    :param initiator: this side writes the first message. :param prologue: what both must agree on.
    :param static: own X25519 private key, raw. :param remote_static: the other's public key, raw.
    :param psks: pre-shared keys in the order of their tokens.
    :param random: gives the ephemeral private key.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        prologue: bytes,
        static: bytes,
        remote_static: bytes,
        psks: tuple[bytes, ...] = (),
        random: Callable[[int], bytes],
    ) -> None:
        self._pattern = pattern
        self._initiator = initiator
        self._static = X25519PrivateKey.from_private_bytes(static)
        self._remote_static = remote_static
        self._ephemeral: X25519PrivateKey | None = None
        self._remote_ephemeral = b""
        self._psks = list(psks)
        self._random = random
        self._turn = 0
        self._state = SymmetricState(pattern.name)
        self._state.mix_hash(prologue)
        own = self._static.public_key().public_bytes_raw()
        for key in (own, remote_static) if initiator else (remote_static, own):
            self._state.mix_hash(key)

    def fork(self) -> Handshake:
        """A copy that goes on by itself, so that a forged message does not spoil this one."""
        other = copy(self)
        other._state = copy(self._state)
        other._psks = list(self._psks)
        return other

    @property
    def finished(self) -> bool:
        """All messages went."""
        return self._turn == len(self._pattern.messages)

    def write(self, payload: bytes) -> bytes:
        """The next message. :raises AuthenticationError: a key of the other side is no key."""
        message = b""
        for token in self._next(writing=True):
            if token == "e":
                self._ephemeral = X25519PrivateKey.from_private_bytes(self._random(KEY_SIZE))
                public = self._ephemeral.public_key().public_bytes_raw()
                message += public
                self._mix_ephemeral(public)
            else:
                self._mix(token)
        return message + self._state.encrypt_and_hash(payload)

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's next message.

        :raises AuthenticationError: it is not authentic, or not even long enough.
        """
        for token in self._next(writing=False):
            if token == "e":
                public, message = message[:KEY_SIZE], message[KEY_SIZE:]
                if len(public) != KEY_SIZE:
                    raise AuthenticationError("a handshake message that is too short")
                self._remote_ephemeral = public
                self._mix_ephemeral(public)
            else:
                self._mix(token)
        return self._state.decrypt_and_hash(message)

    def secrets(self) -> Secrets:
        """What the finished handshake leaves."""
        if not self.finished:
            raise ValueError("the handshake is not finished")
        first, second = self._state.split()
        sending, receiving = (first, second) if self._initiator else (second, first)
        return Secrets(sending, receiving, self._state.hash, self._state.chaining_key)

    def _next(self, *, writing: bool) -> tuple[str, ...]:
        if self.finished or writing != (self._initiator == (self._turn % 2 == 0)):
            raise ValueError("it is not this side's turn in the handshake")
        tokens = self._pattern.messages[self._turn]
        self._turn += 1
        return tokens

    def _mix_ephemeral(self, public: bytes) -> None:
        self._state.mix_hash(public)
        if self._pattern.uses_psk:
            self._state.mix_key(public)

    def _mix(self, token: str) -> None:
        if token == "psk":
            self._state.mix_key_and_hash(self._psks.pop(0))
            return
        # The first letter names the initiator's key, the second the responder's.
        own, other = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = self._static if own == "s" else self._ephemeral
        public = self._remote_static if other == "s" else self._remote_ephemeral
        assert private is not None  # by the order of tokens in a valid pattern
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # a point of low order: no key of an honest peer
            raise AuthenticationError("a handshake with a key that is none") from None
        self._state.mix_key(shared)
