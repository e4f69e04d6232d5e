"""The process kept in the namespace: ``python -m ntmobile.plugins.netns.helper STATE``.

It prints one line of JSON, ``{}`` or ``{"error": TEXT}``, and on success goes on in the background:
it makes sockets inside, sets addresses and routes, and hands over the TUN device and namespaces,
for the account it runs as. It has one thread and no reactor, and holds all capabilities in its own
namespaces and none outside. It ends when asked to (``shutdown``), and when its socket has vanished.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any, Final

from ntmobile.plugins import linux
from ntmobile.plugins.netns import channel, namespaces
from ntmobile.plugins.netns.channel import Message
from ntmobile.plugins.netns.etc import NameServices
from ntmobile.plugins.netns.permission import explain
from ntmobile.plugins.rtnetlink import RouteSocket
from ntmobile.plugins.tun_interface import TunInterface

#: The interface programs see inside.
INTERFACE: Final = "ntm0"
#: Seconds between two looks at whether the socket is still there.
CHECK: Final = 10.0

_LOOPBACK: Final = 1  # its index in every network namespace
_PEER: Final = struct.Struct("=iII")  # struct ucred

Answer = tuple[Message, tuple[int, ...]]


class Refused(Exception):
    """The system forbids the virtual network; the text is the line for the user."""


class Helper:
    """Answers requests about the namespaces of this process."""

    def __init__(self, state: Path) -> None:
        self.tun, self._names = _set_up(state)
        self._interface = TunInterface(INTERFACE)
        self._agent: socket.socket | None = None
        self.ended = False
        self._operations: dict[str, Callable[[socket.socket, Message], Answer]] = {
            "attach": self._attach,
            "configure": self._configure,
            "socket": self._socket,
            "enter": self._enter,
            "shutdown": self._shutdown,
        }

    def handle(self, connection: socket.socket, request: Message) -> Answer:
        """Do what is asked; give the answer and the descriptors that go with it."""
        if request.get("version") != channel.VERSION:
            return {"error": "the virtual network is of another version; run: ntm down"}, ()
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            return {"error": f"the virtual network cannot {request.get('op')!r}"}, ()
        try:
            return operation(connection, request)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            return {"error": f"the virtual network could not {request['op']}: {problem!r}"}, ()

    def _attach(self, connection: socket.socket, request: Message) -> Answer:
        """Give the TUN device to an agent; only one may read it."""
        if self._agent is not None:
            return {"error": "another agent has this virtual network; end it first: ntm down"}, ()
        self._agent = connection
        return {}, (self.tun,)

    def _configure(self, connection: socket.socket, request: Message) -> Answer:
        self._interface.configure(request["addresses"], request["routes"], request["mtu"])
        return {}, ()

    def _socket(self, connection: socket.socket, request: Message) -> Answer:
        made = socket.socket(request["family"], request["type"], request["protocol"])
        return {}, (made.detach(),)

    def _enter(self, connection: socket.socket, request: Message) -> Answer:
        self._names.refresh()
        return {}, namespaces.open_own()

    def _shutdown(self, connection: socket.socket, request: Message) -> Answer:
        self.ended = True
        return {}, ()

    def answer(self, connection: socket.socket) -> bool:
        """Read and answer one request; False when the conversation has ended."""
        try:
            received = channel.receive(connection)
            if received is None:
                return False
            request, strays = received
            for descriptor in strays:
                os.close(descriptor)
            message, descriptors = self.handle(connection, request)
            try:
                channel.send(connection, message, descriptors)
            finally:
                for descriptor in descriptors:
                    if descriptor != self.tun:
                        os.close(descriptor)
        except (OSError, ValueError):
            return False
        return True

    def forget(self, connection: socket.socket) -> None:
        """A conversation has ended: an agent may come again."""
        if connection is self._agent:
            self._agent = None

    @property
    def attached(self) -> bool:
        """Whether an agent is there."""
        return self._agent is not None


def _set_up(state: Path) -> tuple[int, NameServices]:
    """Make the namespaces, the TUN device and the view of ``/etc``; give device and view."""
    step = "a user and network namespace"
    names = NameServices()
    try:
        namespaces.isolate()
        step = "a TUN device in a network namespace"
        tun = linux.open_tun(INTERFACE)
        step = "the loopback interface of a network namespace"
        with RouteSocket() as kernel:
            kernel.set_up(_LOOPBACK)
        step = "an /etc of its own in a mount namespace"
        stage = tempfile.mkdtemp(prefix=".etc-", dir=state)
        names.build(Path(stage))
        os.rmdir(stage)  # never more than that: were it still mounted, /etc would be below it
    except OSError as problem:
        raise Refused(explain(problem, step)) from problem
    _permit()
    return tun, names


def _permit() -> None:
    """Let programs without capabilities send pings and listen on any port of this network."""
    for name, value in (
        ("ping_group_range", f"{os.getegid()} {os.getegid()}"),
        ("ip_unprivileged_port_start", "0"),
    ):
        # A container's read-only /proc/sys costs just these.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file,
        ):
            file.write(value)


def _listen(path: Path) -> socket.socket:
    """Open the socket for this account; one that a dead helper left is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with channel.short_path(path) as short:
        listener.bind(short)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def _same_account(connection: socket.socket) -> bool:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return bool(_PEER.unpack(peer)[1] == os.geteuid())


def serve(helper: Helper, listener: socket.socket, path: Path) -> None:
    """Answer until shut down, or until nobody can reach the socket any more."""
    identity = os.stat(path)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    while not helper.ended:
        ready = poll.poll(CHECK * 1000)
        if not ready and not helper.attached and not _is_at(path, identity):
            return
        for descriptor, _ in ready:
            if descriptor == listener.fileno():
                with contextlib.suppress(OSError):
                    accepted, _ = listener.accept()
                    accepted.settimeout(channel.TIMEOUT)
                    if _same_account(accepted):
                        connections[accepted.fileno()] = accepted
                        poll.register(accepted, select.POLLIN)
            elif not helper.answer(connections[descriptor]):
                poll.unregister(descriptor)
                connection = connections.pop(descriptor)
                helper.forget(connection)
                connection.close()
    if _is_at(path, identity):
        path.unlink()


def _is_at(path: Path, identity: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), identity)
    except OSError:
        return False


def _to_background(log: Path) -> None:
    """Leave the session, directory and streams of whoever started us."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, descriptor in ((0, null), (1, errors), (2, errors)):
        os.dup2(descriptor, number)


def main(arguments: list[str]) -> int:
    """Set up, say how it went, and serve in the background."""
    state = Path(arguments[0]).resolve()
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outcome: dict[str, Any] = {}
    try:
        helper = Helper(state)
        listener = _listen(state / channel.SOCKET)
    except Refused as problem:
        outcome = {"refused": str(problem)}
    except OSError as problem:
        outcome = {"error": str(problem)}
    sys.stdout.write(dumps(outcome) + "\n")
    sys.stdout.flush()
    if outcome:
        return 1
    _to_background(state / "netns.log")
    serve(helper, listener, state / channel.SOCKET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
