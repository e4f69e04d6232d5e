from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.directing import ASKED, Directing
from ntmobile.errors import (
    AuthenticationError,
    NTMobileError,
    StorageFailed,
    UnknownName,
    Unreachable,
)
from ntmobile.machines.signalling.clients import Policy
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    DirectionRefusal,
    DirectionRequest,
    DirectionResponse,
    Outcome,
    Purpose,
    RouteDirection,
)
from tests.realms import MemoryRealm

REALM = MemoryRealm()
PHONE, LAPTOP = "phone.alice.dc1.ntm.example", "laptop.bob.dc2.ntm.example"
CERTIFICATE = REALM.device(LAPTOP)[2]


def direction(requester: str, peer: DeviceCertificate = CERTIFICATE) -> RouteDirection:
    """A Route Direction towards a correspondent."""
    return RouteDirection(
        b"8 octets", 1, peer.fqdn, peer.der, requester, True, (), bytes(32), 60, None, True, "test"
    )


class DirectingTestCase(SynchronousTestCase):
    """A device, and its DC's answers."""

    def setUp(self) -> None:
        """A phone that admits nobody."""
        self.clock = Clock()
        self.taken: list[str] = []
        self.requests: list[Message] = []
        self.answer = DirectionResponse(Outcome.OK, b"8 octets")
        self.directing = Directing(
            PHONE,
            cast(
                Any,
                SimpleNamespace(
                    unix_time=lambda: REALM.now, registration=None, request=self.request
                ),
            ),
            cast(Any, SimpleNamespace(directed=lambda one, *_: self.taken.append(one.peer))),
            cast(Any, SimpleNamespace(learn=lambda certificate: None)),
            cast(Any, SimpleNamespace(check=self.check)),
            Policy(()),
            REALM.trust(),
            self.clock,
            lambda statement: bytes(64),
            lambda name, problem: None,
            lambda user: Deferred(),
            lambda: None,
        )

    async def request(self, message: DirectionRequest, timeout: float) -> DirectionResponse:
        """The DC's answer."""
        self.requests.append(message)
        return self.answer

    def check(self, certificate: DeviceCertificate) -> None:
        """The pins, which have nothing against anybody."""

    def ask(self, name: str) -> None:
        """Ask for a direction."""
        self.successResultOf(Deferred.fromCoroutine(self.directing.ask(name, Purpose.NEW)))


class AdmissionTests(DirectingTestCase):
    """R13: whom the device itself admits, whatever its DC says."""

    def test_stranger(self) -> None:
        """R13: who is not in the allow list is refused."""
        self.assertEqual(self.directing.directed(direction(LAPTOP)), Outcome.REFUSED)
        self.assertEqual(self.taken, [])

    def test_asked(self) -> None:
        """R13: whom the device asks for needs no place in its allow list."""
        self.ask(LAPTOP)
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.OK)
        self.assertEqual(self.taken, [LAPTOP])

    def test_asked_by_user(self) -> None:
        """Nor does the device that a user's name stands for."""
        self.ask("bob.dc2.ntm.example")
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.OK)

    def test_never_asked(self) -> None:
        """R13: a DC cannot bring a stranger in by saying that the device had asked for it."""
        self.ask("desk.bob.dc2.ntm.example")
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.REFUSED)
        self.assertEqual(self.taken, [])

    def test_asked_long_ago(self) -> None:
        """R13, R18: what was asked for once is no invitation for ever."""
        self.ask(LAPTOP)
        self.clock.advance(ASKED + 1)
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.REFUSED)


class RefusalTests(DirectingTestCase):
    """A direction that the device itself cannot accept."""

    def check(self, certificate: DeviceCertificate) -> None:
        """The pins, which cannot be written."""
        if self.full:
            raise StorageFailed("pins.db: the disk is full")

    async def request(self, message: DirectionRequest, timeout: float) -> DirectionResponse:
        """The DC's answer, which the direction overtakes."""
        if self.full:
            self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.UNTRUSTED)
        return await super().request(message, timeout)

    full = False

    def test_told_at_once(self) -> None:
        """Who asked hears why at once, also where the direction comes before the DC's answer."""
        self.full = True
        asking = Deferred.fromCoroutine(self.directing.ask(LAPTOP, Purpose.NEW))
        self.failureResultOf(asking, StorageFailed)
        self.full = False
        self.ask(LAPTOP)


class DeniedTests(DirectingTestCase):
    """R13: the correspondent's own device refuses."""

    def setUp(self) -> None:
        """A tunnel in the making, on one direction."""
        super().setUp()
        self.ended: list[str] = []
        self.tunnel = SimpleNamespace(established=False, identifiers=frozenset({b"8 octets"}))
        correspondence = cast(Any, self.directing.correspondence)
        correspondence.find = lambda peer: self.tunnel
        correspondence.end = lambda peer, reason, now: self.ended.append(peer)
        self.heard: list[NTMobileError] = []
        self.directing.refused = lambda peer, problem: self.heard.append(problem)
        self.refusal = DirectionRefusal(b"8 octets", Outcome.UNKNOWN, f"nobody is called {LAPTOP}")

    def begin(self) -> None:
        """Ask, and be directed."""
        self.ask(LAPTOP)
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.OK)

    def test_told(self) -> None:
        """Who waits for the tunnel hears why, and the tunnel ends."""
        self.begin()
        self.directing.denied(self.refusal)
        self.assertEqual([type(one) for one in self.heard], [UnknownName])
        self.assertEqual(self.ended, [LAPTOP])
        self.assertEqual(self.directing.history[LAPTOP], f"nobody is called {LAPTOP}")

    def test_living(self) -> None:
        """A tunnel that stands goes on: what was refused is but one direction more."""
        self.begin()
        self.tunnel.established = True
        self.directing.denied(self.refusal)
        self.assertEqual((self.heard, self.ended), ([], []))

    def test_another(self) -> None:
        """R15: nor does one end that has another direction, be it the correspondent's own."""
        self.begin()
        self.tunnel.identifiers |= {b"another1"}
        self.directing.denied(self.refusal)
        self.assertEqual((self.heard, self.ended), ([], []))

    def test_first(self) -> None:
        """A refusal that overtakes the DC's answer is what comes of asking."""
        self.directing.denied(self.refusal)
        asking = Deferred.fromCoroutine(self.directing.ask(LAPTOP, Purpose.NEW))
        self.failureResultOf(asking, UnknownName)


