"""How services that cannot start end, under ``twistd`` as it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
RUN = "from {} import {}; {}()"
NTM = [sys.executable, "-c", RUN.format("ntmobile.commands.main", "main", "main")]
TWISTD = [sys.executable, "-c", RUN.format("twisted.scripts.twistd", "run", "run")]


class StartingTests(SynchronousTestCase):
    """An account server whose port another program has."""

    def setUp(self) -> None:
        """A realm, and the other program."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        self.port = taken.getsockname()[1]
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        init = ["realm", "init", "realm", "--domain", "ntm.example", "--address", "127.0.0.1"]
        done = self.run_program([*NTM, *init, "--port", str(self.port)])
        self.assertEqual(done.returncode, 0, done.stderr)

    def run_program(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the directory; one that does not end fails the test."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def log(self) -> str:
        """The daemon's log, once it has the line: the daemon ends a moment after its starter."""
        deadline = time.monotonic() + 20.0
        text = ""
        while "cannot listen" not in text and time.monotonic() < deadline:
            text = (self.directory / "as.log").read_text()
            time.sleep(0.02)
        return text

    def test_foreground(self) -> None:
        """In the foreground it is one line of the log and an exit status."""
        done = self.run_program([*TWISTD, "-n", "ntm-as", "--config", "realm/as.toml"])
        self.assertEqual(done.returncode, 1)
        line = done.stdout.splitlines()[-1]
        self.assertIn(f"ntm-as: cannot listen on TCP port {self.port} of 127.0.0.1", line)
        self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_wrong_option(self) -> None:
        """An option that is none, or is missing, is one line and not the whole usage."""
        for words, said in (
            (["--confg", "realm/as.toml"], "option --confg not recognized"),
            ([], "--config FILE is needed; ntm realm init writes it"),
        ):
            done = self.run_program([*TWISTD, "-n", "ntm-as", *words])
            expected = f"ntm-as: {said}; see: twistd ntm-as --help\n"
            self.assertEqual((1, "", expected), (done.returncode, done.stdout, done.stderr))

    def test_daemon(self) -> None:
        """As a daemon, the command that starts it says so and ends, and the log has the line."""
        done = self.run_program(
            [*TWISTD, "--logfile=as.log", "ntm-as", "--config", "realm/as.toml"]
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on TCP port {self.port}", done.stderr)
        self.assertIn("Address already in use; end the other program or change", self.log())
        self.assertEqual([*self.directory.glob("*.pid")], [])
