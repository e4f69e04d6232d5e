"""What waits at a DC, in memory: for tests and simulations, and as the seam's second shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace
from zope.interface import implementer

from ntmobile.interfaces import IWaitingStore, Kept, KnownDevice, WaitingKey
from ntmobile.wire.messages.exchange import CacheEntry, PreKey

_T = TypeVar("_T", WaitingKey, CacheEntry)


@implementer(IWaitingStore)
class MemoryWaitingStore:
    """See :class:`~ntmobile.interfaces.IWaitingStore` for the methods."""

    def __init__(self) -> None:
        self._devices: dict[str, KnownDevice] = {}
        self._keys: dict[str, dict[bytes, WaitingKey]] = {}
        self._entries: dict[str, dict[tuple[bytes, str], CacheEntry]] = {}
        self._prekeys: dict[str, dict[int, PreKey]] = {}

    def note(self, devices: Sequence[KnownDevice], gone: Sequence[str]) -> None:
        """See the interface."""
        for fqdn in gone:
            self._forget(fqdn)
            self._devices.pop(fqdn, None)
        for one in devices:
            former = self._devices.get(one.fqdn)
            if former is not None and former.identity != one.identity:
                self._forget(one.fqdn)
            self._devices[one.fqdn] = one

    def _forget(self, fqdn: str) -> None:
        for belongings in self._tables():
            belongings.pop(fqdn, None)

    def _tables(self) -> tuple[dict[str, Any], ...]:
        """What belongs to devices, by FQDN and name."""
        return self._keys, self._entries, self._prekeys

    def devices(self, fqdns: Sequence[str]) -> dict[str, KnownDevice]:
        """See the interface."""
        return {fqdn: self._devices[fqdn] for fqdn in fqdns if fqdn in self._devices}

    def keep_keys(self, keys: Sequence[WaitingKey], each: int, all_: int) -> list[Kept]:
        """See the interface."""
        return [self._keep_key(one, each, all_) for one in keys]

    def _keep_key(self, key: WaitingKey, each: int, all_: int) -> Kept:
        mine = self._keys.setdefault(key.fqdn, {})
        former = mine.get(key.identifier)
        if former is not None:
            if former.sender == key.sender and key.expires > former.expires:
                mine[key.identifier] = key
            return Kept.KNOWN
        if _is_full(mine.values(), key.sender, each, all_):
            return Kept.FULL
        mine[key.identifier] = key
        return Kept.NEW

    def key_identifiers(self, fqdn: str, after: bytes, at: float, most: int) -> list[bytes]:
        """See the interface."""
        mine = _after(self._keys.get(fqdn, {}).values(), after)
        return [one.identifier for one in mine if one.expires > at][:most]

    def key(self, fqdn: str, identifier: bytes, at: float) -> WaitingKey | None:
        """See the interface."""
        found = self._keys.get(fqdn, {}).get(identifier)
        return found if found is not None and found.expires > at else None

    def erase_key(self, fqdn: str, identifier: bytes) -> bool:
        """See the interface."""
        return self._keys.get(fqdn, {}).pop(identifier, None) is not None

    def keep_entry(
        self, fqdns: Sequence[str], entry: CacheEntry, each: int, all_: int
    ) -> list[Kept]:
        """See the interface."""
        return [self._keep_entry(one, entry, each, all_) for one in fqdns]

    def _keep_entry(self, fqdn: str, entry: CacheEntry, each: int, all_: int) -> Kept:
        mine, name = self._entries.setdefault(fqdn, {}), (entry.identifier, entry.sender)
        if name in mine:
            mine[name] = entry
            return Kept.KNOWN
        if _is_full(mine.values(), entry.sender, each, all_):
            return Kept.FULL
        mine[name] = replace(entry)
        return Kept.NEW

    def entries(
        self,
        fqdn: str,
        application: str | None,
        after: bytes,
        at: float,
        most: int,
        sender: str = "",
    ) -> list[CacheEntry]:
        """See the interface."""
        return [
            one
            for one in _after(self._entries.get(fqdn, {}).values(), after, sender)
            if application in (None, one.application) and one.expires > at
        ][:most]

    def erase_entry(self, fqdn: str, identifier: bytes, sender: str = "") -> bool:
        """See the interface."""
        mine = self._entries.get(fqdn, {})
        names = [name for name in mine if name[0] == identifier and sender in ("", name[1])]
        for name in names:
            del mine[name]
        return bool(names)

    def keep_prekeys(self, fqdn: str, keys: Sequence[PreKey]) -> None:
        """See the interface."""
        mine = self._prekeys.setdefault(fqdn, {})
        mine.update({one.number: one for one in keys})
        for number in set(mine) - {0, max(mine)}:
            del mine[number]

    def prekeys(self, fqdns: Sequence[str], at: float) -> dict[str, PreKey]:
        """See the interface."""
        found = {}
        for fqdn in fqdns:
            living = [one for one in self._prekeys.get(fqdn, {}).values() if one.expires > at]
            if living:
                found[fqdn] = max(living, key=lambda one: one.number)
        return found

    def expire(self, at: float) -> int:
        """See the interface."""
        count = 0
        for table in self._tables():
            for mine in table.values():
                over = [name for name, one in mine.items() if one.expires <= at]
                count += len(over)
                for name in over:
                    del mine[name]
        return count

    def close(self) -> None:
        """See the interface."""


def _is_full(mine: Iterable[_T], sender: str, each: int, all_: int) -> bool:
    senders = [one.sender for one in mine]
    return senders.count(sender) >= each or len(senders) >= all_


def _after(mine: Iterable[_T], identifier: bytes, sender: str = "") -> list[_T]:
    """Those after the last one of that identifier and sender; all, where there is none."""
    found = list(mine)
    places = [
        place
        for place, one in enumerate(found)
        if one.identifier == identifier and sender in ("", one.sender)
    ]
    return found[places[-1] + 1 :] if places else found
