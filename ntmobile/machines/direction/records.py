"""What the direction machines say to the service that runs them, and the records they keep."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.machines.direction.route import Route
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    LocationUpdate,
    RelayDirection,
    RouteDirectionRefusal,
)
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import (
    DirectionRefusal,
    DirectionResponse,
    NotificationRequest,
    Outcome,
    RouteDirection,
)

#: A direction and its temporal key live so long (R16, R18), in seconds.
DIRECTION_LIFETIME: Final = 60.0
#: How far apart in time a request and its arrival may lie, in seconds (R12: of the AS's clock).
FRESHNESS: Final = 300.0
#: Directions that a DC keeps at once; more are answered BUSY.
CAPACITY: Final = 100_000
#: How often one direction is decided again because CN is elsewhere (R16).
DECISIONS: Final = 32


@frozen
class AskCoordinator:
    """Send a request to the DC of a domain; tell the answer under ``tag``.

    :ivar then: whose DC is asked after this one where it knows nobody, or is not reached.
    """

    domain: str
    message: Message
    tag: bytes
    then: str | None = None


@frozen
class DirectRelay:
    """Send a Relay Direction to an RS; tell the answer under ``tag``.

    :ivar devices: the two ends of the tunnel.
    """

    relay: str
    message: RelayDirection
    tag: bytes
    devices: tuple[str, str]


@frozen
class TellClient:
    """Send a Route Direction to a client of ours, until it answers or the lifetime is over.

    Or that it was refused, which takes its place.
    """

    fqdn: str
    message: RouteDirection | DirectionRefusal


@frozen
class Respond:
    """Answer MN's Direction Request, under the token it was given with."""

    token: object
    response: DirectionResponse


@frozen
class Notify:
    """Tell a client: directly if it is online, else through the notification plugin.

    :ivar unheard: it counts as online, yet it does not acknowledge what its DC says.
    """

    request: NotificationRequest
    unheard: bool = False


@frozen
class TellCoordinator:
    """Send to the DC of a domain what needs no answer."""

    domain: str
    message: LocationUpdate | RouteDirectionRefusal


Effect: TypeAlias = AskCoordinator | DirectRelay | TellClient | Respond | Notify | TellCoordinator


@define
class Pending:
    """A direction in the making or waiting, at DC_MN.

    :ivar token: how the Direction Request is to be answered; None once it was.
    :ivar peer: CN's FQDN, once known; before that the name that was asked for.
    :ivar domain: whose DC is asked, or has answered. :ivar others: who may be asked yet.
    :ivar certificate: CN's, DER, verified.
    :ivar refusal: what is answered if nobody knows the name.
    :ivar relay: name of the RS chosen.
    """

    direction: bytes
    mn: str
    question: InformationRequest
    token: object
    expires: float
    temporal_key: bytes = field(repr=False)
    relay_keys: tuple[bytes, bytes] = field(repr=False)
    peer: str
    domain: str
    others: list[str] = field(factory=list)
    certificate: bytes | None = None
    location: Location | None = None
    hide: bool = False
    route: Route | None = None
    relay: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    refusal: tuple[Outcome, str] | None = None
    generation: int = 0
    avoid: set[str] = field(factory=set)


@define
class Waiting:
    """A Route Direction for a client of ours that has not acknowledged it, at DC_CN (R16).

    :ivar source: domain of the DC that made it.
    :ivar location: where the client was as that DC knows it.
    :ivar overdue: when the client, which counts as online, should have acknowledged it; None if it
        has been notified for it.
    """

    message: RouteDirection = field(repr=False)
    source: str
    expires: float
    location: Location
    overdue: float | None = None
