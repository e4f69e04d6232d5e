"""Several ways to the same end: each gets a head start on the next, and the first to arrive wins.

As browsers do it with the addresses of a host (RFC 8305), so that one dead address costs a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ntmobile.errors import AuthenticationError

T = TypeVar("T")
Attempt: TypeAlias = Callable[[], Coroutine[Any, Any, T]]


@define(eq=False)
class Race(Generic[T]):
    """Runs attempts until one succeeds.

    :param attempts: at least one, the preferred first.
    :param head_start: seconds after which the next begins, unless the one before failed earlier.
    :param late: gets the results of attempts that succeed after another did.
    :ivar won: fires with the first result; fails when all have failed, with the last failure or,
        where there was one, the last :class:`AuthenticationError`. Cancelling it cancels all.
    """

    clock: IReactorTime
    attempts: deque[Attempt[T]]
    head_start: float
    late: Callable[[T], None]
    won: Deferred[T] = field(init=False)
    _under_way: list[Deferred[None]] = field(factory=list, init=False)
    _running: int = field(default=0, init=False)
    _failure: Failure | None = field(default=None, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.won = Deferred(self._cancelled)

    def start(self) -> Deferred[T]:
        """Begin. :return: :attr:`won`."""
        self._begin()
        return self.won

    def _begin(self) -> None:
        attempt = self.attempts.popleft()
        self._running += 1
        self._next = None
        if self.attempts:
            self._next = self.clock.callLater(self.head_start, self._begin)
        under_way = Deferred.fromCoroutine(attempt())
        self._under_way.append(under_way.addCallbacks(self._arrived, self._failed))

    def _cancelled(self, won: Deferred[T]) -> None:
        self._stop_waiting()
        self.attempts.clear()
        for attempt in self._under_way:
            attempt.cancel()

    def _arrived(self, result: T) -> None:
        self._running -= 1
        if self.won.called:
            self.late(result)
            return
        self._stop_waiting()
        self.attempts.clear()
        self.won.callback(result)

    def _failed(self, failure: Failure) -> None:
        self._running -= 1
        if self.won.called:
            return
        if self._failure is None or not self._failure.check(AuthenticationError):
            self._failure = failure
        if self.attempts:
            self._stop_waiting()
            self._begin()
        elif not self._running:
            self.won.errback(self._failure)

    def _stop_waiting(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
