"""``docs/benchmarks.md`` from the sections measured last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ntmobile.bench.results import OWN, Row, Section, Table, Verdict

#: Between a factor and what it multiplies.
TIMES = "\N{MULTIPLICATION SIGN}"

_HEAD = """\
# Benchmarks

`make bench` measured this and wrote this page: ntmobile beside its peers, in one run on one
machine, in network namespaces that it makes itself, without root. Contenders are measured in turn
(A B C A B C ...), each number is the median of its samples, and nothing counts that was not
received. What was not there is skipped and says so; a bar that is missed says so, too. `make bench
ONLY=relay,tunnel` measures parts; the others stay as they were, with their own date.

![ntmobile beside its peers](benchmarks.svg)
"""


def number(value: float) -> str:
    """A number with three figures or all before the point."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _row(table: Table, row: Row) -> list[str]:
    if row.median is None or row.spread is None:
        why = f"skipped: {row.skipped}" if row.skipped else f"**failed**: {row.failed}"
        return [row.name, "-", "-", "-", _cell(why)]
    spread = f"{number(row.spread[0])} to {number(row.spread[1])}"
    detail = row.detail
    if row.failed:
        detail = f"**failed after {len(row.samples)} samples**: {row.failed}. {detail}"
    ratio = ""
    if row.name != OWN:
        quotient = table.ratio(OWN, row.name)
        ratio = f"{quotient:.2f} {TIMES}" if quotient else ""
    cells = [f"{number(row.median)}", f"{spread} ({len(row.samples)})", ratio, _cell(detail)]
    return [f"**{row.name}**" if row.name == OWN else row.name, *cells]


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in body:
        yield f"| {' | '.join(row)} |"


def verdict(table: Table, found: Verdict) -> str:
    """One bar as a line of a list."""
    bar = found.bar
    sign, limit = ("≥", bar.least) if bar.least is not None else ("≤", bar.most)
    assert limit is not None
    unit = f"{TIMES} {bar.peer}" if bar.peer else table.unit
    said = f"{bar.row}: {sign} {number(limit)} {unit}"
    if found.value is None:
        state = "not met: no result" if found.met is False else "not measured"
        return f"- {said}: **{state}**"
    value = f"{found.value:.2f} {TIMES}" if bar.peer else f"{number(found.value)} {table.unit}"
    return f"- {said}: {value}, **{'met' if found.met else 'not met'}**"


def table_lines(table: Table) -> Iterator[str]:
    """A table and its bars."""
    yield f"### {table.title}"
    yield ""
    beside = any(row.name == OWN for row in table.rows)
    head = ["", f"median, {table.unit}", "least to most (samples)", "ntmobile is", ""]
    rows = [head, *(_row(table, row) for row in table.rows)]
    yield from _lines(rows if beside else [[*row[:3], row[4]] for row in rows])
    yield ""
    if table.note:
        yield from (table.note, "")
    if table.bars:
        yield "Bars:"
        yield ""
        yield from (verdict(table, found) for found in table.verdicts())
        yield ""


def section_lines(section: Section) -> Iterator[str]:
    """A section."""
    yield f"## {section.title}"
    yield ""
    yield from (section.note, "")
    for table in section.tables:
        yield from table_lines(table)
    if section.text:
        yield from (section.text.strip(), "")
    yield f"Measured {section.date}."
    yield ""


def machines(sections: Sequence[Section]) -> Iterator[str]:
    """What was measured on, once if it was one machine."""
    yield "## The machine"
    yield ""
    shown: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for section in sections:
        common = tuple(item for item in section.machine.items() if item[0] != "load before")
        shown.setdefault(common, []).append(section.title)
    merged: dict[str, str] = {}
    for items in shown:
        for name, value in items:
            before = merged.get(name)
            merged[name] = value if before in (None, value) else f"{before}; {value}"
    yield from _lines([["", ""], *([name, _cell(value)] for name, value in merged.items())])
    yield ""
    loads = [
        f"{section.title.lower()} {section.machine['load before']}"
        for section in sections
        if "load before" in section.machine
    ]
    yield f"Load of the machine before each part (processes that ran): {', '.join(loads)}."
    yield ""


def markdown(sections: Sequence[Section]) -> str:
    """The page."""
    lines = [_HEAD, *machines(sections)]
    for section in sections:
        lines += section_lines(section)
    return "\n".join(lines).rstrip() + "\n"


def summary(sections: Sequence[Section]) -> Iterator[str]:
    """What is printed at the end: every bar, and every failure."""
    for section in sections:
        for table in section.tables:
            for found in table.verdicts():
                yield f"{table.title}: {verdict(table, found)[2:].replace('**', '')}"
        for failure in section.failures:
            yield f"FAILED: {failure}"
