"""Simulated clients for ``ntm bench load``: the datagrams of real ones, and little else.

A hundred thousand :class:`~ntmobile.machines.signalling.session.ClientSession` would keep the
generator busy with timers that a closed loop has no use for. What they send is the same; a test
holds it so.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ntmobile.errors import MalformedMessage
from ntmobile.machines.signalling.requests import MESSAGE_LIMIT
from ntmobile.machines.signalling.session import NONCE_SIZE, check_welcome, hello
from ntmobile.wire.codec import Message, decode, encode
from ntmobile.wire.headers import HEADER, HEADER_SIZE, Flag, Kind
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Capability,
    DirectionRequest,
    KeepAlive,
    RegistrationRequest,
    direction_statement,
)
from ntmobile.wire.sealing import derive

_ENVELOPE: Final = struct.Struct("!BI")
_NONCE: Final = struct.Struct("!IQ")
_SEALED: Final = int(Kind.SIGNAL_SEALED)
#: Seconds between keep-alives that the clients plan.
KEEPALIVE: Final = 120


class LoadClient:
    """One client that has logged in.

    :ivar index: :ivar key: of its session. :ivar fqdn: its name. :ivar seed: its Ed25519 key.
    :ivar here: where it is. :ivar source: what sends a datagram from there.
    :ivar generation: of its location. :ivar asked: its requests so far.
    :ivar begun: when the operation under way began; 0: there is none.
    """

    __slots__ = (
        *("_counter", "_down", "_nonce", "_up", "asked", "begun", "fqdn", "generation"),
        *("here", "index", "key", "seed", "source"),
    )

    def __init__(self, fqdn: str, index: bytes, key: bytes, seed: bytes) -> None:
        self.fqdn, self.index, self.key, self.seed = fqdn, index, key, seed
        self.here: Endpoint
        self.source: bytes = b""
        self.generation = int(time.time() * 1000)
        self.asked = 0
        self.begun = 0.0
        self._nonce = b""
        self._up = self._down = b""
        self._counter = 0

    def hello(self) -> bytes:
        """A hello with a fresh nonce (R7)."""
        self._nonce = os.urandom(NONCE_SIZE)
        return hello(self.index, self.key, self._nonce)

    def welcomed(self, datagram: bytes) -> None:
        """The DC's answer: there are keys. :raises NTMobileError: it is none."""
        nonces = self._nonce + check_welcome(datagram, self.key, self._nonce)
        self._up = derive(self.key, nonces, "ntm1 signalling client to DC")
        self._down = derive(self.key, nonces, "ntm1 signalling DC to client")
        self._counter = 0

    def open(self, datagram: bytes) -> tuple[bool, int, Message]:
        """Open what the DC sealed: whether it is an answer, the identifier, the message.

        :raises MalformedMessage: it is not of this session.
        """
        _, _, _, _, counter = HEADER.unpack_from(datagram)
        nonce, head = _NONCE.pack(0, counter), datagram[:HEADER_SIZE]
        try:
            plaintext = AESGCM(self._down).decrypt(nonce, datagram[HEADER_SIZE:], head)
        except InvalidTag:
            raise MalformedMessage("not sealed with the session's key") from None
        flags, identifier = _ENVELOPE.unpack_from(plaintext)
        return bool(flags & 1), identifier, decode(plaintext[_ENVELOPE.size :], MESSAGE_LIMIT)

    def _seal(self, flags: int, identifier: int, message: Message) -> bytes:
        head = HEADER.pack(_SEALED, 0, 0, self.index, self._counter)
        nonce = _NONCE.pack(0, self._counter)
        self._counter += 1
        plaintext = _ENVELOPE.pack(flags, identifier) + encode(message, MESSAGE_LIMIT)
        return head + AESGCM(self._up).encrypt(nonce, plaintext, head)

    def _ask(self, message: Message) -> bytes:
        self.asked += 1
        return self._seal(0, self.asked, message)

    def answer(self, identifier: int, message: Message) -> bytes:
        """Answer a request of the DC."""
        return self._seal(1, identifier, message)

    def register(self) -> bytes:
        """A Registration Request, as after a change of network."""
        self.generation += 1
        capabilities = int(Capability.REALTIME)
        return self._ask(
            RegistrationRequest(self.generation, (self.here,), capabilities, KEEPALIVE)
        )

    def keep_alive(self) -> bytes:
        """A Keep Alive."""
        return self._ask(KeepAlive(self.generation, KEEPALIVE))

    def direct(self, peer: str) -> bytes:
        """A Direction Request for a correspondent, signed (R13)."""
        nonce, issued = os.urandom(NONCE_SIZE), int(time.time() * 1000)
        statement = direction_statement(self.fqdn, peer, nonce, issued)
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(statement)
        return self._ask(
            DirectionRequest(peer, nonce, issued, signature, generation=self.generation)
        )


def index_of(datagram: bytes) -> tuple[int, bytes] | None:
    """Kind and session index of a DC's datagram, or None where it is no DC's."""
    if len(datagram) < HEADER_SIZE:
        return None
    kind, flags, _, index, _ = HEADER.unpack_from(datagram)
    return (kind, index) if flags & Flag.FROM_COORDINATOR else None
