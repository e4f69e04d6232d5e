"""The directions of one tunnel: which handshake is made, which legs are kept (R15, R25, R26)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field

from ntmobile.machines.tunnel.constants import (
    CROSSING_PATIENCE,
    DIRECTION_LIMIT,
    DIRECTIONS,
    EPOCH_OVERLAP,
)
from ntmobile.machines.tunnel.handshake import Parties
from ntmobile.machines.tunnel.leg import RelayLeg
from ntmobile.machines.tunnel.opening import OpenDirection
from ntmobile.machines.tunnel.paths import Path, PathSet
from ntmobile.wire.messages.realtime import RouteDirection


@define(eq=False)
class Directions:
    """The directions of a tunnel by identifier, oldest first.

    :ivar identifiers: all identifiers; the same object as long as nothing changes.
    """

    _paths: PathSet
    _random: Callable[[int], bytes]
    _keepalive: float
    identifiers: frozenset[bytes] = frozenset()
    _all: dict[bytes, OpenDirection] = field(factory=dict)

    def __iter__(self) -> Iterator[OpenDirection]:
        return iter(tuple(self._all.values()))

    def get(self, identifier: bytes) -> OpenDirection | None:
        """The direction of this identifier."""
        return self._all.get(identifier)

    def __len__(self) -> int:
        return len(self._all)

    def add(
        self,
        message: RouteDirection,
        parties: Parties,
        now: float,
        certified: float | None,
    ) -> OpenDirection | None:
        """Take a direction; ``None`` where it is no news.

        A newer generation of a known one brings paths and another relay. Its temporal key counts
        only as long as no handshake was made under the former.
        """
        known = self._all.get(message.direction)
        if known is None:
            direction = OpenDirection(message, parties, now, certified)
            if message.relay is not None:
                direction.leg = self._leg(message)
            self._all[message.direction] = direction
            self.identifiers = frozenset(self._all)
            return direction
        if message.generation <= known.message.generation:
            return None
        changed = message.temporal_key != known.message.temporal_key
        relay = message.relay
        if relay is not None and relay != known.message.relay:
            for path in self._paths:
                if path.identifier == message.direction and path.relay is not None:
                    self._paths.remove(path)
            known.leg = self._leg(message)
        known.update(message, parties, now if changed else known.known, renew=changed)
        return known

    def _leg(self, message: RouteDirection) -> RelayLeg | None:
        if message.relay is None:
            return None
        return RelayLeg(message.direction, message.relay, self._random, self._keepalive)

    def begin(self, now: float) -> None:
        """Begin the handshakes that are this side's to begin.

        Of crossed directions the one that the lower FQDN asked for wins (R15); the other one's
        initiator waits a while for it, because it might never come to the other side.
        """
        first = min((each.message.requester for each in self if each.open(now)), default="")
        busy = {each.message.requester for each in self if each.initiation is not None}
        for direction in self:
            if not self._is_ours(direction, now):
                continue
            requester = direction.message.requester
            wins = requester == first and requester not in busy
            if wins or now >= direction.known + CROSSING_PATIENCE:
                busy.add(requester)
                self.initiate(direction, now)

    def initiate(self, direction: OpenDirection, now: float) -> None:
        """Begin the handshake of this direction, whatever others there are."""
        direct = [
            path
            for path in self._paths
            if path.identifier == direction.identifier and path.relay is None and not path.limited
        ]
        direction.begin(now, direct, self._random)
        path = self.relay_path(direction)
        if path is not None and direction.leg is not None and direction.leg.usable:
            direction.reach(path, now)

    def waiting(self, now: float) -> float | None:
        """When :meth:`begin` is to be called again because of a crossing."""
        times = [each.known + CROSSING_PATIENCE for each in self if self._is_ours(each, now)]
        return min(times, default=None)

    def _is_ours(self, direction: OpenDirection, now: float) -> bool:
        """Its handshake is this side's to begin, and did not begin yet."""
        ours = direction.message.initiator and direction.initiation is None
        return ours and direction.fresh(now)

    def settle(self) -> None:
        """There is a session: no handshake of ours goes on."""
        for direction in self:
            direction.cancel()

    def relay_path(self, direction: OpenDirection) -> Path | None:
        """The path through a direction's relay, once its leg knows the RS's address."""
        leg = direction.leg
        if leg is None or leg.remote is None:
            return None
        for path in self._paths:
            if path.identifier == direction.identifier and path.relay is not None:
                if path.remote != leg.remote:
                    self._paths.readdress(path, leg.remote)  # the RS's other family
                return path
        return self._paths.add(Path(direction.identifier, leg.remote, leg.relay.name))

    def retire(self, now: float) -> None:
        """Forget the oldest directions that carry nothing, beyond a few; and any beyond many."""
        spare = [each for each in self if not self._carries(each, now)]
        for direction in spare[: max(0, len(self._all) - DIRECTIONS)]:
            self.forget(direction)
        for direction in self:
            if len(self._all) <= DIRECTION_LIMIT:
                break
            active = self._paths.active
            if active is None or active.identifier != direction.identifier:
                self.forget(direction)

    def _carries(self, direction: OpenDirection, now: float) -> bool:
        if direction.open(now):
            return True
        active = self._paths.active
        if active is not None and active.identifier == direction.identifier:
            return True
        return any(
            path.heard is not None and path.heard > now - 3 * EPOCH_OVERLAP
            for path in self._paths
            if path.identifier == direction.identifier and path.relay is None
        )

    def supersede(self, direction: OpenDirection) -> None:
        """The correspondent started afresh: what it was directed before, it does not know."""
        for other in self:
            if other.known < direction.known:
                self.forget(other)

    def forget(self, direction: OpenDirection) -> None:
        """Drop a direction and its paths."""
        self._all.pop(direction.identifier, None)
        self.identifiers = frozenset(self._all)
        self._paths.retire(direction.identifier)
