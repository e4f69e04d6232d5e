"""The agent's control socket: JSON, a line a message, in its private state directory.

A request is ``{"command": NAME, ...}``; any number of ``{"event": ...}`` lines may come, then
``{"result": ...}`` or ``{"error": TEXT, "kind": CLASS}``. Who may open the socket is who may enter
the directory: its owner.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ntmobile import errors
from ntmobile.client.state import SETTINGS
from ntmobile.errors import ConfigurationError, NotRegistered, NTMobileError, Unreachable
from ntmobile.wire.text import printable

log = Logger()

#: Name of the socket in the state directory.
SOCKET: Final = "agent.sock"
#: Longest request, in bytes; answers may be longer.
LINE_LIMIT: Final = 65536

#: Serves one command: its parameters, and a function to tell events with.
Command = Callable[[Mapping[str, Any], Callable[[object], None]], Awaitable[object]]


class ControlProtocol(LineOnlyReceiver):
    """One connection of a command."""

    delimiter = b"\n"
    MAX_LENGTH = LINE_LIMIT

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._running: Deferred[None] | None = None

    def lineReceived(self, line: bytes) -> None:
        """One request; a connection has one at a time."""
        if self._running is not None:
            self._write(_error("one command at a time, please"))
            return
        running = Deferred.fromCoroutine(self._run(line))
        running.addErrback(lambda failure: failure.trap(CancelledError))
        self._running = None if running.called else running

    async def _run(self, line: bytes) -> None:
        name: object = None
        try:
            try:
                request = json.loads(line)
                name = request["command"]
                command = self._commands[request["command"]]
            except (ValueError, KeyError, TypeError, RecursionError):
                self._write(_error("the agent does not know this command"))
                return
            result = await command(request, lambda event: self._write({"event": event}))
            self._write({"result": result})
        except NTMobileError as problem:
            self._write(_error(str(problem), type(problem).__name__))
        except CancelledError:  # whoever asked is gone
            raise
        except Exception:
            log.failure("the command {command} failed", command=name)
            self._write(_error("the agent met a fault of its own; its log says more"))
        finally:
            self._running = None

    def _write(self, message: object) -> None:
        if self.transport is not None and self.connected:
            self.transport.write(json.dumps(message).encode() + b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The command was ended: so is what it asked for."""
        running, self._running = self._running, None
        self.connected = 0
        if running is not None:
            running.cancel()


def _error(text: str, kind: str = "NTMobileError") -> dict[str, str]:
    return {"error": text, "kind": kind}


class ControlPort:
    """The listening control socket.

    :param directory: descriptor of the state directory; the socket's path goes by it.
    """

    def __init__(self, listening: Any, directory: int) -> None:
        self._listening = listening
        self._directory = directory

    async def stopListening(self) -> None:
        """Close it, and remove its file."""
        try:
            await maybeDeferred(self._listening.stopListening)
        finally:
            os.close(self._directory)


def listen_control(reactor: Any, state: Path, commands: Mapping[str, Command]) -> ControlPort:
    """Open the control socket.

    :raises ConfigurationError: another agent serves this state directory.
    """
    path = state / SOCKET
    try:
        with connect(path):
            raise ConfigurationError(f"an agent is running already for {state}; see ntm status")
    except (NotRegistered, Unreachable):
        path.unlink(missing_ok=True)
    factory = Factory.forProtocol(lambda: ControlProtocol(commands))
    factory.noisy = False
    before = os.umask(0o177)
    directory = os.open(state, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        listening = reactor.listenUNIX(_short(path, directory), factory, mode=0o600)
    except BaseException:
        os.close(directory)
        raise
    finally:
        os.umask(before)
    return ControlPort(listening, directory)


def _short(path: Path, directory: int) -> str:
    """A name that fits the 108 bytes of sun_path, however deep the open directory is."""
    text = str(path)
    return text if len(os.fsencode(text)) <= 100 else f"/proc/self/fd/{directory}/{path.name}"


def connect(path: Path) -> socket.socket:
    """Connect to a control socket.

    :raises Unreachable: nobody listens there. :raises NotRegistered: nor ever did.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(path.parent, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            connection.connect(_short(path, directory))
        finally:
            os.close(directory)
    except OSError:
        connection.close()
        raise no_agent(path.parent) from None
    return connection


def no_agent(state: Path) -> NTMobileError:
    """Why no agent answers for a state directory, and what to do."""
    if not state.is_dir():
        what = "no directory" if state.exists() else "not there"
        return NotRegistered(f"{state} is {what}; check --state, or see ntm enroll")
    if not (state / SETTINGS).exists():
        return NotRegistered(f"{state}: no device is enrolled here; see ntm enroll")
    text = f"no agent is running for {state}"
    return Unreachable(f"{text}; start it with: {shlex.join(['ntm', 'up', '--state', str(state)])}")


def converse(state: Path, command: str, timeout: float = 30.0, **parameters: Any) -> Iterator[Any]:
    """Ask the agent, from a command: yields its events, then the result as the last.

    :raises NTMobileError: what the agent says went wrong, as the error it was.
    """
    with connect(state / SOCKET) as connection:
        connection.settimeout(timeout)
        with connection.makefile("rb") as lines:
            try:
                connection.sendall(json.dumps({"command": command, **parameters}).encode() + b"\n")
                for line in lines:
                    message = _plain(json.loads(line))
                    if "event" in message:
                        yield message["event"]
                    elif "result" in message:
                        yield message["result"]
                        return
                    else:
                        raise error_of(message)
            except TimeoutError:
                raise Unreachable(f"the agent did not answer within {timeout:g} s") from None
            except ConnectionError:
                pass  # it was going down just then
    raise Unreachable("the agent ended before it answered")


def _plain(value: Any) -> Any:
    """A value for a terminal: its texts, which may come from afar, without control characters."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {key: _plain(one) for key, one in value.items()}
    return value


def call(state: Path, command: str, timeout: float = 30.0, **parameters: Any) -> Any:
    """Ask the agent for one result; see :func:`converse`."""
    *_, result = converse(state, command, timeout, **parameters)
    return result


def error_of(message: Mapping[str, Any]) -> NTMobileError:
    """The error in an agent's answer, as the class that it was there."""
    kind = getattr(errors, str(message.get("kind")), NTMobileError)
    text = str(message.get("error", "the agent said nothing"))
    error: NTMobileError = kind(text)
    return error
