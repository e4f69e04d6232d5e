"""The demo's realm: its files, its servers and its two devices, as real programs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from ntmobile.demo.program import Place, Program, ntm, twistd
from ntmobile.lab.supervision import LabError
from ntmobile.plugins.files import write_file
from ntmobile.servers.passwords import hash_password
from ntmobile.servers.realm import Realm

REALM: Final = "ntm.example"
DC_MN: Final = f"dc1.{REALM}"
DC_CN: Final = f"dc2.{REALM}"
RS: Final = f"rs1.{DC_MN}"
CS: Final = f"cs1.{DC_MN}"
MN: Final = f"phone.alice.{DC_MN}"
CN: Final = f"laptop.bob.{DC_CN}"
#: The devices' accounts and labels.
DEVICES: Final = {"phone": f"alice@{DC_MN}", "laptop": f"bob@{DC_CN}"}
#: Which server is who in the trace.
NAMES: Final = {
    "as": REALM,
    "dc1": DC_MN,
    "dc2": DC_CN,
    "rs1": RS,
    "cs1": CS,
    "phone": MN,
    "laptop": CN,
}
#: Seconds in which a command of the play must end.
COMMAND: Final = 30.0
_ENVIRONMENT: Final = {"NTM_LOG": "json,trace"}


@frozen
class Site:
    """Where a server is: its addresses and port; ``dns``: port of its name server."""

    addresses: tuple[str, ...]
    port: int
    dns: int = 53


@define(eq=False)
class Platform:
    """All of it.

    :ivar directory: for realm and state directories.
    :ivar places: of ``as``, ``dc1``, ``dc2``, ``rs1``, ``cs1``, ``phone`` and ``laptop``.
    :ivar sites: of the servers.
    :ivar lookup: how DCs find each other: the lines of their ``[lookup]``.
    :ivar settings: lines that each device's ``node.toml`` gets.
    :ivar told_dc: devices are told where their DC is, for there is no DNS.
    :ivar services: programs that run, by place. :ivar stopped: logs of those that have ended.
    """

    directory: Path
    places: Mapping[str, Place]
    sites: Mapping[str, Site]
    lookup: str = '[lookup]\nplugin = "dns"\n'
    settings: str = ""
    told_dc: bool = False
    services: dict[str, Program] = field(factory=dict)
    stopped: dict[Path, str] = field(factory=dict)

    def make_realm(self) -> None:
        """Authority, servers' certificates and configurations, and the two users."""
        realm = Realm.create(
            self.directory / "realm", REALM, self.sites["as"].addresses, self.sites["as"].port
        )
        for name, domain in (("dc1", DC_MN), ("dc2", DC_CN)):
            site = self.sites[name]
            made = realm.add_coordinator(domain, site.addresses, site.port, site.dns)
            self._set_lookup(made.file)
        site = self.sites["rs1"]
        realm.add_relay("rs1", DC_MN, site.addresses, site.port)
        site = self.sites["cs1"]
        self._set_lookup(realm.add_cache("cs1", DC_MN, site.addresses, site.port).file)
        accounts = realm.accounts()
        try:
            for device, account in DEVICES.items():
                password = secrets.token_urlsafe(12)
                write_file(self._password(device), password.encode())
                accounts.add_user(account.replace("@", "."), hash_password(password))
        finally:
            accounts.close()

    def _set_lookup(self, file: Path) -> None:
        text = file.read_text("utf-8")
        file.write_text(text.replace('[lookup]\nplugin = "dns"\n', self.lookup), "utf-8")

    def _password(self, device: str) -> Path:
        return self.directory / f"{device}.password"

    def state(self, device: str) -> Path:
        """The state directory of a device."""
        return self.directory / f"{device}.state"

    async def start_servers(self) -> None:
        """AS, DCs, RS and CS; returns when all are linked."""
        realm = self.directory / "realm"
        configurations = {
            "as": ("ntm-as", realm / "as.toml"),
            "dc1": ("ntm-dc", realm / DC_MN / "dc.toml"),
            "dc2": ("ntm-dc", realm / DC_CN / "dc.toml"),
            "rs1": ("ntm-relay", realm / "relays" / "rs1.toml"),
            "cs1": ("ntm-cache", realm / "caches" / "cs1.toml"),
        }
        for name, (plugin, file) in configurations.items():
            await self.start(name, twistd(plugin, "--config", file))
        for name in ("dc1", "dc2"):
            await self.services[name].wait_for("linked to the account server")
        for name in ("rs1", "cs1"):
            await self.services[name].wait_for("registered with")

    async def start(self, name: str, argv: Sequence[str]) -> None:
        """Start a service that traces, at the place of that name."""
        started = await self.places[name].spawn(list(argv), name=name, env=_ENVIRONMENT)
        self.services[name] = started

    async def enroll(self) -> None:
        """Both devices, at the same time: ``ntm enroll``."""
        enrolling = []
        for device, account in DEVICES.items():
            argv = ["enroll", account, "--device", device]
            argv += ["--trust", str(self.directory / "realm" / "ca.pem")]
            argv += ["--state", str(self.state(device))]
            argv += ["--password-file", str(self._password(device))]
            if self.told_dc:
                site = self.sites["dc1" if device == "phone" else "dc2"]
                argv += ["--dc", f"{site.addresses[0]}:{site.port}"]
            enrolling.append(await self.places[device].spawn(ntm(*argv), name=f"{device}-enroll"))
        for program in enrolling:
            await program.wait_for("^This is ")
        for device in DEVICES:
            file = self.state(device) / "node.toml"
            file.write_text(file.read_text("utf-8") + self.settings, "utf-8")

    async def start_agents(self, *devices: str) -> None:
        """Agents, all if none is named: ``ntm up``; returns when they are registered."""
        for device in devices or DEVICES:
            await self.start(device, twistd("ntm-client", "--state", self.state(device)))
        for device in devices or DEVICES:
            await self.services[device].wait_for("registered; ")
            await self.services[device].wait_for("the virtual network is open")

    async def stop(self, name: str) -> None:
        """End a service in order; its log is still followed."""
        program = self.services.pop(name)
        self.stopped[program.stdout] = NAMES[name]
        await program.stop()

    async def run(self, device: str, *argv: str, name: str) -> str:
        """Run a command beside a device's agent to its end; gives what it printed.

        :raises LabError: it failed.
        """
        program = await self.places[device].spawn(list(argv), name=name)
        status = await program.exited(COMMAND)
        if status:
            raise LabError(f"{name} ended with {status}\n{program.tail()}")
        return program.output()

    def exec(self, device: str, *argv: str) -> list[str]:
        """The command line of a program inside a device's virtual network: ``ntm exec``."""
        return ntm("exec", "--state", self.state(device), "--", *argv)

    def logs(self) -> dict[Path, str]:
        """The services' logs, and whose they are."""
        running = {program.stdout: NAMES[name] for name, program in self.services.items()}
        return {**self.stopped, **running}

    async def ended(self) -> list[Program]:
        """The services that should run, and do not."""
        return [one for one in self.services.values() if await one.status() is not None]
