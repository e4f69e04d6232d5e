"""Where the time goes: profiles of the hot paths by py-spy, in microseconds a datagram."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import frozen
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred

from ntmobile.bench import floor
from ntmobile.bench.relay import MODES, Grounds
from ntmobile.bench.results import OWN, NothingTransferred, Say, Section, Skipped
from ntmobile.bench.tunnel import Own
from ntmobile.lab.internet import Access
from ntmobile.lab.node import Lab, Node
from ntmobile.lab.process import Process, pause
from ntmobile.lab.supervision import SEARCH_PATH
from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import Platform
from ntmobile.testbed.standing import StandingLab

#: Samples a second, and seconds of a profile.
RATE, SECONDS = 250, 4
#: Functions that are shown.
_SHOWN = 14
#: Bytes of an inner packet, where a path does not tell.
_PACKET = 1280
#: Functions in which a process waits: for datagrams, or in a thread for work.
_WAITING = ("EPollReactor.doPoll ", "Condition.wait ")

_NOTE = f"""\
Profiles by py-spy, {RATE} samples a second while the process is kept busy as in the benchmarks
above. A line is one function's own time, system calls and cryptography that it calls included;
waiting for datagrams is left out. Sampling itself costs some percent."""


@frozen
class Line:
    """One function.

    :ivar share: of the time in which the process ran. :ivar micros: a datagram.
    """

    function: str
    share: float
    micros: float


def parse(text: str) -> Counter[str]:
    """Count samples by the function on top, from py-spy's raw format (folded stacks).

    Samples in which the process waits are left out.
    """
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        function = stack.rpartition(";")[2]
        if function and count.isdigit() and not function.startswith(_WAITING):
            counts[function] += int(count)
    return counts


def lines(counts: Counter[str], datagrams: float) -> list[Line]:
    """The functions by their time; ``datagrams``: handled in :data:`SECONDS`."""
    return shares(counts, counts.total() / RATE * 1e6 / datagrams)


def shares(counts: Counter[str], micros: float) -> list[Line]:
    """The functions by their time; ``micros``: of all of them together."""
    total = counts.total()
    return [
        Line(function, count / total, count / total * micros)
        for function, count in counts.most_common()
    ]


def markdown(title: str, found: list[Line], rate: float, unit: str = "datagram") -> str:
    """A table, the rest in one line; ``rate``: of what is counted, a second."""
    whole = sum(line.micros for line in found)
    head = f"### {title}\n\n{rate:,.0f} {unit}s/s, {whole:.2f} µs of work each.\n\n"
    rows = [f"| function | µs a {unit} | share |", "|---|---|---|"]
    rows += [
        f"| `{line.function}` | {line.micros:.2f} | {line.share:.1%} |" for line in found[:_SHOWN]
    ]
    rest = found[_SHOWN:]
    if rest:
        micros, share = sum(line.micros for line in rest), sum(line.share for line in rest)
        rows.append(f"| {len(rest)} others | {micros:.2f} | {share:.1%} |")
    return head + "\n".join(rows) + "\n"


async def record(node: Node, process: Process) -> Counter[str]:
    """Profile a process of a node; the samples in which it ran."""
    program = shutil.which("py-spy", path=SEARCH_PATH)
    if program is None:
        raise Skipped("py-spy is not installed (pip install 'ntmobile[bench]')")
    file = Path(node.home) / f"profile-{node.lab.number()}"
    argv = [program, "record", "--pid", str(process.pid), "--format", "raw", "--function"]
    argv += ["--rate", str(RATE), "--duration", str(SECONDS), "--output", str(file)]
    await node.run(argv, privileged=True, timeout=SECONDS + 30)
    counts = parse(file.read_text(encoding="utf-8"))
    if not counts:
        raise NothingTransferred(f"{process.name} was idle")
    return counts


async def of_relay(reactor: ReactorBase) -> list[str]:
    """Profile the relay with the first and the last way of sending."""
    pages = []
    with Lab.start(reactor) as lab:
        grounds = await Grounds.build(lab)
        for mode in (MODES[0], MODES[-1]):
            load = Deferred.fromCoroutine(
                grounds.generate(OWN, mode, mode.windows[2:3], SECONDS + 2.0)
            )
            await pause(reactor, 1.0)
            counts = await record(grounds.relay, grounds.processes[OWN])
            (found,) = await load
            rate = found["rate"]
            if not rate:
                raise NothingTransferred("nothing came through the relay")
            pages.append(markdown(f"Relay: {mode.title}", lines(counts, rate * SECONDS), rate))
    return pages


def _packet(device: Device, peer: Device) -> int:
    tunnel = device.tunnel(peer) or {}
    paths = [path for path in tunnel.get("paths", ()) if path.get("active")]
    return int(paths[0].get("mtu") or _PACKET) if paths else _PACKET


async def of_agents(reactor: ReactorBase) -> list[str]:
    """Profile the sending and the receiving agent, one after another, under one TCP flow."""
    pages = []
    with Lab.start(reactor) as lab:
        standing = await StandingLab.build(lab, {"one": Access.DUAL}, {"one": "other"})
        platform = await Platform.build(standing)
        devices = platform.devices["one"], platform.devices["other"]
        own = Own(OWN, (devices[0].host, devices[1].host), devices=devices)
        await own.start()
        for title, device in zip(("sending", "receiving"), devices, strict=True):
            load = Deferred.fromCoroutine(own.measure(SECONDS + 3.0))
            await pause(reactor, 2.0)
            assert device.agent is not None
            counts = await record(device.host, device.agent)
            rate = await load * 1e9 / 8 / _packet(*devices)
            pages.append(markdown(f"Agent: {title} TCP", lines(counts, rate * SECONDS), rate))
    return pages


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure the floor, and profile the relay and both agents."""
    section = Section("profile", "Where the time goes", _NOTE)
    section.tables.append(floor.measure(repeat))
    works: list[Callable[[ReactorBase], Awaitable[list[str]]]] = [of_relay, of_agents]
    for work in works:
        try:
            pages = await work(reactor)
        except Skipped as reason:
            say(f"profile: skipped: {reason}")
            section.text += f"\nProfiles are skipped: {reason}.\n"
            break
        section.text += "\n" + "\n".join(pages)
    return section
