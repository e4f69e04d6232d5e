"""The examples and numbers in ``docs/protocol/tunnel.md`` are what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.handshake import Initiation, Parties, Reception
from ntmobile.machines.tunnel.keys import Epoch
from ntmobile.machines.tunnel.tunnel import unknown_hint
from ntmobile.wire.codec import encode
from ntmobile.wire.headers import Flag
from ntmobile.wire.messages.tunnel import TunnelKeepAlive

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol" / "tunnel.md"
VECTOR = re.compile(r"<!-- vector: ([a-z-]+) -->\n```text\n([0-9a-f\n]*)```")
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([0-9.e+]+) \|", re.MULTILINE)

DIRECTION = bytes.fromhex("d1d2d3d4d5d6d7d8")
PSK = b"\5" * 32
NAMES = ("a.alice.dc1.ntm.example", "b.bob.dc2.ntm.example")


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def vectors() -> dict[str, bytes]:
    """What the page's examples must be, by name."""
    one, two = b"\1" * 32, b"\2" * 32
    hashes = (b"\6" * 32, b"\7" * 32)
    initiation = Initiation(
        DIRECTION, Parties(NAMES, hashes, one, public(two)), PSK, lambda size: b"\3" * size
    )
    reception = Reception()
    theirs = Parties(NAMES, hashes, two, public(one))
    remote = ("198.51.100.1", 40000)
    reception.requested(
        initiation.request, remote, DIRECTION, theirs, PSK, lambda size: b"\4" * size
    )
    response = reception.repeated(initiation.request)
    assert response is not None
    epoch = Epoch(0, initiation.answered(response)[0], 0.0)
    keepalive = epoch.seal(int(Flag.CONTROL), DIRECTION, encode(TunnelKeepAlive()))
    data = epoch.seal(0, DIRECTION, bytes(40))
    hint = unknown_hint(data)
    assert hint is not None
    return {
        "tunnel-request": initiation.request,
        "tunnel-response": response,
        "tunnel-keepalive": keepalive,
        "tunnel-data": data,
        "tunnel-unknown": hint,
    }


def numbers() -> dict[str, float]:
    """The constants that are numbers."""
    return {
        name: value
        for name, value in vars(constants).items()
        if name.isupper() and isinstance(value, int | float) and value != float("inf")
    }


class TunnelPageTests(SynchronousTestCase):
    """What the page shows is so."""

    def setUp(self) -> None:
        if not PAGE.exists():
            self.skipTest("the documents are not part of this installation")
        self.page = PAGE.read_text("utf-8")

    def test_vectors(self) -> None:
        """Every example is, byte for byte, what the code makes of the stated inputs."""
        shown = {
            name: bytes.fromhex(text.replace("\n", "")) for name, text in VECTOR.findall(self.page)
        }
        self.assertEqual(vectors(), shown)

    def test_numbers(self) -> None:
        """The table of numbers is the table of constants."""
        shown = {name: float(value) for name, value in ROW.findall(self.page)}
        self.assertEqual({name: float(value) for name, value in numbers().items()}, shown)
