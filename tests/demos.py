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
from twisted.trial.unittest import SynchronousTestCase

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


def assert_stored(test: SynchronousTestCase, off: str, on: str) -> None:
    """See that both acts of stored data show the paper's figures 3 and 4, in order."""
    figures = (
        (
            off,
            "Pre-key Request",
            "Temporal Key Upload Request",
            "Temporal Key Transfer Request",
            "Encryption Key Upload Request",
            "Encryption Key Exchange Request",
            "Encrypted Data Upload Request",
            "Encrypted Data Exchange Request",
            "$ ntm send laptop.bob.dc2.ntm.example holiday.jpg",
            "$ echo 'Dinner at eight?' | ntm send",
        ),
        (
            on,
            "Registration Request",
            "Cache List Download Request",
            "Encryption Key Download Request",
            "Temporal Key Download Request",
            "Encrypted Data List Request",
            "verified: it is from MN",
            "$ ntm inbox",
            "Encrypted Data Confirmation Request",
            "$ ntm get",
            "   Dinner at eight?\n",
            "$ ntm sent",
            "has it since",
        ),
    )
    for act, *words in figures:
        places = [act.find(word) for word in words]
        test.assertNotIn(-1, places, f"{words}\n{act}")
        test.assertEqual(sorted(places), places, act)
    for message in ("Notification Request: data waits", "verified: it came to CN"):
        test.assertIn(message, on)


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
