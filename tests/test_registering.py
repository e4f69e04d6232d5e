from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client import registering
from ntmobile.client.login import LoginResult
from ntmobile.client.registering import FIRST_WAIT, LONGEST_WAIT, Registering
from ntmobile.errors import AccessDenied, NotRegistered, Unreachable
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.registration import Rebound, Registered
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.signalling.table import ClientAsked, SessionTable
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    KeepAlive,
    KeepAliveResponse,
    NotificationRequest,
    PolicyRequest,
    PolicyResponse,
    RegistrationRequest,
    RegistrationResponse,
    RevocationOrder,
)
from tests.signalling import CLIENT4, DC4

HOME = {4: (Endpoint.of(CLIENT4),)}


class Coordinator:
    """A DC at the other end of a wire of 10 ms."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.table = SessionTable(Random(1).randbytes)
        self.asked: list[Message] = []
        self.deaf = False
        self.sessions = 0
        self.deliver: Callable[[bytes, Address], None] = lambda datagram, remote: None

    def admit(self, lifetime: float = 86400.0) -> LoginResult:
        """A login gives a session."""
        self.sessions += 1
        index, key = self.sessions.to_bytes(8, "big"), bytes([self.sessions]) * 32
        self.table.add(index, key)
        result = SimpleNamespace(
            index=index,
            session_key=key,
            endpoints=(Endpoint.of(DC4),),
            lifetime=lifetime,
            certificate=SimpleNamespace(not_after=2e9 + lifetime),
            trust=None,
            time_offset=0.0,
        )
        return cast(LoginResult, result)

    def transmit(self, datagram: bytes, remote: Address) -> None:
        """What the client sends."""
        if not self.deaf:
            self.clock.callLater(0.01, self._arrived, datagram)

    def _arrived(self, datagram: bytes) -> None:
        self.table.datagram_received(datagram, CLIENT4, self.clock.seconds())
        self.flush()

    def flush(self) -> None:
        """Carry out what the table wants."""
        while effects := self.table.effects():
            for effect in effects:
                if isinstance(effect, Transmit) and not self.deaf:
                    self.clock.callLater(0.01, self.deliver, effect.datagram, DC4)
                elif isinstance(effect, ClientAsked):
                    self.asked.append(effect.asked.message)
                    answer = self._answer(effect.asked)
                    if answer is not None:
                        self.table.answer(effect.index, effect.asked, answer)

    def _answer(self, asked: Asked) -> Message | None:
        seen = Endpoint.of(CLIENT4)
        match asked.message:
            case RegistrationRequest(generation):
                return RegistrationResponse(generation, seen, False, 60, 15, 0)
            case KeepAlive(generation):
                return KeepAliveResponse(generation, seen)
            case PolicyRequest(generation):
                return PolicyResponse(generation)
            case NotificationRequest():
                return None
        return Acknowledgement()


class Told:
    """What the node hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def logged_in(self, session: LoginResult) -> None:
        """A login."""
        self.heard.append("logged in")

    def registered(self, event: Registered) -> None:
        """A registration."""
        self.heard.append(event)

    def rebound(self, event: Rebound) -> None:
        """A rebinding."""
        self.heard.append(event)

    def asked(self, asked: Asked) -> None:
        """A request."""
        self.heard.append(asked)

    def reached(self, way: object) -> None:
        """An answer by a way."""
        self.heard.append(way)

    def silent(self) -> None:
        """No answers any more."""
        self.heard.append("silent")


class RegisteringTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A client and its DC on a virtual clock."""
        self.clock = Clock()
        self.dc = Coordinator(self.clock)
        self.told = Told()
        self.logins: list[Deferred[LoginResult]] = []
        self.outcome: Callable[[], LoginResult] | None = self.dc.admit
        self.client = Registering(
            self.clock, self.told, self.log_in, self.dc.transmit, lambda: HOME
        )
        self.dc.deliver = self.client.datagram_received
        self.patch(registering, "uniform", lambda low, high: 1.0)
        wall = SimpleNamespace(time=lambda: 2e9 + self.clock.seconds())
        self.patch(registering, "time", wall)

    def log_in(self) -> Deferred[LoginResult]:
        """A login that succeeds at once, fails, or hangs."""
        login: Deferred[LoginResult] = Deferred()
        self.logins.append(login)
        if self.outcome is not None:
            try:
                login.callback(self.outcome())
            except Exception:
                login.errback(Failure())
        return login

    def refuse(self, problem: Exception) -> None:
        """Let logins fail."""

        def fail() -> LoginResult:
            raise problem

        self.outcome = fail

    def run_for(self, seconds: float, step: float = 0.01) -> None:
        """Let time pass."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.dc.table.handle_timer(self.clock.seconds())
            self.dc.flush()

    def test_registers(self) -> None:
        """Login, hello, registration: one after the other, then all is well."""
        self.client.policy = PolicyRequest(1, ("*",))
        self.assertEqual(self.client.problem, "not started")
        self.client.start()
        self.run_for(0.2)
        self.assertTrue(self.client.registered)
        self.assertEqual(self.client.problem, "")
        self.assertEqual(self.told.heard[0], "logged in")
        self.assertIsInstance(self.told.heard[1], Registered)
        (policy,) = [one for one in self.dc.asked if isinstance(one, PolicyRequest)]
        self.assertEqual(policy.allow, ("*",))

    def test_policy_is_the_newest(self) -> None:
        """R9, R12, R13: a policy counts as new at each login, by the AS's clock, not by our own."""
        self.client.policy = PolicyRequest(0, ("*",))
        for offset in (0.0, 1000.0):
            self.outcome = partial(self.session, offset)
            self.client.start()
            self.run_for(0.2)
        generations = [one.generation for one in self.dc.asked if isinstance(one, PolicyRequest)]
        self.assertEqual(len(generations), 2)
        self.assertGreater(generations[1] - generations[0], 999_000)

    def session(self, offset: float) -> LoginResult:
        """A login at an AS whose clock is ahead of ours."""
        result = self.dc.admit()
        cast(Any, result).time_offset = offset
        return result

    def test_login_fails(self) -> None:
        """A login that fails is tried again with growing waits, and the reason is shown."""
        self.refuse(Unreachable("no connection to 203.0.113.1:4330: refused"))
        self.client.start()
        self.assertEqual(self.client.problem, "no connection to 203.0.113.1:4330: refused")
        self.run_for(FIRST_WAIT + 0.05)
        self.assertEqual(len(self.logins), 2)
        self.run_for(600.0, 1.0)
        self.assertLess(len(self.logins), 25)
        self.assertGreater(len(self.logins), 15)
        self.outcome = self.dc.admit
        self.run_for(LONGEST_WAIT + 1.0, 0.5)
        self.run_for(0.2)
        self.assertTrue(self.client.registered)

    def test_denied(self) -> None:
        """Who is denied does not knock every second."""
        self.refuse(AccessDenied("this device was removed"))
        self.client.start()
        self.run_for(LONGEST_WAIT - 1.0, 0.5)
        self.assertEqual(len(self.logins), 1)
        self.run_for(2.0, 0.5)
        self.assertEqual(len(self.logins), 2)

    def test_fault_of_a_login(self) -> None:
        """A fault of our own in a login is logged, and does not end the attempts."""
        self.refuse(ZeroDivisionError("a fault"))
        self.client.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.outcome = self.dc.admit
        self.run_for(FIRST_WAIT + 0.2)
        self.assertTrue(self.client.registered)

    def test_move_needs_no_login(self) -> None:
        """A move registers over the session that there is: no login, no lost request."""
        self.client.start()
        self.run_for(0.2)
        answer = self.client.request(NotificationRequest("a.b.example", 1))
        for _ in range(3):
            self.client.network_changed()
            self.run_for(0.1)
        self.assertEqual(len(self.logins), 1)
        self.assertNoResult(answer)
        generations = [m.generation for m in self.dc.asked if isinstance(m, RegistrationRequest)]
        self.assertEqual(len(generations), 4)
        self.assertEqual(generations[3] - generations[0], 3)
        self.failureResultOf(self._after(answer), Unreachable)

    def _after(self, answer: Deferred[Message]) -> Deferred[Message]:
        self.run_for(11.0, 0.1)
        return answer

    def test_move_while_login_waits(self) -> None:
        """A move is the moment to try again a login that failed without a network."""
        self.refuse(Unreachable("no route"))
        self.client.start()
        self.run_for(30.0, 0.5)
        count = len(self.logins)
        self.outcome = self.dc.admit
        self.client.network_changed()
        self.assertEqual(len(self.logins), count + 1)
        self.run_for(0.2)
        self.assertTrue(self.client.registered)

    def test_renewal(self) -> None:
        """R3: a certificate renews itself at half its life, well before it ends."""
        self.outcome = lambda: self.dc.admit(3600.0)
        self.client.start()
        self.run_for(0.2)
        self.run_for(1700.0, 1.0)
        self.assertEqual(len(self.logins), 1)
        self.run_for(200.0, 1.0)
        self.assertEqual(len(self.logins), 2)
        self.run_for(0.2)
        self.assertTrue(self.client.registered)

    def test_renewal_fails(self) -> None:
        """R3: a renewal that fails is tried again, and the session that holds is no problem."""
        self.outcome = lambda: self.dc.admit(3600.0)
        self.client.start()
        self.run_for(0.2)
        self.refuse(Unreachable("the account server is off"))
        self.run_for(1900.0, 1.0)
        self.assertGreater(len(self.logins), 3)
        self.assertTrue(self.client.registered)
        self.assertEqual(self.client.problem, "")

    def test_forgotten_session(self) -> None:
        """A DC that does not know the session makes the client log in at once."""
        self.client.start()
        self.run_for(0.2)
        self.dc.table.remove((1).to_bytes(8, "big"))
        self.run_for(30.0)
        self.assertEqual(len(self.logins), 2)
        self.assertTrue(self.client.registered)

    def test_silent_coordinator(self) -> None:
        """A DC that is silent is said hello to all the time, and logged in to now and then."""
        self.client.start()
        self.run_for(0.2)
        self.dc.deaf = True
        self.refuse(Unreachable("no answer"))
        self.run_for(200.0, 0.05)
        self.assertFalse(self.client.registered)
        self.assertNotEqual(self.client.problem, "")
        self.assertGreater(len(self.logins), 3)
        count = len(self.logins)
        self.dc.deaf = False
        self.run_for(4.0)
        self.assertTrue(self.client.registered)
        self.assertLessEqual(len(self.logins), count + 1)

    def test_requests_without_a_session(self) -> None:
        """A request before there is a session fails with the reason why there is none."""
        self.refuse(Unreachable("no route"))
        self.client.start()
        failure = self.failureResultOf(self.client.request(KeepAlive(1)), NotRegistered)
        self.assertIn("no route", failure.getErrorMessage())

    def test_request(self) -> None:
        """A request is answered; one of the DC is told to the node, whose answer goes back."""
        self.client.start()
        self.run_for(0.2)
        answer = self.client.request(RevocationOrder("a.b.example"))
        self.run_for(0.05)
        self.assertEqual(self.successResultOf(answer), Acknowledgement())
        index = (1).to_bytes(8, "big")
        self.dc.table.request(index, RevocationOrder("a.b.example"), None, self.clock.seconds())
        self.dc.flush()
        self.run_for(0.05)
        asked = self.told.heard[-1]
        assert isinstance(asked, Asked)
        self.client.answer(asked, Acknowledgement())
        self.run_for(0.05)

    def test_garbage(self) -> None:
        """R11: whatever comes to the socket raises nothing."""
        self.client.datagram_received(b"\x23", DC4)
        self.client.start()
        self.run_for(0.2)
        for datagram in (b"", b"\x23", bytes(2000), b"\x22" + bytes(19)):
            self.client.datagram_received(datagram, DC4)
        self.assertTrue(self.client.registered)

    def test_stop(self) -> None:
        """After the end nothing is sent, asked or tried any more, and who waits hears of it."""
        self.client.start()
        self.run_for(0.2)
        answer = self.client.request(NotificationRequest("a.b.example", 1))
        self.successResultOf(Deferred.fromCoroutine(self.client.stop()))
        self.failureResultOf(answer, NotRegistered)
        self.run_for(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_during_a_login(self) -> None:
        """A login under way is cancelled, silently."""
        self.outcome = None
        self.client.start()
        self.successResultOf(Deferred.fromCoroutine(self.client.stop()))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asks_nothing_when_revoked(self) -> None:
        """A device that was revoked hears so at once, whatever it asks, and asked before."""
        self.client.start()
        self.run_for(0.2)
        question = NotificationRequest("a.b.example", 1)
        before = self.client.request(question)
        self.client.revoked()
        self.failureResultOf(before, NotRegistered)
        self.failureResultOf(self.client.request(question), NotRegistered)

    def test_revoked(self) -> None:
        """R34: a device whose session was ended asks the AS, who says why."""
        self.client.start()
        self.run_for(0.2)
        self.refuse(AccessDenied("this device was removed"))
        self.client.revoked()
        self.assertFalse(self.client.registered)
        self.run_for(0.1)
        self.assertEqual(self.client.problem, "this device was removed")
