"""Programs of the demo, wherever they run: in a lab's host, or on this machine as it is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ntmobile.lab import kernel
from ntmobile.lab.process import eventually
from ntmobile.lab.supervision import LabError

#: The directory of the demo's own programs.
PROGRAMS: Final = Path(__file__).parent / "programs"
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
_NTM: Final = "from ntmobile.commands.main import main; main()"


def twistd(plugin: str, *options: str | Path) -> list[str]:
    """The command line of a service that logs to its standard output."""
    own = [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=", "--logfile=-"]
    return [*own, plugin, *map(str, options)]


def ntm(*arguments: str | Path) -> list[str]:
    """The command line of an ``ntm`` command."""
    return [sys.executable, "-c", _NTM, *map(str, arguments)]


class Program(Protocol):
    """A program that runs, or ran; :class:`ntmobile.lab.process.Process` is one."""

    name: str
    stdout: Path
    stderr: Path

    def output(self) -> str:
        """All that it wrote to its standard output."""

    def tail(self) -> str:
        """The last of what it wrote, with a heading."""

    async def status(self) -> int | None:
        """Its exit status, or None while it runs."""

    async def stop(self, timeout: float = 10.0) -> int:
        """End it, in order if it can be."""

    async def exited(self, timeout: float = 10.0) -> int:
        """Wait for its end; give the exit status."""

    async def wait_for(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait until its output matches; fail at once if it ends."""


class Place(Protocol):
    """Where programs run; a :class:`ntmobile.lab.node.Node` is one."""

    async def spawn(
        self, argv: list[str], *, name: str | None = None, env: dict[str, str] | None = None
    ) -> Program:
        """Start a program."""


@define(eq=False)
class LocalProgram:
    """A program on this machine. It ends with this process, whatever happens to that."""

    name: str
    stdout: Path
    stderr: Path
    _process: subprocess.Popen[bytes]
    _clock: IReactorTime

    def output(self) -> str:
        """See :class:`Program`."""
        return self.stdout.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """See :class:`Program`."""
        errors = self.stderr.read_text(encoding="utf-8", errors="replace")
        said = f"{self.output()[-3000:]}\n{errors[-3000:]}".strip()
        return f"----- {self.name}\n{said}"

    async def status(self) -> int | None:
        """See :class:`Program`."""
        return self._process.poll()

    async def stop(self, timeout: float = 10.0) -> int:
        """See :class:`Program`."""
        if self._process.poll() is None:
            self._process.terminate()
        return await self.exited(timeout)

    def signal(self, number: int) -> None:
        """Send a signal; no error if it has ended."""
        self._process.send_signal(number)

    async def exited(self, timeout: float = 10.0) -> int:
        """See :class:`Program`."""

        async def ended() -> bool:
            return self._process.poll() is not None

        await eventually(self._clock, ended, timeout=timeout, what=f"the end of {self.tail()}")
        return self._process.returncode

    def kill(self) -> None:
        """End it now."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    async def wait_for(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """See :class:`Program`."""

        async def look() -> re.Match[str] | None:
            ended = self._process.poll()
            found = re.search(pattern, self.output(), re.MULTILINE)
            if found is None and ended is not None:
                raise LabError(f"{self.name} ended with {ended}\n{self.tail()}")
            return found

        what = lambda: f"{pattern!r} from {self.name}\n{self.tail()}"  # noqa: E731
        found = await eventually(self._clock, look, timeout=timeout, what=what)
        assert found is not None
        return found


@define(eq=False)
class LocalPlace:
    """This machine as it is.

    :ivar directory: where logs go. :ivar programs: all that were started.
    """

    directory: Path
    _clock: IReactorTime
    programs: list[LocalProgram] = field(factory=list)

    async def spawn(
        self, argv: list[str], *, name: str | None = None, env: dict[str, str] | None = None
    ) -> LocalProgram:
        """See :class:`Place`."""
        name = name or argv[0]
        base = self.directory / f"{len(self.programs) + 1:03}-{name}"
        stdout, stderr = base.with_suffix(".out"), base.with_suffix(".err")
        with stdout.open("ab") as out, stderr.open("ab") as err:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **_paths(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=partial(_die_with, os.getpid()),
            )
        program = LocalProgram(name, stdout, stderr, process, self._clock)
        self.programs.append(program)
        return program

    def close(self) -> None:
        """End all."""
        for program in reversed(self.programs):
            program.kill()


def _die_with(parent: int) -> None:
    """In a fresh child: end when the parent ends, or at once if it has ended already."""
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _paths() -> dict[str, str]:
    """So that programs find the ntmobile that this is, installed or not."""
    import ntmobile

    root = str(Path(ntmobile.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def python(*arguments: str | Path) -> list[str]:
    """The command line of a script, with the Python that runs this."""
    return [sys.executable, *map(str, arguments)]
