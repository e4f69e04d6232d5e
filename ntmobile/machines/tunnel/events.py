"""What a tunnel tells whoever runs it, beside :class:`~ntmobile.machines.effects.Transmit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from ntmobile.machines.effects import Transmit, TransmitRun
from ntmobile.wire.messages.realtime import Purpose

if TYPE_CHECKING:
    from ntmobile.machines.tunnel.paths import Path


@frozen(slots=True)
class Deliver:
    """An inner packet of the correspondent: authentic, of its certified address, to ours (R22).

    :ivar partial: its checksum is still that of the pseudo header; see
        :mod:`ntmobile.wire.offload`.
    """

    packet: bytes
    partial: bool = False


@frozen(slots=True)
class DeliverRun:
    """Inner packets that came in one run, as :class:`Deliver`, in order; all of one kind."""

    packets: list[memoryview]
    partial: bool


@frozen(slots=True)
class Established:
    """There is a session; packets flow.

    :ivar direction: identifier of the direction whose handshake made it.
    :ivar initiator: this side sent the Tunnel Request.
    :ivar path: the path it begins on.
    :ivar replaced: it took the place of an earlier session (the peer restarted, or a renewal).
    """

    direction: bytes
    initiator: bool
    path: Path
    replaced: bool = False


@frozen(slots=True)
class PathChanged:
    """Traffic goes over another path from now on."""

    path: Path
    reason: str


@frozen(slots=True)
class Doubted:
    """The active path worked, and does not answer now: perhaps it is this side's network."""


@frozen(slots=True)
class Ended:
    """The tunnel is over and answers nothing any more; a later one is a new object."""

    reason: str


@frozen(slots=True)
class DirectionWanted:
    """Ask the DC for a direction.

    :ivar purpose: NEW where keys are missing, REPAIR where only paths are.
    :ivar avoid: names of relay servers that failed (R26).
    """

    purpose: Purpose
    avoid: tuple[str, ...] = ()


@frozen(slots=True)
class RoundTrip:
    """The answer to :meth:`Tunnel.ping`, in seconds."""

    sequence: int
    seconds: float


Effect: TypeAlias = (
    Transmit
    | TransmitRun
    | Deliver
    | DeliverRun
    | Established
    | PathChanged
    | Doubted
    | Ended
    | DirectionWanted
    | RoundTrip
)
