"""What an RS allows, and what it counts."""

from __future__ import annotations

from typing import Final

from attrs import asdict, define, frozen

#: Largest Tunnel Request that is held; the handshake keeps within 1200 bytes.
HELD_SIZE: Final = 1200


@frozen
class RelayLimits:
    """The bounds of an RS. What a DC directs for one tunnel goes before :ivar:`rate`.

    :ivar capacity: tunnels at once. :ivar rate: bytes a second of one tunnel, both ways together.
    :ivar idle: seconds of silence of one leg that end a tunnel.
    :ivar hold: seconds that a handshake waits for the other leg.
    :ivar overlap: seconds that datagrams from the address before a rebind are still taken.
    :ivar requests: requests a second of one tunnel that are worth a MAC: from elsewhere together,
        and from each bound leg. :ivar checks: MACs a second altogether.
    :ivar binds: binds a second of one side, after a first dozen.
    :ivar hints: unauthenticated hints a second altogether.
    """

    capacity: int = 10_000
    rate: int = 125_000_000
    idle: float = 180.0
    hold: float = 2.0
    overlap: float = 3.0
    requests: float = 20.0
    checks: float = 5_000.0
    binds: float = 1.0
    hints: float = 100.0


@define
class RelayTally:
    """What became of datagrams since the start; each is counted under one name.

    :ivar forwarded: of a bound leg, to the other. :ivar limited: over the tunnel's rate.
    :ivar malformed: too short or long, of an unknown kind, not decodable.
    :ivar unknown: of no tunnel here. :ivar unbound: from an address that is no leg.
    :ivar waiting: from a bound leg before the other is bound, and not held. :ivar held: held.
    :ivar released: held datagrams that were forwarded. :ivar throttled: requests over a limit.
    :ivar forged: requests with a wrong MAC. :ivar stale: requests with an old counter.
    :ivar challenged: requests answered with a cookie. :ivar bound: proofs of an address.
    :ivar refreshed: requests from a bound leg. :ivar refused: binds over their limit.
    :ivar too_big: did not fit the other leg. :ivar unsent: the system did not take them.
    :ivar hints: hints sent. :ivar expired: tunnels that ended by time.
    """

    forwarded: int = 0
    limited: int = 0
    malformed: int = 0
    unknown: int = 0
    unbound: int = 0
    waiting: int = 0
    held: int = 0
    released: int = 0
    throttled: int = 0
    forged: int = 0
    stale: int = 0
    challenged: int = 0
    bound: int = 0
    refreshed: int = 0
    refused: int = 0
    too_big: int = 0
    unsent: int = 0
    hints: int = 0
    expired: int = 0

    def counts(self) -> dict[str, int]:
        """All counts by name."""
        return asdict(self)
