"""The cache storage in memory does what every storage does, and at once."""

from __future__ import annotations

from ntmobile.interfaces import Quotas, Standing
from ntmobile.testing.caches import MemoryStorage
from tests import cache_delivery_cases, cache_storage_cases
from tests.cache_storage_cases import NOW, announced


class _Memory:
    def make(self, quotas: Quotas, capacity: int) -> MemoryStorage:
        return MemoryStorage(quotas, capacity)


class MemoryKeyTests(_Memory, cache_storage_cases.KeyCases):
    """Sealed keys."""


class MemoryObjectTests(_Memory, cache_storage_cases.ObjectCases):
    """Objects and their parts."""


class MemoryDeliveryTests(_Memory, cache_delivery_cases.DeliveryCases):
    """Who is told, and who has confirmed."""


class MemoryRoomTests(_Memory, cache_delivery_cases.RoomCases):
    """Quotas, and what there is room for."""


class MemoryTests(_Memory, cache_storage_cases.StorageCases):
    """What is of this storage alone."""

    def test_at_once(self) -> None:
        """What is asked has happened when the call returns."""
        storage = MemoryStorage()
        self.successResultOf(storage.open())
        standing = self.successResultOf(storage.add_object(announced(), NOW))
        self.assertEqual(standing, Standing(False, False, (0, 1, 2)))
