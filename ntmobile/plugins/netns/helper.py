"""The process kept in the namespace: ``python -m ntmobile.plugins.netns.helper STATE``.

It prints one line of JSON, ``{}``, ``{"refused": TEXT}`` or ``{"error": TEXT}``, and on success
goes on in the background, in a session of its own. It serves the account it runs as, through the
socket in the state directory; it has one thread and no reactor, and holds all capabilities in its
own namespaces and none outside. It ends when asked to (``shutdown``), at SIGTERM, and some time
after its socket has been removed, because then nobody can reach it any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from ntmobile.plugins.netns import channel
from ntmobile.plugins.netns.channel import Message
from ntmobile.plugins.netns.inside import Answer, Refused, VirtualNetwork

#: Its standard error in the state directory.
LOG: Final = "netns.log"

#: Seconds between two looks at whether the socket is still there.
CHECK: Final = 5.0
_PEER: Final = struct.Struct("=iII")  # struct ucred: process, user, group


class Service:
    """The socket, and the conversations over it."""

    def __init__(self, path: Path, network: VirtualNetwork, check: float = CHECK) -> None:
        """Open the socket; one that a dead helper left is replaced."""
        self._check = check
        self._path = path
        self._network = network
        self._connections: dict[int, socket.socket] = {}
        self._agent: socket.socket | None = None
        self._ended = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with channel.short_path(path) as short:
            self._listener.bind(short)
        self._identity = os.stat(path)
        self._listener.listen(16)
        self._listener.setblocking(False)

    def run(self) -> None:
        """Answer until the end; conversations end with it."""
        try:
            self._serve()
        finally:
            for descriptor in list(self._connections):
                self._forget(descriptor)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not self._ended:
            ready = poll.poll(self._check * 1000)
            if not ready and self._agent is None and not self._reachable():
                return
            for descriptor, _ in ready:
                if descriptor == self._listener.fileno():
                    accepted = self._accept()
                    if accepted is not None:
                        poll.register(accepted, select.POLLIN)
                elif not self._converse(self._connections[descriptor]):
                    poll.unregister(descriptor)
                    self._forget(descriptor)

    def end(self) -> None:
        """Take no more requests; the next helper may have the place."""
        self._ended = True
        if self._reachable():
            self._path.unlink()
        self._listener.close()

    def _reachable(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), self._identity)
        except OSError:
            return False

    def _accept(self) -> socket.socket | None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return None
        peer = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] != os.geteuid():
            accepted.close()
            return None
        accepted.settimeout(channel.TIMEOUT)
        self._connections[accepted.fileno()] = accepted
        return accepted

    def _forget(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)
        if connection is self._agent:
            self._agent = None
        connection.close()

    def _converse(self, connection: socket.socket) -> bool:
        """Read and answer one request; False when the conversation has ended."""
        try:
            received = channel.receive(connection)
            if received is None:
                return False
            request, strays = received
            for descriptor in strays:
                os.close(descriptor)
            message, descriptors = self._answer(connection, request)
            try:
                channel.send(connection, message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except (OSError, ValueError):
            return False
        return True

    def _answer(self, connection: socket.socket, request: Message) -> Answer:
        operation = request.get("op")
        if operation == "shutdown":
            self.end()
            return {}, ()
        if request.get("version") != channel.VERSION:
            return {"error": "the virtual network is of another version; run ntm down, ntm up"}, ()
        if operation not in self._network.operations:
            return {"error": f"the virtual network knows no {operation!r}"}, ()
        if operation == "attach":
            # Two readers of one device would each get a part of the packets.
            if self._agent is not None:
                return {"error": "another agent has this virtual network; run ntm down first"}, ()
            self._agent = connection
        try:
            return self._network.operations[operation](request)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            return {"error": f"the virtual network could not {operation}: {problem}"}, ()


def _to_background() -> None:
    """Go on as an orphan in a session of its own."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")


def _leave_streams(log: Path) -> None:
    """Let go of the streams of whoever started us, which tells them that all is said."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for number, descriptor in ((0, null), (1, errors), (2, errors)):
        os.dup2(descriptor, number)


def _say(outcome: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Set up, say how it went, and serve in the background."""
    state = Path(arguments[0]).resolve()
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        network = VirtualNetwork.make(state)
        _to_background()
        service = Service(state / channel.SOCKET, network)
    except Refused as problem:
        _say({"refused": str(problem)})
        return 1
    except OSError as problem:
        _say({"error": str(problem)})
        return 1
    _say({})
    _leave_streams(state / LOG)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        service.run()
    finally:
        service.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
