"""Reading the trace of several programs while they write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from ntmobile.protocols.trace import NAMESPACE

#: Seconds that an event waits for earlier ones of other programs.
HOLD: Final = 0.08


@frozen
class Event:
    """A message, or a step that one program took (then ``receiver`` is empty).

    :ivar time: unix seconds. :ivar sender: who sent it, or took the step.
    :ivar message: its title. :ivar detail: a word more, or empty.
    """

    time: float
    sender: str
    receiver: str
    message: str
    detail: str = ""


@define
class Following:
    """Gives the events of several logs in the order of their times.

    :ivar files: gives the logs of JSON lines, and the name of who writes each.
    """

    files: Callable[[], Mapping[Path, str]]
    _offsets: dict[Path, int] = field(factory=dict)
    _held: list[Event] = field(factory=list)

    def take(self, now: float) -> list[Event]:
        """The events that happened before ``now`` less :data:`HOLD`, and were not given yet."""
        for file, owner in self.files().items():
            self._held += self._read(file, owner)
        return self._due(now)

    def add(self, events: Iterable[Event]) -> None:
        """Events from elsewhere, to be given in their place."""
        self._held += events

    def _due(self, now: float) -> list[Event]:
        self._held.sort(key=lambda event: event.time)
        due = [event for event in self._held if event.time <= now - HOLD]
        self._held = self._held[len(due) :]
        return due

    def _read(self, file: Path, owner: str) -> list[Event]:
        try:
            with file.open("rb") as stream:
                stream.seek(self._offsets.get(file, 0))
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[file] = self._offsets.get(file, 0) + len(whole)
        return [event for line in whole.splitlines() if (event := parse(line, owner)) is not None]


def parse(line: bytes, owner: str) -> Event | None:
    """The event in a line of a log; None if it has none."""
    if NAMESPACE.encode() not in line:
        return None
    try:
        found: Any = json.loads(line)
        if found["component"] != NAMESPACE:
            return None
        return Event(
            float(found["time"]),
            found.get("sender", owner),
            found.get("receiver", ""),
            found.get("message") or found["note"],
            found.get("detail", ""),
        )
    except (ValueError, KeyError, TypeError):
        return None
