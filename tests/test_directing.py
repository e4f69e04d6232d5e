from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.directing import ASKED, Directing
from ntmobile.errors import StorageFailed
from ntmobile.machines.clients import Policy
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.realtime import (
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
