"""Between servers: DC and DC, DC and RS (paper, section III; design section 5).

All travel in frames over mutual TLS 1.3 (:mod:`ntmobile.protocols.link`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ntmobile.wire.codec import Message, declare
from ntmobile.wire.messages.fields import (
    Certificate,
    Count,
    Counter,
    Endpoint,
    Identifier,
    Key,
    Location,
    Millis,
    Name,
    Nonce,
    Seconds,
    Signature,
    Text,
)
from ntmobile.wire.messages.realtime import RouteDirection

_LINK = "mutual TLS 1.3"
_Outcome = Annotated[int, Meta(ge=0, le=255)]


@declare(
    0x0301,
    "NTM Information Request",
    sender="DC_MN",
    receiver="DC_CN",
    transport="link",
    protection=_LINK,
)
class InformationRequest(Message, frozen=True):
    """DC_MN asks for CN's information on behalf of MN, whose signature it forwards (R13)."""

    mn: Name
    certificate: Certificate
    cn: Name
    nonce: Nonce
    issued: Millis
    signature: Signature
    purpose: _Outcome = 0


@declare(
    0x0302,
    "NTM Information Response",
    sender="DC_CN",
    receiver="DC_MN",
    transport="link",
    protection=_LINK,
)
class InformationResponse(Message, frozen=True):
    """CN's device, certificate and location; a stranger gets UNKNOWN for "denied" too (R13).

    :ivar cn: the FQDN of the device, also where a user's name was asked for.
    :ivar hide: CN wants its addresses hidden from MN: relay only.
    """

    outcome: _Outcome
    cn: Name = "-"
    certificate: Annotated[bytes, Meta(max_length=400)] = b""
    location: Location | None = None
    hide: bool = False


@declare(
    0x0303,
    "Route Direction Transfer",
    sender="DC_MN",
    receiver="DC_CN",
    transport="link",
    protection=_LINK,
)
class RouteDirectionTransfer(Message, frozen=True):
    """A Route Direction for CN, relayed by DC_CN, which alone has a relationship with CN."""

    cn: Name
    direction: RouteDirection


@declare(
    0x0304,
    "Route Direction Transfer Response",
    sender="DC_CN",
    receiver="DC_MN",
    transport="link",
    protection=_LINK,
)
class RouteDirectionTransferResponse(Message, frozen=True):
    """OK: DC_CN sends it now. WAKING: it waits and CN is notified."""

    outcome: _Outcome


@declare(
    0x0305,
    "Location Update",
    sender="DC_CN",
    receiver="DC_MN",
    transport="link",
    protection=_LINK,
)
class LocationUpdate(Message, frozen=True):
    """CN registered elsewhere while a direction for it was pending (R16): decide again.

    :ivar certificate: CN's present one; it may have renewed it when it came back.
    """

    direction: Identifier
    cn: Name
    location: Location
    certificate: Annotated[bytes, Meta(max_length=400)] = b""


@declare(
    0x0306,
    "Route Direction Refusal",
    sender="DC_CN",
    receiver="DC_MN",
    transport="link",
    protection=_LINK,
)
class RouteDirectionRefusal(Message, frozen=True):
    """CN itself refused the direction, by its own allow list or pin (R13)."""

    direction: Identifier
    cn: Name


@declare(
    0x0307,
    "Revocation Notice",
    sender="DC",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class RevocationNotice(Message, frozen=True):
    """A client of the sender's domain is revoked: tell correspondents of yours (R34)."""

    revoked: Name
    correspondents: Annotated[tuple[Name, ...], Meta(max_length=256)]
    serial: Annotated[bytes, Meta(max_length=20)] = b""


@declare(
    0x0310,
    "Link Acknowledgement",
    sender="server",
    receiver="server",
    transport="link",
    protection=_LINK,
)
class LinkAcknowledgement(Message, frozen=True):
    """The answer to a request that needs no other answer."""

    outcome: _Outcome = 0
    detail: Text = ""


@declare(
    0x0401,
    "Relay Registration",
    sender="RS",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class RelayRegistration(Message, frozen=True):
    """An RS reports for duty; ``boot`` changes when it restarts (R26)."""

    name: Name
    boot: Identifier
    endpoints: Annotated[tuple[Endpoint, ...], Meta(min_length=1, max_length=2)]
    capacity: Count
    version: Text = ""


@declare(
    0x0402,
    "Relay Registration Response",
    sender="DC",
    receiver="RS",
    transport="link",
    protection=_LINK,
)
class RelayRegistrationResponse(Message, frozen=True):
    """``interval`` seconds between Relay Reports."""

    outcome: _Outcome
    interval: Seconds = 10


@declare(
    0x0403,
    "Relay Direction",
    sender="DC_MN",
    receiver="RS",
    transport="link",
    protection=_LINK,
)
class RelayDirection(Message, frozen=True):
    """Relay this tunnel: a key a side (R25). Repeating it is harmless."""

    direction: Identifier
    keys: Annotated[tuple[Key, ...], Meta(min_length=2, max_length=2)]
    lifetime: Seconds
    rate: Count = 0

    def __repr__(self) -> str:
        """Without the keys, so that no log has them (R6)."""
        return f"RelayDirection({self.direction.hex()}, lifetime {self.lifetime})"


@declare(
    0x0404,
    "Relay Response",
    sender="RS",
    receiver="DC_MN",
    transport="link",
    protection=_LINK,
)
class RelayResponse(Message, frozen=True):
    """OK or BUSY."""

    direction: Identifier
    outcome: _Outcome
    boot: Identifier


@declare(
    0x0405,
    "Relay End",
    sender="DC_MN",
    receiver="RS",
    transport="link",
    protection=_LINK,
)
class RelayEnd(Message, frozen=True):
    """Forget a tunnel (revocation). Answered by a Link Acknowledgement."""

    direction: Identifier


class RelayCount(msgspec.Struct, frozen=True, array_like=True):
    """What one tunnel has relayed: datagrams and bytes of both ways; idle seconds."""

    direction: Identifier
    datagrams: Counter
    octets: Counter
    idle: Seconds


@declare(
    0x0406,
    "Relay Report",
    sender="RS",
    receiver="DC",
    transport="link",
    protection=_LINK,
)
class RelayReport(Message, frozen=True):
    """Load of the RS and the counts of its tunnels; ended tunnels once with ``ended``."""

    tunnels: Count
    rate: Count
    counts: Annotated[tuple[RelayCount, ...], Meta(max_length=1000)] = ()
    ended: Annotated[tuple[Identifier, ...], Meta(max_length=1000)] = ()
