"""The tests' end of the supervisor: requests as Deferreds, and whether a lab is possible here."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

#: The directory that holds the package ``ntmobile``.
ROOT = Path(__file__).resolve().parents[2]

#: The directory of the scripts that run inside hosts.
TOOLS = Path(__file__).resolve().parent / "tools"

#: What a lab cannot do without: command → Debian package.
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "ping": "iputils-ping"}

#: Where those commands are, also for accounts whose PATH has no sbin.
SEARCH_PATH = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
)


class LabError(Exception):
    """The lab could not do what a test asked; the text has the command and its output."""


class ProgramMissing(LabError):
    """A program that this part of a lab runs is not installed; the text names it."""


@implementer(IReadDescriptor)
@define(eq=False)
class Supervision:
    """A connection to a supervisor process.

    It is registered with the reactor only while an answer is awaited, so that a lab shared by
    many tests leaves no selectable behind for trial to complain about.
    """

    _reactor: IReactorFDSet
    _process: subprocess.Popen[bytes]
    _socket: socket.socket
    _pending: dict[int, Deferred[Any]] = field(factory=dict)
    _last: int = 0
    _received: bytes = b""

    @classmethod
    def start(cls, reactor: ReactorBase, directory: Path) -> Supervision:
        """Start a supervisor that logs to ``directory``."""
        ours, theirs = socket.socketpair()
        with theirs, (directory / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ntmobile.lab.supervisor",
                    str(theirs.fileno()),
                    str(directory),  # only so that ps shows whose it is
                ],
                cwd=ROOT,
                env={**os.environ, "PATH": SEARCH_PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the tests, which then close the lab
            )
        return cls(IReactorFDSet(reactor), process, ours)

    def call(self, operation: str, **arguments: Any) -> Deferred[Any]:
        """Send a request; fires with its result or fails with :exc:`LabError`."""
        if self._socket.fileno() < 0:
            return fail(LabError(f"the lab is closed: {operation}"))
        self._last += 1
        identifier = self._last
        line = json.dumps({"id": identifier, "op": operation, **arguments}) + "\n"
        try:
            self._socket.sendall(line.encode())
        except OSError as problem:
            return fail(LabError(f"the supervisor is gone: {operation}: {problem}"))
        answer: Deferred[Any] = Deferred(lambda _: self._cancel(identifier))
        if not self._pending:
            self._reactor.addReader(self)
        self._pending[identifier] = answer
        return answer

    def close(self) -> None:
        """End the supervisor and with it all it runs; returns when it is gone."""
        self._reactor.removeReader(self)
        self._socket.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _forget(self, identifier: int) -> Deferred[Any] | None:
        answer = self._pending.pop(identifier, None)
        if not self._pending:
            self._reactor.removeReader(self)
        return answer

    def _cancel(self, identifier: int) -> None:
        self._forget(identifier)  # the answer, if it comes, is for nobody

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "lab"

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        data = self._socket.recv(1 << 16)
        if not data:
            self.connectionLost(Failure(LabError("the supervisor has ended; see supervisor.log")))
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            answer = self._forget(message["id"])
            if answer is None:
                continue  # cancelled meanwhile
            if "error" in message:
                answer.errback(LabError(message["error"]))
            else:
                answer.callback(message["result"])

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``: the lab is gone."""
        self._reactor.removeReader(self)
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            answer.errback(reason)


_PROBE = """
import errno, os, sys
from ntmobile.lab import kernel, namespaces
try:
    namespaces.enter_user_namespace()
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    kernel.keep_capabilities_over_exec()
except OSError as problem:
    full = problem.errno == errno.ENOSPC
    sys.exit("the limit user.max_user_namespaces is reached" if full else str(problem))
os.execvp("sh", ["sh", "-ec", sys.argv[1]])
"""

_PROBE_STEPS = """
ip link add probe type veth peer name other
echo 'table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }' | nft -f -
test -w /proc/sys/net/ipv4/ip_forward || { echo /proc/sys/net is read-only; exit 1; }
test -w /dev/net/tun || { echo /dev/net/tun cannot be opened; exit 1; }
"""


@functools.cache
def lab_unavailable() -> str | None:
    """Say why no lab can be made on this system, or None; the answer is found by trying."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=SEARCH_PATH) is None:
            return f"the lab needs the command {program} (Debian package {package})"
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, _PROBE_STEPS],
        cwd=ROOT,
        env={**os.environ, "PATH": SEARCH_PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == 0:
        return None
    said = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"this system does not permit unprivileged network namespaces with NAT: {said[0]}"
