"""The examples in ``docs/protocol/relay.md`` are what the code says and understands."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.wire.codec import Message, decode, encode
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.coordination import (
    RelayCount,
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayRegistrationResponse,
    RelayReport,
    RelayResponse,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.relaying import (
    LegState,
    RelayTooBig,
    RelayTunnelRequest,
    RelayTunnelResponse,
)
from ntmobile.wire.relaying import UNASKED, open_relayed, seal_relayed

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol" / "relay.md"
VECTOR = re.compile(r"<!-- vector: ([a-z-]+) -->\n```text\n([0-9a-f\n]+)```")

DIRECTION = bytes.fromhex("d1d2d3d4d5d6d7d8")
BOOT = bytes.fromhex("b1b2b3b4b5b6b7b8")
NONCE, COOKIE = bytes(range(16)), bytes(range(16, 32))
KEY = bytes(32)
CLIENT = Endpoint.of(("198.51.100.1", 40000))
SERVERS = (Endpoint.of(("203.0.113.1", 4331)), Endpoint.of(("2001:db8::1", 4331)))

#: Messages of the link.
LINK: dict[str, Message] = {
    "relay-registration": RelayRegistration("rs1.dc1.ntm.example", BOOT, SERVERS, 10000, "0.1.0"),
    "relay-registration-response": RelayRegistrationResponse(0, 10),
    "relay-direction": RelayDirection(DIRECTION, (KEY, b"\x01" * 32), 60, 0),
    "relay-response": RelayResponse(DIRECTION, 0, BOOT),
    "relay-end": RelayEnd(DIRECTION),
    "relay-report": RelayReport(1, 1200, (RelayCount(DIRECTION, 10, 12000, 3),), (bytes(8),)),
}
#: Datagrams: counter and message.
DATAGRAMS: dict[str, tuple[int, Message]] = {
    "relay-tunnel-request": (1, RelayTunnelRequest(0, NONCE)),
    "relay-tunnel-request-cookie": (1, RelayTunnelRequest(0, NONCE, COOKIE)),
    "relay-tunnel-response": (
        1,
        RelayTunnelResponse(LegState.CHALLENGE, NONCE, BOOT, COOKIE, CLIENT),
    ),
    "relay-tunnel-response-joined": (
        1,
        RelayTunnelResponse(LegState.JOINED, UNASKED, BOOT, b"", CLIENT),
    ),
    "relay-too-big": (99, RelayTooBig(1400, 1232)),
}


def without_padding(message: Message) -> Message:
    """A request as its sender gives it."""
    if isinstance(message, RelayTunnelRequest):
        return RelayTunnelRequest(message.side, message.nonce, message.cookie, message.keepalive)
    return message


class VectorTests(SynchronousTestCase):
    """The page's examples."""

    def setUp(self) -> None:
        """Read the page."""
        if not PAGE.exists():
            raise SkipTest("the documents are not here")
        found = VECTOR.findall(PAGE.read_text("utf-8"))
        self.vectors = {name: bytes.fromhex(text) for name, text in found}

    def test_complete(self) -> None:
        """The page has each example, and no other."""
        self.assertEqual({*LINK, *DATAGRAMS, "relay-unknown"}, set(self.vectors))

    def test_link(self) -> None:
        """The messages between RS and DC."""
        for name, message in LINK.items():
            self.assertEqual(message, decode(self.vectors[name]), name)
            self.assertEqual(self.vectors[name], encode(message), name)

    def test_datagrams(self) -> None:
        """The datagrams between client and RS, under a key of zeros."""
        for name, (counter, message) in DATAGRAMS.items():
            header, found = open_relayed(KEY, self.vectors[name])
            self.assertEqual((DIRECTION, counter), (header.index, header.counter), name)
            self.assertEqual(message, without_padding(found), name)
            self.assertEqual(
                self.vectors[name], seal_relayed(KEY, DIRECTION, counter, message), name
            )

    def test_unknown(self) -> None:
        """The hint is a bare header."""
        self.assertEqual(
            self.vectors["relay-unknown"], Header(Kind.RELAY_UNKNOWN, 0, DIRECTION, 99).pack()
        )
