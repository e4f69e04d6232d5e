"""Virtual time: one clock that runs every call at its exact time, and a host's own timers on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

#: Calls at one and the same instant after which a simulation is taken to run in circles.
CALLS_AN_INSTANT: Final = 200_000


class ExactClock(Clock):
    """A ``Clock`` on which every call sees the very time it was scheduled for.

    ``Clock.advance(10)`` runs a call that is due in one second at the tenth, so that what it
    schedules comes nine seconds late. This one stops at each.
    """

    def advance(self, amount: float) -> None:
        """Move on by ``amount`` seconds, stopping at each pending call."""
        end = self.rightNow + amount
        while self.step(end):
            pass
        self.rightNow = end

    def step(self, end: float) -> bool:
        """Run the next call that is due by ``end``; ``False`` where there is none."""
        self._sortCalls()
        if not self.calls or self.calls[0].getTime() > end:
            return False
        call = self.calls.pop(0)
        self.rightNow = max(self.rightNow, call.getTime())
        call.called = 1
        call.func(*call.args, **call.kw)
        return True


@implementer(IReactorTime)
class HostTimers:
    """The timers of one host: on the shared clock, yet they stop when the host does.

    :param clock: the shared clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: list[DelayedCall] = []
        self._wake: IDelayedCall | None = None
        self._stopped = False

    def seconds(self) -> float:
        """The time of the shared clock."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """See :class:`IReactorTime`."""
        if delay < 0:
            raise ValueError(f"{delay} is not a delay: it is negative")
        call = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kwargs,
            self._cancelled,
            lambda _: self._schedule(),
            self.seconds,
        )
        self._calls.append(call)
        self._schedule()
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The pending calls of this host, soonest first."""
        return sorted(self._calls, key=DelayedCall.getTime)

    def stop(self) -> None:
        """Let time pass without calling anything, as SIGSTOP or a closed lid does."""
        self._stopped = True
        self._schedule()

    def resume(self) -> None:
        """Call what became due meanwhile, and go on."""
        self._stopped = False
        self._schedule()

    def clear(self) -> None:
        """Forget all pending calls, as a crash does. They count as cancelled."""
        for call in tuple(self._calls):
            call.cancel()

    def _cancelled(self, call: DelayedCall) -> None:
        self._calls.remove(call)
        self._schedule()

    def _schedule(self) -> None:
        """Keep one call on the shared clock, for the soonest of ours."""
        soonest = min(self._calls, key=DelayedCall.getTime, default=None)
        if soonest is None or self._stopped:
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            return
        due = max(soonest.getTime(), self.seconds())
        if self._wake is not None:
            if self._wake.getTime() == due:
                return
            self._wake.cancel()
        # The exact time, not a delay from now: adding the difference again would round it.
        wake = self._clock.callLater(due - self.seconds(), self._run)
        assert isinstance(wake, DelayedCall)
        wake.time = due
        self._wake = wake

    def _run(self) -> None:
        self._wake = None
        try:
            soonest = min(self._calls, key=DelayedCall.getTime)
            if soonest.getTime() <= self.seconds():
                self._calls.remove(soonest)
                soonest.called = 1
                soonest.func(*soonest.args, **soonest.kw)
        finally:
            self._schedule()
