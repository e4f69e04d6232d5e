"""Client and DC: registration, keep alive, direction (paper, section III; figure 2).

All travel in envelopes under the sealed signalling session, over UDP (R7 to R10).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated

import msgspec
from msgspec import Meta

from ntmobile.wire.codec import Message, declare
from ntmobile.wire.messages.fields import (
    Candidates,
    Certificate,
    Count,
    Counter,
    Endpoint,
    Endpoints,
    Identifier,
    Key,
    Millis,
    Name,
    Nonce,
    Pattern,
    Seconds,
    Signature,
    Text,
)

_SEALED = "sealed by the client-DC session"


class Capability(IntFlag):
    """What a client can do; unknown bits are ignored."""

    REALTIME = 1
    EXCHANGE = 2


@declare(
    0x0201,
    "Registration Request",
    sender="client",
    receiver="DC",
    transport="udp",
    protection=_SEALED,
)
class RegistrationRequest(Message, frozen=True):
    """The client's location, sent once on each family's socket after every change.

    :ivar generation: of the client's location; grows with every change.
    :ivar local: addresses of its interfaces with the port of the socket of that family.
    :ivar keepalive: seconds between keep-alives it plans.
    """

    generation: Counter
    local: Endpoints
    capabilities: Count
    keepalive: Seconds
    version: Text = ""


@declare(
    0x0202,
    "Registration Response",
    sender="DC",
    receiver="client",
    transport="udp",
    protection=_SEALED,
)
class RegistrationResponse(Message, frozen=True):
    """What the DC saw.

    :ivar observed: source address of the request. :ivar translated: it is none of ``local``.
    :ivar lifetime: seconds until the location expires unheard.
    :ivar keepalive: seconds between keep-alives that the DC asks for at first.
    :ivar time: the DC's clock.
    :ivar longest: seconds that they may grow to; 0: unsaid.
    """

    generation: Counter
    observed: Endpoint
    translated: bool
    lifetime: Seconds
    keepalive: Seconds
    time: Millis
    longest: Seconds = 0


@declare(
    0x0203,
    "Keep Alive",
    sender="client",
    receiver="DC",
    transport="udp",
    protection=_SEALED,
)
class KeepAlive(Message, frozen=True):
    """Holds NAT binding and registration. ``interval``: seconds until the next; 0: unsaid."""

    generation: Counter
    interval: Seconds = 0


@declare(
    0x0204,
    "Keep Alive Response",
    sender="DC",
    receiver="client",
    transport="udp",
    protection=_SEALED,
)
class KeepAliveResponse(Message, frozen=True):
    """Echoes the address the DC saw (R9): a change tells the client that its NAT rebound."""

    generation: Counter
    observed: Endpoint


@declare(
    0x0205,
    "Policy Request",
    sender="client",
    receiver="DC",
    transport="udp",
    protection=_SEALED,
)
class PolicyRequest(Message, frozen=True):
    """Who may ask for this client, and from whom its addresses are hidden (R13)."""

    generation: Counter
    allow: Annotated[tuple[Pattern, ...], Meta(max_length=8)]
    relay_only: Annotated[tuple[Pattern, ...], Meta(max_length=4)] = ()


@declare(
    0x0206,
    "Policy Response",
    sender="DC",
    receiver="client",
    transport="udp",
    protection=_SEALED,
)
class PolicyResponse(Message, frozen=True):
    """The policy of that generation is in force."""

    generation: Counter


class Purpose(IntEnum):
    """Why a direction is asked for."""

    NEW = 0  #: no tunnel lives
    REPAIR = 1  #: a tunnel lives, an end moved or a path failed


class Outcome(IntEnum):
    """What became of a request; the words are for people."""

    OK = 0
    WAKING = 1  #: CN is off or asleep: it is notified, the direction waits for it up to 60 s
    UNKNOWN = 2  #: nobody of that name, or not for you (R13: the same answer)
    UNREACHABLE = 3  #: DC_CN was not found or did not answer
    UNTRUSTED = 4  #: no authority is configured for that domain, or the certificate is not its own
    NO_RELAY = 5  #: the two cannot talk directly and no relay server is there
    BUSY = 6  #: too many requests; try again later
    REFUSED = 7  #: the request itself is wrong (signature, own name, stale)


@declare(
    0x0211,
    "Direction Request",
    sender="MN",
    receiver="DC_MN",
    transport="udp",
    protection=_SEALED,
)
class DirectionRequest(Message, frozen=True):
    """MN asks for a tunnel to CN.

    :ivar signature: Ed25519 by MN's identity over :func:`direction_statement` (R13).
    :ivar avoid: names of relay servers that failed this client, not to be used again (R26).
    :ivar generation: of the location it shall be decided for: the DC waits for that registration,
        since a client that moved sends both at once.
    """

    peer: Name
    nonce: Nonce
    issued: Millis
    signature: Signature
    purpose: Annotated[int, Meta(ge=0, le=255)] = 0
    avoid: Annotated[tuple[Name, ...], Meta(max_length=4)] = ()
    generation: Counter = 0


def direction_statement(mn: str, cn: str, nonce: bytes, issued: int) -> bytes:
    """The bytes that MN signs when it asks for a direction (R13)."""
    return b"ntm/1 direction\0" + msgspec.msgpack.encode((mn, cn, nonce, issued))


@declare(
    0x0212,
    "Direction Response",
    sender="DC_MN",
    receiver="MN",
    transport="udp",
    protection=_SEALED,
)
class DirectionResponse(Message, frozen=True):
    """What became of the request; the Route Direction itself comes as a request of its own."""

    outcome: Annotated[int, Meta(ge=0, le=255)]
    direction: Identifier = bytes(8)
    detail: Text = ""


@declare(
    0x0213,
    "Direction Refusal",
    sender="DC_MN",
    receiver="MN",
    transport="udp",
    protection=_SEALED,
)
class DirectionRefusal(Message, frozen=True):
    """The direction leads nowhere after all: CN refused it. Answered by an Acknowledgement.

    :ivar outcome: as if DC_CN had said so at once (R13).
    """

    direction: Identifier
    outcome: Annotated[int, Meta(ge=0, le=255)]
    detail: Text = ""


class Relay(msgspec.Struct, frozen=True, array_like=True):
    """A relay server for one tunnel, and this side's key (R25).

    :ivar endpoints: its addresses, at most one a family. :ivar side: 0 or 1.
    """

    name: Name
    endpoints: Annotated[tuple[Endpoint, ...], Meta(min_length=1, max_length=2)]
    key: Key
    side: Annotated[int, Meta(ge=0, le=1)]

    def __repr__(self) -> str:
        """Without the key, so that no log has it (R6)."""
        return f"Relay({self.name!r}, side {self.side})"


@declare(
    0x0221,
    "Route Direction",
    sender="DC",
    receiver="client",
    transport="udp",
    protection=_SEALED,
)
class RouteDirection(Message, frozen=True):
    """How to build one tunnel (R15); to MN from DC_MN, to CN through DC_CN.

    :ivar direction: identifier, the index of its datagrams' headers.
    :ivar generation: newer directions of the same identifier replace older ones.
    :ivar peer: the correspondent. :ivar certificate: its device certificate (R4), DER.
    :ivar requester: FQDN of MN, which asked (R15: of crossed directions the lower one's wins).
    :ivar initiator: this side sends the Tunnel Request.
    :ivar candidates: the correspondent's addresses (R17).
    :ivar temporal_key: psk of the handshake (R18). :ivar lifetime: its seconds.
    :ivar relay: a relay, where there is one. :ivar relay_first: use it at once, direct is hopeless;
        otherwise it is used when no direct answer comes within 300 ms.
    :ivar observed: the address under which the DC sees the receiver, for its information.
    """

    direction: Identifier
    generation: Counter
    peer: Name
    certificate: Certificate
    requester: Name
    initiator: bool
    candidates: Candidates
    temporal_key: Key
    lifetime: Seconds
    relay: Relay | None = None
    relay_first: bool = False
    reason: Text = ""

    def __repr__(self) -> str:
        """Without the keys, so that no log has them (R6)."""
        which = f"{self.direction.hex()} generation {self.generation}"
        return f"RouteDirection({which}, peer {self.peer!r}, {self.relay!r}, {self.reason!r})"


@declare(
    0x0222,
    "Route Direction Acknowledgement",
    sender="client",
    receiver="DC",
    transport="udp",
    protection=_SEALED,
)
class RouteDirectionAcknowledgement(Message, frozen=True):
    """The client has the direction, or refuses it (its own allow list, a pin, a certificate)."""

    direction: Identifier
    generation: Counter
    outcome: Annotated[int, Meta(ge=0, le=255)] = 0


@declare(
    0x0231,
    "Route Direction Request",
    sender="CN",
    receiver="DC_CN",
    transport="udp",
    protection=_SEALED,
)
class RouteDirectionRequest(Message, frozen=True):
    """A client that woke asks for the directions that wait for it."""

    generation: Counter


@declare(
    0x0232,
    "Route Direction Waiting",
    sender="DC_CN",
    receiver="CN",
    transport="udp",
    protection=_SEALED,
)
class RouteDirectionWaiting(Message, frozen=True):
    """How many directions wait; each follows as a Route Direction."""

    waiting: Count


class Reason(IntEnum):
    """Why a client is notified."""

    REALTIME = 1  #: a direction waits: somebody wants a tunnel with it
    ITEM = 2  #: an item waits at a cache server


@declare(
    0x0241,
    "Notification Request",
    sender="DC",
    receiver="client or notification server",
    transport="udp",
    protection="sealed to a client that is online; otherwise as the notification plugin does",
)
class NotificationRequest(Message, frozen=True):
    """Something waits for the client (R33: public by nature, empty by default).

    :ivar kind: a :class:`Reason`; there may be later ones.
    :ivar sender: whose item it is, where that is told. :ivar application: whose it is for.
    """

    receiver: Name
    kind: Annotated[int, Meta(ge=0, le=255)]
    message: Text = ""
    sender: Annotated[str, Meta(max_length=100, pattern=r"\A[a-z0-9.-]*\Z")] = ""
    application: Annotated[str, Meta(max_length=64, pattern=r"\A[A-Za-z0-9._-]*\Z")] = ""


@declare(
    0x0251,
    "Revocation Order",
    sender="DC",
    receiver="client",
    transport="udp",
    protection=_SEALED,
)
class RevocationOrder(Message, frozen=True):
    """End the tunnels with a revoked correspondent at once (R34)."""

    peer: Name
    serial: Annotated[bytes, Meta(max_length=20)] = b""


@declare(
    0x0261,
    "Acknowledgement",
    sender="client or DC",
    receiver="DC or client",
    transport="udp",
    protection=_SEALED,
)
class Acknowledgement(Message, frozen=True):
    """The answer to a request that needs no other answer."""

    outcome: Annotated[int, Meta(ge=0, le=255)] = 0
    detail: Text = ""


@declare(
    0x0262,
    "Deregistration",
    sender="client",
    receiver="DC",
    transport="udp",
    protection=_SEALED,
)
class Deregistration(Message, frozen=True):
    """The client goes off (``ntm down``): its location ends now. Answered by an Acknowledgement."""

    generation: Counter
