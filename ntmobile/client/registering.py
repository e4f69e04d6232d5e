"""The client's side with its DC: login, the signalling session, registration, renewal.

Logs in with the device's certificate, registers, and starts again from wherever it must: a session
the DC forgot needs a login, an unreachable DC needs patience, and neither touches live tunnels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from random import uniform
from typing import Any, Final, Protocol

import msgspec
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile import __version__
from ntmobile.client.login import LoginResult
from ntmobile.errors import (
    AccessDenied,
    AuthenticationError,
    NotRegistered,
    NTMobileError,
    Unreachable,
)
from ntmobile.interfaces import Way
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.registration import (
    Rebound,
    Registered,
    Registration,
    Silent,
    State,
)
from ntmobile.machines.signalling.requests import Answered, Asked, TimedOut
from ntmobile.machines.signalling.session import ClientSession, Lost, Reached
from ntmobile.protocols.timing import MachineTimer
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import PolicyRequest

log = Logger()

#: Seconds between attempts to log in, growing by half each time, with jitter.
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0


class Told(Protocol):
    """What the node hears of its DC."""

    def logged_in(self, session: LoginResult) -> None:
        """A login succeeded: certificate and trust may be new ones."""

    def registered(self, event: Registered) -> None:
        """The DC has our location."""

    def rebound(self, event: Rebound) -> None:
        """The NAT in front of us rebound."""

    def asked(self, asked: Asked) -> None:
        """The DC asks; answer with :meth:`Registering.answer`."""

    def reached(self, way: object) -> None:
        """The DC answered a question that went by this way; see :meth:`Registering.knock`."""

    def silent(self) -> None:
        """The DC does not answer."""


@define(eq=False)
class Registering:
    """Keeps a client registered.

    :param log_in: logs in with the device's certificate.
    :param transmit: sends a datagram.
    :ivar policy: whom the client admits; its generation is set at each login, by the AS's clock.
    :ivar problem: why the client is not registered, for people; empty if it is.
    """

    reactor: Any
    told: Told
    log_in: Callable[[], Deferred[LoginResult]]
    transmit: Callable[[bytes, Address], object]
    local: Callable[[], Mapping[int, tuple[Endpoint, ...]]]
    policy: PolicyRequest | None = None
    shortest: float = 15.0
    longest: float = 120.0
    problem: str = field(default="not started", init=False)
    registration: Registration | None = field(default=None, init=False)
    offset: float = field(default=0.0, init=False)
    _waiting: dict[object, Deferred[Message]] = field(factory=dict, init=False)
    _tags: int = field(default=0, init=False)
    _timer: MachineTimer = field(init=False)
    _retry: IDelayedCall | None = field(default=None, init=False)
    _renewal: IDelayedCall | None = field(default=None, init=False)
    _wait: float = field(default=FIRST_WAIT, init=False)
    _logging_in: Deferred[None] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._timer = MachineTimer(self.reactor, self._wake)

    def unix_time(self) -> float:
        """Unix seconds by the AS's clock, as last heard (R12)."""
        return time.time() + self.offset

    @property
    def registered(self) -> bool:
        """The DC has our location."""
        return self.registration is not None and self.registration.state is State.REGISTERED

    @property
    def loopbacks(self) -> tuple[str, ...]:
        """Loopback addresses that count as own ones, where the DC runs on this very machine."""
        remotes = () if self.registration is None else self.registration.session.remotes
        hosts = (host for host, _ in remotes if ip_address(host).is_loopback)
        return tuple("::1" if ":" in host else "127.0.0.1" for host in hosts)

    # -- life

    def start(self) -> None:
        """Log in and register, for as long as it takes."""
        self.problem = "logging in"
        self._log_in()

    async def stop(self) -> None:
        """Tell the DC, and stop."""
        self._stopped = True
        self._cancel_retry()
        self._renew_in(None)
        if self._logging_in is not None:
            self._logging_in.cancel()
        if self.registration is not None:
            self.registration.stop(self.reactor.seconds())
            self._settle()
        self._timer.cancel()
        self._abandon(NotRegistered("the client is going down"))

    def _abandon(self, problem: NTMobileError) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(Failure(problem))

    def network_changed(self) -> None:
        """Own addresses changed: register them, or try to log in at once."""
        self._wait = FIRST_WAIT
        if self.registration is not None:
            self.registration.network_changed(self.local(), self.reactor.seconds())
            self._settle()
        if self._retry is not None:
            self._cancel_retry()
            self._log_in()

    def revoked(self) -> None:
        """The DC ended our session for good: ask the AS, who says why."""
        if self.registration is not None:
            self.registration.revoked()
        self.problem = "this device was revoked"
        self._abandon(NotRegistered(f"no session with the coordinator: {self.problem}"))
        self._renew_in(None)
        self._schedule(0.0)
        self._timer.cancel()

    # -- conversation

    def datagram_received(self, datagram: bytes, remote: Address) -> None:
        """A signalling datagram. What is not authentic is dropped."""
        if self.registration is None:
            return
        try:
            self.registration.datagram_received(datagram, remote, self.reactor.seconds())
        except NTMobileError as problem:
            log.debug("dropped a datagram of {remote}: {problem}", remote=remote, problem=problem)
        self._settle()

    def request(self, message: Message, timeout: float = 10.0) -> Deferred[Message]:
        """Ask the DC. Fails with :class:`NotRegistered` or :class:`Unreachable`."""
        answer: Deferred[Message] = Deferred()
        if self.registration is None or self.registration.state is State.DOWN:
            answer.errback(
                Failure(NotRegistered(f"no session with the coordinator: {self.problem}"))
            )
            return answer
        self._tags += 1
        tag = ("node", self._tags)
        self._waiting[tag] = answer
        self.registration.request(message, tag, self.reactor.seconds(), timeout)
        self._settle()
        return answer

    def answer(self, asked: Asked, message: Message) -> None:
        """Answer a request of the DC."""
        if self.registration is not None:
            self.registration.answer(asked, message)
            self._settle()

    def knock(self, way: Way) -> Transmit | None:
        """A question whether the DC can be reached by a way; None where there is no session."""
        if self.registration is None:
            return None
        return self.registration.knock(way, way.family)

    # -- login

    def _log_in(self) -> None:
        if self._logging_in is None and not self._stopped:
            attempt = Deferred.fromCoroutine(self._try_login())
            attempt.addErrback(lambda failure: None)
            self._logging_in = None if attempt.called else attempt

    async def _try_login(self) -> None:
        try:
            session = await self.log_in()
        except CancelledError:
            self._logging_in = None
        except (AccessDenied, AuthenticationError) as problem:
            self._failed(problem, LONGEST_WAIT)
        except NTMobileError as problem:
            self._failed(problem, self._wait)
        except Exception as problem:
            log.failure("a login failed")
            self._failed(problem, self._wait)
        else:
            self._logging_in = None
            self._begin(session)

    def _failed(self, problem: Exception, wait: float) -> None:
        self._logging_in = None
        if not self.registered:  # the renewal of a session that still holds may fail
            self.problem = str(problem)
        log.warn("no login: {problem}", problem=str(problem))
        self._schedule(wait)
        self._wait = min(self._wait * 1.5, LONGEST_WAIT)

    def _schedule(self, wait: float) -> None:
        self._cancel_retry()
        if not self._stopped:
            self._retry = self.reactor.callLater(wait * uniform(0.8, 1.2), self._again)

    def _again(self) -> None:
        self._retry = None
        self._log_in()

    def _renew_in(self, seconds: float | None) -> None:
        """Log in again in some time, although nothing is wrong; None: not any more."""
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        self._renewal = None
        if seconds is not None and not self._stopped:
            self._renewal = self.reactor.callLater(seconds * uniform(0.8, 1.2), self._log_in)

    def _cancel_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def _begin(self, session: LoginResult) -> None:
        now = self.reactor.seconds()
        self.offset = session.time_offset
        self._wait = FIRST_WAIT
        former = self.registration
        self.registration = Registration(
            ClientSession(
                session.index,
                session.session_key,
                tuple(endpoint.pair() for endpoint in session.endpoints),
                os.urandom,
            ),
            generation=max(
                int(self.unix_time() * 1000), former.generation + 1 if former is not None else 0
            ),
            version=__version__,
            shortest=self.shortest,
            longest=self.longest,
            policy=None
            if self.policy is None
            else msgspec.structs.replace(self.policy, generation=int(self.unix_time() * 1000)),
        )
        self.problem = "registering"
        self._abandon(Unreachable("the session was replaced meanwhile; ask again"))
        self.told.logged_in(session)
        self.registration.start(self.local(), now)
        # Certificates renew themselves well before they end (R3).
        left = session.certificate.not_after - self.unix_time()
        self._cancel_retry()
        self._renew_in(max(10.0, min(left, session.lifetime) / 2))
        self._settle()

    # -- the machine

    def _wake(self, now: float) -> None:
        if self.registration is not None:
            self.registration.handle_timer(now)
            self._settle()

    def _settle(self) -> None:
        registration = self.registration
        if registration is None:
            return
        for transmit in registration.transmissions():
            self.transmit(transmit.datagram, transmit.remote)
        for event in registration.events():
            self._event(event)
        for transmit in registration.transmissions():
            self.transmit(transmit.datagram, transmit.remote)
        if not self._stopped:
            self._timer.set(registration.next_timer())

    def _event(self, event: object) -> None:
        match event:
            case Registered():
                self.problem = ""
                if event.fresh:
                    log.info(
                        "registered; the coordinator sees us at {host} port {port}",
                        host=event.observed.pair()[0],
                        port=event.observed.port,
                    )
                self.told.registered(event)
            case Rebound():
                log.info("the NAT gave us port {port}", port=event.observed.port)
                self.told.rebound(event)
            case Silent():
                self.problem = "the coordinator does not answer"
                log.warn("the coordinator does not answer; live tunnels go on")
                self.told.silent()
            case Reached(way):
                self.told.reached(way)
            case Lost(reason, forgotten):
                self.problem = reason
                self._lost(reason, forgotten)
            case Asked():
                self.told.asked(event)
            case Answered(tag, message):
                waiting = self._waiting.pop(tag, None)
                if waiting is not None:
                    waiting.callback(message)
            case TimedOut(tag):
                waiting = self._waiting.pop(tag, None)
                if waiting is not None:
                    waiting.errback(Failure(Unreachable("the coordinator does not answer")))
            case _:
                raise AssertionError(f"an event nobody expects: {event}")

    def _lost(self, reason: str, forgotten: bool) -> None:
        """Go on saying hello; a login gives a new session, or the DC's new addresses."""
        if self.registration is not None:
            self.registration.session.start(self.reactor.seconds())
        if forgotten:
            log.info("{reason}; logging in again", reason=reason)
            self._schedule(0.0)
        elif self._retry is None:
            log.info("{reason}; trying to log in again", reason=reason)
            self._schedule(self._wait)
