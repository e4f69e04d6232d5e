"""Asking coordinators in turn, so that one that says nothing keeps no others from being asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, field
from twisted.internet.defer import DeferredSemaphore

from ntmobile.errors import Unreachable
from ntmobile.wire.codec import Message

#: Asks the coordinator of a domain.
Ask = Callable[[str, Message], Awaitable[Message]]

#: Requests that one coordinator is asked at once.
EACH: Final = 8


@define(eq=False)
class _Turn:
    """One coordinator, while there is something to ask it."""

    gate: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(EACH))
    asking: int = 0
    failures: int = 0
    problem: str = ""


class Turns:
    """Asks each coordinator a few things at once; the rest waits.

    What waited while one before it got no answer is not asked any more: it would only take as long.

    :param ask: asks a coordinator.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._turns: dict[str, _Turn] = {}

    def __len__(self) -> int:
        """How many coordinators are being asked."""
        return len(self._turns)

    async def ask(self, domain: str, message: Message) -> Message:
        """Ask the coordinator of a domain when it is this one's turn.

        :raises Unreachable: it does not answer, or did not while this one waited.
        :raises NTMobileError: as asking does.
        """
        turn = self._turns.setdefault(domain, _Turn())
        failures = turn.failures
        turn.asking += 1
        try:
            await turn.gate.acquire()
            try:
                if turn.failures != failures:
                    raise Unreachable(turn.problem)
                return await self._asked(turn, domain, message)
            finally:
                turn.gate.release()
        finally:
            turn.asking -= 1
            if not turn.asking:
                del self._turns[domain]

    async def _asked(self, turn: _Turn, domain: str, message: Message) -> Message:
        try:
            return await self._ask(domain, message)
        except Unreachable as problem:
            turn.failures += 1
            turn.problem = str(problem)
            raise
