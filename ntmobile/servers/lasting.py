"""Problems that last, such as a full disk: told when they begin, now and then, and when over."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()

#: Seconds between two lines about the same problem.
INTERVAL: Final = 60.0


@define(eq=False)
class LastingProblem:
    """Something that is tried again and again, and how often it failed in a row.

    :ivar what: is tried, as in "storing locations".
    """

    what: str
    clock: IReactorTime
    _count: int = field(default=0, init=False)
    _told: float = field(default=0.0, init=False)

    def failed(self, problem: object) -> None:
        """It failed: the first time, and once a minute, that is logged."""
        self._count += 1
        now = self.clock.seconds()
        if self._count > 1 and now - self._told < INTERVAL:
            return
        self._told = now
        if self._count == 1:
            log.error("{problem}; it is tried again", problem=str(problem))
        else:
            log.error(
                "{problem}; tried {count} times by now", problem=str(problem), count=self._count
            )

    def succeeded(self) -> None:
        """It did not: if it had failed before, that is over."""
        if self._count:
            log.warn(
                "{what} works again, after {count} failures", what=self.what, count=self._count
            )
            self._count = 0
