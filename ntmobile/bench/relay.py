"""A relay beside coturn: how many datagrams a second each forwards, counted where they arrive."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from functools import partial

from attrs import define, frozen
from twisted.internet.base import ReactorBase

from ntmobile.bench.programs import debian, debian_version
from ntmobile.bench.results import (
    OWN,
    Bar,
    NothingTransferred,
    Row,
    Say,
    Section,
    Skipped,
    Table,
    in_turn,
)
from ntmobile.lab.internet import Internet
from ntmobile.lab.network import Server
from ntmobile.lab.node import Lab
from ntmobile.lab.process import Process
from ntmobile.testbed.commands import NTM, TWISTD

COTURN = "coturn"
SIZE = 1200
SENDERS = 32
#: Most of what was sent that may be lost.
LOSS = 0.01

_DOMAIN = "dc1.ntm.example"
_TURN_PORT, _RELAY_PORT = 3478, 4331
#: Seconds of one sample, and of each look for the best window.
SECONDS, _LOOK = 3.0, 0.7


@frozen
class Mode:
    """A way to send.

    :ivar segments: datagrams of one run. :ivar messages: runs of one call of the sender.
    :ivar windows: datagrams under way; each contender gets the one that suits it best.
    :ivar bar: least multiple of the peer.
    """

    title: str
    senders: int
    segments: int
    messages: int
    windows: tuple[int, ...]
    bar: float


MODES = (
    Mode("one segmenting sender", 1, 54, 1, (54, 108, 216, 432, 864), 6.0),
    Mode(f"{SENDERS} senders interleaved", SENDERS, 8, 1, (32, 64, 128, 256), 3.0),
    Mode("one datagram per call", 1, 1, 8, (32, 64, 128, 256), 1.2),
)

_NOTE = f"""\
Datagrams of {SIZE} bytes go from a client's socket through the relay to another socket, across
network namespaces; both belong to one generator that counts what arrives. It keeps a fixed
number of datagrams under way (a closed loop), so the rate is what the relay forwards when it is
never idle and nothing overflows; of several such windows each contender gets the one that suits
it best, with less than {LOSS:.0%} lost. coturn: one TURN allocation a sender, channel data in,
plain UDP out to the peer: a datagram passes it once, as it passes the relay server."""


@define
class Grounds:
    """The hosts of this part, and the relays that run."""

    lab: Lab
    relay: Server
    load: Server
    ports: dict[str, int]
    processes: dict[str, Process]

    @classmethod
    async def build(cls, lab: Lab) -> Grounds:
        """Make two hosts in one segment, and a third for the coordinator."""
        internet = await Internet.build(lab)
        relay = await internet.server("rs1")
        load = await lab.add(Server, "load")
        await load.plug(internet.servers)
        grounds = cls(lab, relay, load, {OWN: _RELAY_PORT, COTURN: _TURN_PORT}, {})
        await grounds._start_relay(await internet.server("dc1"))
        return grounds

    async def _start_relay(self, coordinator: Server) -> None:
        """Make a realm with the operator's commands, and run its relay server."""
        realm = self.lab.directory / "realm"
        for words in (
            ("init", realm, "--domain", "ntm.example", "--address", coordinator.ipv4),
            ("add-dc", realm, _DOMAIN, "--address", coordinator.ipv4),
            ("add-relay", realm, "rs1", "--dc", _DOMAIN, "--address", self.relay.ipv4),
        ):
            await coordinator.run([*NTM, "realm", *map(str, words)], timeout=30)
        file = realm / _DOMAIN / "dc.toml"
        argv = [sys.executable, "-m", "ntmobile.bench.coordinator"]
        argv += [str(file), f"rs1.{_DOMAIN}", str(SENDERS)]
        directing = await coordinator.spawn(argv, name="coordinator")
        await directing.wait_for("^ready$")
        argv = [*TWISTD, "ntm-relay", "--config", str(realm / "relays" / "rs1.toml")]
        self.processes[OWN] = await self.relay.spawn(argv, name="ntm-relay")
        await directing.wait_for(f"^directed {SENDERS}$", 20)

    async def start_coturn(self) -> None:
        """Run Debian's coturn with its defaults, without authentication."""
        program = debian("turnserver", "coturn")
        argv = [str(program), "-n", "--no-auth", "-L", self.relay.ipv4, "-E", self.relay.ipv4]
        argv += ["-p", str(_TURN_PORT), "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout"]
        argv += [f"--pidfile={self.relay.home}/pid", f"--userdb={self.relay.home}/turndb"]
        self.processes[COTURN] = await self.relay.spawn(argv, name="turnserver")
        await self.processes[COTURN].wait_for("Total General servers", 15)

    async def generate(
        self, contender: str, mode: Mode, windows: tuple[int, ...], seconds: float
    ) -> list[dict[str, float]]:
        """Run the generator once; what it found for each window."""
        way = "ntm" if contender == OWN else "turn"
        argv = [sys.executable, "-m", "ntmobile.bench.generator", way, self.load.ipv4]
        argv += [self.relay.ipv4, str(self.ports[contender]), "--size", str(SIZE)]
        argv += ["--senders", str(mode.senders), "--segments", str(mode.segments)]
        argv += ["--messages", str(mode.messages), "--seconds", str(seconds)]
        argv += ["--window", *map(str, windows)]
        done = await self.load.run(argv, timeout=20 + len(windows) * (seconds + 1))
        found: list[dict[str, float]] = done.json()
        return found


