"""The longest pause that an application sees when a device moves, or both do at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from statistics import median

from attrs import define
from twisted.internet.base import ReactorBase

from ntmobile.bench.results import Bar, Row, Say, Section, Table, one_line
from ntmobile.lab.forwarder import Impairment
from ntmobile.lab.internet import Access
from ntmobile.lab.node import Lab
from ntmobile.lab.process import together
from ntmobile.testbed.gaps import Conversation, Journey
from ntmobile.testbed.platform import Platform
from ntmobile.testbed.standing import StandingLab

#: The bars, in milliseconds after the new address is usable.
ONE, BOTH = 100.0, 1000.0
#: Seconds of a round trip on the far line; the bar allows for two of them.
ROUND_TRIP = 0.05

_CLIENTS: Mapping[str, Access] = {
    "global4": Access.GLOBAL4,
    "dual": Access.DUAL,
    "home": Access.HOME,
    "symmetric": Access.SYMMETRIC,
    "carrier": Access.CARRIER,
    "guest": Access.GUESTS,
}

_NOTE = """\
A UDP probe every 10 ms and a checked TCP stream run through the tunnel while hosts are moved to
other networks, there and back. A sample is the part of the probe's longest gap after the moved
host had its new address and route; 0 means that no gap reached 20 ms. A TCP stream that breaks
fails the row: nothing reconnects."""

Go = Callable[[str], Awaitable[object]]


@define
class Case:
    """A way to move.

    :ivar pair: who talk; the first asks. :ivar movers: who move. :ivar places: the networks of each
        mover by turns, its own one last. :ivar most: the bar.
    """

    title: str
    pair: tuple[str, str]
    movers: tuple[str, ...]
    places: tuple[tuple[str, ...], ...]
    most: float


CASES = (
    Case(
        "one moves: global to NAT and back",
        ("global4", "dual"),
        ("global4",),
        (("home",), ("global4",)),
        ONE,
    ),
    Case(
        "one moves between NATs, the other behind a carrier's: through relays",
        ("home", "carrier"),
        ("home",),
        (("guest",), ("home",)),
        ONE,
    ),
    Case(
        "both behind NATs move to other NATs at once",
        ("home", "carrier"),
        ("home", "carrier"),
        (("guest", "symmetric"), ("home", "carrier")),
        BOTH,
    ),
)

FAR = Case(
    f"one moves, on a line of {1000 * ROUND_TRIP:.0f} ms a round trip",
    ("global4", "dual"),
    ("global4",),
    (("home",), ("global4",)),
    ONE + 2000 * ROUND_TRIP,
)


async def row(platform: Platform, case: Case, repeat: int, say: Say) -> Row:
    """Measure a case by one journey."""
    found = Row(case.title)
    lab = platform.lab
    cables = [lab.clients[name].attachment for name in case.movers]

    async def go(to: tuple[str, ...]) -> None:
        targets = [lab.networks[each] for each in to]
        await together(*(one.move(to) for one, to in zip(cables, targets, strict=True)))

    try:
        conversation = await Conversation.start(*(platform.devices[name] for name in case.pair))
        journey = Journey(platform.clock, [conversation])
        for number in range(repeat):
            for to in case.places:
                name = f"{number}: to {' and '.join(to)}"
                await journey.move(name, partial(go, to))
        gaps = await journey.end()
    except Exception as problem:
        found.failed = one_line(problem)
        say(f"{case.title}: FAILED: {problem}")
        return found
    found.samples = [usable for _, usable in gaps.values()]
    whole = median(longest for longest, _ in gaps.values())
    found.detail = f"{len(gaps)} moves; the move included, the median is {whole:.0f} ms"
    say(f"{case.title}: {found.median:.0f} ms of {sorted(round(each) for each in found.samples)}")
    return found


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure every case; half of the samples go there, half back."""
    section = Section("handover", "Handover", _NOTE)
    table = Table("Handover: gap after the new address is usable", "ms", more=False)
    moves = (repeat + 1) // 2 + 1
    for case in (*CASES, FAR):
        # A lab of its own, so that no pair knows an earlier one's networks and tunnels.
        with Lab.start(reactor) as lab:
            names = {name: _CLIENTS[name] for name in _needed(case)}
            standing = await StandingLab.build(lab, names, {})
            if case is FAR:
                host = standing.clients[case.movers[0]]
                await host.attachment.unplug()
                line = Impairment(delay=ROUND_TRIP / 2)
                await host.plug(standing.networks[case.movers[0]], impairment=line)
            platform = await Platform.build(standing)
            table.rows.append(await row(platform, case, moves, say))
            table.bars.append(Bar(case.title, most=case.most))
    section.tables = [table]
    return section


def _needed(case: Case) -> list[str]:
    names = {*case.pair, *(name for place in case.places for name in place)}
    return [name for name in _CLIENTS if name in names]
