"""How large an inner packet a path carries whole (R23; RFC 8899, packetization layer path MTU).

Challenges of the size in question are sent, and the largest that comes back counts: end to end,
whatever is on the way, a relay with another MTU on its other leg included. No ICMP is believed or
needed. Packets that are larger are cut or split, so nothing waits for a search. A size that works
no more, which is a black hole, is noticed by probing it again while it is used.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from ntmobile.machines.tunnel.constants import (
    INNER_MTU,
    MTU_ATTEMPTS,
    MTU_INTERVAL,
    MTU_VERIFY,
    NARROW_MTU,
    NEVER,
)

#: Sizes tried between the least and the limit: what is left of usual links and tunnels (1500,
#: PPPoE 1492, GRE 1476, DS-Lite 1460, tunnels in tunnels 1420 and 1400, jumbo frames) by the
#: headers of IPv6 or IPv4, UDP, ours and the tag.
LADDER: Final = (INNER_MTU, 1316, 1336, 1376, 1396, 1416, 1436, 1916, 3912, 7912)


@define
class PathMtu:
    """The search on one path.

    :ivar value: bytes of the largest inner packet that is known to go through whole.
    :ivar due: when something of :meth:`sizes` is to be sent, or the round is over.
    :ivar tried: when a search or a verification last began.
    :ivar used: when a packet was last sent that relies on :ivar:`value`.
    """

    value: int = NARROW_MTU
    due: float | None = None
    tried: float = float("-inf")
    used: float = float("-inf")
    _limit: int = field(default=INNER_MTU, repr=False)
    _rounds: int = field(default=0, repr=False)
    _verifying: bool = field(default=False, repr=False)

    def search(self, limit: int, now: float) -> None:
        """Find out what goes through, up to ``limit`` bytes; at once, unless it was just tried."""
        self._limit = limit
        if self.value < limit and self.due is None and now >= self.tried + MTU_INTERVAL:
            self._begin(now, MTU_ATTEMPTS)

    def verify(self, now: float) -> None:
        """Find out whether the present size still goes through, where that matters and is time."""
        if now >= self.verify_at():
            self._begin(now, MTU_ATTEMPTS)
            self._verifying = True

    def verify_at(self) -> float:
        """When :meth:`verify` does something; infinity where nothing relies on the size."""
        if self.due is not None or self.used <= self.tried or self.value <= NARROW_MTU:
            return NEVER
        return self.tried + MTU_VERIFY

    def forget(self) -> None:
        """The path may lead another way: search again when it has proven itself."""
        self.value, self.due, self.tried = NARROW_MTU, None, float("-inf")
        self._verifying = False

    def refused(self, size: int, fits: int, now: float) -> None:
        """A packet of ``size`` bytes did not go through, as the system or a relay says (R27).

        :param fits: what would, as far as they know; 0 where they do not.
        """
        if size > self.value:
            return
        self.value = max(NARROW_MTU, fits) if fits < size else NARROW_MTU
        self._begin(now, MTU_ATTEMPTS - 1)

    def sizes(self, now: float, patience: float) -> tuple[int, ...]:
        """The sizes of the challenges to send now.

        :param patience: seconds in which an answer is expected.
        """
        if self.due is None or now < self.due:
            return ()
        if not self._rounds:
            if not self._verifying:
                self.due = None
                return ()
            self.value = NARROW_MTU
            self._begin(now, MTU_ATTEMPTS - 1)
        first = self._rounds == MTU_ATTEMPTS
        self._rounds -= 1
        self.due = now + 2 * patience
        if self._verifying:
            return (self.value,)
        if first:
            # The limit is right nearly always; one more, so that packets of 1280 bytes go whole.
            found = {self._limit, min(INNER_MTU, self._limit)}
        else:
            found = {self._limit, *(size for size in LADDER if size < self._limit)}
        return tuple(size for size in sorted(found) if size > self.value)

    def echoed(self, size: int) -> None:
        """A challenge of this size came back."""
        self.value = max(self.value, size)
        if self._verifying or self.value >= self._limit:
            self.due, self._verifying = None, False

    def _begin(self, now: float, rounds: int) -> None:
        self.due, self.tried = now, now
        self._rounds, self._verifying = rounds, False
