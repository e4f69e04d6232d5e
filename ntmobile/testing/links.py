"""A link between two neighbours: how long it takes, and what it does to datagrams."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random

from attrs import define, field
from attrs.validators import ge, le

from ntmobile.testing.clock import ExactClock
from ntmobile.testing.datagrams import Datagram


class Way(Enum):
    """Towards the backbone, or away from it."""

    UP = "up"
    DOWN = "down"


#: What a link calls for a datagram it loses: the datagram and why.
Lost = Callable[[Datagram, str], None]


@define(eq=False)
class Link:
    """Properties of a link; all may be changed while it is in use.

    :ivar delay: one way, in seconds.
    :ivar jitter: up to so many seconds are added; the order is kept.
    :ivar loss: share of datagrams lost, 0 to 1.
    :ivar duplicate: share of datagrams that arrive twice.
    :ivar reorder: share of datagrams that are overtaken by later ones.
    :ivar mtu: largest IP packet in bytes; larger datagrams are lost.
    :ivar up: whether it carries anything at all.
    """

    delay: float = field(default=0.0, validator=ge(0))
    jitter: float = field(default=0.0, validator=ge(0))
    loss: float = field(default=0.0, validator=[ge(0), le(1)])
    duplicate: float = field(default=0.0, validator=[ge(0), le(1)])
    reorder: float = field(default=0.0, validator=[ge(0), le(1)])
    mtu: int = field(default=1500, validator=ge(68))
    up: bool = True
    _dark_until: float = field(default=0.0, init=False, repr=False)
    _arrivals: dict[Way, float] = field(factory=dict, init=False, repr=False)

    def copy(self) -> Link:
        """Another link with the same properties."""
        return Link(
            self.delay, self.jitter, self.loss, self.duplicate, self.reorder, self.mtu, self.up
        )

    def darken(self, until: float) -> None:
        """Carry nothing before this time of the clock; of two such times the later counts."""
        self._dark_until = max(self._dark_until, until)

    def fits(self, datagram: Datagram) -> bool:
        """Whether the datagram is within the MTU. Streams find the MTU by themselves."""
        return datagram.segment is not None or datagram.size <= self.mtu

    def carry(
        self,
        datagram: Datagram,
        way: Way,
        clock: ExactClock,
        random: Random,
        arrive: Callable[[Datagram], None],
        lost: Lost,
    ) -> None:
        """Call ``arrive`` when the datagram is through, perhaps twice; or ``lost`` now."""
        if not self.up or clock.seconds() < self._dark_until:
            lost(datagram, "link down")
        elif not self.fits(datagram):
            lost(datagram, f"larger than the MTU of {self.mtu}")
        elif random.random() < self.loss:
            lost(datagram, "loss")
        else:
            self._pass(datagram, way, clock, random, arrive)
            if random.random() < self.duplicate:
                self._pass(datagram, way, clock, random, arrive)

    def _pass(
        self,
        datagram: Datagram,
        way: Way,
        clock: ExactClock,
        random: Random,
        arrive: Callable[[Datagram], None],
    ) -> None:
        now = clock.seconds()
        arrival = now + self.delay + random.random() * self.jitter
        if random.random() < self.reorder:
            arrival += random.random() * max(self.delay, self.jitter, 0.005)
        else:
            arrival = max(arrival, self._arrivals.get(way, 0.0))
            self._arrivals[way] = arrival
        clock.callLater(arrival - now, arrive, datagram)
