"""Client and RS, on the RS's data port: Relay Tunnel Request and Response (R25, R26).

Layout of such a datagram: the header (kind RELAY_REQUEST or RELAY_RESPONSE, index = direction,
counter = the side's bind counter), the encoded message, 16 bytes of HMAC-SHA256 with the side's
relay key over all that precedes. A request is padded to be at least as large as its answer (R8).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from ntmobile.wire.codec import Message, declare
from ntmobile.wire.messages.fields import Endpoint, Identifier, Nonce

_MACED = "HMAC-SHA256 with this side's relay key"


@declare(
    0x0501,
    "Relay Tunnel Request",
    sender="client",
    receiver="RS",
    transport="udp",
    protection=_MACED,
)
class RelayTunnelRequest(Message, frozen=True):
    """Bind the source address of this datagram as the leg of this side.

    :ivar side: 0 or 1. :ivar nonce: fresh; echoed.
    :ivar cookie: empty at first, then the RS's challenge.
    :ivar keepalive: only refreshes a leg that is bound to this very address.
    """

    side: Annotated[int, Meta(ge=0, le=1)]
    nonce: Nonce
    cookie: Annotated[bytes, Meta(max_length=16)] = b""
    keepalive: bool = False
    padding: Annotated[bytes, Meta(max_length=64)] = b""


class LegState(IntEnum):
    """What the RS says of a leg."""

    CHALLENGE = 0  #: repeat the request with this cookie
    BOUND = 1  #: this leg is bound; the other is not yet
    JOINED = 2  #: both are bound: datagrams pass
    REFUSED = 3  #: the counter is old or the limit of binds is reached


@declare(
    0x0502,
    "Relay Tunnel Response",
    sender="RS",
    receiver="client",
    transport="udp",
    protection=_MACED,
)
class RelayTunnelResponse(Message, frozen=True):
    """The state of the leg; sent unasked (nonce of zeros) when the other side binds."""

    state: Annotated[int, Meta(ge=0, le=255)]
    nonce: Nonce
    boot: Identifier
    cookie: Annotated[bytes, Meta(max_length=16)] = b""
    observed: Endpoint | None = None


@declare(
    0x0503,
    "Relay Too Big",
    sender="RS",
    receiver="client",
    transport="udp",
    protection=_MACED,
)
class RelayTooBig(Message, frozen=True):
    """A datagram did not fit the path to the other leg and was dropped, not fragmented (R27).

    The header (kind RELAY_TOO_BIG) carries the counter of the dropped datagram.

    :ivar size: bytes of the dropped datagram. :ivar limit: bytes that fit now; 0 where unknown.
    """

    size: Annotated[int, Meta(ge=0, le=65535)]
    limit: Annotated[int, Meta(ge=0, le=65535)] = 0
