"""Peers of the tunnel that have no interface: a proxy (Tailscale), a library (iroh)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from attrs import define, field

from ntmobile.bench import programs
from ntmobile.bench.results import NothingTransferred
from ntmobile.bench.tunnel_peers import Peer, gigabits
from ntmobile.lab.process import Process, eventually
from ntmobile.lab.supervision import LabError
from ntmobile.testbed.commands import TWISTD

#: Where Tailscale's test control server listens, on loopback; not to be chosen.
_CONTROL = 9911
_SHARED = 9912
_PROXY = 1055
#: Flows tried before the first sample.
_ATTEMPTS = 4


@define(eq=False)
class Tailscale(Peer):
    """tailscaled without an interface (``--tun=userspace-networking``): a SOCKS5 proxy.

    Its control server is the one of Tailscale's own tests, on the receiver's loopback. It has no
    relay (DERP) that both can reach, so the hosts reach each other directly or not at all.
    """

    _place: Path = Path()
    _addresses: list[str] = field(factory=list)

    async def start(self) -> None:
        """Run a control server, a way to it, and both ends."""
        self._place, self.version = programs.current(programs.TAILSCALE, self.say)
        receiver = self.hosts[1]
        await self._run(1, [str(self._place / "testcontrol")], "listening on")
        share = ["--port", f"tcp:{_SHARED}:interface={receiver.ipv4}", "--host", "127.0.0.1"]
        await self._run(1, [*TWISTD, "portforward", *share, "--dest_port", str(_CONTROL)], "start")
        share = ["--port", f"tcp:{_CONTROL}:interface=127.0.0.1", "--host", receiver.ipv4]
        await self._run(0, [*TWISTD, "portforward", *share, "--dest_port", str(_SHARED)], "start")
        for number in (0, 1):
            await self._join(number)
        await self._connected()
        self.detail = f"{self.version}, user-space mode, SOCKS5; own flow, not iperf3"

    async def _run(self, number: int, argv: list[str], ready: str) -> Process:
        host = self.hosts[number]
        name = Path(argv[0]).name
        env = {"TS_NO_LOGS_NO_SUPPORT": "true"}
        process = await host.spawn(argv, name=name, env=env)
        self.running.append(process)
        await process.wait_for(ready)
        return process

    def _command(self, number: int, *words: str) -> list[str]:
        socket = self.hosts[number].home / "tailscaled.sock"
        return [str(self._place / "tailscale"), f"--socket={socket}", *words]

    async def _join(self, number: int) -> None:
        home = self.hosts[number].home
        argv = [str(self._place / "tailscaled"), "--tun=userspace-networking"]
        argv += [f"--statedir={home / 'tailscale'}", f"--socket={home / 'tailscaled.sock'}"]
        argv += [
            f"--port={self.port}",
            f"--socks5-server=127.0.0.1:{_PROXY}",
            "--no-logs-no-support",
        ]
        await self._run(number, argv, "LocalBackend|Start|magicsock")
        up = self._command(number, "up", f"--login-server=http://127.0.0.1:{_CONTROL}")
        options = ["--accept-dns=false", "--netfilter-mode=off", f"--hostname=host{number}"]
        await self.hosts[number].run([*up, *options, "--timeout=20s"], timeout=30)
        done = await self.hosts[number].run(self._command(number, "ip", "-4"))
        self._addresses.append(done.stdout.strip())

    async def _connected(self) -> None:
        """Wait until packets pass both ways, inside the tunnel."""

        async def passed() -> bool:
            words = ("ping", "--tsmp", "--c=1", "--timeout=2s", self._addresses[1])
            done = await self.hosts[0].run(self._command(0, *words), check=False)
            return done.status == 0 and "pong" in done.stdout

        clock = self.hosts[0].lab.reactor
        await eventually(clock, passed, timeout=40, what="a pong of tailscale")
        await self._warmed_up()

    async def _warmed_up(self) -> None:
        """Wait until flows pass; the first ones after the start may be lost."""
        for attempt in range(_ATTEMPTS):
            try:
                await self.measure(0.5)
                return
            except LabError:
                if attempt == _ATTEMPTS - 1:
                    raise

    async def measure(self, seconds: float) -> float:
        """One TCP flow of ours through the proxy."""
        argv = [sys.executable, "-m", "ntmobile.bench.flow"]
        receiving = await self.hosts[1].spawn([*argv, "receive", "127.0.0.1", "5300"])
        await receiving.wait_for("^ready$")
        argv += ["send", self._addresses[1], "5300", "--proxy", str(_PROXY)]
        try:
            await self.hosts[0].run([*argv, "--seconds", str(seconds)], timeout=seconds + 30)
            await receiving.exited(30)
        except LabError:
            await receiving.kill()
            raise
        return gigabits(json.loads(receiving.output().splitlines()[-1]))


@define(eq=False)
class Iroh(Peer):
    """iroh: a stream between two endpoints (QUIC), from its Python package."""

    _identity: str = ""

    async def start(self) -> None:
        """Run the receiver."""
        self.version = programs.python_version("iroh")
        process = await self.hosts[1].spawn(
            self._argv("receive", f"{self.hosts[1].ipv4}:{self.port}"), name="iroh"
        )
        self.running.append(process)
        self._identity = (await process.wait_for(r"^identity (\w+)$"))[1]
        self.detail = f"{self.version}, Python package; a stream of its own, not iperf3"

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "ntmobile.bench.iroh_stream", *words]

    def _reports(self) -> list[Any]:
        found = re.findall(r"^\{.*\}$", self.running[0].output(), re.MULTILINE)
        return [json.loads(line) for line in found]

    async def measure(self, seconds: float) -> float:
        """One stream."""
        before = len(self._reports())
        peer = f"{self.hosts[1].ipv4}:{self.port}"
        argv = self._argv("send", f"{self.hosts[0].ipv4}:0", self._identity, peer, str(seconds))
        await self.hosts[0].run(argv, timeout=seconds + 30)

        async def told() -> bool:
            return len(self._reports()) > before

        await eventually(self.hosts[0].lab.reactor, told, timeout=10, what="the receiver's report")
        reports = self._reports()
        if not reports:
            raise NothingTransferred("the receiver counted nothing")
        return gigabits(reports[-1])
