"""The message ladder: who sends what to whom and when (the paper, figures 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from ntmobile.demo.following import Event

#: Columns: the first lane, the way to the next, and where a line ends.
FIRST: Final = 9
STEP: Final = 8
WIDTH: Final = 80

#: Each message of figure 2 with a word for a newcomer; what is not here is not drawn.
MEANINGS: Final = {
    "Registration Request": "I am here",
    "Registration Response": "noted",
    "Direction Request": "to CN, please",
    "Direction Response": "done",
    "NTM Information Request": "CN?",
    "NTM Information Response": "",
    "Relay Direction": "a tunnel",
    "Relay Response": "ready",
    "Route Direction Transfer": "",
    "Route Direction Transfer Response": "",
    "Route Direction": "go direct",
    "Route Direction Acknowledgement": "",
    "Relay Tunnel Request": "I am here",
    "Relay Tunnel Response": "noted",
    "Tunnel Request": "handshake",
    "Tunnel Response": "keys",
}
#: The same for figures 3 and 4.
STORED: Final = {
    "Registration Request": "I am here",
    "Registration Response": "noted",
    "Pre-key Request": "CN's key, please",
    "Pre-key Response": "",
    "Temporal Key Upload Request": "for CN",
    "Temporal Key Upload Response": "",
    "Temporal Key Transfer Request": "",
    "Temporal Key Transfer Response": "",
    "Encryption Key Upload Request": "",
    "Encryption Key Upload Response": "",
    "Encryption Key Exchange Request": "",
    "Encryption Key Exchange Response": "",
    "Encrypted Data Upload Request": "",
    "Encrypted Data Upload Response": "",
    "Encrypted Data Exchange Request": "",
    "Encrypted Data Exchange Response": "",
    "Notification Request": "data waits",
    "Cache List Download Request": "where?",
    "Cache List Download Response": "",
    "Encryption Key Download Request": "",
    "Encryption Key Download Response": "",
    "Temporal Key Download Request": "",
    "Temporal Key Download Response": "",
    "Encrypted Data List Request": "",
    "Encrypted Data List Response": "",
    "Encrypted Data Download Request": "",
    "Encrypted Data Download Response": "",
    "Encrypted Data Confirmation Request": "",
    "Encrypted Data Confirmation Response": "",
}
#: Steps of one program: what is written for them, before their own words.
STEPS: Final = {
    "network": "new address",
    "lookup": "DNS",
    "tunnel": "tunnel up",
    "path": "now",
    "goes on": "goes on",
}
STORED_STEPS: Final = {
    "lookup": "DNS",
    "arrived": "verified: it is",
    "delivered": "verified: it came",
}


class Style(Enum):
    """What a line is about, for colours."""

    SIGNALLING = "signalling"
    TUNNEL = "tunnel"
    STEP = "step"


@frozen
class Lane:
    """A column. ``name``: whose messages it carries."""

    title: str
    name: str


@frozen
class Line:
    """A line of the ladder."""

    text: str
    style: Style


@define
class Ladder:
    """Draws events as lines: the first of each kind between the same two, and counts the others.

    :ivar lanes: from left to right.
    :ivar meanings: :ivar steps: which messages and steps are drawn, with what words.
    :ivar start: unix seconds that times are counted from; None: those of the first event.
    :ivar repeated: messages that were not drawn.
    """

    lanes: Sequence[Lane]
    meanings: Mapping[str, str] = field(default=MEANINGS)
    steps: Mapping[str, str] = field(default=STEPS)
    start: float | None = None
    repeated: int = 0
    _seen: set[tuple[str, str, str, str]] = field(factory=set)

    def begin(self, start: float | None = None) -> None:
        """A new picture."""
        self.start = start
        self.repeated = 0
        self._seen.clear()

    def heading(self) -> str:
        """The names of the lanes."""
        line = "ms".rjust(FIRST - 2)
        for number, lane in enumerate(self.lanes):
            centre = FIRST + STEP * number
            line = line.ljust(centre - len(lane.title) // 2) + lane.title
        return line

    def draw(self, event: Event) -> Line | None:
        """A line for an event; None where it has no place here."""
        places = {lane.name: number for number, lane in enumerate(self.lanes)}
        here, there = places.get(event.sender), places.get(event.receiver)
        message = bool(event.receiver)
        if here is None or event.message not in (self.meanings if message else self.steps):
            return None
        if message and there is None:
            return None
        key = (event.sender, event.receiver, event.message, "" if message else event.detail)
        if key in self._seen:
            self.repeated += message
            return None
        self._seen.add(key)
        if there is None:
            return self._line(event, self._mark(here), self._step(event), Style.STEP)
        through = next((places[one] for one in places if one in event.detail.split()), None)
        style = Style.TUNNEL if event.message.startswith("Tunnel") else Style.SIGNALLING
        return self._line(event, self._arrow(here, there, through), self._words(event), style)

    def _line(self, event: Event, lanes: str, words: str, style: Style) -> Line:
        if self.start is None:
            self.start = event.time
        moment = f"{(event.time - self.start) * 1000:.1f}".rjust(FIRST - 2)
        return Line(f"{moment}  {lanes}  {words}"[:WIDTH].rstrip(), style)

    def _blank(self) -> list[str]:
        line = [" "] * (STEP * (len(self.lanes) - 1) + 1)
        line[::STEP] = "|" * len(self.lanes)
        return line

    def _mark(self, lane: int) -> str:
        line = self._blank()
        line[STEP * lane] = "*"
        return "".join(line)

    def _arrow(self, here: int, there: int, through: int | None) -> str:
        line = self._blank()
        low, high = sorted((STEP * here, STEP * there))
        line[low + 1 : high] = "-" * (high - low - 1)
        if through is not None and low < STEP * through < high:
            line[STEP * through] = "o"
        if here < there:
            line[high - 1] = ">"
        else:
            line[low + 1] = "<"
        return "".join(line)

    def _words(self, event: Event) -> str:
        meaning = self.meanings[event.message]
        if event.sender in [lane.name for lane in self.lanes[2:]]:
            meaning = meaning.replace("CN", "MN")
        if event.message == "Route Direction" and "relay" in event.detail:
            meaning = "use the relay"
        room = WIDTH - FIRST - STEP * (len(self.lanes) - 1) - 3
        shown = f"{event.message}: {meaning}"
        return shown if meaning and len(shown) <= room else event.message

    def _step(self, event: Event) -> str:
        if event.message == "network" and event.detail == "none":
            return "leaves its network"
        # "DOMAIN is at ADDRESS" is a word too long for its place.
        detail = event.detail.replace(" is at ", " at ")
        if event.message in ("arrived", "delivered"):
            for lane in sorted(self.lanes, key=lambda lane: -len(lane.name)):
                detail = detail.replace(lane.name, lane.title)
            return f"{self.steps[event.message]} {detail}"
        return f"{self.steps[event.message]}: {detail}"
