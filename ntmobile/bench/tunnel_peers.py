"""The peers of the tunnel, each between the same two hosts as ntmobile's."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ntmobile.bench import programs
from ntmobile.bench.results import NothingTransferred, Say
from ntmobile.lab.measure import iperf, ping
from ntmobile.lab.network import Host
from ntmobile.lab.process import Process, eventually

#: Least bytes of a flow that count as one.
_LEAST = 1 << 20


@define(eq=False)
class Peer(ABC):
    """A way between two hosts, and how fast one TCP flow (or stream) goes over it.

    :ivar name: its row. :ivar hosts: the sender and the receiver. :ivar number: makes its ports and
        addresses differ from the others'. :ivar version: once it was started.
    """

    name: str
    hosts: tuple[Host, Host]
    number: int = 0
    say: Say = print
    version: str = ""
    detail: str = ""
    running: list[Process] = field(factory=list)

    @abstractmethod
    async def start(self) -> None:
        """Bring it up; :class:`.results.Skipped` if its programs are not there."""

    @abstractmethod
    async def measure(self, seconds: float) -> float:
        """Measure Gbit/s once, at the receiver."""

    @property
    def port(self) -> int:
        """Its UDP port, at both hosts."""
        return 6000 + self.number

    def network(self, host: int) -> str:
        """The address inside of the first or second host."""
        return f"10.99.{self.number}.{host + 1}"

    async def stop(self) -> None:
        """End what it runs."""
        for process in self.running:
            if await process.status() is None:
                await process.kill()
        self.running.clear()


def gigabits(report: dict[str, float]) -> float:
    """What a receiver counted, in Gbit/s."""
    if report["bytes"] < _LEAST or report["seconds"] <= 0:
        raise NothingTransferred(f"{report['bytes']} bytes arrived")
    return report["bytes"] * 8 / report["seconds"] / 1e9


@define(eq=False)
class Routed(Peer):
    """A network with an address at each host: iperf3 goes over it."""

    async def measure(self, seconds: float) -> float:
        """One TCP flow of iperf3."""
        sender, receiver = self.hosts
        measured = await iperf(sender, receiver, self.target, seconds=seconds)
        return gigabits({"bytes": measured.bits_per_second * seconds / 8, "seconds": seconds})

    @property
    def target(self) -> str:
        """The receiver's address."""
        return self.network(1)

    async def answers(self) -> None:
        """Wait until pings pass."""

        async def passed() -> bool:
            report = await ping(self.hosts[0], self.target, timeout=1.0)
            return report.received > 0

        clock = self.hosts[0].lab.reactor
        await eventually(clock, passed, timeout=20, what=f"a ping over {self.name}")

    async def mtu(self, interface: str) -> str:
        """What is to be said of its interface."""
        link = json.loads(
            await self.hosts[0].lab.configure(
                (self.hosts[0].name, ["ip", "-json", "link", "show", "dev", interface], "")
            )
        )
        return f"MTU {link[0]['mtu']}"


@define(eq=False)
class Raw(Routed):
    """No tunnel: the veth cables and the switch between the hosts."""

    async def start(self) -> None:
        """It is there."""
        self.detail = "no tunnel; MTU 1500"

    @property
    def target(self) -> str:
        """The receiver's own address."""
        return self.hosts[1].ipv4


_NEBULA = """
pki: {{ca: "{place}/ca.crt", cert: "{place}/{own}.crt", key: "{place}/{own}.key"}}
static_host_map: {{"{peer}": ["{remote}"]}}
lighthouse: {{am_lighthouse: false, hosts: []}}
listen: {{host: 0.0.0.0, port: {port}}}
tun: {{dev: {interface}}}
punchy: {{punch: false}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
logging: {{level: warning, format: text}}
"""


@define(eq=False)
class Nebula(Routed):
    """Nebula, Debian's or the current one."""

    is_current: bool = False

    def _programs(self) -> tuple[Path, Path]:
        if self.is_current:
            place, self.version = programs.current(programs.NEBULA, self.say)
            return place / "nebula", place / "nebula-cert"
        self.version = programs.debian_version("nebula")
        return programs.debian("nebula", "nebula"), programs.debian("nebula-cert", "nebula")

    async def start(self) -> None:
        """Make an authority and two certificates, and run both ends."""
        program, certifier = self._programs()
        first = self.hosts[0]
        place = first.home / f"nebula{self.number}"
        place.mkdir(mode=0o700)
        cert = [str(certifier)]
        await first.run([*cert, "ca", "-name", "bench"], cwd=place)
        for number in (0, 1):
            address = f"{self.network(number)}/24"
            await first.run([*cert, "sign", "-name", f"host{number}", "-ip", address], cwd=place)
        interface = f"neb{self.number}"
        for number, host in enumerate(self.hosts):
            configuration = place / f"host{number}.yml"
            configuration.write_text(
                _NEBULA.format(
                    place=place,
                    own=f"host{number}",
                    peer=self.network(1 - number),
                    remote=f"{self.hosts[1 - number].ipv4}:{self.port}",
                    port=self.port,
                    interface=interface,
                )
            )
            argv = [str(program), "-config", str(configuration)]
            self.running.append(await host.spawn(argv, name="nebula", privileged=True))
        await self.answers()
        self.detail = f"{self.version}; {await self.mtu(interface)}"


@define(eq=False)
class WireGuard(Routed):
    """wireguard-go, Debian's or the current one."""

    is_current: bool = False

    @cached_property
    def _keys(self) -> list[X25519PrivateKey]:
        return [X25519PrivateKey.generate() for _ in self.hosts]

    def _program(self) -> Path:
        if self.is_current:
            place, self.version = programs.current(programs.WIREGUARD, self.say)
            return place / "wireguard"
        self.version = programs.debian_version("wireguard-go")
        return programs.debian("wireguard-go", "wireguard-go")

    def _interface(self, number: int, name: str) -> dict[str, Any]:
        own, peer = self._keys[number], self._keys[1 - number]
        return {
            "name": name,
            "port": self.port,
            "private_key": own.private_bytes_raw().hex(),
            "peer_key": peer.public_key().public_bytes_raw().hex(),
            "peer": f"{self.hosts[1 - number].ipv4}:{self.port}",
            "peer_network": f"{self.network(1 - number)}/32",
        }

    async def start(self) -> None:
        """Run both ends, and give them their addresses."""
        program = self._program()
        name = f"wgo{self.number}"
        for number, host in enumerate(self.hosts):
            file = host.home / f"{name}.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps(self._interface(number, name)))
            argv = [sys.executable, "-m", "ntmobile.bench.wireguard_interface", str(program)]
            process = await host.spawn([*argv, str(file)], name=name, privileged=True)
            self.running.append(process)
            await process.wait_for("^ready$")
            await host.ip(f"addr add {self.network(number)}/24 dev {name}", f"link set {name} up")
        await self.answers()
        self.detail = f"{self.version}; {await self.mtu(name)}"
