"""``ntm bench load``: a DC under the load of very many clients (design, section 9).

A real AS and a real DC, with its durable location store, in processes of their own; the clients are
simulated by this process, over real UDP. What counts is what was answered.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import asdict, define, field, frozen

from ntmobile.bench.load_clients import LoadClient
from ntmobile.bench.load_driver import Load, Phase, Tally, Wire, rounds
from ntmobile.bench.load_phases import Directing, First, KeepingAlive, Registering
from ntmobile.bench.load_realm import DOMAIN, HOST, USER, LoadRealm, environment
from ntmobile.errors import Unreachable

#: The bars of the design: a second, a second, bytes.
REGISTRATIONS: Final = 8000.0
DIRECTIONS: Final = 1000.0
MEMORY: Final = 4096.0
#: Seconds for the slowest step, the first registration of all clients, at the least rate.
_FIRST: Final = 500.0
#: A process that is busier than this has no more to give.
BUSY: Final = 0.9


@frozen
class Rate:
    """What one phase found.

    :ivar count: operations that were answered as they must be. :ivar seconds: of the phase.
    :ivar dc_cpu: CPU seconds of the DC's reactor. :ivar dc_cpu_all: of all its threads.
    :ivar own_cpu: CPU seconds of the generator.
    :ivar milliseconds: latency: median, 99th percentile, longest.
    :ivar errors: what went wrong, and how often.
    """

    count: int
    seconds: float
    dc_cpu: float
    dc_cpu_all: float
    own_cpu: float
    milliseconds: tuple[float, float, float]
    errors: dict[str, int]

    @property
    def per_second(self) -> float:
        """Answered operations a second."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def per_cpu_second(self) -> float:
        """Answered operations for a second of the DC's CPU time, all threads."""
        return self.count / self.dc_cpu_all if self.dc_cpu_all else 0.0

    @property
    def limit(self) -> str:
        """What was busy: the ``coordinator``, the ``generator``, or neither."""
        if self.dc_cpu >= BUSY * self.seconds:
            return "coordinator"
        return "generator" if self.own_cpu >= BUSY * self.seconds else "neither"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {"per_second": self.per_second, "per_cpu_second": self.per_cpu_second}
        return {**asdict(self), **found, "limit": self.limit}


@frozen
class Memory:
    """The DC's resident memory, bytes: empty, with all clients registered, after all load."""

    empty: int
    registered: int
    loaded: int
    clients: int

    @property
    def per_client(self) -> float:
        """Bytes for each registered client."""
        return (self.registered - self.empty) / self.clients

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "per_client": self.per_client}


@define
class Report:
    """All that was found. ``logins``: see :mod:`ntmobile.bench.load_logins`.

    :ivar recovery_seconds: from the start of the DC until it serves all clients again.
    :ivar problems: warnings and errors in the DC's log.
    """

    clients: int
    window: int
    relay: bool
    logins: dict[str, float]
    recovery_seconds: float
    memory: Memory
    rates: dict[str, Rate]
    problems: list[str]

    @property
    def errors(self) -> int:
        """How many operations went wrong, in all phases."""
        return sum(sum(rate.errors.values()) for rate in self.rates.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "clients": self.clients,
            "window": self.window,
            "relay": self.relay,
            "logins": self.logins,
            "recovery_seconds": self.recovery_seconds,
            "memory": self.memory.as_dict(),
            **{name: rate.as_dict() for name, rate in self.rates.items()},
            "errors": self.errors,
            "problems": self.problems,
            "bars": {
                "registrations_per_second": REGISTRATIONS,
                "directions_per_second": DIRECTIONS,
                "bytes_per_client": MEMORY,
            },
        }


