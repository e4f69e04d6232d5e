"""What a benchmark gives: samples, rows of a table, bars and whether they are met."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from attrs import asdict, define, field, frozen

#: How ntmobile's own rows are named first.
OWN = "ntmobile"


class NothingTransferred(Exception):
    """A measurement in which nothing, or too little, arrived: it is no result."""


class Skipped(Exception):
    """A contender that is not there; the text is one line that says why."""


@define
class Row:
    """One contender's samples.

    :ivar detail: what is to be said of them. :ivar skipped: why there are none, for a peer that is
        not there. :ivar failed: why there are none, or not all, for what should have worked.
    """

    name: str
    samples: list[float] = field(factory=list)
    detail: str = ""
    skipped: str = ""
    failed: str = ""

    @property
    def median(self) -> float | None:
        """The median of the samples, None without any."""
        return median(self.samples) if self.samples else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Least and greatest sample."""
        return (min(self.samples), max(self.samples)) if self.samples else None


@frozen
class Bar:
    """What is to be reached: a multiple of a peer's median, or a number of the table's unit.

    :ivar row: whose median is judged. :ivar peer: beside whom, None for a number.
    :ivar least: at least this. :ivar most: at most this; one of both is given.
    """

    row: str
    peer: str | None = None
    least: float | None = None
    most: float | None = None


@frozen
class Verdict:
    """How a bar was judged; ``met`` is None where there was nothing to judge."""

    bar: Bar
    value: float | None
    met: bool | None


@define
class Table:
    """Contenders measured beside each other, in turn, in one run.

    :ivar unit: of the samples. :ivar more: whether more is better. :ivar note: how it was measured.
    """

    title: str
    unit: str
    more: bool = True
    note: str = ""
    rows: list[Row] = field(factory=list)
    bars: list[Bar] = field(factory=list)

    def row(self, name: str) -> Row | None:
        """The row of a name."""
        return next((row for row in self.rows if row.name == name), None)

    def ratio(self, own: str, peer: str) -> float | None:
        """How many times better one row is than another, by medians."""
        first, second = self.row(own), self.row(peer)
        if first is None or second is None or not first.median or not second.median:
            return None
        quotient = first.median / second.median
        return quotient if self.more else 1 / quotient

    def verdicts(self) -> list[Verdict]:
        """Judge every bar."""
        return [self._judge(bar) for bar in self.bars]

    def _judge(self, bar: Bar) -> Verdict:
        row = self.row(bar.row)
        if bar.peer is not None:
            value = self.ratio(bar.row, bar.peer)
        else:
            value = row.median if row is not None else None
        if row is not None and row.failed:
            return Verdict(bar, value, False)
        if value is None:
            return Verdict(bar, None, None)
        least = bar.least is None or value >= bar.least
        most = bar.most is None or value <= bar.most
        return Verdict(bar, value, least and most)


@define
class Section:
    """One part of the benchmarks, as it was measured at one time.

    :ivar name: as ``--only`` has it. :ivar date: ISO 8601, UTC. :ivar machine: see
        :mod:`ntmobile.bench.machine`. :ivar text: Markdown that follows the tables.
    """

    name: str
    title: str
    note: str = ""
    tables: list[Table] = field(factory=list)
    text: str = ""
    date: str = ""
    machine: dict[str, str] = field(factory=dict)

    @property
    def failures(self) -> list[str]:
        """What should have worked and did not."""
        rows = [(table, row) for table in self.tables for row in table.rows]
        return [f"{table.title}: {row.name}: {row.failed}" for table, row in rows if row.failed]


def save(sections: Sequence[Section], file: Path) -> None:
    """Write sections as JSON."""
    value = [asdict(section) for section in sections]
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def load(file: Path) -> list[Section]:
    """Read what :func:`save` wrote; nothing where there is no such file."""
    if not file.exists():
        return []
    return [_section(value) for value in json.loads(file.read_text(encoding="utf-8"))]


def _section(value: dict[str, Any]) -> Section:
    tables = [
        Table(
            **{
                **table,
                "rows": [Row(**row) for row in table["rows"]],
                "bars": [Bar(**bar) for bar in table["bars"]],
            }
        )
        for table in value["tables"]
    ]
    return Section(**{**value, "tables": tables})


Measure = Callable[[], Awaitable[float]]
Say = Callable[[str], None]


async def in_turn(
    repeat: int, contenders: Mapping[str, Measure], unit: str, say: Say
) -> dict[str, Row]:
    """Measure A B C A B C ..., so that what disturbs the machine disturbs all alike.

    A contender that fails is left out from then on; its row says why.
    """
    rows = {name: Row(name) for name in contenders}
    for number in range(repeat):
        for name, measure in contenders.items():
            row = rows[name]
            if row.failed or row.skipped:
                continue
            try:
                value = await measure()
                if value <= 0:
                    raise NothingTransferred("nothing was transferred")
            except Skipped as reason:
                row.skipped = str(reason)
                say(f"{name}: skipped: {row.skipped}")
            except Exception as problem:
                row.failed = one_line(problem)
                say(f"{name}: FAILED: {row.failed}")
            else:
                row.samples.append(value)
                say(f"{name} {number + 1}/{repeat}: {value:,.4g} {unit}")
    return rows


def one_line(problem: BaseException) -> str:
    """The first line of what went wrong, as much as fits a table."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    return text[:300]
