"""The play: what the demo does, act by act, and what it says of it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, field, frozen
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from ntmobile.demo.counting import Counting
from ntmobile.demo.following import HOLD, Event, Following
from ntmobile.demo.ladder import STORED, STORED_STEPS, WIDTH, Ladder, Lane, Style
from ntmobile.demo.mail import Mail, Ran
from ntmobile.demo.platform import CN, CS, DC_CN, DC_MN, MN, RS, Platform
from ntmobile.demo.world import OFF, ON, Act, World
from ntmobile.lab.process import eventually, pause
from ntmobile.lab.supervision import LabError

LANES: Final = (
    Lane("MN", MN),
    Lane("DC-MN", DC_MN),
    Lane("DC-CN", DC_CN),
    Lane("RS", RS),
    Lane("CN", CN),
)
CAST: Final = (
    ("MN", MN, "the mobile node: alice's phone"),
    ("CN", CN, "its correspondent: bob's laptop"),
    ("DC-MN", DC_MN, "coordinates alice's devices"),
    ("DC-CN", DC_CN, "coordinates bob's devices"),
    ("RS", RS, "relays where nothing else works"),
    ("CS", CS, "keeps data for devices that are off"),
)
#: Figures 3 and 4 have a cache server where figure 2 has a relay.
STORED_LANES: Final = (
    Lane("MN", MN),
    Lane("DC-MN", DC_MN),
    Lane("CS", CS),
    Lane("DC-CN", DC_CN),
    Lane("CN", CN),
)
#: Seconds without a message after which an act is over, and for which an act lasts at least.
QUIET: Final = 0.5
LEAST: Final = 1.5
#: Seconds in which a connection must go on after a move.
PATIENCE: Final = 20.0

#: Prints a line in a style, or plainly.
Say = Callable[[str, Style | None], None]


@frozen
class Handover:
    """A move and the pause that it made, in seconds. ``way``: the phone's path afterwards."""

    what: str
    gap: float
    way: str


