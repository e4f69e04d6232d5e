"""Programs that run in a lab's hosts: their logs, their ends, and what to wait for."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ntmobile.lab.supervision import LabError, Supervision

T = TypeVar("T")

#: Seconds between two looks at a condition that nobody announces (a log, a status).
POLL_INTERVAL = 0.02

#: Characters of a log shown when something failed.
TAIL = 3000


def pause(reactor: IReactorTime, seconds: float) -> Deferred[None]:
    """Fire after some time; meant for the looks of a bounded wait."""
    fired: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(seconds, fired.callback, None)
    return fired


async def eventually(
    reactor: IReactorTime,
    condition: Callable[[], Awaitable[T]],
    *,
    timeout: float,
    what: str | Callable[[], str],
) -> T:
    """Look until a condition is true (return what it gave), or fail with ``what`` was awaited."""
    deadline = reactor.seconds() + timeout
    while True:
        result = await condition()
        if result:
            return result
        if reactor.seconds() >= deadline:
            shown = what if isinstance(what, str) else what()
            raise LabError(f"not within {timeout} s: {shown}")
        await pause(reactor, POLL_INTERVAL)


async def within(reactor: IReactorTime, timeout: float, work: Deferred[T], what: str) -> T:
    """Await a Deferred for a bounded time; cancel it and say ``what`` when that is over."""
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        work.cancel()

    call = reactor.callLater(timeout, expire)
    try:
        return await work
    except Exception:
        if expired:
            raise LabError(f"not within {timeout} s: {what}") from None
        raise
    finally:
        if call.active():
            call.cancel()


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines at the same time to the end of all; then raise the first failure, if any."""
    running = [Deferred.fromCoroutine(work) for work in works]
    results: list[T] = []
    for _, result in await DeferredList(running, consumeErrors=True):
        if isinstance(result, Failure):
            result.raiseException()
        results.append(result)
    return results


@frozen
class Completed:
    """What a short command did."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Parse the standard output."""
        try:
            return json.loads(self.stdout)
        except ValueError as problem:
            raise LabError(f"not JSON ({problem}): {self.stdout!r} {self.stderr!r}") from None


@define(eq=False)
class Process:
    """A program in a host. ``pid`` is its number inside the lab; ours to signal is the object."""

    host: str
    name: str
    argv: list[str]
    pid: int
    #: The files of its standard output and error.
    stdout: Path
    stderr: Path
    #: Lives as long as the lab: what a test starts is ended after the test, this is not.
    standing: bool
    _number: int
    _supervision: Supervision = field(repr=False)
    _reactor: IReactorTime = field(repr=False)
    #: Bytes of both that :meth:`tail` leaves out.
    _told: tuple[int, int] = (0, 0)

    def output(self) -> str:
        """Give all it has written to its standard output so far."""
        return self.stdout.read_text(encoding="utf-8", errors="replace")

    def errors(self) -> str:
        """Give all it has written to its standard error so far."""
        return self.stderr.read_text(encoding="utf-8", errors="replace")

    def mark(self) -> None:
        """Leave what it has written so far out of :meth:`tail`."""
        self._told = (self.stdout.stat().st_size, self.stderr.stat().st_size)

    def news(self) -> dict[str, str]:
        """Give what it has written to both since :meth:`mark`."""
        files = (("stdout", self.stdout), ("stderr", self.stderr))
        return {
            stream: file.read_bytes()[told:].decode("utf-8", "replace")
            for (stream, file), told in zip(files, self._told, strict=True)
        }

    def tail(self) -> str:
        """Give the last of both, with a heading, for the text of a failure."""
        parts = [f"----- {self.host}: {self.name}: {' '.join(self.argv)}"]
        for stream, text in self.news().items():
            if text.strip():
                parts.append(
                    f"[{stream}] {'...' if len(text) > TAIL else ''}{text[-TAIL:].strip()}"
                )
        return "\n".join(parts)

    async def status(self) -> int | None:
        """Give the exit status (negative: the signal that ended it), or None while it runs."""
        status: int | None = await self._supervision.call("poll", number=self._number)
        return status

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Signal it, or it and all it started in its process group; no error if it has ended."""
        await self._supervision.call("signal", number=self._number, signal=number, group=group)

    async def exited(self, timeout: float = 10.0) -> int:
        """Wait for its end; give the exit status."""
        waiting = self._supervision.call("wait", number=self._number)
        status: int = await within(
            self._reactor, timeout, waiting, f"the end of {self.name}\n{self.tail()}"
        )
        return status

    async def stop(self, timeout: float = 10.0) -> int:
        """Ask it to end (SIGTERM), insist (SIGKILL, its group too) at the end of the patience."""
        await self.signal(signal.SIGTERM)
        # A stopped program takes its signals when it goes on.
        await self.signal(signal.SIGCONT)
        try:
            return await self.exited(timeout)
        except LabError:
            await self.kill()
            raise

    async def kill(self) -> int:
        """End it and its process group at once (SIGKILL)."""
        await self.signal(signal.SIGKILL, group=True)
        return await self.exited()

    async def wait_for(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait until its output or errors match a regular expression; fail at once if it ends."""

        async def look() -> re.Match[str] | None:
            ended = await self.status()  # asked first: what it wrote last is seen by the search
            found = re.search(pattern, self.output(), re.MULTILINE) or re.search(
                pattern, self.errors(), re.MULTILINE
            )
            if found is None and ended is not None:
                raise LabError(f"{self.name} ended with {ended} before {pattern!r}\n{self.tail()}")
            return found

        match = await eventually(
            self._reactor,
            look,
            timeout=timeout,
            what=lambda: f"{pattern!r} from {self.name}\n{self.tail()}",
        )
        assert match is not None
        return match
