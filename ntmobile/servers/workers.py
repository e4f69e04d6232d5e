"""Threads for what would block the reactor: few at once, and a bounded queue before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ntmobile.errors import QuotaExceeded

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Calls that may wait for a thread.
WAITING: Final = 256


class Workers:
    """Runs functions in threads of its own.

    :param count: threads; one means that the calls happen one after the other, in order.
    :param waiting: how many calls may be under way or waiting.
    :param pool: for tests, a stand-in; by default real threads.
    """

    def __init__(
        self, reactor: Any, count: int, name: str, waiting: int = WAITING, pool: Any = None
    ) -> None:
        self._reactor = reactor
        self._pool = pool or ThreadPool(0, count, name)
        self._limit = waiting
        self._busy = 0

    def start(self) -> None:
        """Let threads be made."""
        if isinstance(self._pool, ThreadPool) and not self._pool.started:
            self._pool.start()

    def stop(self) -> None:
        """Wait for what is under way, and end the threads."""
        if isinstance(self._pool, ThreadPool) and self._pool.started:
            self._pool.stop()

    def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        """Run a call in a thread.

        :return: fires with its result. Fails with :class:`QuotaExceeded` where too many wait.
        """
        if self._busy >= self._limit:
            failed: Deferred[_T] = Deferred()
            failed.errback(QuotaExceeded("the server is busy; try again in a minute"))
            return failed
        self._busy += 1
        running: Deferred[_T] = deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        return running.addBoth(self._done)

    def _done(self, result: Any) -> Any:
        self._busy -= 1
        return result