class TakingTests(AdmissionTests):
    """R1, R15: what is taken of a DC at all."""

    def setUp(self) -> None:
        """A phone that admits everybody."""
        super().setUp()
        self.directing.policy = Policy(("*",))

    def test_stranger(self) -> None:
        """Who is admitted is taken."""
        self.assertEqual(self.directing.directed(direction(LAPTOP)), Outcome.OK)
        self.assertEqual(self.taken, [LAPTOP])

    def test_never_asked(self) -> None:
        """Whoever the DC says has asked."""
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.OK)

    def test_asked_long_ago(self) -> None:
        """And however long ago."""
        self.ask(LAPTOP)
        self.clock.advance(ASKED + 1.0)
        self.assertEqual(self.directing.directed(direction(PHONE)), Outcome.OK)

    def test_certificates(self) -> None:
        """R1: a certificate of another device, of another authority, or none, is not taken."""
        other = MemoryRealm().device(LAPTOP)[2]
        desk = REALM.device("desk.bob.dc2.ntm.example")[2]
        good = direction(LAPTOP)
        for der in (other.der, desk.der, bytes(64)):
            wrong = msgspec.structs.replace(good, certificate=der)
            self.assertEqual(self.directing.directed(wrong), Outcome.UNTRUSTED)
        self.assertEqual(self.taken, [])

    def test_another_requester(self) -> None:
        """R15: who asked is one of the two ends; it decides which of crossed directions wins."""
        wrong = direction("a.a.dc1.ntm.example")
        self.assertEqual(self.directing.directed(wrong), Outcome.UNTRUSTED)

    def test_ourselves(self) -> None:
        """A direction towards ourselves is none."""
        own = direction(PHONE, REALM.device(PHONE)[2])
        self.assertEqual(self.directing.directed(own), Outcome.UNTRUSTED)


class AskingTests(AdmissionTests):
    """What comes of asking."""

    def test_together(self) -> None:
        """Requests for one name at the same time are one; each hears the answer."""
        answer: Deferred[DirectionResponse] = Deferred()
        asked: list[Message] = []

        def request(message: DirectionRequest, timeout: float) -> Deferred[DirectionResponse]:
            asked.append(message)
            return answer

        registering = cast(Any, self.directing.registering)
        registering.request = request
        waiting = [
            Deferred.fromCoroutine(self.directing.ask(LAPTOP, Purpose.NEW)) for _ in range(3)
        ]
        self.assertEqual(len(asked), 1)
        cancelled = waiting.pop()
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        answer.callback(DirectionResponse(Outcome.OK, b"8 octets"))
        for one in waiting:
            self.assertEqual(self.successResultOf(one), LAPTOP)

    def test_refusals(self) -> None:
        """Each outcome is an error of its kind, with the words of the DC; unknown ones too."""
        for outcome, kind in (
            (Outcome.UNKNOWN, UnknownName),
            (Outcome.REFUSED, UnknownName),
            (Outcome.UNTRUSTED, AuthenticationError),
            (Outcome.UNREACHABLE, Unreachable),
            (Outcome.NO_RELAY, Unreachable),
            (Outcome.BUSY, Unreachable),
            (99, Unreachable),
        ):
            self.answer = DirectionResponse(outcome, detail="these words")
            asking = Deferred.fromCoroutine(self.directing.ask(LAPTOP, Purpose.NEW))
            failure = self.failureResultOf(asking, kind)
            self.assertIn("these words", failure.getErrorMessage())
            self.assertIn("these words", self.directing.history[LAPTOP])

    def test_nonsense(self) -> None:
        """R11: another answer than the one to a Direction Request is no answer."""
        self.answer = cast(DirectionResponse, Acknowledgement())
        asking = Deferred.fromCoroutine(self.directing.ask(LAPTOP, Purpose.NEW))
        self.failureResultOf(asking, Unreachable)

    def test_signed(self) -> None:
        """R13: each request is signed over both names, a fresh nonce and the AS's time."""
        for _ in range(2):
            self.ask(LAPTOP)
        first, second = self.requests
        assert isinstance(first, DirectionRequest) and isinstance(second, DirectionRequest)
        self.assertNotEqual(first.nonce, second.nonce)
        self.assertEqual(first.issued, int(REALM.now * 1000))

    def test_history_is_bounded(self) -> None:
        """What is remembered of names is bounded."""
        for number in range(3000):
            self.directing.note(f"d{number}.bob.dc2.ntm.example", "word")
        self.assertLessEqual(len(self.directing.history), 1024)
