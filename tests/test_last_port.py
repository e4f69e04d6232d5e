"""The UDP port that an agent takes again after a restart."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.agent import Agent
from ntmobile.client.last_port import load_port, save_port
from ntmobile.client.opening import make_node
from ntmobile.client.settings import load_settings
from ntmobile.client.state import PORT
from ntmobile.errors import NotPermittedHere
from tests.platforms import PlatformTestCase, free_port


class LastPortTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        """A state directory."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.file = directory / PORT

    def test_round_trip(self) -> None:
        """What was kept is there again."""
        save_port(self.file, 40000)
        self.assertEqual(load_port(self.file), 40000)

    def test_damaged(self) -> None:
        """A file that is not there or is damaged is no port, and hinders nothing."""
        self.assertEqual(load_port(self.file), 0)
        for data in (b"", b"x", b"\xff", b"-1", b"80", b"65536", b"9" * 5000):
            self.file.write_bytes(data)
            self.assertEqual(load_port(self.file), 0, data)

    def test_unwritable(self) -> None:
        """Where it cannot be written the agent goes on."""
        save_port(self.file.parent / "nonesuch" / PORT, 40000)


class NoNetwork:
    """No virtual network: for an agent that is only to have its sockets."""

    def open(self, *arguments: object) -> Deferred[Any]:
        """Refuse."""
        return fail(NotPermittedHere("not here"))


class RestartTests(PlatformTestCase):
    """Agents of one state directory, one after another."""

    async def ports(self, state: Path) -> dict[int, int]:
        """The ports of an agent, which is ended again."""
        node = make_node(state, load_settings(state), reactor)
        refusing: Any = NoNetwork()
        agent = Agent(reactor, state, node, refusing, lambda: None)
        agent.startService()
        ports = node.traffic.sockets.ports
        await agent.stopService()
        return ports

    async def state(self, **settings: str) -> Path:
        """The state directory of a device."""
        platform = await self.platform()
        return await platform.enroll("alice@dc1.ntm.example", "phone", None, **settings)

    async def test_again(self) -> None:
        """A restarted agent has the port that it had, so that others find it there."""
        state = await self.state()
        first = await self.ports(state)
        self.assertEqual(await self.ports(state), first)

    async def test_taken(self) -> None:
        """If it is taken meanwhile the agent has another one, from then on; nobody is warned."""
        state = await self.state()
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", 0))
            taken = other.getsockname()[1]
            save_port(state / PORT, taken)
            with capturedLogs() as events:
                ports = await self.ports(state)
        lines = [formatEvent(event) for event in events]
        self.assertEqual([line for line in lines if "in use" in line], [])
        self.assertNotEqual(ports[4], taken)
        self.assertEqual((await self.ports(state))[4], ports[4])

    async def test_configured(self) -> None:
        """The port of node.toml wins, and does not take the place of the one that was kept."""
        port = free_port()
        state = await self.state(port=str(port))
        save_port(state / PORT, 40000)
        self.assertEqual((await self.ports(state))[4], port)
        self.assertEqual(load_port(state / PORT), 40000)
