"""The ordinary program of the demo as the play sees it: a connection that counts."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from attrs import define, field

from ntmobile.demo.following import Event
from ntmobile.demo.platform import MN
from ntmobile.demo.program import Program
from ntmobile.demo.programs.counter import LINE

#: Seconds between two answers that are worth a word; they come every 10 ms.
PAUSE: Final = 0.04


@define
class Counting:
    """Both ends of it.

    :ivar server: :ivar client: the programs; see :mod:`ntmobile.demo.programs.counter`.
    :ivar protocol: what it speaks, for people.
    """

    server: Program
    client: Program
    protocol: str = "TCP"
    _read: int = field(default=0, init=False)
    _arrivals: list[tuple[int, float]] = field(factory=list, init=False)

    def read(self) -> list[Event]:
        """Look at what came since; gives the pauses that ended, as events of the phone."""
        output = self.client.output()
        whole = output[self._read : output.rfind("\n") + 1]
        self._read += len(whole)
        pauses = []
        for line in whole.splitlines():
            number, _, moment = line.partition(" ")
            if not number.isdigit():
                continue
            arrival = (int(number), float(moment))
            if self._arrivals:
                gap = arrival[1] - self._arrivals[-1][1]
                if gap > PAUSE:
                    words = f"after a pause of {gap * 1000:.0f} ms"
                    pauses.append(Event(arrival[1], MN, "", "goes on", words))
            self._arrivals.append(arrival)
        return pauses

    @property
    def last(self) -> float:
        """Unix time of the latest answer that was read."""
        return self._arrivals[-1][1] if self._arrivals else 0.0

    @property
    def answers(self) -> int:
        """How many came."""
        return len(self._arrivals)

    @property
    def in_order(self) -> bool:
        """Whether each number is greater than the one before."""
        return all(before[0] < after[0] for before, after in pairwise(self._arrivals))

    @property
    def lost(self) -> int:
        """How many numbers are missing; TCP must not lose any."""
        return self._arrivals[-1][0] - self.answers if self._arrivals else 0

    def gap(self, since: float, until: float) -> float:
        """The longest time between two answers, in seconds, of which one falls in this time."""
        return max(
            (
                after - before
                for (_, before), (_, after) in pairwise(self._arrivals)
                if after >= since and before <= until
            ),
            default=0.0,
        )

    @property
    def connections(self) -> int:
        """How many the server saw."""
        return self.server.output().count("connection from")

    @property
    def sent(self) -> str:
        """How much was sent and answered."""
        return f"{self.answers * LINE / 2**20:.1f} MiB"
