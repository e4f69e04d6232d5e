"""The agent's end of its control socket, on a real Unix socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from ntmobile.client.control import (
    LINE_LIMIT,
    SOCKET,
    Command,
    ControlPort,
    call,
    converse,
    listen_control,
)
from ntmobile.client.state import SETTINGS
from ntmobile.errors import (
    ConfigurationError,
    NotRegistered,
    NTMobileError,
    UnknownName,
    Unreachable,
)

Tell = Callable[[object], None]


class ControlSocketTests(TestCase):
    def setUp(self) -> None:
        """An agent with a few commands."""
        self.state = Path(mkdtemp())  # trial's own directories are too deep for some tests here
        self.addCleanup(FilePath(str(self.state)).remove)
        self.ports: list[ControlPort] = []
        self.addCleanup(self._close)
        self.hanging: list[Deferred[None]] = []
        self.cancelled = 0
        self.listen(self.state)

    def listen(self, state: Path) -> ControlPort:
        """Open the socket."""
        port = listen_control(reactor, state, self.commands())
        self.ports.append(port)
        return port

    async def _close(self) -> None:
        for port in self.ports:
            await port.stopListening()

    def commands(self) -> dict[str, Command]:
        """What the agent can do."""

        async def echo(parameters: Mapping[str, Any], tell: Tell) -> object:
            return {key: value for key, value in parameters.items() if key != "command"}

        async def count(parameters: Mapping[str, Any], tell: Tell) -> object:
            for number in range(int(parameters["to"])):
                tell(number)
            return "done"

        async def unknown(parameters: Mapping[str, Any], tell: Tell) -> object:
            raise UnknownName("nobody is called so")

        async def fault(parameters: Mapping[str, Any], tell: Tell) -> object:
            raise ZeroDivisionError("a fault")

        async def unspeakable(parameters: Mapping[str, Any], tell: Tell) -> object:
            return object()

        async def hang(parameters: Mapping[str, Any], tell: Tell) -> object:
            waiting: Deferred[None] = Deferred(self._cancel)
            self.hanging.append(waiting)
            await waiting
            return "released"

        return {
            "echo": echo,
            "count": count,
            "unknown": unknown,
            "fault": fault,
            "unspeakable": unspeakable,
            "hang": hang,
        }

    def _cancel(self, waiting: object) -> None:
        self.cancelled += 1

    async def ask(self, command: str, **parameters: Any) -> Any:
        """Ask as a command does, in another thread."""
        return await deferToThread(call, self.state, command, 5.0, **parameters)

    async def raw(self, data: bytes) -> list[Any]:
        """Send bytes; the one line that comes back, or none where the agent closes."""

        def exchange() -> list[Any]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.state / SOCKET))
                connection.settimeout(5.0)
                try:
                    connection.sendall(data)
                    with connection.makefile("rb") as lines:
                        line = lines.readline()
                except ConnectionError:
                    line = b""
                return [json.loads(line)] if line else []

        found: list[Any] = await deferToThread(exchange)
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        raise self.failureException("it did not happen within five seconds")

    async def test_result(self) -> None:
        """A command gets its parameters, and its result goes back."""
        self.assertEqual(
            await self.ask("echo", name="phone", number=3), {"name": "phone", "number": 3}
        )

    async def test_events(self) -> None:
        """Events come before the result, in order."""
        found = await deferToThread(lambda: list(converse(self.state, "count", 5.0, to=4)))
        self.assertEqual(found, [0, 1, 2, 3, "done"])

    async def test_error(self) -> None:
        """What went wrong is raised at the command, as the error it was."""
        with self.assertRaisesRegex(UnknownName, "nobody is called so"):
            await self.ask("unknown")

    async def test_wrong_commands(self) -> None:
        """A command that does not exist, and lines that are none, are told so; nothing breaks."""
        with self.assertRaisesRegex(NTMobileError, "does not know this command"):
            await self.ask("no-such-thing")
        deep = b"[" * 20_000 + b"\n"
        lines = (b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'"echo"\n', b'{"command": ["echo"]}\n')
        for line in (*lines, b'{"command": null}\n', b"\xff\xfe\n", deep):
            (answer,) = await self.raw(line)
            self.assertEqual(answer["error"], "the agent does not know this command")
        self.assertEqual(await self.ask("echo"), {})

    async def test_too_long(self) -> None:
        """A line without end is cut off."""
        self.assertEqual(await self.raw(b"x" * (LINE_LIMIT + 1)), [])
        self.assertEqual(await self.ask("echo"), {})

    async def test_faults(self) -> None:
        """A fault of the agent's is logged, and told without its innards."""
        for command, kind in (("fault", ZeroDivisionError), ("unspeakable", TypeError)):
            with self.assertRaisesRegex(NTMobileError, "a fault of its own"):
                await self.ask(command)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    async def test_command_that_ends(self) -> None:
        """When a command is ended, so is what it had asked for; silently."""

        def ask_and_leave() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.state / SOCKET))
                connection.sendall(b'{"command": "hang"}\n')
                os.read(self.signal[0], 1)

        self.signal = os.pipe()
        leaving = deferToThread(ask_and_leave)
        await self.until(lambda: bool(self.hanging))
        os.write(self.signal[1], b"x")
        await leaving
        await self.until(lambda: self.cancelled == 1)
        for descriptor in self.signal:
            os.close(descriptor)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_one_at_a_time(self) -> None:
        """A connection has one command at a time; other connections have theirs."""

        def two() -> list[Any]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.state / SOCKET))
                connection.settimeout(5.0)
                connection.sendall(b'{"command": "hang"}\n{"command": "echo"}\n')
                with connection.makefile("rb") as lines:
                    return [json.loads(lines.readline()), json.loads(lines.readline())]

        asking = deferToThread(two)
        await self.until(lambda: bool(self.hanging))
        self.assertEqual(await self.ask("echo"), {})
        self.hanging[0].callback(None)
        found = await asking
        self.assertEqual(
            found,
            [
                {"error": "one command at a time, please", "kind": "NTMobileError"},
                {"result": "released"},
            ],
        )

    async def test_one_after_the_other(self) -> None:
        """A connection may ask again when it was answered."""

        def two() -> list[Any]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.state / SOCKET))
                connection.settimeout(5.0)
                with connection.makefile("rb") as lines:
                    found = []
                    for number in range(2):
                        request = {"command": "echo", "number": number}
                        connection.sendall(json.dumps(request).encode() + b"\n")
                        found.append(json.loads(lines.readline()))
                    return found

        found = await deferToThread(two)
        self.assertEqual(found, [{"result": {"number": 0}}, {"result": {"number": 1}}])

    async def test_silent_agent(self) -> None:
        """An agent that does not answer is given up in time."""
        with self.assertRaisesRegex(Unreachable, "did not answer within 0.2 s"):
            await deferToThread(call, self.state, "hang", 0.2)

    def test_no_agent(self) -> None:
        """Where no agent runs, the error says how to start one, or to enroll first."""
        state = self.state / "other"
        with self.assertRaisesRegex(NotRegistered, "is not there; check --state"):
            call(state, "status")
        state.mkdir()
        with self.assertRaisesRegex(NotRegistered, "see ntm enroll"):
            call(state, "status")
        (state / SETTINGS).touch()
        with self.assertRaisesRegex(Unreachable, "ntm up --state"):
            call(state, "status")

    def test_two_agents(self) -> None:
        """A second agent for the same state directory says so, and leaves the first alone."""
        with self.assertRaisesRegex(ConfigurationError, "an agent is running already"):
            listen_control(reactor, self.state, {})
        self.assertTrue((self.state / SOCKET).exists())

    async def test_after_a_crash(self) -> None:
        """A socket that a killed agent left behind is in nobody's way."""
        state = self.state / "crashed"
        state.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(state / SOCKET))
        self.listen(state)
        self.assertEqual(await deferToThread(call, state, "echo", 5.0), {})

    def test_private(self) -> None:
        """R6: nobody but the owner may speak to the agent."""
        mode = (self.state / SOCKET).stat().st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    async def test_deep_directory(self) -> None:
        """A state directory may be deeper than a socket's name may be long."""
        state = self.state
        for _ in range(4):
            state = state / ("d" * 60)
        state.mkdir(parents=True)
        port = self.listen(state)
        self.assertTrue((state / SOCKET).exists())
        self.assertEqual(await deferToThread(call, state, "echo", 5.0), {})
        with self.assertRaises(ConfigurationError):
            listen_control(reactor, state, {})
        self.ports.remove(port)
        await port.stopListening()
        self.assertFalse((state / SOCKET).exists())
        with self.assertRaises(NotRegistered):
            call(state, "echo")
