"""The process that owns a lab: it makes the namespaces and runs every program inside them.

``python -m ntmobile.lab.supervisor FD`` speaks JSON lines over the Unix socket ``FD`` (see
:mod:`ntmobile.lab.supervision` for the other end): a request is ``{"id", "op", ...}``, its answer
``{"id", "result"}`` or ``{"id", "error"}``. Answers may come out of order: ``wait`` answers when
the process has ended. When the socket closes, or a process at either end of it dies, the
whole lab is gone. It removes no file: it sees mounts that the tests do not.

It is single-threaded and imports little on purpose. One user namespace holds everything; one pid
namespace, where the system lets us mount its ``/proc``, makes the kernel end every program with us.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ntmobile.lab import kernel
from ntmobile.lab.namespaces import (
    HostNamespaces,
    enter_host,
    enter_user_namespace,
    hide_name_services,
    mount_proc,
    own_pids_permitted,
)

#: Seconds a command of the set-up (``ip``, ``nft``) may take.
SETUP_TIMEOUT = 20.0

#: In the input of a set-up command, stands for a path of that host's network namespace.
_NAMESPACE_REFERENCE = re.compile(r"\{netns:([^}]+)\}")

Request = dict[str, Any]


class _Child:
    """A program that runs, or ran, in a host."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.waiters: list[int] = []


