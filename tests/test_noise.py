"""The Noise handshake against public vectors, and against who tampers with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError
from ntmobile.machines.tunnel.noise import KK, KKPSK0, Handshake, Pattern

VECTORS = json.loads((Path(__file__).parent / "vectors" / "noise.json").read_text("utf-8"))

PATTERNS = {
    pattern.name: pattern
    for pattern in (
        KK,
        KKPSK0,
        Pattern("Noise_KKpsk2_25519_AESGCM_SHA256", (("e", "es", "ss"), ("e", "ee", "se", "psk"))),
        Pattern(
            "Noise_KKpsk0+psk2_25519_AESGCM_SHA256",
            (("psk", "e", "es", "ss"), ("e", "ee", "se", "psk")),
        ),
    )
}


def fixed(data: str) -> Callable[[int], bytes]:
    """A source of randomness that gives a vector's ephemeral key."""
    return lambda size: bytes.fromhex(data)[:size]


def sides(vector: dict[str, Any]) -> tuple[Handshake, Handshake]:
    """Initiator and responder of a vector."""
    pattern = PATTERNS[vector["protocol_name"]]

    def side(name: str, initiator: bool) -> Handshake:
        return Handshake(
            pattern,
            initiator=initiator,
            prologue=bytes.fromhex(vector[f"{name}_prologue"]),
            static=bytes.fromhex(vector[f"{name}_static"]),
            remote_static=bytes.fromhex(vector[f"{name}_remote_static"]),
            psks=tuple(bytes.fromhex(psk) for psk in vector.get(f"{name}_psks", ())),
            random=fixed(vector[f"{name}_ephemeral"]),
        )

    return side("init", True), side("resp", False)


class VectorTests(SynchronousTestCase):
    """R19: the handshake is the one everybody else's Noise makes."""

    def test_tunnels_use_a_public_vector(self) -> None:
        """R19: the very protocol of tunnels is among the vectors, and both sources are there."""
        found = {(each["source"], each["protocol_name"]) for each in VECTORS["vectors"]}
        self.assertIn(("cacophony", "Noise_KKpsk0_25519_AESGCM_SHA256"), found)
        self.assertEqual({"cacophony", "snow"}, {source for source, _ in found})

    def test_handshake_and_transport_messages(self) -> None:
        """R19: every byte of every vector's messages, both ways, and the handshake hash."""
        for vector in VECTORS["vectors"]:
            initiator, responder = sides(vector)
            turns = [(initiator, responder), (responder, initiator)]
            for turn, message in enumerate(vector["messages"][:2]):
                writer, reader = turns[turn]
                payload = bytes.fromhex(message["payload"])
                written = writer.write(payload)
                self.assertEqual(message["ciphertext"], written.hex(), vector["protocol_name"])
                self.assertEqual(payload, reader.read(written))
            ends = initiator.secrets(), responder.secrets()
            self.assertEqual(ends[0].handshake_hash, ends[1].handshake_hash)
            if "handshake_hash" in vector:
                self.assertEqual(vector["handshake_hash"], ends[0].handshake_hash.hex())
            for number, message in enumerate(vector["messages"][2:]):
                sender, receiver = ends[number % 2], ends[1 - number % 2]
                nonce = (number // 2).to_bytes(12, "big")
                payload = bytes.fromhex(message["payload"])
                sealed = AESGCM(sender.sending).encrypt(nonce, payload, b"")
                self.assertEqual(message["ciphertext"], sealed.hex())
                self.assertEqual(payload, AESGCM(receiver.receiving).decrypt(nonce, sealed, b""))


ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def pair(
    prologues: tuple[bytes, bytes] = (b"", b""), **changes: Any
) -> tuple[Handshake, Handshake]:
    """Both sides of a KKpsk0 handshake; ``changes`` are the responder's."""
    initiator = Handshake(
        KKPSK0,
        initiator=True,
        prologue=prologues[0],
        static=ONE,
        remote_static=public(TWO),
        psks=(bytes(32),),
        random=lambda size: b"\x11" * size,
    )
    responder: dict[str, Any] = {
        "static": TWO,
        "remote_static": public(ONE),
        "psks": (bytes(32),),
        "random": lambda size: b"\x22" * size,
        **changes,
    }
    return initiator, Handshake(KKPSK0, initiator=False, prologue=prologues[1], **responder)


class TamperingTests(SynchronousTestCase):
    """What does not fit together fails, with the one error."""

    def test_all_must_agree(self) -> None:
        """R19: another prologue, pre-shared key or static key on one side fails message 1."""
        for initiator, responder in (
            pair((b"a", b"b")),
            pair(psks=(b"\1" * 32,)),
            pair(static=ONE),
            pair(remote_static=public(TWO)),
        ):
            self.assertRaises(AuthenticationError, responder.read, initiator.write(b""))

    def test_a_low_order_key_is_refused(self) -> None:
        """An ephemeral key of low order, whose shared secret all know, is no key."""
        _, responder = pair()
        self.assertRaises(AuthenticationError, responder.read, bytes(32) + bytes(16))

    def test_turns(self) -> None:
        """Who is not at turn writes nothing, and nothing is left before the end."""
        initiator, responder = pair()
        self.assertRaises(ValueError, responder.write, b"")
        self.assertRaises(ValueError, initiator.secrets)

    @given(st.integers(0, 10_000), st.integers(1, 255), st.binary(max_size=64))
    @settings(max_examples=60, deadline=None)
    def test_a_changed_byte_is_noticed(self, place: int, change: int, payload: bytes) -> None:
        """R19: whichever byte of whichever message changes, it is refused."""
        initiator, responder = pair()
        first = bytearray(initiator.write(payload))
        intact = bytes(first)
        first[place % len(first)] ^= change
        # The top bit of an X25519 key is ignored by the curve, but bound by the hash.
        self.assertRaises(AuthenticationError, responder.read, bytes(first))
        _, responder = pair()
        responder.read(intact)
        second = bytearray(responder.write(payload))
        second[place % len(second)] ^= change
        self.assertRaises(AuthenticationError, initiator.read, bytes(second))

    @given(st.binary(max_size=100))
    @settings(max_examples=60, deadline=None)
    def test_noise_is_no_message(self, data: bytes) -> None:
        """Random bytes of any length are refused with the one error."""
        _, responder = pair()
        self.assertRaises(AuthenticationError, responder.read, data)
