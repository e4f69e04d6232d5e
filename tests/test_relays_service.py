"""A DC's links to its relay servers, joined to the registry (servers/relays.py)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, Unreachable
from ntmobile.machines.direction.relays import BUSY, GIVEN_UP
from ntmobile.servers.relays import Relays
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayRegistrationResponse,
    RelayReport,
    RelayResponse,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import KeepAlive, Outcome

DOMAIN = "dc1.ntm.example"
RS1, RS2 = f"rs1.{DOMAIN}", f"rs2.{DOMAIN}"
Ends = tuple[str, ...]
BOTH = (frozenset({4, 6}), frozenset({4, 6}))


class FakeLink:
    """A link whose other end answers as the test says.

    :ivar failing: directions that it does not answer. :ivar holding: those that :attr:`held` is
        the answer for.
    """

    def __init__(self, name: str) -> None:
        self.peer = ("rs", name)
        self.closed: Deferred[None] = Deferred()
        self.asked: list[Message] = []
        self.outcome: int | None = Outcome.OK
        self.failing: set[bytes] = set()
        self.holding: set[bytes] = set()
        self.held: Deferred[Message] = Deferred()

    def request(self, message: Message, timeout: float) -> Deferred[Message]:
        """Answer."""
        self.asked.append(message)
        answer: Deferred[Message] = Deferred()
        direction = cast(Any, message).direction
        if direction in self.holding:
            return self.held
        if self.outcome is None or direction in self.failing:
            answer.errback(Unreachable("no answer"))
        elif isinstance(message, RelayEnd):
            answer.callback(LinkAcknowledgement())
        else:
            answer.callback(RelayResponse(direction, self.outcome, b"bootboot"))
        return answer


class RelaysTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A DC without relays."""
        self.clock = Clock()
        self.relays = Relays(DOMAIN, self.clock)
        self.links: dict[str, FakeLink] = {}

    def register(
        self,
        name: str,
        boot: bytes = b"boot-one",
        *,
        failing: Collection[int] = (),
        held: Collection[int] = (),
    ) -> Message | None:
        """An RS registers over a new link; see :class:`FakeLink`."""
        link = self.links[name] = FakeLink(name)
        link.failing = {self.direction(number).direction for number in failing}
        link.holding = {self.direction(number).direction for number in held}
        endpoints = (Endpoint.of(("203.0.113.9", 4331)),)
        return self.ask(RelayRegistration(name, boot, endpoints, 1000), link)

    def ask(self, message: Message, link: FakeLink) -> Message | None:
        """An RS asks."""
        asked = Deferred.fromCoroutine(self.relays.asked(message, cast(Any, link)))
        return self.successResultOf(asked)

    def direction(self, number: int = 1) -> RelayDirection:
        """A Relay Direction."""
        return RelayDirection(number.to_bytes(8, "big"), (bytes(32), bytes(32)), 60)

    def direct(self, name: str, number: int = 1, devices: Ends = ()) -> Deferred[Message]:
        """Direct an RS."""
        return Deferred.fromCoroutine(self.relays.direct(name, self.direction(number), devices))

    def chosen(self) -> str | None:
        """The RS that is used next."""
        found = self.relays.registry.choose(BOTH, frozenset())
        return None if found is None else found[0]

    def test_registers(self) -> None:
        """R26: an RS that registers may be chosen, and is told how often to report."""
        answer = self.register(RS1)
        self.assertEqual(answer, RelayRegistrationResponse(Outcome.OK, 10))
        self.assertEqual(self.chosen(), RS1)

    def test_of_another_domain(self) -> None:
        """R1: an RS serves the DC whose domain its certificate names, under that very name."""
        endpoints = (Endpoint.of(("203.0.113.9", 4331)),)
        for certified, said in ((RS1, RS2), ("rs1.dc2.ntm.example",) * 2, (DOMAIN, DOMAIN)):
            message = RelayRegistration(said, b"boot-one", endpoints, 1000)
            asked = self.relays.asked(message, cast(Any, FakeLink(certified)))
            self.failureResultOf(Deferred.fromCoroutine(asked), AuthenticationError)
        self.assertIsNone(self.chosen())

    def test_other_requests(self) -> None:
        """What an RS does not ask is not acceptable; its reports are acknowledged."""
        self.register(RS1)
        asked = self.relays.asked(KeepAlive(1), cast(Any, self.links[RS1]))
        self.failureResultOf(Deferred.fromCoroutine(asked), AuthenticationError)
        self.assertEqual(self.ask(RelayReport(0, 0), self.links[RS1]), LinkAcknowledgement())

    def test_directed(self) -> None:
        """A Relay Direction reaches the RS, and is remembered as its own."""
        self.register(RS1)
        answer = self.successResultOf(self.direct(RS1))
        self.assertEqual(answer, RelayResponse(self.direction().direction, Outcome.OK, b"bootboot"))
        self.assertEqual(self.links[RS1].asked, [self.direction()])
        self.assertEqual(self.relays.registry.relay_of(self.direction().direction), RS1)

    def test_not_here(self) -> None:
        """An RS that is not here, or does not answer, is unreachable."""
        self.failureResultOf(self.direct(RS1), Unreachable)
        self.register(RS1)
        self.links[RS1].outcome = None
        self.failureResultOf(self.direct(RS1), Unreachable)

    def test_busy(self) -> None:
        """R26: an RS that is busy or silent is passed over for a while."""
        for outcome in (Outcome.BUSY, None):
            self.register(RS1)
            self.register(RS2)
            self.links[RS1].outcome = outcome
            self.direct(RS1).addErrback(lambda failure: None)
            self.assertEqual(self.chosen(), RS2)
            self.clock.advance(BUSY)
            self.relays.tick()
            self.assertEqual(self.chosen(), RS1)

    def test_restarted(self) -> None:
        """R26: an RS that restarted gets the Relay Directions of its tunnels again."""
        self.register(RS1)
        for number in (1, 2, 3):
            self.successResultOf(self.direct(RS1, number))
        self.register(RS1, b"boot-two")
        self.assertEqual(self.links[RS1].asked, [self.direction(n) for n in (1, 2, 3)])

    def test_restarted_in_part(self) -> None:
        """R26: that it did not take one of them is no reason to keep the others from it."""
        self.register(RS1)
        for number in (1, 2, 3):
            self.successResultOf(self.direct(RS1, number))
        self.register(RS1, b"boot-two", failing={2})
        self.assertEqual(self.links[RS1].asked, [self.direction(n) for n in (1, 2, 3)])

    def test_restarted_and_gone(self) -> None:
        """R26: an RS that is gone again meanwhile gets no more; it will register again."""
        self.register(RS1)
        for number in (1, 2, 3):
            self.successResultOf(self.direct(RS1, number))
        self.register(RS1, b"boot-two", held={1})
        link = self.links[RS1]
        link.closed.callback(None)
        link.held.errback(Unreachable("the connection closed before the answer"))
        self.assertEqual(link.asked, [self.direction(1)])

    def test_reconnected(self) -> None:
        """R26: one that only lost its link does not; it hears of ends that it missed."""
        self.register(RS1)
        self.successResultOf(self.direct(RS1, 1))
        self.relays.registry.end(self.direction(1).direction)
        self.register(RS1)
        self.assertEqual(self.links[RS1].asked, [RelayEnd(self.direction(1).direction)])
        self.register(RS1)
        self.assertEqual(self.links[RS1].asked, [])

    def test_gone(self) -> None:
        """R26: an RS whose link closed is not chosen; a former link's end means nothing."""
        self.register(RS1)
        former = self.links[RS1]
        self.register(RS1)
        former.closed.callback(None)
        self.assertEqual(self.chosen(), RS1)
        self.links[RS1].closed.callback(None)
        self.assertIsNone(self.chosen())

    def test_given_up(self) -> None:
        """An RS that stays away is forgotten with its tunnels."""
        self.register(RS1)
        self.successResultOf(self.direct(RS1))
        self.links[RS1].closed.callback(None)
        self.clock.advance(GIVEN_UP)
        self.relays.tick()
        self.assertEqual(len(self.relays.registry), 0)

    def test_end(self) -> None:
        """R34: the RSs forget the tunnels of a device, and keep those of others."""
        for number, devices in enumerate((("a", "b"), ("c", "a"), ("b", "c"))):
            self.register(name := (RS1, RS2)[number % 2])
            self.successResultOf(self.direct(name, number, devices))
        for link in self.links.values():
            link.asked.clear()
        self.relays.end("a")
        asked = {name: link.asked for name, link in self.links.items()}
        ended = [RelayEnd(self.direction(number).direction) for number in (0, 1)]
        self.assertEqual(asked, {RS1: ended[:1], RS2: ended[1:]})
        self.assertIsNotNone(self.relays.registry.relay_of(self.direction(2).direction))

    def test_end_not_acknowledged(self) -> None:
        """R34: an RS that did not acknowledge is told again with its next report."""
        self.register(RS1)
        link = self.links[RS1]
        self.successResultOf(self.direct(RS1, 1, ("a", "b")))
        link.failing = {self.direction(1).direction}
        self.relays.end("a")
        link.failing.clear()
        link.asked.clear()
        for _ in range(2):
            self.ask(RelayReport(0, 0), link)
        self.assertEqual(link.asked, [RelayEnd(self.direction(1).direction)])

    def test_end_under_way(self) -> None:
        """R34: a Relay Direction that is under way is ended as soon as the RS took it."""
        self.register(RS1, held={1})
        link, message = self.links[RS1], self.direction(1)
        answer = self.direct(RS1, 1, ("a", "b"))
        self.relays.end("a")
        link.holding.clear()
        link.held.callback(RelayResponse(message.direction, Outcome.OK, b"bootboot"))
        self.successResultOf(answer)
        self.assertEqual(link.asked, [message, RelayEnd(message.direction)])
        self.assertIsNone(self.relays.registry.relay_of(message.direction))
