"""A device's private keys, and the file that holds them with the certificate (rules R4, R6)."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ntmobile.errors import ConfigurationError
from ntmobile.machines.exchange.xwing import SEED_SIZE, expand, public_bytes
from ntmobile.machines.login.proofs import DeviceKeys
from ntmobile.wire.certificates import DeviceCertificate

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 -]+)-----\n.*?-----END \1-----\n?", re.DOTALL)
_XWING: Final = b"X-WING SEED"


@frozen
class PrivateKeys:
    """What only the device has.

    :ivar identity: signs. :ivar x25519: for tunnels.
    :ivar xwing_seed: 32 bytes, from which the X-Wing key for stored data is expanded.
    """

    identity: Ed25519PrivateKey = field(repr=False)
    x25519: X25519PrivateKey = field(repr=False)
    xwing_seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = os.urandom) -> PrivateKeys:
        """New keys."""
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate(), random(SEED_SIZE))

    def xwing(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        """The two halves of the X-Wing key (draft-connolly-cfrg-xwing-kem, section 5.2)."""
        return expand(self.xwing_seed)

    def public(self) -> DeviceKeys:
        """The public halves."""
        return DeviceKeys(
            self.identity.public_key().public_bytes_raw(),
            self.x25519.public_key().public_bytes_raw(),
            public_bytes(self.xwing_seed),
        )

    def to_pem(self) -> bytes:
        """As they stand in a file: PKCS #8, and the seed in base64."""
        blocks = [
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            for key in (self.identity, self.x25519)
        ]
        seed = base64.b64encode(self.xwing_seed)
        blocks.append(b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (_XWING, seed, _XWING))
        return b"".join(blocks)

    @classmethod
    def from_pem(cls, data: bytes, where: object) -> PrivateKeys:
        """Read them back.

        :param where: the file, for the text of the error.
        :raises ConfigurationError: a key is missing or damaged.
        """
        identity: Ed25519PrivateKey | None = None
        x25519: X25519PrivateKey | None = None
        seed = b""
        try:
            for label, block in blocks_in(data):
                if label == _XWING:
                    seed = base64.b64decode(b"".join(block.split(b"\n")[1:-2]), validate=True)
                elif label == b"PRIVATE KEY":
                    key = load_pem_private_key(block, None)
                    if isinstance(key, Ed25519PrivateKey):
                        identity = key
                    elif isinstance(key, X25519PrivateKey):
                        x25519 = key
        except (ValueError, TypeError):
            raise _damaged(where) from None
        if identity is None or x25519 is None or len(seed) != SEED_SIZE:
            raise _damaged(where)
        return cls(identity, x25519, seed)


def blocks_in(data: bytes) -> list[tuple[bytes, bytes]]:
    """The PEM blocks of a file: label and block."""
    return [
        (found.group(1), found.group(0).rstrip(b"\n") + b"\n") for found in _BLOCK.finditer(data)
    ]


def certificate_to_pem(certificate: DeviceCertificate) -> bytes:
    """A device certificate as a file."""
    return x509.load_der_x509_certificate(certificate.der).public_bytes(Encoding.PEM)


def certificate_from_pem(data: bytes, where: object) -> DeviceCertificate:
    """Read the certificate in a file; :class:`ConfigurationError` if there is none."""
    for label, block in blocks_in(data):
        if label == b"CERTIFICATE":
            try:
                loaded = x509.load_pem_x509_certificate(block)
            except ValueError:
                break
            return DeviceCertificate.parse(loaded.public_bytes(Encoding.DER))
    raise _damaged(where)


def _damaged(where: object) -> ConfigurationError:
    return ConfigurationError(f"{where}: damaged; enrol this device again with --replace")
