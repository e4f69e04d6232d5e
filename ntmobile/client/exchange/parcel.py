"""What is to be sent, and to whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attrs import frozen

from ntmobile.errors import InvalidName
from ntmobile.machines.exchange.signing import LONGEST
from ntmobile.wire import names
from ntmobile.wire.messages.exchange import DESTINATIONS

#: Seconds for which an item waits, where nothing else is said.
LIFETIME: Final = 14 * 86400
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
#: Characters of a name, a media type, a note and a notification message.
_LONGEST: Final = {"name": 255, "type": 127, "note": 200, "message": 256}


@frozen
class Parcel:
    """See :meth:`Exchange.send <ntmobile.client.exchange.exchange.Exchange.send>`.

    :ivar destinations: devices, or users. :ivar source: a file, or content.
    """

    destinations: tuple[str, ...]
    source: Path | bytes
    application: str
    service: str = ""
    item: str = ""
    name: str | None = None
    type: str = ""
    note: str = ""
    message: str = ""
    lifetime: float = LIFETIME

    @property
    def title(self) -> str:
        """The name that receivers see."""
        if self.name is None:
            return self.source.name if isinstance(self.source, Path) else ""
        return self.name

    def check(self) -> None:
        """See that it can be sent.

        :raises InvalidName: a name or label is none, or something is too long or too many.
        """
        if not 0 < len(self.destinations) <= DESTINATIONS:
            raise InvalidName(f"an item goes to 1 to {DESTINATIONS} devices")
        for name in self.destinations:
            try:
                names.check_name(name)
                named = name.count(".") >= 2
            except InvalidName:
                named = False
            if not named:
                raise InvalidName(
                    f"{name!r}: write DEVICE.USER.DOMAIN, or USER.DOMAIN for all devices of a user"
                )
        check_labels(self.application, self.service, self.item)
        texts = {
            "name": self.title,
            "type": self.type,
            "note": self.note,
            "message": self.message,
        }
        for what, text in texts.items():
            if len(text) > _LONGEST[what]:
                raise InvalidName(f"a {what} of {len(text)} characters; {_LONGEST[what]} at most")
        if not 0 < self.lifetime <= LONGEST:
            raise InvalidName(f"an item waits for {LONGEST // 86400} days at most")


def check_labels(*labels: str) -> None:
    """See that applications, services and items are called so.

    :raises InvalidName: one is not.
    """
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InvalidName(
                f"{label!r}: what an application, service or item is called has at most 64 "
                "letters, digits, dots, hyphens and underlines"
            )
