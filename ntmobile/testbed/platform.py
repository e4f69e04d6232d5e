"""The whole platform in a lab: AS, two DCs, two RSs, BIND, and a device a network.

Every server is a ``twistd`` process on its own host, set up by ``ntm realm``; the DCs' domains are
delegated by BIND to the DCs' own name servers, and all lookups go that way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from time import monotonic

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ntmobile.lab.network import Host, Server
from ntmobile.lab.node import python_path
from ntmobile.lab.process import Process, eventually, together
from ntmobile.testbed.commands import NTM, TWISTD
from ntmobile.testbed.device import Device
from ntmobile.testbed.name_server import start_bind
from ntmobile.testbed.standing import StandingLab

REALM = "ntm.example"
DC1, DC2 = f"dc1.{REALM}", f"dc2.{REALM}"
#: Relay → the domain of its coordinator.
RELAYS = {"rs1": DC1, "rs2": DC2}
#: Users; devices are theirs in turn, so that pairs of one domain and of two both occur.
USERS = (f"alice@{DC1}", f"bob@{DC2}")
PASSWORD = "a password of some length"


@define(eq=False)
class Platform:
    """The realm's servers and the devices by the name of their host in the standing lab."""

    lab: StandingLab
    servers: dict[str, Process] = field(factory=dict)
    devices: dict[str, Device] = field(factory=dict)
    #: Seconds that making it took.
    took: float = 0.0
    _users: Iterator[str] = field(factory=lambda: cycle(USERS))

    @property
    def clock(self) -> IReactorTime:
        """The clock of the waits."""
        reactor: IReactorTime = self.lab.lab.reactor
        return reactor

    @property
    def directory(self) -> Path:
        """The realm's directory."""
        return self.lab.lab.directory / "realm"

    @property
    def password_file(self) -> Path:
        """A private file with the password of every user."""
        return self.lab.lab.directory / "password"

    @classmethod
    async def build(cls, standing: StandingLab) -> Platform:
        """Set everything up; every device is registered at the end."""
        began = monotonic()
        platform = cls(standing)
        coordinators = {name: standing.servers[name] for name in ("dc1", "dc2")}
        await together(
            platform._make_realm(), start_bind(standing.servers["dns"], REALM, coordinators)
        )
        for name in ("as", "dc1", "dc2", *RELAYS):
            await platform.start(name)
        for name in ("dc1", "dc2"):
            await platform.servers[name].wait_for("linked to the account server")
        accounts = {name: next(platform._users) for name in standing.clients}
        await together(*(platform._settle(name, account) for name, account in accounts.items()))
        platform.took = monotonic() - began
        return platform

    # -- the realm

    async def ntm(self, *words: object) -> str:
        """Run an ``ntm`` command of the operator; gives its output."""
        argv = [*NTM, *map(str, words)]
        return (await self.lab.servers["as"].run(argv, timeout=30)).stdout

    async def _make_realm(self) -> None:
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(f"{PASSWORD}\n")
        servers = self.lab.servers
        await self.ntm(
            "realm", "init", self.directory, "--domain", REALM, "--address", servers["as"].ipv4
        )
        for domain in (DC1, DC2):
            host = servers[domain.partition(".")[0]]
            await self.ntm("realm", "add-dc", self.directory, domain, *_addresses(host))
        for relay, domain in RELAYS.items():
            await self.add_relay(relay, domain, servers[relay])
        for user in USERS:
            await self.add_user(user)

    async def add_user(self, account: str) -> None:
        """Add a user with the password of all."""
        await self.ntm(
            "user", "add", account, "--realm", self.directory, "--password-file", self.password_file
        )

    async def add_relay(self, name: str, domain: str, host: Server) -> None:
        """Add a relay server to the realm; it is to be started."""
        words = ("realm", "add-relay", self.directory, name, "--dc", domain)
        await self.ntm(*words, *_addresses(host))

    # -- servers

    async def start(self, name: str, host: Server | None = None) -> Process:
        """Start a server from its configuration: ``as``, ``dc1``, ``dc2``, or a relay."""
        host = host or self.lab.servers[name]
        if name == "as":
            kind, file = "ntm-as", self.directory / "as.toml"
        elif name.startswith("dc"):
            kind, file = "ntm-dc", self.directory / f"{name}.{REALM}" / "dc.toml"
        else:
            kind, file = "ntm-relay", self.directory / "relays" / f"{name}.toml"
        argv = [*TWISTD, kind, "--config", str(file)]
        self.servers[name] = await host.spawn(argv, name=kind, standing=True)
        return self.servers[name]

    # -- devices

    async def _settle(self, name: str, account: str) -> None:
        device = await self.enroll(self.lab.clients[name], account, name)
        self.devices[name] = device
        await device.start(standing=True)
        await device.ready()

    def enrolment(self, account: str, label: str, state: Path) -> list[str]:
        """The command that makes a device of a user."""
        options = {
            "--device": label,
            "--trust": self.directory / "ca.pem",
            "--state": state,
            "--password-file": self.password_file,
        }
        words = [str(word) for option in options.items() for word in option]
        return [*NTM, "enroll", account, *words]

    async def enroll(
        self,
        host: Host,
        account: str,
        label: str,
        *,
        state: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Device:
        """Make a device of a user on a host; its agent is to be started.

        :param state: its directory; else one of its name. :param env: more environment for it.
        """
        user, _, domain = account.partition("@")
        state = state or host.home / f"{label}.{user}"
        await host.run(self.enrolment(account, label, state), timeout=30, env=env)
        return Device(host, f"{label}.{user}.{domain}", state, env or {})

    def shifted_clock(self, seconds: float) -> dict[str, str]:
        """An environment in which Python's programs have a wall clock that is wrong."""
        directory = self.lab.lab.directory / f"clock{seconds:+.0f}"
        directory.mkdir(exist_ok=True)
        (directory / "sitecustomize.py").write_text(
            f"import time\n_time = time.time\ntime.time = lambda: _time() + {seconds}\n"
        )
        paths = [str(directory), *filter(None, [python_path()])]
        return {"PYTHONPATH": os.pathsep.join(paths)}

    def replug(self, *hosts: str) -> None:
        """Have hosts plugged in anew after the test: their NAT forgot how the DC reaches them."""
        for name in hosts:
            self.lab.clients[name].attachment.altered = True

    async def restore(self) -> None:
        """After a test: everybody at home, registered, and without tunnels."""
        await self.lab.restore()
        await together(*(self._rest(each) for each in self.devices.values()))

    async def _rest(self, device: Device) -> None:
        await device.ready()

        async def quiet() -> bool:
            # The last packets of connections that were cut off bring a tunnel up again.
            return not device.ask("end")

        await eventually(self.clock, quiet, timeout=5, what=f"{device.fqdn} without tunnels")


def _addresses(host: Host) -> list[str]:
    return ["--address", host.ipv4, "--address", host.ipv6]
