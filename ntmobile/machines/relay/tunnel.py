"""One tunnel at an RS: its two legs, the handshake that waits, its rate and its counts (R25)."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from ntmobile.machines.effects import Address

#: Bytes that may pass at once after a rest, however low the rate: two runs of 64 KiB.
LEAST_BURST: Final = 131_072
#: Seconds of the directed rate that may pass at once after a rest.
BURST_SECONDS: Final = 0.25


@define(eq=False, slots=True)
class Leg:
    """One side of a tunnel, as far as it proved itself.

    :ivar key: MACs this side's requests and answers.
    :ivar address: the proven source address; None before the first proof.
    :ivar counter: the highest of an authentic request with a cookie, or from here; -1 before.
    :ivar heard: when a datagram last came from here.
    :ivar former: the proven address before this one; datagrams still under way from it are
        forwarded until ``former_until``, nothing is sent there.
    """

    key: bytes = field(repr=False)
    address: Address | None = None
    counter: int = -1
    heard: float = 0.0
    former: Address | None = None
    former_until: float = 0.0


@define(eq=False, slots=True)
class HeldHandshake:
    """The one Tunnel Request that waits for the other leg."""

    datagram: bytes = field(repr=False)
    side: int
    until: float


@define(eq=False, slots=True)
class RelayedTunnel:
    """A tunnel that a DC directed.

    :ivar first: leg of side 0. :ivar second: leg of side 1.
    :ivar expires: when it ends unless both legs are bound; ``inf`` once they were.
    :ivar seconds_per_byte: inverse of the rate limit.
    :ivar burst: seconds by which :ivar:`full_at` may run ahead.
    :ivar full_at: when the bucket of the rate limit is full again.
    :ivar datagrams: :ivar octets: forwarded, both ways.
    """

    first: Leg
    second: Leg
    expires: float
    seconds_per_byte: float = 0.0
    burst: float = 0.0
    full_at: float = 0.0
    datagrams: int = 0
    octets: int = 0
    held: HeldHandshake | None = None

    @property
    def joined(self) -> bool:
        """Both legs are bound: datagrams pass."""
        return self.first.address is not None and self.second.address is not None

    def leg(self, side: int) -> Leg:
        """The leg of a side, 0 or 1."""
        return self.second if side else self.first

    def side_of(self, source: Address) -> int | None:
        """The side whose bound leg this address is."""
        if source == self.first.address:
            return 0
        return 1 if source == self.second.address else None

    def limit(self, rate: int) -> None:
        """Set the rate, in bytes a second."""
        self.seconds_per_byte = 1.0 / rate
        self.burst = max(BURST_SECONDS, LEAST_BURST / rate)

    def admits(self, octets: int, now: float) -> bool:
        """Whether so many bytes are within the rate; if so they are counted against it."""
        full_at = self.full_at if self.full_at > now else now
        full_at += octets * self.seconds_per_byte
        if full_at - now > self.burst:
            return False
        self.full_at = full_at
        return True

    def idle(self, now: float) -> float:
        """Seconds since the leg that is silent for longer was heard; of an unbound leg, none."""
        heard = [leg.heard for leg in (self.first, self.second) if leg.address is not None]
        return now - min(heard, default=now)

    def over(self, now: float, idle: float) -> bool:
        """Whether it ends: never joined in its lifetime, or a leg silent for ``idle`` seconds.

        An address that has not been heard for so long may be somebody else's by now.
        """
        return self.idle(now) >= idle if self.joined else now >= self.expires
