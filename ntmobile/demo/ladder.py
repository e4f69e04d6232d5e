"""The message ladder: who sends what to whom, and when, in 80 columns (the paper, figure 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from ntmobile.demo.following import Event

#: Columns: the first lane, the way to the next, and the words beside the lanes.
FIRST: Final = 11
STEP: Final = 8
WIDTH: Final = 80

#: What a newcomer needs to know of each message of figure 2; what is not here is not shown.
MEANINGS: Final = {
    "Registration Request": "where I am now",
    "Registration Response": "where I see you",
    "Direction Request": "a tunnel, please",
    "Direction Response": "under way",
    "NTM Information Request": "about CN?",
    "NTM Information Response": "",
    "Relay Direction": "a tunnel to relay",
    "Relay Response": "ready",
    "Route Direction Transfer": "",
    "Route Direction Transfer Response": "",
    "Route Direction": "",
    "Route Direction Acknowledgement": "",
    "Relay Tunnel Request": "here I am",
    "Relay Tunnel Response": "",
    "Tunnel Request": "handshake",
    "Tunnel Response": "keys agreed",
}
#: What is written where the title is too long beside its lanes.
SHORT: Final = {
    "Route Direction Transfer Response": "Transfer Response",
    "Route Direction Acknowledgement": "Acknowledgement",
}
#: Steps of one program.
STEPS: Final = {"network": "moved", "lookup": "DNS", "tunnel": "tunnel up", "path": "path"}
#: How often the same message between the same two is drawn.
REPEATS: Final = 2


@define
class Lane:
    """A column. ``names``: whose messages it carries."""

    title: str
    name: str


@define
class Ladder:
    """Draws events as lines.

    :ivar lanes: from left to right. :ivar start: unix seconds that times are counted from; the
        first event's, if there is none.
    """

    lanes: Sequence[Lane]
    start: float | None = None
    _seen: Counter[tuple[str, str, str]] = field(factory=Counter)

    def begin(self, start: float | None = None) -> None:
        """A new picture."""
        self.start = start
        self._seen.clear()

    def heading(self) -> str:
        """The names of the lanes."""
        line = "ms".rjust(FIRST - 3).ljust(FIRST)
        for number, lane in enumerate(self.lanes):
            centre = FIRST + STEP * number
            line = line.ljust(centre - len(lane.title) // 2) + lane.title
        return line

    def draw(self, event: Event) -> str | None:
        """A line for an event; None where it has no place here."""
        places = {lane.name: number for number, lane in enumerate(self.lanes)}
        here, there = places.get(event.sender), places.get(event.receiver)
        if here is None:
            return None
        if not event.receiver:
            if event.message not in STEPS:
                return None
            return self._line(event, self._mark(here), self._step(event))
        if there is None or event.message not in MEANINGS:
            return None
        key = (event.sender, event.receiver, event.message)
        self._seen[key] += 1
        if self._seen[key] > REPEATS:
            return None
        through = next((places[one] for one in places if one in event.detail.split()), None)
        return self._line(event, self._arrow(here, there, through), self._words(event))

    def _line(self, event: Event, lanes: str, words: str) -> str:
        if self.start is None:
            self.start = event.time
        moment = f"{(event.time - self.start) * 1000:.1f}".rjust(FIRST - 3)
        return f"{moment}   {lanes}  {words}"[:WIDTH].rstrip()

    def _blank(self) -> list[str]:
        line = [" "] * (STEP * (len(self.lanes) - 1) + 1)
        for number in range(len(self.lanes)):
            line[STEP * number] = "|"
        return line

    def _mark(self, lane: int) -> str:
        line = self._blank()
        line[STEP * lane] = "*"
        return "".join(line)

    def _arrow(self, here: int, there: int, through: int | None) -> str:
        line = self._blank()
        low, high = sorted((STEP * here, STEP * there))
        for column in range(low + 1, high):
            line[column] = "-"
        if through is not None and low < STEP * through < high:
            line[STEP * through] = "o"
        if here < there:
            line[high - 1] = ">"
        else:
            line[low + 1] = "<"
        return "".join(line)

    def _words(self, event: Event) -> str:
        title = SHORT.get(event.message, event.message)
        meaning = MEANINGS[event.message]
        if event.message == "Route Direction":
            meaning = event.detail
        shown = f"{title}: {meaning}" if meaning else title
        room = WIDTH - FIRST - STEP * (len(self.lanes) - 1) - 3
        return shown if len(shown) <= room else title

    def _step(self, event: Event) -> str:
        return f"{STEPS[event.message]}: {event.detail}"
