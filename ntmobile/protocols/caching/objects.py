"""What uploads and downloads of objects share: finding one, for its sender or a destination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, frozen

from ntmobile.errors import NoSuchItem
from ntmobile.interfaces import ICacheStorage, Standing, StoredObject
from ntmobile.machines.exchange.objects import LONGEST_OBJECT, PART
from ntmobile.protocols.caching.access import Caller
from ntmobile.protocols.caching.records import ObjectRecord, read_object
from ntmobile.protocols.http_routes import number, octets
from ntmobile.wire.messages.exchange import LISTED, Manifest

OBJECT: Final = octets("object", 16, "identifier of an object")
PART_NUMBER: Final = number("part", LONGEST_OBJECT // PART, "number of a part, from 0")
#: The same words for what is not there and what is not for the caller.
NOTHING: Final = "no object of that identifier waits here for this device, or it has expired"


@frozen
class Found:
    """An object, read from the storage."""

    stored: StoredObject
    record: ObjectRecord
    manifest: Manifest
    standing: Standing


@define(eq=False)
class Objects:
    """The objects of one storage."""

    storage: ICacheStorage
    unix_time: Callable[[], float]

    async def of_sender(self, caller: Caller, identifier: bytes, missing: int = LISTED) -> Found:
        """An object that the caller has sent.

        :param missing: how many numbers of missing parts are wanted.
        :raises NoSuchItem: there is none.
        """
        found = await self._find(identifier, missing)
        if found is None or found.stored.sender != caller.fqdn or caller.certificate is not None:
            raise NoSuchItem(NOTHING)
        return found

    async def for_receiver(self, caller: Caller, identifier: bytes) -> Found:
        """A complete object for the caller; or any of its own (R28).

        :raises NoSuchItem: there is none.
        """
        found = await self._find(identifier, 0)
        if found is not None:
            if found.stored.sender == caller.fqdn and caller.certificate is None:
                return found
            if caller.fqdn in found.stored.destinations and found.standing.complete:
                return found
        raise NoSuchItem(NOTHING)

    async def _find(self, identifier: bytes, missing: int) -> Found | None:
        at = self.unix_time()
        looked = await self.storage.look_up(identifier, at, missing)
        if looked is None:
            return None
        stored, standing = looked
        record = read_object(stored.document)
        return Found(stored, record, record.read(), standing)
