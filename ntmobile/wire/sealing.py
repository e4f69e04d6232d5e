"""Sealing of datagrams: AES-256-GCM under the header's counter, with the header bound in."""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE, Header
from ntmobile.wire.replay import ReplayWindow

_NONCE: Final = struct.Struct("!IQ")
#: A sealer refuses to go on here; its owner has rekeyed long before (R20).
COUNTER_LIMIT: Final = 1 << 60


def derive(secret: bytes, salt: bytes, info: str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a secret; ``info`` names the purpose, one purpose a key."""
    return HKDF(hashes.SHA256(), length, salt, info.encode()).derive(secret)


def expand(key: bytes, info: str, length: int = 32) -> bytes:
    """The expand half of HKDF-SHA256, for a key that is already uniform."""
    return HKDFExpand(hashes.SHA256(), length, info.encode()).derive(key)


class Sealer:
    """The sending half of one key: seals and counts. One direction, one owner, never restarted."""

    __slots__ = ("_key", "counter")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.counter = 0

    def seal(self, header: Header, plaintext: bytes) -> bytes:
        """A whole datagram; ``header.counter`` is replaced by the next counter of this key."""
        if self.counter >= COUNTER_LIMIT:
            raise AuthenticationError(
                "the counter of a sealing key is used up; start a new session"
            )
        head = Header(header.kind, header.flags, header.index, self.counter).pack()
        nonce = _NONCE.pack(0, self.counter)
        self.counter += 1
        return head + AESGCM(self._key).encrypt(nonce, plaintext, head)


class Opener:
    """The receiving half of one key: opens and refuses replays."""

    __slots__ = ("_key", "window")

    def __init__(self, key: bytes, window: int = 1024) -> None:
        self._key = key
        self.window = ReplayWindow(window)

    def open(self, datagram: bytes | bytearray | memoryview) -> tuple[Header, bytes]:
        """Header and plaintext of an authentic, new datagram.

        :raises MalformedMessage: too short or not a header.
        :raises AuthenticationError: replayed, or not sealed with this key.
        """
        header = Header.parse(datagram)
        if len(datagram) < HEADER_SIZE + TAG_SIZE:
            raise MalformedMessage("a sealed datagram is shorter than its tag")
        if header.counter >= COUNTER_LIMIT or not self.window.acceptable(header.counter):
            raise AuthenticationError("a datagram came twice or far too late")
        view = memoryview(datagram)
        nonce = _NONCE.pack(0, header.counter)
        try:
            plaintext = AESGCM(self._key).decrypt(nonce, view[HEADER_SIZE:], view[:HEADER_SIZE])
        except InvalidTag:
            raise AuthenticationError("a datagram is not sealed with the session's key") from None
        self.window.mark(header.counter)
        return header, plaintext
