"""The parts of ``make bench``, one after another; each is written as soon as it is measured."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.base import ReactorBase

from ntmobile.bench import answers, control, handover, machine, profiles, relay, stored, tunnel
from ntmobile.bench.plot import svg
from ntmobile.bench.report import markdown
from ntmobile.bench.results import Row, Say, Section, Skipped, Table, load, one_line, save

Part = Callable[[ReactorBase, int, Say], Awaitable[Section]]

#: In the order in which they are measured and shown.
PARTS: Mapping[str, Part] = {
    "relay": relay.measure,
    "tunnel": tunnel.measure,
    "setup": answers.measure,
    "handover": handover.measure,
    "control": control.measure,
    "stored": stored.measure,
    "profile": profiles.measure,
}


@frozen
class Suite:
    """A run.

    :ivar directory: where the results go. :ivar repeat: samples of each contender.
    """

    directory: Path
    repeat: int
    say: Say

    @property
    def page(self) -> Path:
        """The document."""
        return self.directory / "benchmarks.md"

    async def run(self, only: Sequence[str], reactor: Any) -> list[Section]:
        """Measure some parts; gives their sections. A part that fails is a section that says so."""
        measured = []
        for name in only:
            self.say(f"== {name}")
            began = time.monotonic()
            section = await self._part(name, reactor)
            measured.append(section)
            self.say(f"== {name} took {time.monotonic() - began:.0f} s")
            self.write(section)
        return measured

    async def _part(self, name: str, reactor: Any) -> Section:
        description = machine.describe()
        try:
            section = await PARTS[name](reactor, self.repeat, self.say)
        except Skipped as reason:
            section = Section(name, name.capitalize(), text=f"Skipped: {reason}.")
            self.say(f"{name}: skipped: {reason}")
        except Exception as problem:
            row = Row("all", failed=one_line(problem))
            section = Section(name, name.capitalize(), tables=[Table(name, "", rows=[row])])
            self.say(f"{name}: FAILED: {problem}")
        section.date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        section.machine = {**description, **section.machine}
        return section

    def write(self, section: Section) -> None:
        """Put a section in the place of its earlier one, and write everything."""
        file = self.directory / "benchmarks.json"
        kept = {each.name: each for each in load(file)}
        kept[section.name] = section
        sections = [kept[name] for name in PARTS if name in kept]
        save(sections, file)
        self.page.write_text(markdown(sections), encoding="utf-8")
        (self.directory / "benchmarks.svg").write_text(svg(sections), encoding="utf-8")