class Supervisor:
    """Answers the requests of one lab."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._home = HostNamespaces()
        self._hosts: dict[str, HostNamespaces] = {}
        self._children: dict[int, _Child] = {}
        self._operations: dict[str, Callable[[Request], Any]] = {
            "add_host": self._add_host,
            "remove_host": self._remove_host,
            "write": self._write,
            "configure": self._configure,
            "spawn": self._spawn,
            "signal": self._signal,
            "poll": self._poll,
        }

    # Hosts.

    def _add_host(self, request: Request) -> None:
        """Make namespaces; the files in the directory ``etc`` go before the machine's."""
        name = request["name"]
        self._hosts[name] = HostNamespaces.make(name, request["etc"])

    def _remove_host(self, request: Request) -> None:
        self._hosts.pop(request["name"]).close()

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        """Do something in a host's network without a process of its own."""
        kernel.setns(self._hosts[name].network, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(self._home.network, kernel.CLONE_NEWNET)

    def _write(self, request: Request) -> None:
        """Write kernel settings (``[path, text]`` pairs; files under ``/proc/sys/net``)."""
        with self._inside(request["host"]):
            for path, text in request["settings"]:
                try:
                    with open(path, "w", encoding="ascii") as file:
                        file.write(text)
                except OSError as problem:
                    raise RuntimeError(f"{path} = {text}: {problem}") from None

    def _configure(self, request: Request) -> str:
        """Run privileged commands, each ``[host, argv, input]``, in order; join their output."""
        output = []
        for name, argv, text in request["steps"]:
            host = self._hosts[name]
            others: set[int] = set()

            def reference(match: re.Match[str], others: set[int] = others) -> str:
                descriptor = self._hosts[match[1]].network
                others.add(descriptor)
                return f"/proc/self/fd/{descriptor}"

            given = _NAMESPACE_REFERENCE.sub(reference, text)
            done = subprocess.run(
                argv,
                input=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SETUP_TIMEOUT,
                pass_fds=others,
                preexec_fn=functools.partial(enter_host, host, "/", privileged=True),
                check=False,
            )
            if done.returncode != 0:
                shown = f"{name}: {' '.join(argv)} ended with {done.returncode}: {done.stdout}"
                raise RuntimeError(f"{shown}\n{text}")
            output.append(done.stdout)
        return "".join(output)

    # Programs.

    def _spawn(self, request: Request) -> dict[str, int]:
        """Start a program with its standard streams in files; answer its number and pid."""
        host = self._hosts[request["host"]]
        report, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _redirect(request["stdin"], request["stdout"], request["stderr"])
                os.setsid()
                enter_host(host, request["cwd"], privileged=request["privileged"])
                for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(ignored_by_python, signal.SIG_DFL)
                argv = request["argv"]
                os.execvpe(argv[0], argv, request["env"])
            except BaseException as problem:
                os.write(told, str(problem).encode())
            finally:
                os._exit(127)
        os.close(told)
        with open(report, encoding="utf-8") as file:
            problem_text = file.read()
        if problem_text:
            os.waitpid(pid, 0)
            raise RuntimeError(f"{request['host']}: {request['argv'][0]}: {problem_text}")
        number = len(self._children) + 1
        self._children[number] = _Child(pid)
        return {"number": number, "pid": pid}

    def _signal(self, request: Request) -> bool:
        """Signal a program (and its process group, on demand); say whether it was still there."""
        child = self._children[request["number"]]
        if child.status is not None:
            return False
        send = os.killpg if request["group"] else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(child.pid, request["signal"])
        return True

    def _poll(self, request: Request) -> int | None:
        """Answer the exit status (negative: the signal that ended it), or None while it runs."""
        return self._children[request["number"]].status

    def _reap(self) -> None:
        """Collect who has ended, orphans included, and tell those who wait."""
        ended: dict[int, int] = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
        for child in self._children.values():
            if child.status is None and child.pid in ended:
                child.status = ended[child.pid]
                for identifier in child.waiters:
                    self._answer(identifier, result=child.status)
                child.waiters.clear()

    # Requests.

    def _answer(self, identifier: int, **answer: Any) -> None:
        line = json.dumps({"id": identifier, **answer}) + "\n"
        self._control.sendall(line.encode())

    def _handle(self, request: Request) -> None:
        identifier = request["id"]
        if request["op"] == "wait":
            child = self._children[request["number"]]
            if child.status is None:
                child.waiters.append(identifier)
            else:
                self._answer(identifier, result=child.status)
            return
        try:
            result = self._operations[request["op"]](request)
        except Exception as problem:
            self._answer(identifier, error=f"{type(problem).__name__}: {problem}")
        else:
            self._answer(identifier, result=result)

    def serve(self) -> None:
        """Answer until the other end closes."""
        wakeup, waker = socket.socketpair()
        for end in (wakeup, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        pending = b""
        while True:
            readable, _, _ = select.select([self._control, wakeup], [], [])
            if wakeup in readable:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
                self._reap()
            if self._control in readable:
                data = self._control.recv(1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))


def _redirect(stdin: str, stdout: str, stderr: str) -> None:
    """Open the standard streams of a program, before it changes to the host's view of files."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, flags in ((0, stdin, os.O_RDONLY), (1, stdout, append), (2, stderr, append)):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)


def _kill_descendants() -> None:
    """End all that is left, where no pid namespace does it: orphans come to us, the subreaper."""
    while True:
        children = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{int(entry)}/stat", encoding="utf-8") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                if parent == os.getpid():
                    children.append(int(entry))
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _run(control: socket.socket, *, own_pids: bool) -> None:
    """Be the lab: as process 1 of a pid namespace, or as subreaper."""
    kernel.die_with_parent(signal.SIGKILL)
    if own_pids:
        mount_proc()
    else:
        kernel.adopt_orphans()
    # Mounts are made in a mount namespace of this process and its children alone, so that no
    # other process, least of all one that removes files, ever sees them.
    kernel.unshare(kernel.CLONE_NEWNS)
    hide_name_services()
    try:
        Supervisor(control).serve()
    finally:
        if not own_pids:
            _kill_descendants()


def main(descriptor: int) -> int:
    """Make the outer namespaces and serve the socket; returns the exit status."""
    control = socket.socket(fileno=descriptor)
    enter_user_namespace()
    own_pids = own_pids_permitted()
    outer = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
    kernel.unshare(outer | (kernel.CLONE_NEWPID if own_pids else 0))
    child = os.fork()
    if child == 0:
        try:
            _run(control, own_pids=own_pids)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    control.close()
    # The tests may die at any moment and by any means; the lab is to go with them.
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, signal.SIGKILL))
    kernel.die_with_parent(signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
