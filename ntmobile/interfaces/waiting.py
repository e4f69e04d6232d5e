# ruff: noqa: N805  (methods of an interface have no self)
"""What waits at a coordinator for devices that are off: temporal keys, cache entries, pre-keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen
from zope.interface import Attribute, Interface

from ntmobile.wire.messages.exchange import CacheEntry, PreKey


@frozen
class KnownDevice:
    """A device of the domain, as far as it matters while it is off.

    :ivar certificate: its latest, DER. :ivar identity: its Ed25519 key, raw.
    :ivar allow: patterns of those whom it admits (R13).
    """

    fqdn: str
    certificate: bytes = field(repr=False)
    identity: bytes = field(repr=False)
    allow: tuple[str, ...]


@frozen
class WaitingKey:
    """A temporal key that waits for a device (R31).

    :ivar identifier: hash of the key. :ivar expires: unix seconds.
    """

    fqdn: str
    sender: str
    application: str
    identifier: bytes
    key: bytes = field(repr=False)
    expires: float


class Kept(Enum):
    """What became of something that shall wait."""

    NEW = 1  #: it waits now
    KNOWN = 2  #: it waits already, in these very words or renewed
    FULL = 3  #: too much of this sender, or too much altogether, waits for that device


class IWaitingStore(Interface):
    """Durable and atomic; what has returned outlives a loss of power.

    Methods block for a disk write, and may be called from any one thread at a time. Each fails with
    :class:`~ntmobile.errors.StorageFailed`, having done nothing, when the storage does. ``at`` is
    unix seconds throughout; what has expired by then is not given any more.
    """

    def note(devices: Sequence[KnownDevice], gone: Sequence[str]) -> None:
        """Record devices, and forget those that are revoked with all that waits for them.

        What waits for a device whose identity is another than before is forgotten too: nobody could
        open it.
        """

    def devices(fqdns: Sequence[str]) -> dict[str, KnownDevice]:
        """Those of the devices that are known."""

    def keep_keys(keys: Sequence[WaitingKey], each: int, all_: int) -> list[Kept]:
        """Keep temporal keys, one outcome for each.

        :param each: how many may wait of one sender for one device. :param all_: of all senders.
        """

    def key_identifiers(fqdn: str, after: bytes, at: float, most: int) -> list[bytes]:
        """Identifiers of the keys that wait, oldest first, after that one if it is there."""

    def key(fqdn: str, identifier: bytes, at: float) -> WaitingKey | None:
        """One of them."""

    def erase_key(fqdn: str, identifier: bytes) -> bool:
        """Erase one; whether it was there."""

    def keep_entry(fqdns: Sequence[str], entry: CacheEntry, each: int, all_: int) -> list[Kept]:
        """Keep an entry for each of some devices; limits as for keys."""

    def entries(
        fqdn: str, application: str | None, after: bytes, at: float, most: int, sender: str = ""
    ) -> list[CacheEntry]:
        """Entries that wait, of one application or of all, oldest first, after that one.

        :param sender: of the one that ``after`` names; empty: the newest of that identifier.
        """

    def erase_entry(fqdn: str, identifier: bytes, sender: str = "") -> bool:
        """Erase the entry of that identifier and sender; whether there was one.

        :param sender: empty: of any.
        """

    def keep_prekeys(fqdn: str, keys: Sequence[PreKey]) -> None:
        """Keep pre-keys of a device; only the newest, and the identity's, stay."""

    def prekeys(fqdns: Sequence[str], at: float) -> dict[str, PreKey]:
        """The newest pre-key of each of the devices that has one."""

    def expire(at: float) -> int:
        """Erase what has expired, so that no copy is left in the storage; how much it was."""

    def close() -> None:
        """Release the storage."""


class IWaitingStoreProvider(Interface):
    """A plugin that opens an :class:`IWaitingStore` from a DC's ``[waiting]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``sqlite``")

    def configure(section: Mapping[str, object], directory: str) -> IWaitingStore:
        """Open the storage; ``directory`` is the coordinator's state directory.

        :raises ConfigurationError: an unknown key, a wrong value, or what cannot be opened.
        """
