"""One operation for all who want the same at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Joining(Generic[T]):
    """Runs at most one operation for each key; who asks meanwhile joins it."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Deferred[T]]] = {}

    @property
    def count(self) -> int:
        """How many operations are under way."""
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        """Whether the operation for ``key`` is under way."""
        return key in self._waiting

    def join(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """The outcome of the operation for ``key``, begun now if it is not under way.

        :return: the caller's own; to cancel it disturbs neither the operation nor the others.
        """
        under_way = key in self._waiting
        waiting = self._waiting.setdefault(key, [])
        waiter: Deferred[T] = Deferred(waiting.remove)
        waiting.append(waiter)
        if not under_way:
            Deferred.fromCoroutine(begin()).addBoth(self._ended, key)
        return waiter

    def _ended(self, outcome: T | Failure, key: str) -> None:
        for waiter in self._waiting.pop(key):
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
