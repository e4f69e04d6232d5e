"""Timers: the one timer of a machine on a reactor, and which clock a reactor goes by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, cast

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IDelayedCall, IReactorTime

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class MachineTimer:
    """Keeps one delayed call at a machine's next time.

    :param wake: called with the time when it comes; it then calls :meth:`set` again.
    """

    def __init__(self, clock: IReactorTime, wake: Callable[[float], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._call: IDelayedCall | None = None
        self._stopped = False

    def set(self, due: float | None) -> None:
        """Move the call to ``due`` (seconds of the clock); ``None`` cancels it."""
        call = self._call
        if due is None or self._stopped:
            self.cancel()
        elif call is None or not call.active():
            self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._fire)
        elif abs(call.getTime() - due) > 0.0005:
            call.reset(max(0.0, due - self._clock.seconds()))

    def cancel(self) -> None:
        """No call any more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def stop(self) -> None:
        """No call any more, and none that is set later."""
        self._stopped = True
        self.cancel()

    def _fire(self) -> None:
        self._call = None
        self._wake(self._clock.seconds())


def real_reactor() -> ReactorBase:
    """The reactor of this process, of which type checkers see the module only."""
    from twisted.internet import reactor

    return cast(ReactorBase, reactor)


def use_monotonic_time(reactor: IReactorTime) -> None:
    """Make a real reactor count by the system's monotonic clock instead of its wall clock (R12).

    To be called before the first timer. The clock is the one that goes on while the machine is
    suspended, where there is one, so that a sleep is seen as the long time that it was.
    """
    if isinstance(reactor, ReactorBase):
        reactor.seconds = _monotonic  # its own hook


def _monotonic() -> float:
    return time.clock_gettime(_CLOCK)
