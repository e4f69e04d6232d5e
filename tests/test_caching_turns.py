"""Asking coordinators in turn."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import Unreachable
from ntmobile.protocols.caching.turns import EACH, Turns
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import LinkAcknowledgement

ASKED = LinkAcknowledgement()


class TurnTests(SynchronousTestCase):
    """Many ask one coordinator."""

    def setUp(self) -> None:
        self.asked: list[Deferred[Message]] = []
        self.found: list[Deferred[Message]] = []

        async def ask(domain: str, message: Message) -> Message:
            waiting: Deferred[Message] = Deferred()
            self.asked.append(waiting)
            return await waiting

        self.turns = Turns(ask)
        self.addCleanup(self.end)

    def end(self) -> None:
        """Let nobody wait for ever."""
        for one in self.found:
            one.addErrback(lambda _: None)
        while waiting := [one for one in self.asked if not one.called]:
            for one in waiting:
                one.errback(Unreachable("the test is over"))

    def many(self, count: int, domain: str = "a") -> list[Deferred[Message]]:
        """So many ask at once."""
        found = [Deferred.fromCoroutine(self.turns.ask(domain, ASKED)) for _ in range(count)]
        self.found += found
        return found

    def test_turns(self) -> None:
        """A few are asked at once, the next where one was answered; another domain at once."""
        found = self.many(EACH + 1)
        self.assertEqual(len(self.asked), EACH)
        self.many(1, "b")
        self.assertEqual(len(self.asked), EACH + 1)
        self.asked[0].callback(ASKED)
        self.assertEqual(len(self.asked), EACH + 2)
        self.assertEqual(self.successResultOf(found[0]), ASKED)
        self.assertNoResult(found[-1])

    def test_silence(self) -> None:
        """Who waited behind one that got no answer hears the same; who comes later asks."""
        found = self.many(EACH + 20)
        self.asked[0].errback(Unreachable("no answer within 5 s"))
        for each in (found[0], *found[EACH:]):
            self.assertEqual(
                str(self.failureResultOf(each, Unreachable).value), "no answer within 5 s"
            )
        self.assertEqual(len(self.asked), EACH)
        (later,) = self.many(1)
        self.assertEqual(len(self.asked), EACH + 1)
        self.asked[-1].callback(ASKED)
        self.assertEqual(self.successResultOf(later), ASKED)

    def test_nothing_left(self) -> None:
        """Of a coordinator that nobody asks nothing is kept."""
        found = self.many(3)
        self.assertEqual(len(self.turns), 1)
        self.asked[0].errback(Unreachable("x"))
        for waiting in self.asked[1:]:
            waiting.callback(ASKED)
        self.failureResultOf(found[0], Unreachable)
        self.assertEqual(len(self.turns), 0)
