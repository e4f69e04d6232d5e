"""``docs/benchmarks.svg``: bars of each table that has peers, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ntmobile.bench.report import number
from ntmobile.bench.results import OWN, Section, Table

_WIDTH, _LEFT, _RIGHT = 760, 210, 110
_LINE, _BAR = 26, 16

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.quiet { fill: #59636e; }
.own { fill: #1a7f37; } .peer { fill: #8c959f; }
.spread { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; }
  .own { fill: #3fb950; } .peer { fill: #656c76; } .spread { stroke: #e6edf3; }
}"""


def plotted(sections: Sequence[Section]) -> list[Table]:
    """The tables with peers that were measured."""
    tables = [table for section in sections for table in section.tables]
    return [table for table in tables if any(table.ratio(OWN, row.name) for row in table.rows)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    named = f' class="{kind}"' if kind else ""
    return f"<text {attributes}{named}>{escape(text)}</text>"


def _longest(table: Table) -> float:
    """What the longest bar stands for: all samples fit, but of one that would dwarf all others."""
    rows = sorted((row.median, row.spread[1]) for row in table.rows if row.median and row.spread)
    if len(rows) > 2 and rows[-1][0] > 3 * rows[-2][0]:
        rows.pop()
    return max(high for _, high in rows)


def _table(table: Table, top: float) -> Iterator[str]:
    yield _text(0, top + 14, f"{table.title}, {table.unit}", "title")
    longest, room = _longest(table), _WIDTH - _LEFT - _RIGHT
    for place, row in enumerate(table.rows):
        y = top + 24 + place * _LINE
        yield _text(_LEFT - 8, y + 13, row.name, anchor="end")
        if row.median is None or row.spread is None:
            yield _text(_LEFT, y + 13, "skipped" if row.skipped else "failed", "quiet")
            continue
        cut = row.median > longest
        width = room if cut else room * row.median / longest
        kind = "own" if row.name == OWN else "peer"
        size = f'width="{width:.1f}" height="{_BAR}"'
        yield f'<rect class="{kind}" x="{_LEFT}" y="{y}" {size} rx="2"/>'
        if not cut:
            low, high = (_LEFT + room * end / longest for end in row.spread)
            middle = y + _BAR / 2
            yield (
                f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
            )
            width = max(width, high - _LEFT)
        said = number(row.median) + (", cut off" if cut else "")
        yield _text(_LEFT + width + 6, y + 13, said)


def svg(sections: Sequence[Section]) -> str:
    """The picture; a line over each bar is from the least sample to the greatest."""
    parts: list[str] = []
    top = 0.0
    for table in plotted(sections):
        parts += _table(table, top)
        top += 24 + _LINE * len(table.rows) + 18
    if not parts:
        parts, top = [_text(0, 16, "nothing was measured beside a peer", "quiet")], 30.0
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:.0f}"'
    title = "<title>ntmobile beside its peers</title>"
    return "\n".join([f'{head} role="img">', title, f"<style>{_STYLE}</style>", *parts, "</svg>\n"])
