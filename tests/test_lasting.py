"""A problem that lasts is told in a few lines (servers/lasting.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from ntmobile.errors import StorageFailed
from ntmobile.servers.configuration import load_coordinator
from ntmobile.servers.coordinator import CoordinatorService
from ntmobile.servers.lasting import LastingProblem
from tests.platforms import PlatformTestCase, make_realm

FULL = "locations.sqlite: cannot store locations: database or disk is full"


def kept(case: SynchronousTestCase | PlatformTestCase) -> list[str]:
    """The lines that are logged at level warn and above while a test runs."""
    lines: list[str] = []

    @provider(ILogObserver)
    def keep(event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.warn:
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(keep)
    case.addCleanup(globalLogPublisher.removeObserver, keep)
    return lines


class LastingProblemTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Something that is tried each second."""
        self.clock = Clock()
        self.problem = LastingProblem("storing locations", self.clock)
        self.lines = kept(self)

    def fails(self, times: int) -> None:
        """It fails, each second."""
        for _ in range(times):
            self.problem.failed(FULL)
            self.clock.advance(1.0)

    def test_an_hour(self) -> None:
        """It is told when it begins, once a minute with the number of failures, and when over."""
        self.fails(3600)
        self.assertEqual(len(self.lines), 60)
        self.assertEqual(self.lines[0], f"{FULL}; it is tried again")
        self.assertEqual(self.lines[1], f"{FULL}; tried 61 times by now")
        self.problem.succeeded()
        self.problem.succeeded()
        self.assertEqual(len(self.lines), 61)
        self.assertEqual(self.lines[-1], "storing locations works again, after 3600 failures")

    def test_another_time(self) -> None:
        """When it comes again it is told at once."""
        for _ in range(2):
            self.fails(5)
            self.problem.succeeded()
        self.assertEqual([line for line in self.lines if "again" in line], self.lines)
        self.assertEqual(len(self.lines), 4)

    def test_no_problem(self) -> None:
        """What never failed is not told."""
        self.problem.succeeded()
        self.assertEqual(self.lines, [])


class FullDiskTests(PlatformTestCase):
    async def test_of_a_coordinator(self) -> None:
        """A DC whose disk is full says so once, not once a second, and goes on when it is not."""
        platform = make_realm(self.place(), "ntm.example", ())
        file: Path = platform.directory / "dc1.ntm.example" / "dc.toml"
        service = CoordinatorService(load_coordinator(file), reactor)
        lines, results = kept(self), [fail(StorageFailed(FULL)) for _ in range(5)]
        service.domain.removed.add("d1.alice.dc1.ntm.example")

        class Store:
            def write(self, *batch: object) -> object:
                return results.pop() if results else succeed(None)

        self.patch(service, "_store", Store())
        for _ in range(6):
            await service._write()
        self.assertEqual(
            lines,
            [f"{FULL}; it is tried again", "storing locations works again, after 5 failures"],
        )
        self.assertEqual(service.domain.removed, set())
