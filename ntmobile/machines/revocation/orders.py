"""Revocations that clients still have to be told of (rule R34).

A client that is off, or that its DC has no keys for after a restart, may well have live tunnels. It
is told when it registers again, until it has acknowledged.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

#: Seconds that an order is kept: by then certificates, and so tunnels, have ended (R20).
KEPT: Final = 86400.0
#: Orders kept for one client, and for all; the oldest are forgotten.
FOR_ONE: Final = 256
CAPACITY: Final = 100_000


@define
class RevocationOrders:
    """Whom to tell of what, oldest first."""

    _open: dict[str, dict[str, float]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def __len__(self) -> int:
        """How many orders are open."""
        return self._count

    def add(self, client: str, revoked: str, now: float) -> None:
        """A client is to end its tunnels with a revoked device."""
        self.acknowledged(client, revoked)
        mine = self._open.setdefault(client, {})
        mine[revoked] = now + KEPT
        self._count += 1
        if len(mine) > FOR_ONE:
            self.acknowledged(client, next(iter(mine)))
        if self._count > CAPACITY:
            oldest = next(iter(self._open))
            self.acknowledged(oldest, next(iter(self._open[oldest])))

    def acknowledged(self, client: str, revoked: str) -> None:
        """The client has done so."""
        mine = self._open.get(client, {})
        if mine.pop(revoked, None) is not None:
            self._count -= 1
        if not mine:
            self._open.pop(client, None)

    def of(self, client: str, now: float) -> tuple[str, ...]:
        """What a client has not acknowledged yet."""
        return tuple(one for one, until in self._open.get(client, {}).items() if now < until)

    def forget(self, client: str) -> None:
        """The client is gone itself."""
        self._count -= len(self._open.pop(client, {}))

    def handle_timer(self, now: float) -> None:
        """Forget what is too old; to be called now and then."""
        for client, mine in list(self._open.items()):
            for revoked in [one for one, until in mine.items() if now >= until]:
                self.acknowledged(client, revoked)
