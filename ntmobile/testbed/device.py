"""A device of the platform in a lab: a state directory on a host, and the agent that serves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ntmobile.client.control import call
from ntmobile.errors import NTMobileError
from ntmobile.lab.network import Host
from ntmobile.lab.process import Completed, Process, eventually
from ntmobile.testbed.commands import NTM, TWISTD

#: Seconds in which an agent must be registered after its start, or after a move.
PATIENCE = 15.0


@define(eq=False)
class Device:
    """An enrolled device.

    :ivar host: where it is. :ivar fqdn: its name. :ivar state: its state directory.
    :ivar env: more environment for its programs of ours. :ivar agent: the running agent, if any.
    :ivar virtual: its addresses, once it has run.
    """

    host: Host = field(repr=False)
    fqdn: str
    state: Path
    env: dict[str, str] = field(factory=dict)
    agent: Process | None = None
    virtual: dict[str, str] = field(factory=dict)

    @property
    def inside(self) -> list[str]:
        """What runs a program in the virtual network: ``ntm exec --``."""
        return [*NTM, "exec", "--state", str(self.state), "--"]

    async def start(self, *, standing: bool = False) -> None:
        """Start the agent; does not wait for it."""
        self.agent = await self.host.spawn(
            [*TWISTD, "ntm-client", "--state", str(self.state)],
            name=f"agent-{self.fqdn.partition('.')[0]}",
            env=self.env,
            standing=standing,
        )

    async def stop(self) -> None:
        """End the agent in order; the virtual network and programs in it stay."""
        if self.agent is not None:
            agent, self.agent = self.agent, None
            await agent.stop()

    def ask(self, command: str, timeout: float = 2.0, **parameters: Any) -> Any:
        """Ask the agent over its control socket, for what it answers at once."""
        return call(self.state, command, timeout, **parameters)

    def status(self) -> dict[str, Any] | None:
        """What ``ntm status --json`` tells, or None while no agent answers."""
        with suppress(NTMobileError):
            status: dict[str, Any] = self.ask("status")
            return status
        return None

    async def ready(self, timeout: float = PATIENCE) -> None:
        """Wait until the agent is registered with its present addresses, and programs can run."""
        here = {str(one.ip) for each in self.host.attachments.values() for one in each.addresses}

        async def registered() -> bool:
            status = self.status()
            if status is None or not status["registered"] or status["attachment"] != "open":
                return False
            self.virtual = status["virtual"]
            return here <= set(status["network"]["addresses"])

        def last() -> str:
            agent = "no agent" if self.agent is None else self.agent.tail()
            return f"{self.fqdn} registered at {here}; {json.dumps(self.status())}\n{agent}"

        clock: IReactorTime = self.host.lab.reactor
        await eventually(clock, registered, timeout=timeout, what=last)

    async def uses(self, interface: str, *, preferred: str) -> None:
        """Wait until it sends IPv4 through one interface where the system prefers another."""
        expected = {"used": interface, "preferred": preferred}

        async def used() -> bool:
            found: object = self.ask("netcheck")["interfaces"].get("ipv4")
            return found == expected

        clock: IReactorTime = self.host.lab.reactor
        await eventually(clock, used, timeout=PATIENCE, what=f"IPv4 through {interface}")

    def tunnel(self, peer: Device) -> dict[str, Any] | None:
        """The tunnel to another device as ``ntm peers --json`` has it, if it is established."""
        for tunnel in self.ask("peers"):
            if tunnel["peer"] == peer.fqdn and tunnel["established"] is not None:
                found: dict[str, Any] = tunnel
                return found
        return None

    async def ntm(self, *words: str, check: bool = True, timeout: float = 20.0) -> Completed:
        """Run an ``ntm`` command of this device: the first word is the command."""
        command, *rest = words
        argv = [*NTM, command, "--state", str(self.state), *rest]
        return await self.host.run(argv, check=check, timeout=timeout, env=self.env)

    async def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 20.0
    ) -> Completed:
        """Run a program in the virtual network to its end."""
        return await self.host.run([*self.inside, *argv], check=check, timeout=timeout)

    async def spawn(self, argv: Sequence[str], name: str, *, standing: bool = False) -> Process:
        """Start a program in the virtual network."""
        return await self.host.spawn([*self.inside, *argv], name=name, standing=standing)
