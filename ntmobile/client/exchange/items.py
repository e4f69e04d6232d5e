"""What is sent and received, as an application sees it, and what it hears of."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from ntmobile.machines.exchange.manifests import Details
from ntmobile.wire.messages.exchange import CacheEntry, Manifest
from ntmobile.wire.text import printable

#: Bytes of a file's name.
_NAME_LIMIT: Final = 200


@frozen
class Item:
    """An object that waits for this device; its manifest is verified (R29).

    :ivar entry: where it waits. :ivar details: its name, type, length and note, opened.
    """

    entry: CacheEntry
    manifest: Manifest
    details: Details

    @property
    def sender(self) -> str:
        """Who signed it."""
        return self.manifest.sender

    @property
    def application(self) -> str:
        """Whose it is."""
        return self.manifest.application

    @property
    def object(self) -> bytes:
        """Its identifier."""
        return self.manifest.object

    @property
    def file_name(self) -> str:
        """A name for it in a directory: the sender's, unless that could do harm there."""
        name = printable(self.details.name.replace("\\", "/")).rpartition("/")[2].strip()
        while len(name.encode()) > _NAME_LIMIT:
            name = name[:-1]
        # Neither hidden, nor an option of a command, nor the directory itself.
        return name if name[:1] not in ("", ".", "-", "~") else f"item-{self.object.hex()[:8]}"


@frozen
class Status:
    """How far an object has come at a destination: ``waiting``, ``not told`` or ``confirmed``.

    :ivar at: unix seconds of the confirmation, or 0.
    """

    destination: str
    state: str
    reason: str = ""
    at: int = 0


#: States of what is sent that do not change any more.
ENDED: Final = ("confirmed", "failed", "expired", "withdrawn")


@frozen
class Outgoing:
    """An object that this device sends, as it is kept to go on after a cut.

    :ivar request: MessagePack of the request that announces it: repeated, it is the same.
    :ivar name: for people.
    :ivar source: the file. :ivar length: bytes of it.
    :ivar hashes: of its sealed chunks (R30), until it is stored.
    :ivar cache: full name of the CS.
    :ivar state: ``uploading``, ``stored`` and ``confirmed``; ``failed`` before it was stored,
        ``expired`` before all confirmed it, and ``withdrawn``.
    :ivar made: :ivar expires: unix seconds. :ivar reason: why it has not come further.
    :ivar statuses: of its destinations, as last asked.
    """

    object: bytes
    request: bytes = field(repr=False)
    name: str
    source: str
    length: int
    hashes: bytes = field(repr=False)
    cache: str
    state: str
    made: float
    expires: int
    reason: str = ""
    statuses: tuple[Status, ...] = ()


# -- events, for listeners


@frozen
class Arrived:
    """An item waits that was not told of since the start."""

    item: Item


@frozen
class Uploading:
    """How far an upload is: bytes of plaintext that are there, of how many.

    :ivar problem: why it does not go on now; empty while it does.
    """

    object: bytes
    done: int
    length: int
    problem: str = ""


@frozen
class Stored:
    """An object is at its CS, whole; the destinations are told."""

    object: bytes


@frozen
class Delivered:
    """A destination has confirmed an object, and that is verified (R32)."""

    object: bytes
    destination: str


@frozen
class Failed:
    """An object will not be sent; the text says why."""

    object: bytes
    reason: str
