"""Running one conversation of a command on the reactor, from start to end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ntmobile.protocols.timing import use_monotonic_time

_T = TypeVar("_T")


def run(main: Callable[[Any], Coroutine[Deferred[Any], Any, _T]]) -> _T:
    """Run ``main(reactor)`` to its end; once in the life of a program.

    :return: its result; what it raises is raised.
    :raises click.Abort: it was interrupted.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome: list[_T | Failure] = []

    def done(result: _T | Failure) -> None:
        outcome.append(result)
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        Deferred.fromCoroutine(main(reactor)).addBoth(done)

    use_monotonic_time(reactor)
    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcome:
        raise click.Abort
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
