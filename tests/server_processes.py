"""Real server processes on loopback, for tests of commands and of starting and stopping."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import ntmobile
from ntmobile.servers.passwords import hash_password
from ntmobile.servers.realm import Realm
from tests.platforms import HOST, free_port

DC1 = "dc1.ntm.example"
PASSWORD = "a secret that no log may have"
TWISTD = "from twisted.scripts.twistd import run; run()"
NTM = "from ntmobile.commands.main import main; main(prog_name='ntm')"
#: Seconds that anything here may take on a busy machine.
PATIENCE = 30.0


def environment() -> dict[str, str]:
    """The environment of a process that imports this very ntmobile."""
    root = str(Path(ntmobile.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def python(program: str, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end."""
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class ServerProcess:
    """A twistd in the foreground; what it prints is its log.

    :param before: words before its command, of a program that becomes it.
    """

    def __init__(self, plugin: str, config: Path, before: Sequence[str] = ()) -> None:
        words = ["--nodaemon", "--pidfile=", plugin, f"--config={config}"]
        self.log = b""
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", TWISTD, *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def expect(self, text: str) -> None:
        """Read its log until a text is in it."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while text.encode() not in self.log:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise AssertionError(f"no {text!r} in {self.log.decode()}")
                data = self.process.stdout.read()
                if data == b"":
                    raise AssertionError(f"it ended: {self.log.decode()}")
                self.log += data or b""

    def stop(self) -> str:
        """End it; its whole log."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        stdout = self.process.stdout
        if stdout is not None and not stdout.closed:
            self.log += stdout.read() or b""
            stdout.close()
        return self.log.decode()


class LoginServers:
    """A realm on loopback with its AS and one DC as processes, and the user alice.

    :ivar dc: address of the DC, as ``--dc`` takes it.
    """

    def __init__(self, directory: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.realm = Realm.create(directory, "ntm.example", [HOST], free_port())
        port = free_port()
        self.dc = f"{HOST}:{port}"
        self.realm.add_coordinator(DC1, [HOST], port, free_port())
        accounts = self.realm.accounts()
        accounts.add_user(f"alice.{DC1}", hash_password(PASSWORD))
        accounts.close()
        self.servers = [
            ServerProcess("ntm-as", directory / "as.toml"),
            ServerProcess("ntm-dc", directory / DC1 / "dc.toml"),
        ]

    def wait(self) -> None:
        """Wait until devices can log in."""
        self.servers[1].expect("linked to the account server")

    def stop(self) -> str:
        """End the processes; their logs."""
        return "".join(server.stop() for server in self.servers)
