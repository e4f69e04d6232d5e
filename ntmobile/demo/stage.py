"""Running the play: which world, what becomes of failures and of Ctrl-C, and cleaning up."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ntmobile.demo.show import Say, Show
from ntmobile.demo.world import World
from ntmobile.errors import NTMobileError
from ntmobile.lab.supervision import LabError
from ntmobile.protocols.trace import NAMESPACE

#: Exit statuses.
DONE: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130
#: Lines of a log that are shown with a failure.
TAIL: Final = 15


@define(eq=False)
class Stage:
    """Runs a reactor for one play.

    :ivar keep: leave the files where they are.
    """

    reactor: ReactorBase
    world: World
    say: Say
    keep: bool = False
    _status: int = field(default=DONE, init=False)
    _problem: Failure | None = field(default=None, init=False)
    _playing: Deferred[None] | None = field(default=None, init=False)

    def run(self) -> int:
        """Play; gives the exit status. Nothing runs or is left when it returns."""
        self.reactor.callWhenRunning(self._begin)
        handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.reactor.run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            kept = self.world.close(keep=self.keep)
        if kept is not None:
            self.say(f"Kept: {kept} (logs are in */logs, ended programs leave them there)", None)
        return self._status

    def _begin(self) -> None:
        # After the reactor, which would only stop, and leave the play where it stands.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupted)
        show = Show(self.reactor, self.world, self.say, self._broken)
        self._playing = Deferred.fromCoroutine(show.play())
        self._playing.addErrback(self._failed, show)
        self._playing.addBoth(self._ended, show)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.reactor.callFromThread(self._cancel)

    def _broken(self, failure: Failure) -> None:
        self._problem = failure
        self._cancel()

    def _cancel(self) -> None:
        if self._playing is not None:
            self._playing.cancel()

    def _failed(self, failure: Failure, show: Show) -> Deferred[None]:
        return Deferred.fromCoroutine(self._explain(self._problem or failure, show))

    async def _explain(self, failure: Failure, show: Show) -> None:
        show.stop()
        if failure.check(CancelledError):
            self._status = INTERRUPTED
            self.say("", None)
            self.say("Interrupted.", None)
            return
        self._status = FAILED
        if failure.check(BrokenPipeError):
            return
        self.say("", None)
        for line in await explanation(failure, show):
            self.say(line, None)

    def _ended(self, result: Any, show: Show) -> None:
        show.stop()
        if isinstance(result, Failure):
            self._status = FAILED
        self.reactor.stop()


async def explanation(failure: Failure, show: Show) -> list[str]:
    """What went wrong, and the last lines of the logs concerned."""
    if failure.check(LabError, NTMobileError, OSError):
        said = str(failure.value)
    else:
        said = failure.getTraceback()
    first, *lines = said.splitlines() or [repr(failure.value)]
    told = [f"The demo failed: {first}", *tail(lines)]
    if show.platform is not None:
        for program in await show.platform.ended():
            status = await program.status()
            log = program.output() + program.stderr.read_text("utf-8", "replace")
            told += ["", f"{program.name} ended, with status {status}:", *tail(log.splitlines())]
    return told


def tail(lines: Sequence[str]) -> list[str]:
    """The last lines of a log for people, indented."""
    shown = [part for line in lines for part in readable(line).splitlines()]
    return [f"  {line}" for line in shown[-TAIL:]]


def readable(line: str) -> str:
    """A line of a log in JSON as text; messages of the trace, and cut lines, are left out."""
    try:
        found = json.loads(line[line.index("{") :])
        if found["component"] == NAMESPACE:
            return ""
        level = "" if found["level"] == "info" else f"{found['level'].upper()} "
        return f"{level}{found['text']}\n{found.get('traceback', '')}".rstrip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return "" if NAMESPACE in line or line.endswith('"}') else line
