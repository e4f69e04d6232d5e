"""Public vectors for the primitives, with the parameters that ours choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.keys import PrivateKeys
from ntmobile.errors import MalformedMessage
from ntmobile.machines.exchange import xwing
from ntmobile.wire.sealing import derive, expand

VECTORS = Path(__file__).resolve().parent / "vectors"
#: The longest output of HKDF-SHA256 (RFC 5869).
HKDF_LIMIT = 255 * 32


class RawInfo(str):
    """Octets where the code takes a text."""

    octets: bytes

    def encode(self, *_: object) -> bytes:
        return self.octets


def raw(octets: bytes) -> RawInfo:
    found = RawInfo()
    found.octets = octets
    return found


def wycheproof(name: str) -> list[dict[str, Any]]:
    found = json.loads((VECTORS / "wycheproof.json").read_text("utf-8"))[name]
    return [
        {
            key: bytes.fromhex(value)
            if isinstance(value, str) and key not in ("comment", "result")
            else value
            for key, value in each.items()
        }
        for each in found
    ]


class WycheproofTests(SynchronousTestCase):
    """Vectors of Project Wycheproof: edge cases that implementations got wrong."""

    def test_aes_gcm(self) -> None:
        """AES-256-GCM with nonces of 96 and tags of 128 bits, as datagrams, keys and chunks are."""
        for each in wycheproof("aes-256-gcm"):
            aead, sealed = AESGCM(each["key"]), each["ct"] + each["tag"]
            if each["result"] == "valid":
                self.assertEqual(aead.encrypt(each["iv"], each["msg"], each["aad"]), sealed)
                self.assertEqual(aead.decrypt(each["iv"], sealed, each["aad"]), each["msg"])
            else:
                with self.assertRaises(InvalidTag):
                    aead.decrypt(each["iv"], sealed, each["aad"])

    def test_hkdf(self) -> None:
        """HKDF-SHA256, by the function that derives every key of stored data."""
        for each in wycheproof("hkdf-sha256"):
            if each["result"] == "valid":
                found = derive(each["ikm"], each["salt"], raw(each["info"]), each["size"])
                self.assertEqual(found, each["okm"], each["tcId"])
            else:
                self.assertGreater(each["size"], HKDF_LIMIT)
                with self.assertRaises(ValueError):
                    derive(each["ikm"], each["salt"], raw(each["info"]), each["size"])

    def test_hkdf_expand(self) -> None:
        """The expand half of HKDF, given an extracted key (RFC 5869, test case 1)."""
        prk = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
        okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        info = raw(bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"))
        self.assertEqual(expand(prk, info, 42).hex(), okm)

    def test_x25519(self) -> None:
        """X25519: twists and odd encodings agree; a shared secret of zeros is refused."""
        for each in wycheproof("x25519"):
            private = X25519PrivateKey.from_private_bytes(each["private"])
            public = X25519PublicKey.from_public_bytes(each["public"])
            if "ZeroSharedSecret" in each["flags"]:
                with self.assertRaises(ValueError):
                    private.exchange(public)
            else:
                self.assertEqual(private.exchange(public), each["shared"], each["tcId"])


class XWingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.vector = {
            key: value if key == "origin" else bytes.fromhex(value)
            for key, value in json.loads((VECTORS / "hpke.json").read_text("utf-8")).items()
        }

    def test_public_key(self) -> None:
        """A seed gives the public key of the vector, in a device's keys as well."""
        seed, public = self.vector["seed"], self.vector["public"]
        self.assertEqual(xwing.public_bytes(seed), public)
        some = PrivateKeys.generate()
        keys = PrivateKeys(some.identity, some.x25519, seed)
        self.assertEqual(keys.public().xwing, public)
        mlkem, x25519 = keys.xwing()
        self.assertEqual(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(), public
        )

    def test_hpke(self) -> None:
        """HPKE with a key of that seed opens what others sealed to it."""
        suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
        found = rust_openssl.hpke._decrypt_with_aad(  # the vectors have additional data
            suite,
            self.vector["enc"] + self.vector["sealed"],
            xwing.private_key(self.vector["seed"]),
            self.vector["info"],
            self.vector["aad"],
        )
        self.assertEqual(found, self.vector["plain"])

    def test_no_keys(self) -> None:
        """R11: what is no public key is malformed, and a seed has 32 bytes."""
        for wrong in (b"", self.vector["public"][1:], b"\xff" * xwing.PUBLIC_SIZE):
            with self.assertRaises(MalformedMessage):
                xwing.public_key(wrong)
        with self.assertRaises(ValueError):
            xwing.private_key(bytes(31))
