"""A DC's view of its relay servers: which are there, which to use, and what each relays (R25, R26).

An RS registers over its link and reports. What a DC directed to it is remembered for as long as it
lives, so that an RS that restarted (a new boot identifier) gets its Relay Directions again, and so
that it is known which tunnels lost their relay when an RS does not come back.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

from ntmobile.wire.messages.coordination import (
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayReport,
)
from ntmobile.wire.messages.fields import Endpoint

#: Seconds between Relay Reports that a DC asks for.
INTERVAL: Final = 10.0
#: Intervals without a report after which an RS is given no new tunnels.
MISSED: Final = 3
#: Seconds without link or report after which an RS is given up, with its tunnels.
GIVEN_UP: Final = 60.0
#: Seconds that a tunnel counts as alive after it was reported.
REPORTED: Final = 60.0
#: Seconds between looks for what is over.
SWEEP: Final = 1.0
#: Ends that an RS has not acknowledged, and that are remembered for it.
ENDS: Final = 1000
#: Seconds that an RS which said BUSY is given no new tunnels, unless it reports before.
BUSY: Final = 10.0


@define(eq=False)
class _Placement:
    order: RelayDirection = field(repr=False)
    until: float
    devices: tuple[str, ...]


@define(eq=False)
class RelayState:
    """One RS, as its DC knows it.

    :ivar name: full name, ``NAME.DOMAIN``. :ivar boot: of its present start.
    :ivar endpoints: of its data port, one a family. :ivar capacity: tunnels.
    :ivar linked: its link stands. :ivar heard: when it last registered or reported.
    :ivar tunnels: :ivar rate: of its last report (bytes a second).
    """

    name: str
    boot: bytes
    endpoints: tuple[Endpoint, ...]
    capacity: int
    heard: float
    linked: bool = True
    tunnels: int = 0
    rate: int = 0
    busy_until: float = 0.0
    _placements: dict[bytes, _Placement] = field(factory=dict, init=False)
    _ends: dict[bytes, None] = field(factory=dict, init=False)

    @property
    def families(self) -> frozenset[int]:
        """The families, 4 and 6, in which it can be reached."""
        return frozenset(endpoint.family for endpoint in self.endpoints)

    @property
    def load(self) -> float:
        """The share of its capacity in use: as reported, or as placed, if that is more."""
        return max(self.tunnels, len(self._placements)) / max(1, self.capacity)

    def present(self, now: float) -> bool:
        """Whether it is linked and reports."""
        return self.linked and now - self.heard <= MISSED * INTERVAL

    def usable(self, now: float) -> bool:
        """Whether new tunnels may go there."""
        return self.present(now) and now >= self.busy_until and self.load < 1.0


@frozen
class RelayLost:
    """An RS was given up; these directions have no relay any more."""

    name: str
    directions: tuple[bytes, ...]


class RelayRegistry:
    """The relay servers of one DC."""

    def __init__(self) -> None:
        self._relays: dict[str, RelayState] = {}
        self._where: dict[bytes, str] = {}
        self._of_device: dict[str, set[bytes]] = {}
        self._now = 0.0

    def __len__(self) -> int:
        """How many RSs are known, linked or not."""
        return len(self._relays)

    @property
    def relays(self) -> tuple[RelayState, ...]:
        """The RSs that are known, by name."""
        return tuple(self._relays[name] for name in sorted(self._relays))

    # -- what the RSs say

    def register(self, registration: RelayRegistration, now: float) -> list[RelayDirection]:
        """An RS registers, under the name that its certificate has.

        :return: its living tunnels, if it restarted: it must be directed again. Where it did not,
            it may have missed ends: see :meth:`ends`.
        """
        self._now = now
        known = self._relays.get(registration.name)
        relay = RelayState(
            registration.name,
            registration.boot,
            registration.endpoints,
            registration.capacity,
            now,
        )
        self._relays[registration.name] = relay
        if known is None:
            return []
        relay._placements = known._placements
        if known.boot != registration.boot:
            self._forget_dead(relay, now)
            for placement in relay._placements.values():
                placement.until = max(placement.until, now + placement.order.lifetime)
            return [placement.order for placement in relay._placements.values()]
        relay.tunnels, relay.rate, relay._ends = known.tunnels, known.rate, known._ends
        return []

    def ends(self, name: str) -> list[RelayEnd]:
        """The ends that an RS has not acknowledged; tell it when it has registered."""
        relay = self._relays.get(name)
        return [] if relay is None else [RelayEnd(direction) for direction in relay._ends]

    def report(self, name: str, report: RelayReport, now: float) -> None:
        """An RS reports its load, and which of its tunnels live and which ended."""
        self._now = now
        relay = self._relays.get(name)
        if relay is None:
            return
        relay.heard, relay.busy_until = now, 0.0
        relay.tunnels, relay.rate = report.tunnels, report.rate
        for count in report.counts:
            placement = relay._placements.get(count.direction)
            if placement is not None:
                placement.until = max(placement.until, now + REPORTED)
        for direction in report.ended:
            self._forget(relay, direction)

    def gone(self, name: str, now: float) -> None:
        """The link of an RS is gone (its present one). Its tunnels may well live on."""
        self._now = now
        relay = self._relays.get(name)
        if relay is not None:
            relay.linked = False

    def busy(self, name: str, now: float) -> None:
        """An RS refused a Relay Direction, or did not answer: use others for a while."""
        self._now = now
        relay = self._relays.get(name)
        if relay is not None:
            relay.busy_until = now + BUSY

    # -- what the DC wants of them

    def choose(
        self, families: tuple[frozenset[int], frozenset[int]], avoid: frozenset[str]
    ) -> tuple[str, tuple[Endpoint, ...]] | None:
        """Name and endpoints of the least loaded RS that has a family of each set (R26).

        :param families: of the two ends. :param avoid: names of RSs that failed a client.
        """
        first, second = families
        usable = [
            relay
            for relay in self._relays.values()
            if relay.name not in avoid
            and relay.usable(self._now)
            and relay.families & first
            and relay.families & second
        ]
        best = min(usable, key=lambda relay: (relay.load, relay.rate, relay.name), default=None)
        return None if best is None else (best.name, best.endpoints)

    def placed(
        self, name: str, order: RelayDirection, now: float, devices: tuple[str, ...] = ()
    ) -> None:
        """An RS took a Relay Direction. One that another RS had is only its own now.

        :param devices: the ends of the tunnel, see :meth:`end_of`.
        """
        self._now = now
        relay = self._relays.get(name)
        if relay is None:
            return
        before = self._where.get(order.direction)
        if before is not None:
            self._forget(self._relays[before], order.direction)
        relay._placements[order.direction] = _Placement(order, now + order.lifetime, devices)
        relay._ends.pop(order.direction, None)
        self._where[order.direction] = name
        for device in devices:
            self._of_device.setdefault(device, set()).add(order.direction)

    def end(self, direction: bytes) -> tuple[str, RelayEnd] | None:
        """End a tunnel: the RS that relays it, and what to tell it; None where none does.

        Until it acknowledged that (:meth:`acknowledged`), it is among
        :meth:`ends`.
        """
        name = self._where.get(direction)
        if name is None:
            return None
        relay = self._relays[name]
        self._forget(relay, direction)
        relay._ends[direction] = None
        while len(relay._ends) > ENDS:
            del relay._ends[next(iter(relay._ends))]
        return name, RelayEnd(direction)

    def end_of(self, device: str) -> list[tuple[str, RelayEnd]]:
        """End all tunnels of a device, as :meth:`end` does (R34)."""
        ended = (self.end(direction) for direction in tuple(self._of_device.get(device, ())))
        return [one for one in ended if one is not None]

    def acknowledged(self, name: str, end: RelayEnd) -> None:
        """An RS acknowledged a Relay End."""
        relay = self._relays.get(name)
        if relay is not None:
            relay._ends.pop(end.direction, None)

    def relay_of(self, direction: bytes) -> str | None:
        """The name of the RS that relays a tunnel."""
        return self._where.get(direction)

    def directions_of(self, name: str) -> tuple[bytes, ...]:
        """The directions of the living tunnels of an RS."""
        relay = self._relays.get(name)
        return () if relay is None else tuple(relay._placements)

    # -- time

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` may have something to do."""
        return self._now + SWEEP if self._relays else None

    def handle_timer(self, now: float) -> list[RelayLost]:
        """Forget tunnels that are over, and give up RSs that do not come back.

        A tunnel is over when its Relay Direction's lifetime has passed, and no report named it for
        a minute. While its RS is silent it is kept, until the RS is given up.
        """
        self._now = now
        lost = []
        for relay in list(self._relays.values()):
            if now - relay.heard >= GIVEN_UP:
                del self._relays[relay.name]
                directions = tuple(relay._placements)
                for direction in directions:
                    self._forget(relay, direction)
                lost.append(RelayLost(relay.name, directions))
            elif relay.present(now):
                self._forget_dead(relay, now)
        return lost

    def _forget_dead(self, relay: RelayState, now: float) -> None:
        over = [d for d, placement in relay._placements.items() if now >= placement.until]
        for direction in over:
            self._forget(relay, direction)

    def _forget(self, relay: RelayState, direction: bytes) -> None:
        placement = relay._placements.pop(direction, None)
        if placement is None:
            return
        del self._where[direction]
        for device in placement.devices:
            of_device = self._of_device[device]
            of_device.discard(direction)
            if not of_device:
                del self._of_device[device]