def lossless(found: Mapping[str, float]) -> bool:
    """Whether so much arrived that it counts."""
    return found["received"] > 0 and found["lost"] <= LOSS * found["sent"]


def best_window(found: list[dict[str, float]]) -> int:
    """The window of the highest rate with little loss.

    :raises NothingTransferred: there is none.
    """
    good = [each for each in found if lossless(each)]
    if not good:
        raise NothingTransferred(f"datagrams were lost in every window: {found}")
    return int(max(good, key=lambda each: each["rate"])["window"])


@define
class Contender:
    """One relay in one mode: its window, and the runs that arrived."""

    grounds: Grounds
    name: str
    mode: Mode
    window: int
    run: float = 0.0

    async def measure(self) -> float:
        """Measure thousands of datagrams a second once; with a smaller window after a loss."""
        while True:
            (found,) = await self.grounds.generate(self.name, self.mode, (self.window,), SECONDS)
            if lossless(found):
                self.run = found["run"]
                return found["rate"] / 1000
            smaller = [each for each in self.mode.windows if each < self.window]
            if not smaller:
                raise NothingTransferred(f"{found['lost']:.0f} of {found['sent']:.0f} were lost")
            self.window = smaller[-1]

    @property
    def detail(self) -> str:
        """What is to be said in the table."""
        sent = f"{self.mode.segments} segments a run sent, {self.run:.1f} received"
        return f"{sent}; {self.window} under way"


async def _mode(grounds: Grounds, mode: Mode, missing: str, repeat: int, say: Say) -> Table:
    names = [OWN] if missing else [OWN, COTURN]
    contenders: list[Contender] = []
    rows: dict[str, Row] = {}
    for name in names:
        try:
            found = await grounds.generate(name, mode, mode.windows, _LOOK)
            contenders.append(Contender(grounds, name, mode, best_window(found)))
        except Exception as problem:
            rows[name] = Row(name, failed=str(problem)[:300])
            say(f"{name}: FAILED: {problem}")
    measures = {each.name: partial(each.measure) for each in contenders}
    rows |= await in_turn(repeat, measures, "thousand datagrams/s", say)
    for each in contenders:
        rows[each.name].detail = each.detail
    if missing:
        rows[COTURN] = Row(COTURN, skipped=missing)
    table = Table(f"Relay: {mode.title}", "thousand datagrams/s")
    table.rows = [rows[OWN], rows[COTURN]]
    table.bars = [Bar(OWN, COTURN, least=mode.bar)]
    return table


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure all modes."""
    section = Section("relay", "Relay", _NOTE)
    with Lab.start(reactor) as lab:
        grounds = await Grounds.build(lab)
        missing = ""
        try:
            await grounds.start_coturn()
            section.machine[COTURN] = debian_version(COTURN)
        except Skipped as reason:
            missing = str(reason)
        for mode in MODES:
            say(f"-- {mode.title}")
            section.tables.append(await _mode(grounds, mode, missing, repeat, say))
        await _stop(grounds)
    return section


async def _stop(grounds: Grounds) -> None:
    for process in grounds.processes.values():
        await process.signal(signal.SIGTERM)
