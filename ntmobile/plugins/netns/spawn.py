"""Starting the process in the namespace, from an agent with a reactor."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import ntmobile
from ntmobile.errors import NotPermittedHere, NTMobileError

#: Seconds in which the namespace must stand; it takes a quarter of one.
TIMEOUT: Final = 20.0

_COMMAND: Final = ("-P", "-m", "ntmobile.plugins.netns.helper")
#: What Python and the C library need; a long-lived process should hold no more of the environment.
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONHOME", "PYTHONPATH")


def start(reactor: Any, state: Path) -> Deferred[None]:
    """Start a helper for this state directory.

    :param reactor: provides ``IReactorProcess`` and ``IReactorTime``.
    :return: fires when the virtual network stands, or fails with
        :class:`~ntmobile.errors.NotPermittedHere`, whose text says what forbids it, or
        :class:`~ntmobile.errors.NTMobileError`.
    """
    outcome = _Outcome(IReactorTime(reactor))
    command = [sys.executable, *_COMMAND, str(state)]
    IReactorProcess(reactor).spawnProcess(
        outcome,
        sys.executable,
        command,
        env=_environment(),
        childFDs={0: "w", 1: "r", 2: "r"},
    )
    return outcome.done


def _environment() -> dict[str, str]:
    """Give an environment in which the helper finds this very package, however we found it."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    places = [str(Path(ntmobile.__file__).resolve().parent.parent), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return kept


class _Outcome(ProcessProtocol):
    """Waits until the process says how it went; it then goes on as another, in the background."""

    def __init__(self, clock: IReactorTime) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._kill())
        self._clock = clock
        self._timeout: IDelayedCall | None = None
        self._output = b""
        self._errors = b""

    def connectionMade(self) -> None:
        self._timeout = self._clock.callLater(TIMEOUT, self._kill)

    def outReceived(self, data: bytes) -> None:
        self._output += data

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        if self.done.called:
            return
        problem = self._problem(reason)
        if problem is None:
            self.done.callback(None)
        else:
            self.done.errback(problem)

    def _kill(self) -> None:
        assert self.transport is not None
        self.transport.signalProcess("KILL")

    def _problem(self, reason: Failure) -> NTMobileError | None:
        try:
            said = json.loads(self._output)
        except ValueError:
            said = None
        if isinstance(said, dict):
            if "refused" in said:
                return NotPermittedHere(str(said["refused"]))
            if not said and reason.check(ProcessDone):
                return None
            if "error" in said:
                return NTMobileError(f"the virtual network cannot be made: {said['error']}")
        last = self._errors.decode("utf-8", "replace").strip().splitlines() or [str(reason.value)]
        return NTMobileError(f"the process of the virtual network did not start: {last[-1]}")
