"""A bounded memory of things that are true for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ExpiringCache(Generic[K, V]):
    """Keeps each value until its time; when full, the one used least recently goes.

    :param capacity: values kept, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    @property
    def size(self) -> int:
        """How many values are kept, expired ones that were not asked for since included."""
        return len(self._kept)

    def get(self, key: K, now: float) -> V | None:
        """The value of ``key``, or None if there is none or its time is over."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        until, value = kept
        if until <= now:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return value

    def put(self, key: K, value: V, until: float) -> None:
        """Keep ``value`` until the monotonic time ``until``."""
        self._kept[key] = (until, value)
        self._kept.move_to_end(key)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def forget(self, key: K) -> None:
        """Drop what is kept for ``key``."""
        self._kept.pop(key, None)
