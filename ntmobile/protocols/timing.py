"""The one timer of a machine on a reactor."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class MachineTimer:
    """Keeps one delayed call at a machine's next time.

    :param wake: called with the time when it comes; it then calls :meth:`set` again.
    """

    def __init__(self, clock: IReactorTime, wake: Callable[[float], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._call: IDelayedCall | None = None

    def set(self, due: float | None) -> None:
        """Move the call to ``due`` (seconds of the clock); ``None`` cancels it."""
        call = self._call
        if due is None:
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

    def _fire(self) -> None:
        self._call = None
        self._wake(self._clock.seconds())
