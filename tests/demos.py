"""Running ``ntm demo`` as a newcomer does, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import define

import ntmobile

ROOT: Final = Path(ntmobile.__file__).resolve().parent.parent
#: Seconds in which the demo must be over; the promise is a minute.
PATIENCE: Final = 60.0
_DEMO: Final = "from ntmobile.commands.main import main; main()"
#: Forbids all below this process to make user namespaces, as some systems do.
_FORBID: Final = """
import os, sys
from ntmobile.lab import kernel, namespaces
namespaces.enter_user_namespace()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


@define
class Finished:
    """A demo that is over: its exit status, all that it printed, and the seconds it took."""

    status: int
    output: str
    seconds: float


class Demo:
    """A demo that runs, with its files in a directory of its own.

    :param directory: for its files. :param forbidden: it finds that it may make no namespaces.
    """

    def __init__(self, directory: Path, *options: str, forbidden: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.began = time.monotonic()
        words = [_DEMO, "demo", *options]
        environment = {**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        environment.pop("NTM_LAB_KEEP", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", *([_FORBID] if forbidden else []), *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.printed: list[str] = []

    def until(self, pattern: str) -> None:
        """Read on until a line matches, or the demo is over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if re.search(pattern, line):
                return

    def finish(self) -> Finished:
        """Read the rest, and wait for the end; one that takes too long is killed."""
        try:
            rest, _ = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            rest, _ = self.process.communicate()
            rest += "\n(killed: it took too long)"
        self.printed.append(rest)
        seconds = time.monotonic() - self.began
        return Finished(self.process.returncode, "".join(self.printed), seconds)

    def interrupt(self) -> Finished:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def kill(self) -> None:
        """End it at once, if it runs; its programs go with it."""
        self.process.kill()

    def processes(self) -> list[int]:
        """Programs that have this demo's directory on their command line."""
        mark = str(self.directory).encode()
        return find_processes(lambda line: mark in line)


def find_processes(wanted: Callable[[bytes], bool]) -> list[int]:
    """Processes by their command line, this one left out."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if wanted(line):
                found.append(int(entry))
    return found
