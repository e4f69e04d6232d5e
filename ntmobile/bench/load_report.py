"""What ``ntm bench load`` prints for people: 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ntmobile.bench.load import DIRECTIONS, MEMORY, REGISTRATIONS, Rate, Report

#: Columns of a terminal.
WIDTH: Final = 80
_TITLES: Final = {
    "first_registrations": "first",
    "registrations": "registrations",
    "keep_alives": "keep-alives",
    "directions": "directions",
}
_HEAD: Final = ("", "per s", "per CPU s", "p50 ms", "p99 ms", "max ms", "failed", "DC", "load")
_LIMITS: Final = {
    "generator": "by this load generator, the coordinator could do more",
    "neither": "by neither process; is the machine busy with something else?",
}


def lines(report: Report) -> Iterator[str]:
    """The report, line by line."""
    relay = " and a relay" if report.relay else ""
    yield f"A coordinator with {report.clients} clients{relay}, {report.window} requests at once"
    yield ""
    rows = [_HEAD, *(_row(_TITLES[name], rate) for name, rate in report.rates.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join((row[0].ljust(widths[0]), *cells)).rstrip()
    yield ""
    yield "first: hello and first registration; per CPU s: of all the coordinator's threads"
    yield "DC, load: of one core, what the coordinator and this load generator used"
    for name, rate in report.rates.items():
        if rate.limit in _LIMITS:
            yield f"{_TITLES[name]}: limited {_LIMITS[rate.limit]}"
        for error, count in sorted(rate.errors.items()):
            yield f"{_TITLES[name]}: {count} x {error}"[:WIDTH]
    yield ""
    memory = report.memory
    yield from (
        _bar("registrations/s", report.rates["registrations"].per_second, REGISTRATIONS),
        _bar("directions/s", report.rates["directions"].per_second, DIRECTIONS),
        _bar("bytes a client", memory.per_client, MEMORY, most=True),
    )
    yield ""
    mib = 1 << 20
    yield (
        f"Memory of the coordinator: {memory.empty / mib:.0f} MiB empty, "
        f"{memory.registered / mib:.0f} registered, {memory.loaded / mib:.0f} after all"
    )
    yield f"It recovered its clients in {report.recovery_seconds:.1f} s"
    yield (
        f"Real logins: {report.logins['logins_per_second']:.0f} a second; "
        f"an enrolment takes {1000 * report.logins['enrolment_seconds']:.0f} ms"
    )
    for problem in report.problems[:5]:
        yield f"The coordinator said: {problem}"[:WIDTH]


def _row(title: str, rate: Rate) -> tuple[str, ...]:
    median, late, latest = (f"{value:.1f}" for value in rate.milliseconds)
    failed = str(sum(rate.errors.values()))
    rates = f"{rate.per_second:.0f}", f"{rate.per_cpu_second:.0f}"
    shares = _share(rate, rate.dc_cpu_all), _share(rate, rate.own_cpu)
    return (title, *rates, median, late, latest, failed, *shares)


def _share(rate: Rate, cpu: float) -> str:
    return f"{100 * cpu / rate.seconds:.0f} %" if rate.seconds else "-"


def _bar(title: str, value: float, bar: float, *, most: bool = False) -> str:
    met = value <= bar if most else value >= bar
    sign, word = "<=" if most else ">=", "met" if met else "missed"
    return f"{title:16} {value:8.0f}  bar {sign} {bar:.0f}: {word}"
