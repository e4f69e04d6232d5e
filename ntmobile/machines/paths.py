"""Paths of one tunnel, and which of them carries the traffic (R21; design, section 5)."""

from __future__ import annotations

from enum import Enum

from attrs import define

from ntmobile.machines.effects import Address


class PathState(Enum):
    """What is known of a path."""

    UNKNOWN = "unknown"  #: nothing was sent yet
    PROBING = "probing"  #: challenges are under way
    VALID = "valid"  #: a challenge came back
    FAILED = "failed"  #: challenges were not answered


@define(eq=False)
class Path:
    """One way for a tunnel's datagrams.

    :ivar identifier: index of the datagrams sent on it: the direction that gave the path.
    :ivar remote: where they are sent. :ivar relay: name of the RS there, None for a direct path.
    :ivar rtt: smoothed seconds, None before the first answer.
    :ivar wide: a datagram of full size went through (R23).
    """

    identifier: bytes
    remote: Address
    relay: str | None = None
    state: PathState = PathState.UNKNOWN
    rtt: float | None = None
    wide: bool = False

    @property
    def kind(self) -> str:
        """``direct`` or ``relay``."""
        return "direct" if self.relay is None else "relay"
