"""Agents with virtual networks, in this very process, and ``ntm`` commands beside them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest

from ntmobile.client.agent import Agent
from ntmobile.client.opening import make_node
from ntmobile.client.settings import load_settings
from ntmobile.interfaces import IAttachmentProvider
from ntmobile.plugins import find
from tests.attachments import netns_unavailable
from tests.platforms import Platform, PlatformTestCase
from tests.server_processes import NTM, environment

#: Seconds in which a command must end.
PATIENCE = 20.0

ALICE, BOB = "alice@dc1.ntm.example", "bob@dc2.ntm.example"
PHONE = "phone.alice.dc1.ntm.example"
LAPTOP = "laptop.bob.dc2.ntm.example"


@frozen
class Ran:
    """What a command did."""

    output: str
    errors: str
    status: int


async def ntm(*words: object) -> Ran:
    """Run an ``ntm`` command to its end."""
    argv = ["-c", NTM, *map(str, words)]
    running = getProcessOutputAndValue(sys.executable, argv, environment())
    # The end by a signal comes as an error that is no exception.
    running.addErrback(lambda ended: (*ended.value[:2], -ended.value[2]))
    out, err, status = await running
    return Ran(out.decode(), err.decode(), status)


class Running:
    """An ``ntm`` command that goes on."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NTM, *map(str, words)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def says(self, pattern: str) -> re.Match[str]:
        """Its next line, which must match."""
        assert self.process.stdout is not None
        line = await deferToThread(self.process.stdout.readline)
        found = re.search(pattern, line)
        if found is None:
            raise AssertionError(f"{line!r} is not {pattern!r}")
        return found

    async def complains(self) -> str:
        """Its next line on standard error."""
        assert self.process.stderr is not None
        line: str = await deferToThread(self.process.stderr.readline)
        return line

    async def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; gives exit status and the rest of what it said."""
        self.process.send_signal(signal.SIGINT)
        out, err = await deferToThread(self.process.communicate, None, PATIENCE)
        return self.process.returncode, out + err

    def end(self) -> None:
        """End it, if it runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class AnyAgentTestCase(PlatformTestCase):
    """Tests with a platform and agents."""

    async def agent(self, platform: Platform, account: str, device: str, **settings: str) -> Agent:
        """Enrol a device and start its agent; ready when this fires."""
        state = await platform.enroll(account, device, None, **settings)
        return await self.start_agent(state)

    async def start_agent(self, state: Path, *, ready: bool = True) -> Agent:
        """Start the agent of a state directory."""
        settings = load_settings(state)
        name, section = settings.attachment
        provider: IAttachmentProvider = find(IAttachmentProvider, name)
        agent: Any = None

        def end() -> None:
            maybeDeferred(agent.stopService)

        node = make_node(state, settings, reactor)
        agent = Agent(reactor, state, node, provider.configure(section, reactor), end)
        agent.startService()
        self.addCleanup(self.end_agent, agent)
        if ready:
            await self.eventually(
                lambda: agent.attachment is not None and node.registering.registered,
                f"the agent of {state} is ready: {agent.problem} {node.registering.problem}",
            )
        found: Agent = agent
        return found

    async def end_agent(self, agent: Agent) -> None:
        """End an agent, unless it has ended, and its virtual network."""
        if agent.running:
            agent._shutdown = True
            await agent.stopService()

    async def pair(self) -> tuple[Platform, Agent, Agent]:
        """Agents of alice's phone and of bob's laptop."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        laptop = await self.agent(platform, BOB, "laptop")
        return platform, phone, laptop


class AgentTestCase(AnyAgentTestCase):
    """The same with virtual networks; skipped with the reason where these cannot be had."""

    def setUp(self) -> None:
        reason = netns_unavailable()
        if reason is not None:
            raise SkipTest(reason)


def state_of(agent: Agent) -> Path:
    """The state directory of an agent."""
    return agent._state
