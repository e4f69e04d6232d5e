"""What a device's owner is shown of what comes: short plain texts, one for each sender, at a rate.

What is announced may come from anybody who is admitted, and in any number. So each sender has one
card, which is replaced; very many at once share one; and of the texts nothing is left that could
look like something else than text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

from ntmobile.interfaces import Announcement
from ntmobile.machines.rate import RateLimiter
from ntmobile.wire.messages.realtime import Reason

#: Longest title and body, in characters.
TITLE: Final = 120
BODY: Final = 240
#: Marks on one letter that are kept.
MARKS: Final = 2
#: Cards that wait to be shown, and senders whose cards are told apart, at once.
PENDING: Final = 8
SENDERS: Final = 32
#: Seconds after which what could not be shown is not shown any more.
STALE: Final = 3600.0
#: The card that very many senders share. No name is like that.
MANY: Final = "*"
CALLS: Final = "!"

_WHITE: Final = frozenset({"Zs", "Zl", "Zp"})


def plain(text: str, limit: int) -> str:
    """One line of text as it looks: without controls, directions, and what cannot be seen.

    :param limit: in characters, of which the last is an ellipsis where something is left out.
    """
    cut = "".join(_characters(text[: 4 * limit]))
    words = " ".join(cut.split())
    return words if len(words) <= limit and len(text) <= 4 * limit else words[: limit - 1] + "…"


def _characters(text: str) -> Iterator[str]:
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category[0] == "M" else 0
        if category in _WHITE or char in "\t\r\n":
            yield " "
        elif category[0] != "C" and marks <= MARKS:
            yield char


@frozen
class Card:
    """What is to be shown, in place of the former card of the same slot.

    :ivar slot: whose card it is. :ivar urgent: somebody is waiting.
    """

    slot: str
    title: str
    body: str
    urgent: bool = False


@define
class _Slot:
    """What is to be said of one sender.

    :ivar said: announcements that the DC made, :ivar verified: and those that the sender signed:
        the same ones, first so and then so.
    """

    newest: Announcement
    since: float
    said: int = 0
    verified: int = 0

    @property
    def count(self) -> int:
        return max(self.said, self.verified)


@define
class Board:
    """The cards of one device.

    :ivar messages: whether senders' messages are shown.
    """

    messages: bool = True
    limiter: RateLimiter = field(factory=lambda: RateLimiter(rate=0.5, burst=5, capacity=1))
    _slots: dict[str, _Slot] = field(factory=dict, init=False)
    _pending: dict[str, None] = field(factory=dict, init=False)
    _crowd: dict[str, None] = field(factory=dict, init=False)

    def add(self, announcement: Announcement, now: float) -> None:
        """Something was announced."""
        name = announcement.sender
        slot = CALLS if announcement.reason is Reason.REALTIME else name
        if announcement.verified and self._pending.pop("", "") is None:
            self._slots.pop("", None)  # without a name it was said before
        if slot not in self._pending and len(self._pending) >= PENDING:
            slot = MANY
        if slot == MANY and len(self._crowd) < 1000:
            self._crowd[name] = None
        known = self._slots.pop(slot, None)
        if known is None:
            known = _Slot(announcement, now)
        elif announcement.verified or not known.newest.verified:
            known.newest = announcement
        known.since = now
        if announcement.verified:
            known.verified += 1
        else:
            known.said += 1
        self._slots[slot] = known  # the newest last
        self._pending[slot] = None
        while len(self._slots) > SENDERS:
            self._forget(next(iter(self._slots)))

    def _forget(self, slot: str) -> None:
        self._slots.pop(slot, None)
        self._pending.pop(slot, None)
        if slot == MANY:
            self._crowd.clear()

    def take(self, now: float) -> Card | None:
        """The next card to be shown, if there is one and it is time."""
        for slot in [one for one in self._pending if now - self._slots[one].since >= STALE]:
            self._forget(slot)
        if not self._pending or not self.limiter.allow(None, now):
            return None
        slot = next(iter(self._pending))
        del self._pending[slot]
        return self._card(slot, self._slots[slot])

    def put_back(self, card: Card) -> None:
        """It could not be shown."""
        if card.slot in self._slots:
            self._pending[card.slot] = None

    def closed(self, slot: str) -> None:
        """Its owner has seen it: what comes next is counted from the start."""
        if slot not in self._pending:
            self._forget(slot)

    def wait(self, now: float) -> float | None:
        """In how many seconds :meth:`take` has a card; None where there is none."""
        return max(0.01, self.limiter.wait(None, now)) if self._pending else None

    def _card(self, slot: str, known: _Slot) -> Card:
        newest, count = known.newest, known.count
        sender = plain(newest.sender, TITLE - 20)
        message = plain(newest.message, BODY - 40) if self.messages else ""
        if slot == MANY:
            title = "Many devices have something for this one"
            return Card(slot, title, f"{count} items of {len(self._crowd)} devices")
        if slot == CALLS:
            return Card(slot, "Somebody wants to reach this device", sender, urgent=True)
        if not sender:
            title = "Something waits for this device"
        elif newest.verified:
            title = f"From {sender}"
        else:
            title = f"Said to be from {sender}"
        if count > 1:
            body = f"{count} items; the last one: {message}" if message else f"{count} items"
        else:
            body = message or "An item"
        return Card(slot, title, body)
