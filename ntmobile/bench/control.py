"""The control plane: what ``ntm bench load`` measures, as one of the parts."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ntmobile.bench.results import Bar, Row, Say, Section, Table
from ntmobile.testbed.commands import NTM

#: The bars of the design (section 9).
REGISTRATIONS, DIRECTIONS, MEMORY = 8_000.0, 1_000.0, 4096.0

CLIENTS = 100_000
#: Seconds of each phase of one run.
SECONDS = 4.0
_PATIENCE = 300.0

_NOTE = f"""\
One coordinator with {CLIENTS:,} registered clients and its location store on, real processes on
loopback: `ntm bench load`, once a sample. Rates are answered requests a second of wall time,
signatures included."""


class _Command(ProcessProtocol):
    """A command whose output is kept until its end."""

    def __init__(self) -> None:
        self.output: dict[int, bytes] = {1: b"", 2: b""}
        self.ended: Deferred[bool] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep it."""
        self.output[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        """Tell whether it ended well."""
        self.ended.callback(getattr(reason.value, "exitCode", None) == 0)


async def load(reactor: Any, clients: int, seconds: float) -> dict[str, Any]:
    """Run ``ntm bench load`` once; its report.

    :raises RuntimeError: it failed; the text is its last line.
    """
    command = _Command()
    argv = [*NTM, "bench", "load", "--json", "--clients", str(clients), "--seconds", str(seconds)]
    running = reactor.spawnProcess(command, argv[0], argv, None)
    patience = reactor.callLater(_PATIENCE, running.signalProcess, "TERM")
    well = await command.ended
    if patience.active():
        patience.cancel()
    if not well:
        said = command.output[2].decode("utf-8", "replace").strip().splitlines()
        raise RuntimeError(said[-1] if said else "ntm bench load failed or took too long")
    report: dict[str, Any] = json.loads(command.output[1])
    return report


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure rates and memory."""
    section = Section("control", "Control plane", _NOTE)
    rows = {name: Row(name) for name in ("registrations", "directions", "memory")}
    for number in range(repeat):
        try:
            report = await load(reactor, CLIENTS, SECONDS)
        except Exception as problem:
            for row in rows.values():
                row.failed = str(problem)
            say(f"control: FAILED: {problem}")
            break
        for name in ("registrations", "directions"):
            rows[name].samples.append(report[name]["per_second"])
        rows["memory"].samples.append(report["memory"]["per_client"])
        shown = ", ".join(f"{name} {row.samples[-1]:,.0f}" for name, row in rows.items())
        say(f"control {number + 1}/{repeat}: {shown}")
    rates = Table("Control plane: rates", "a second")
    rates.rows = [rows["registrations"], rows["directions"]]
    rates.bars = [
        Bar("registrations", least=REGISTRATIONS),
        Bar("directions", least=DIRECTIONS),
    ]
    memory = Table("Control plane: memory", "bytes a client", more=False)
    memory.rows, memory.bars = [rows["memory"]], [Bar("memory", most=MEMORY)]
    section.tables = [rates, memory]
    return section
