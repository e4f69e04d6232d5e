"""The base class of tests that run in a lab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.trial import itrial, unittest
from twisted.trial.reporter import TestResultDecorator

from ntmobile.lab.node import Lab
from ntmobile.lab.process import Process, T, eventually
from ntmobile.lab.supervision import lab_unavailable
from ntmobile.protocols.timing import real_reactor
from ntmobile.testbed.standing import StandingLab
from tests.lab.standing import standing_lab


class _Told(Exception):
    """Stands for the value of a failure and adds the logs to its text."""


class _LogTails(TestResultDecorator):
    """Shows with a failure what the programs of the test said last."""

    def __init__(self, result: itrial.IReporter, case: LabTestCase) -> None:
        super().__init__(result)
        self._case = case

    def addFailure(self, test: Any, failure: Any) -> None:
        self._originalReporter.addFailure(test, self._case.with_logs(failure))

    def addError(self, test: Any, failure: Any) -> None:
        self._originalReporter.addError(test, self._case.with_logs(failure))


class LabTestCase(unittest.TestCase):
    """A test in a lab: skipped with the reason where none can be had.

    What a test starts in a lab it *uses* is ended after it, except what is ``standing``; and a
    failure shows the last words of each program.
    """

    timeout = 120

    def setUp(self) -> None:
        reason = lab_unavailable()
        if reason is not None:
            raise unittest.SkipTest(reason)

    def run(self, result: Any = None) -> None:
        self._used: list[tuple[Lab, set[Process]]] = []
        told = _LogTails(itrial.IReporter(result), self)
        unittest.TestCase.run(self, told)

    def new_lab(self) -> Lab:
        """Start a lab of this test's own."""
        lab = Lab.start(real_reactor())
        self.addCleanup(lab.close)
        return lab

    async def standing_lab(self) -> StandingLab:
        """Give the lab that many tests share; whom this test moves is brought home after it."""
        standing = await standing_lab()
        self.addCleanup(standing.restore)
        self.use(standing.lab)
        return standing

    def use(self, lab: Lab) -> None:
        """End after this test what it starts from now on in a lab."""
        if not self._used:
            self.addCleanup(self.end_programs)
        for process in lab.processes:
            process.mark()
        self._used.append((lab, set(lab.processes)))

    async def end_programs(self) -> None:
        """End what this test has started; it is called after the test."""
        for lab, before in self._used:
            for process in list(lab.processes):
                if process not in before and not process.standing:
                    if await process.status() is None:
                        await process.kill()
                    lab.processes.remove(process)

    async def eventually(
        self, condition: Callable[[], Awaitable[T]], *, timeout: float = 10.0, what: str
    ) -> T:
        """Look until a condition is true, for a bounded time; ``what`` says what was awaited."""
        clock = IReactorTime(reactor)
        return await eventually(clock, condition, timeout=timeout, what=what)

    def with_logs(self, failure: Any) -> Failure:
        """Add the tails of the logs to a failure's text."""
        kept = failure
        if not isinstance(kept, Failure):
            kind, value, traceback = failure
            kept = Failure(value, kind, traceback)
        tails = [
            process.tail()
            for lab, before in self._used
            if lab.directory.is_dir()
            for process in lab.processes
            if process.standing or process not in before
        ]
        tails = [tail for tail in tails if "\n" in tail]  # the others said nothing
        if tails:
            said = str(kept.value)
            kept.value = _Told("\n".join([said, "", *(tail for tail in tails if tail not in said)]))
        return kept
