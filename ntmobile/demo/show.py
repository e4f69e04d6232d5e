"""The play: what the demo does, act by act, and what it says of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ntmobile.demo.following import HOLD, Following
from ntmobile.demo.ladder import Ladder, Lane
from ntmobile.demo.platform import CN, DC_CN, DC_MN, MN, RS, Platform
from ntmobile.demo.program import Program, python
from ntmobile.demo.world import World
from ntmobile.lab.process import eventually, pause
from ntmobile.lab.supervision import LabError

LANES: Final = (
    Lane("MN", MN),
    Lane("DC-MN", DC_MN),
    Lane("DC-CN", DC_CN),
    Lane("RS", RS),
    Lane("CN", CN),
)
#: The counter's port on the laptop.
PORT: Final = 7007
#: Seconds of quiet after which an act is over.
SETTLED: Final = 0.6
COUNTER: Final = Path(__file__).parent / "programs" / "counter.py"


@define
class Counting:
    """The ordinary program's two ends."""

    server: Program
    client: Program

    def arrivals(self) -> list[tuple[int, float]]:
        """Number and unix time of each answer."""
        found = []
        for line in self.client.output().splitlines():
            number, _, moment = line.partition(" ")
            if number.isdigit() and moment:
                found.append((int(number), float(moment)))
        return found

    def gap(self, since: float) -> float:
        """The longest time between two answers, in seconds, from a moment on."""
        moments = [moment for _, moment in self.arrivals() if moment >= since - 0.5]
        return max((after - before for before, after in pairwise(moments)), default=0.0)

    def connections(self) -> int:
        """How many the server saw."""
        return self.server.output().count("connection from")


@define(eq=False)
class Show:
    """Plays it.

    :ivar say: prints a line.
    """

    reactor: ReactorBase
    world: World
    say: Callable[[str], None]
    ladder: Ladder = field(factory=lambda: Ladder(LANES))
    _platform: Platform = field(init=False)
    _following: Following = field(init=False)
    _drawing: LoopingCall = field(init=False)
    _drawn: float = field(default=0.0, init=False)

    @property
    def clock(self) -> IReactorTime:
        """For waits."""
        return IReactorTime(self.reactor)

    async def play(self) -> None:
        """All acts."""
        await self._set_up()
        counting = await self._first_contact()
        before = time.time()
        await self._act(
            "2. The phone leaves the campus for home, behind another NAT",
            counting,
            self.world.move_phone,
        )
        await self._act(
            "3. Both move at once: the phone into a mobile network, the laptop to a cafe",
            counting,
            self.world.move_both,
        )
        self.say(
            f"gap since {counting.gap(before) * 1000:.0f} ms, {counting.connections()} connections"
        )

    async def _set_up(self) -> None:
        await self._step("networks, NATs and hosts", self._build())
        await self._step("a realm: authority, certificates, users", self._make_realm())
        await self._step("servers: AS, two DCs, RS", self._platform.start_servers())
        await self._step("ntm enroll: phone and laptop", self._platform.enroll())
        await self._step("ntm up: phone and laptop", self._platform.start_agents())

    async def _step(self, what: str, work: Awaitable[None]) -> None:
        began = time.monotonic()
        await work
        self.say(f"  {what:<52} {time.monotonic() - began:5.2f} s")

    async def _build(self) -> None:
        self._platform = await self.world.build()

    async def _make_realm(self) -> None:
        self._platform.make_realm()

    async def _first_contact(self) -> Counting:
        self._following = Following(self._platform.logs())
        self._following.take(time.time() + 1)
        self._drawing = LoopingCall(self._draw)
        self._drawing.start(0.05)
        self.say("")
        self.say("1. A program on the phone connects to a name")
        self.ladder.begin()
        self.say(self.ladder.heading())
        platform = self._platform
        argv = python(COUNTER, "serve", str(PORT))
        server = await platform.places["laptop"].spawn(
            platform.exec("laptop", *argv), name="counter-server"
        )
        await server.wait_for("^ready$")
        argv = python(COUNTER, "count", CN, str(PORT))
        client = await platform.places["phone"].spawn(
            platform.exec("phone", *argv), name="counter-client"
        )
        await client.wait_for("^connected$")
        counting = Counting(server, client)
        await self._settled()
        return counting

    async def _act(
        self, title: str, counting: Counting, move: Callable[[], Awaitable[str]]
    ) -> None:
        self.say("")
        self.say(title)
        self.say(self.ladder.heading())
        self.ladder.begin(time.time())
        before = len(counting.arrivals())
        began = time.time()
        await move()
        moved = time.time()

        async def goes_on() -> bool:
            if await counting.client.status() is not None:
                raise LabError(f"the connection broke\n{counting.client.tail()}")
            return any(moment > moved + 0.2 for _, moment in counting.arrivals()[before:])

        await eventually(self.clock, goes_on, timeout=20.0, what=counting.client.tail)
        await self._settled()
        self.say(f"  gap {counting.gap(began) * 1000:.0f} ms")

    async def _settled(self) -> None:
        async def quiet() -> bool:
            return time.monotonic() - self._drawn > SETTLED

        self._drawn = time.monotonic()
        await eventually(self.clock, quiet, timeout=10.0, what="quiet")
        await pause(self.clock, HOLD)

    def _draw(self) -> None:
        for event in self._following.take(time.time()):
            line = self.ladder.draw(event)
            if line is not None:
                self._drawn = time.monotonic()
                self.say(line)