@define(eq=False)
class Show:
    """Plays it.

    :ivar failed: called with what went wrong while messages were drawn.
    """

    reactor: ReactorBase
    world: World
    _say: Say
    failed: Callable[[Failure], None]
    platform: Platform | None = field(default=None, init=False)
    _ladder: Ladder = field(factory=lambda: Ladder(LANES), init=False)
    _following: Following = field(factory=lambda: Following(dict), init=False)
    _drawing: LoopingCall | None = field(default=None, init=False)
    _counting: Counting | None = field(default=None, init=False)
    _drawn: float = field(default=0.0, init=False)
    _events: list[Event] = field(factory=list, init=False)

    @property
    def _clock(self) -> IReactorTime:
        return IReactorTime(self.reactor)

    def say(self, line: str = "", style: Style | None = None) -> None:
        """Print a line."""
        self._say(line, style)

    async def play(self) -> None:
        """All acts. :raises LabError: something did not go as it must; the text has the log."""
        platform = await self._set_up()
        up, first, phone, both = self.world.acts
        await self._come_up(up, platform)
        counting, set_up = await self._first_contact(first, platform)
        moves = [
            await self._move(3, phone, counting, self.world.move_phone),
            await self._move(4, both, counting, self.world.move_both),
        ]
        await self._all_run()
        mail = Mail(platform)
        await self._send(mail)
        await self._collect(mail)
        await self._all_run()
        self._summary(counting, set_up, moves, mail)
        self.stop()

    def stop(self) -> None:
        """Draw no more."""
        if self._drawing is not None and self._drawing.running:
            self._drawing.stop()

    # -- before the first act

    async def _set_up(self) -> Platform:
        began = time.monotonic()
        await self._step(self.world.networks, self._build())
        platform = self.platform
        assert platform is not None
        await self._step("ntm realm: an authority, certificates, two users", self._make_realm())
        await self._step("twistd: an AS, two DCs, an RS, a CS", platform.start_servers())
        await self._step("ntm enroll: a phone for alice, a laptop for bob", platform.enroll())
        self.say(f"  {'all together':<66}{time.monotonic() - began:5.1f} s")
        self.say()
        for title, name, words in CAST:
            self.say(f"  {title:<7}{name:<30}{words}")
        return platform

    async def _step(self, what: str, work: Awaitable[None]) -> None:
        began = time.monotonic()
        await work
        self.say(f"  {what + ' ':.<66}{time.monotonic() - began:5.1f} s")

    async def _build(self) -> None:
        self.platform = await self.world.build()

    async def _make_realm(self) -> None:
        assert self.platform is not None
        self.platform.make_realm()

    # -- acts

    def _begin(self, number: int, act: Act, start: float | None) -> None:
        self.say()
        self.say(f"{number}. {act.title}", Style.STEP)
        for line in textwrap.wrap(act.words, WIDTH - 3):
            self.say(f"   {line}")
        self.say()
        self._ladder.begin(start)
        self.say(self._ladder.heading())

    async def _come_up(self, act: Act, platform: Platform) -> None:
        self._following = Following(platform.logs)
        self._following.take(time.time() + 1)  # what was before is of no interest
        self._drawing = LoopingCall(self._draw)
        self._begin(1, act, None)
        self._drawing.start(0.03).addErrback(self.failed)
        began = time.monotonic()
        await self.world.start_devices(platform)
        await self._settle(began)

    async def _first_contact(self, act: Act, platform: Platform) -> tuple[Counting, float]:
        """The tunnel is made by the program's first use of the name; gives the seconds it took."""
        self._begin(2, act, None)
        began = time.monotonic()
        counting = self._counting = await self.world.start_counting(platform)
        await self._settle(began)
        self._end(counting)
        return counting, self._set_up_time()

    async def _move(
        self, number: int, act: Act, counting: Counting, move: Callable[[], Awaitable[None]]
    ) -> Handover:
        began, start = time.monotonic(), time.time()
        self._begin(number, act, start)
        await move()
        moved = time.time()

        async def goes_on() -> bool:
            if await counting.client.status() is not None:
                raise LabError(f"the connection broke\n{counting.client.tail()}")
            await self._all_run()
            return counting.last > moved + 0.2

        what = "the connection goes on"
        await eventually(self._clock, goes_on, timeout=PATIENCE, what=what)
        await self._settle(began)
        gap = counting.gap(start, time.time())
        self._end(counting, gap)
        ways = [
            one.detail
            for one in self._events
            if one.sender == MN and one.message in ("tunnel", "path")
        ]
        return Handover(act.title, gap, ways[-1] if ways else "")

    async def _send(self, mail: Mail) -> None:
        """What is sent while its receiver is off (figures 3 and 4, the sender's half)."""
        await self.world.switch_off(mail.platform)
        await pause(self._clock, 2 * HOLD)  # how they ended is not drawn
        self._draw()
        self._ladder = Ladder(STORED_LANES, STORED, STORED_STEPS)
        began = time.monotonic()
        self._begin(5, OFF, None)
        for command in (mail.send_file, mail.send_message):
            await self._shown(command)
        await self._settle(began)
        self._end_repeated()

    async def _collect(self, mail: Mail) -> None:
        """What happens when the receiver comes back (the receiver's half)."""
        began = time.monotonic()
        self._begin(6, ON, None)
        await mail.platform.start_agents("laptop")
        await mail.platform.services["laptop"].wait_for('"arrived"')
        for command in (mail.inbox, mail.get_file, mail.get_message, mail.sent):
            await self._shown(command)
        await self._settle(began)
        self._end_repeated()
        mail.check()

    async def _shown(self, command: Callable[[], Awaitable[Ran]]) -> None:
        """Run a command, and show it with what it prints."""
        ran = await command()
        await pause(self._clock, 2 * HOLD)  # its messages first
        self._draw()
        self.say(f"   $ {ran.typed}", Style.STEP)
        for line in ran.output.splitlines():
            self.say(f"   {line}"[:WIDTH].rstrip())

    async def _settle(self, began: float) -> None:
        """Until no more messages come."""

        async def quiet() -> bool:
            now = time.monotonic()
            return now - self._drawn > QUIET and now - began > LEAST

        self._drawn = time.monotonic()
        await eventually(self._clock, quiet, timeout=10.0, what="the messages end")
        await pause(self._clock, HOLD)

    def _end(self, counting: Counting, gap: float | None = None) -> None:
        self._end_repeated()
        paused = "" if gap is None else f", longest pause {gap * 1000:.0f} ms"
        self.say(
            f"   The program: {counting.connections} connection, "
            f"{counting.answers} answers so far{paused}."
        )

    def _end_repeated(self) -> None:
        if self._ladder.repeated:
            self.say(f"{'':{WIDTH - 37}}+ {self._ladder.repeated} repeated messages, not drawn")

    def _draw(self) -> None:
        if self._counting is not None:
            self._following.add(self._counting.read())
        for event in self._following.take(time.time()):
            self._events.append(event)
            line = self._ladder.draw(event)
            if line is not None:
                self._drawn = time.monotonic()
                self.say(line.text, line.style)

    async def _all_run(self) -> None:
        ended = [] if self.platform is None else await self.platform.ended()
        if ended:
            raise LabError(f"{', '.join(one.name for one in ended)} ended before its time")

    def _set_up_time(self) -> float:
        asked = min(one.time for one in self._events if one.message == "Direction Request")
        return max(one.time for one in self._events if one.message == "tunnel") - asked

    # -- after the last act

    def _summary(
        self, counting: Counting, set_up: float, moves: list[Handover], mail: Mail
    ) -> None:
        order = "in order" if counting.in_order else "NOT in order"
        rows = [("tunnel", f"{set_up * 1000:.0f} ms", "from the question until both ends had it")]
        rows += [
            ("handover", f"{move.gap * 1000:.0f} ms", f"pause in act {number}; then {move.way}")
            for number, move in enumerate(moves, start=3)
        ]
        told = f"answers over {counting.protocol}, {order}, {counting.lost or 'none'} lost"
        rows.append(("program", str(counting.answers), f"{told}, {counting.sent}"))
        rows.append(("connections", str(counting.connections), "nothing reconnected"))
        rows.append(("stored data", str(mail.items), mail.summary))
        self.say()
        self.say("Summary", Style.STEP)
        for title, number, words in rows:
            self.say(f"  {title:<13}{number:>7}  {words}")
        intact = counting.in_order and not (counting.lost and counting.protocol == "TCP")
        if counting.connections != 1 or not intact:
            raise LabError(f"the connection did not go on\n{counting.server.tail()}")
