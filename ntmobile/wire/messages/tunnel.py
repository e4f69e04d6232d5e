"""End to end: the handshake's payloads and the control messages inside a tunnel (R19 to R23).

The handshake is ``Noise_KKpsk0_25519_AESGCM_SHA256``: a datagram of kind TUNNEL_REQUEST or
TUNNEL_RESPONSE whose body is the Noise message. Control messages are sealed like inner packets,
with the CONTROL flag.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ntmobile.wire.codec import Message, declare
from ntmobile.wire.messages.fields import (
    Candidates,
    Count,
    Counter,
    Endpoint,
    Identifier,
    Text,
)

_NOISE = "Noise KKpsk0 message"
_TUNNEL = "sealed by the tunnel's session"
_NoiseMessage = Annotated[bytes, Meta(min_length=48, max_length=512)]


@declare(
    0x0601,
    "Tunnel Request",
    sender="initiator",
    receiver="responder",
    transport="tunnel",
    protection=_NOISE,
)
class TunnelRequest(Message, frozen=True):
    """Payload of handshake message 1; padded, so that no answer is larger (R8)."""

    version: Count = 1
    mtu: Count = 1280
    padding: Annotated[bytes, Meta(max_length=128)] = b""


@declare(
    0x0602,
    "Tunnel Response",
    sender="responder",
    receiver="initiator",
    transport="tunnel",
    protection=_NOISE,
)
class TunnelResponse(Message, frozen=True):
    """Payload of handshake message 2. ``observed``: where the initiator's request came from."""

    version: Count = 1
    mtu: Count = 1280
    observed: Endpoint | None = None


@declare(
    0x0611,
    "Keep Alive (tunnel)",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class TunnelKeepAlive(Message, frozen=True):
    """Confirms a key, holds a NAT binding, answers traffic that has no answer of its own."""


@declare(
    0x0612,
    "Path Challenge",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class PathChallenge(Message, frozen=True):
    """A probe of the path it came on; padded to at least the size of its answer, or to full size.

    :ivar token: to be echoed on the same path. :ivar answer: the token of a challenge this datagram
        answers at the same time.
    """

    token: Identifier
    answer: Annotated[bytes, Meta(max_length=8)] = b""
    padding: Annotated[bytes, Meta(max_length=1500)] = b""


@declare(
    0x0613,
    "Path Response",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class PathResponse(Message, frozen=True):
    """The echo of a challenge. ``observed``: the address the challenge came from."""

    token: Identifier
    observed: Endpoint | None = None
    padding: Annotated[bytes, Meta(max_length=1500)] = b""


@declare(
    0x0614,
    "Path Offer",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class PathOffer(Message, frozen=True):
    """New addresses of the sender after a move, for the other end to probe (R17 applies)."""

    generation: Counter
    candidates: Candidates


@declare(
    0x0621,
    "Rekey Request",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class RekeyRequest(Message, frozen=True):
    """Message 1 of a new KKpsk0 inside the session (R20); ``epoch`` is the new one's number."""

    epoch: Count
    noise: _NoiseMessage


@declare(
    0x0622,
    "Rekey Response",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class RekeyResponse(Message, frozen=True):
    """Message 2 of it."""

    epoch: Count
    noise: _NoiseMessage


@declare(
    0x0631,
    "Tunnel End",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class TunnelEnd(Message, frozen=True):
    """The sender ends the tunnel: idle, logged out, going down, or the pin no longer holds."""

    reason: Text = ""


@declare(
    0x0641,
    "Echo Request",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class EchoRequest(Message, frozen=True):
    """``ntm ping``: answered by the other agent."""

    sequence: Count
    token: Identifier


@declare(
    0x0642,
    "Echo Response",
    sender="end",
    receiver="end",
    transport="tunnel",
    protection=_TUNNEL,
)
class EchoResponse(Message, frozen=True):
    """The answer to an Echo Request."""

    sequence: Count
    token: Identifier
