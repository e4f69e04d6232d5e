"""What is sent and received, as an application sees it."""

from __future__ import annotations

from attrs import field, frozen

from ntmobile.machines.exchange.manifests import Details
from ntmobile.wire.messages.exchange import CacheEntry, Manifest


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
    def object(self) -> bytes:
        """Its identifier."""
        return self.manifest.object


@frozen
class Outgoing:
    """An object that this device sends, as it is kept to go on after a cut.

    :ivar manifest: MessagePack of the signed manifest. :ivar source: the file.
    :ivar length: bytes of it. :ivar hashes: of its sealed chunks (R30).
    :ivar cache: full name of the CS. :ivar state: ``uploading``, ``stored`` or ``confirmed``.
    """

    object: bytes
    manifest: bytes = field(repr=False)
    source: str
    length: int
    hashes: bytes = field(repr=False)
    cache: str
    state: str


@frozen
class Status:
    """How far an object has come at a destination: ``waiting``, ``not told`` or ``confirmed``.

    :ivar at: unix seconds of the confirmation, or 0.
    """

    destination: str
    state: str
    reason: str = ""
    at: int = 0
