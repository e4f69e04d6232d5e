"""The conversation with the process in the namespace: JSON and descriptors over a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ntmobile.errors import NotRegistered, NTMobileError

#: Name of the socket in the state directory.
SOCKET: Final = "netns.sock"
#: Changes when a helper of an older version would misunderstand; it outlives upgrades.
VERSION: Final = 1

#: Bytes of one message; requests list a few addresses and routes.
LIMIT: Final = 1 << 16
#: Descriptors in one message: three namespaces.
_DESCRIPTORS: Final = 3
#: Seconds the helper may take for an answer; it takes about one millisecond.
TIMEOUT: Final = 5.0

Message = dict[str, Any]


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a path to a socket that fits ``sun_path`` (108 bytes) however deep its directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def send(connection: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message with copies of these descriptors."""
    socket.send_fds(connection, [json.dumps(message).encode()], descriptors)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message and the descriptors with it (closed on exec), or None at the end.

    :raises ValueError: that was no message; its descriptors are closed.
    """
    data, descriptors, flags, _ = socket.recv_fds(
        connection, LIMIT, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        return None
    try:
        message = json.loads(data)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(message, dict):
            raise ValueError("truncated, or no object")
    except (ValueError, RecursionError) as problem:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError(f"no message: {problem}") from None
    return message, descriptors


class ChannelLost(NTMobileError):
    """The process that keeps the virtual network has ended, or does not answer any more."""


class Channel:
    """The side of those who ask: each request waits for its answer (about one millisecond).

    The helper says nothing of its own accord, so a socket that becomes readable between requests
    has ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(TIMEOUT)

    @classmethod
    def connect(cls, state: Path) -> Channel:
        """Connect to the helper that keeps this state directory's network.

        :raises NotRegistered: there is none.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with short_path(state / SOCKET) as path:
                connection.settimeout(TIMEOUT)
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as problem:
            connection.close()
            raise NotRegistered(
                f"no virtual network runs in {state}; start the agent: ntm up --state {state}"
            ) from problem
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def request(self, operation: str, **arguments: Any) -> tuple[Message, list[int]]:
        """Ask for something; gives the answer and the descriptors with it, now the caller's.

        :raises ChannelLost: the helper has ended, or does not answer; this is of no more use.
        :raises NTMobileError: it could not be done.
        """
        try:
            send(self._connection, {"op": operation, "version": VERSION, **arguments})
            answer = receive(self._connection)
        except (OSError, ValueError) as problem:
            raise ChannelLost(f"the process of the virtual network is lost: {problem}") from problem
        if answer is None:
            raise ChannelLost("the process that keeps the virtual network has ended")
        message, descriptors = answer
        if "error" in message:
            raise NTMobileError(str(message["error"]))
        return message, descriptors

    def fileno(self) -> int:
        """The socket's descriptor, or -1 once closed."""
        return self._connection.fileno()

    def close(self) -> None:
        """End the conversation; the helper stays."""
        self._connection.close()


def end(state: Path) -> bool:
    """End the virtual network of a state directory, with or without an agent; False if none was."""
    try:
        channel = Channel.connect(state)
    except NotRegistered:
        return False
    try:
        channel.request("shutdown")
    except ChannelLost:
        return False
    finally:
        channel.close()
    return True