@define(eq=False)
class Measurement:
    """One run.

    :ivar directory: empty. :ivar seconds: of each phase. :ivar window: operations at once.
    :ivar relay: whether the DC has an RS, which takes part in every direction.
    :ivar say: told what is being done, for people.
    """

    directory: Path
    clients: int
    seconds: float
    window: int
    logins: int
    relay: bool
    say: Callable[[str], None]
    _realm: LoadRealm = field(init=False)

    def run(self) -> Report:
        """Measure. :raises NTMobileError: it cannot."""
        self._realm = LoadRealm(self.directory)
        try:
            self.say("Making a realm and starting its servers")
            self._realm.make()
            Wire((HOST, self._realm.port)).close()  # before anything takes long
            self._realm.start_account_server()
            self._realm.start_coordinator(0)
            empty = self._realm.dc.rss()
            self.say(f"{self.logins} real logins")
            logins = self._log_in()
            self._realm.stop_coordinator()
            clients = self._realm.write_clients(self.clients, self._written)
            self.say(f"Starting the coordinator again; it recovers {self.clients} clients")
            begun = time.perf_counter()
            self._realm.start_coordinator(self.clients)
            recovery = time.perf_counter() - begun
            if self.relay:
                self._realm.start_relay()
            return self._load(clients, empty, logins, recovery)
        finally:
            self._realm.close()

    def _written(self, number: int) -> None:
        self.say(f"{number} of {self.clients} certificates and sessions written")

    def _log_in(self) -> dict[str, float]:
        """Real logins, in a process of their own."""
        realm = self._realm
        words: list[object] = [self.directory / "devices", realm.bundle, realm.port]
        words += [f"{USER}@{DOMAIN}", realm.password, self.logins]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ntmobile.bench.load_logins", *map(str, words)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60 + self.logins,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise Unreachable("the logins took too long") from None
        except subprocess.CalledProcessError as problem:
            lines = problem.stderr.strip().splitlines() or ["it said nothing"]
            raise Unreachable(f"the logins failed: {lines[-1]}") from None
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def _load(
        self, clients: list[LoadClient], empty: int, logins: dict[str, float], recovery: float
    ) -> Report:
        wire = Wire((HOST, self._realm.port))
        try:
            for number, client in enumerate(clients):
                wire.place(client, number)
            random.Random(1).shuffle(clients)  # as in life, not as they lie in the DC's memory
            load = Load(wire, clients, self.window)
            rates = {}
            first = self._measure(load, First(iter(clients)), _FIRST, "Hello and registration")
            rates["first_registrations"] = first
            time.sleep(2.0)  # the store is written behind
            registered = self._realm.dc.rss()
            phases: dict[str, tuple[str, Phase]] = {
                "registrations": ("Registrations", Registering(rounds(clients))),
                "keep_alives": ("Keep-alives", KeepingAlive(rounds(clients))),
                "directions": ("Directions", Directing(rounds(clients, 2), self.relay)),
            }
            for name, (title, phase) in phases.items():
                rates[name] = self._measure(load, phase, self.seconds, title)
            memory = Memory(empty, registered, self._realm.dc.rss(), len(clients))
        finally:
            wire.close()
        problems = self._realm.dc.problems()
        return Report(
            self.clients, self.window, self.relay, logins, recovery, memory, rates, problems
        )

    def _measure(self, load: Load, phase: Phase, seconds: float, title: str) -> Rate:
        self.say(title)
        dc = self._realm.dc
        before = dc.cpu()
        tally = load.run(phase, seconds)
        after = dc.cpu()
        return _rate(tally, after[0] - before[0], after[1] - before[1])


def _rate(tally: Tally, dc_cpu: float, dc_cpu_all: float) -> Rate:
    found = sorted(tally.latencies)
    places = [len(found) // 2, len(found) * 99 // 100, len(found) - 1]
    median, late, latest = (1000 * found[place] if found else 0.0 for place in places)
    return Rate(
        len(found),
        tally.seconds,
        dc_cpu,
        dc_cpu_all,
        tally.own_cpu,
        (median, late, latest),
        dict(tally.errors),
    )
