"""The client's directions: asking for them, judging those that come (rules R5, R13 to R17)."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.client.registering import Registering
from ntmobile.errors import (
    AuthenticationError,
    CertificateError,
    NTMobileError,
    UnknownName,
    Unreachable,
    UntrustedIdentity,
)
from ntmobile.machines.device.shown import ShownAddresses
from ntmobile.machines.login.identities import Devices
from ntmobile.machines.signalling.clients import Policy
from ntmobile.machines.tunnel.constants import DIRECTION_LIFETIME
from ntmobile.machines.tunnel.correspondence import AskDirection, Correspondence
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.messages.realtime import (
    DirectionRefusal,
    DirectionRequest,
    DirectionResponse,
    Outcome,
    Purpose,
    RouteDirection,
    direction_statement,
)

log = Logger()

#: Directions remembered for the answers that name them.
REMEMBERED: Final = 1024
#: Seconds in which the DC answers a Direction Request (it may have to ask two others).
ANSWER_TIMEOUT: Final = 12.0
#: Seconds after a request in which its direction may come, be it that CN has to wake first.
ASKED: Final = ANSWER_TIMEOUT + DIRECTION_LIFETIME


class Pins(Protocol):
    """Pinned correspondents; see :class:`ntmobile.client.pins.PinStore`."""

    def check(self, certificate: DeviceCertificate) -> None:
        """Pin at first contact. :raises UntrustedIdentity: another identity than the pinned."""

    def learn(self, devices: Devices) -> list[str]:
        """Accept what pinned identities have signed. :raises AuthenticationError: a rollback."""


@define(eq=False)
class Directing:
    """Asks the DC for directions and takes those that come.

    :param sign: signs with the device's identity key.
    :param refused: told of a correspondent that is not trusted.
    :param ask_devices: gets the verified device list of a user.
    :param settled: called after a direction was taken later than it came.
    :ivar history: what was last heard about a name, for ``ntm why``.
    """

    fqdn: str
    registering: Registering
    correspondence: Correspondence
    shown: ShownAddresses
    pins: Pins
    policy: Policy
    trust: TrustStore
    clock: IReactorTime
    sign: Callable[[bytes], bytes]
    refused: Callable[[str, NTMobileError], None]
    ask_devices: Callable[[str], Awaitable[Devices]]
    settled: Callable[[], None]
    history: OrderedDict[str, str] = field(factory=OrderedDict, init=False)
    _peers: OrderedDict[bytes, str] = field(factory=OrderedDict, init=False)
    _refusals: OrderedDict[bytes, NTMobileError] = field(factory=OrderedDict, init=False)
    _asking: dict[str, list[Deferred[str]]] = field(factory=dict, init=False)
    _asked: OrderedDict[str, float] = field(factory=OrderedDict, init=False)

    async def ask(self, name: str, purpose: Purpose, avoid: tuple[str, ...] = ()) -> str:
        """Ask for a direction towards a device, or a user's device that registered last.

        Requests for the same name at the same time are one.

        :return: the FQDN of the device.
        :raises UnknownName: nobody of that name, or not for us. :raises Unreachable: its DC, ours,
            or no relay. :raises AuthenticationError: its domain or certificate is not trusted.
        """
        answer: Deferred[str] = Deferred()
        waiting = self._asking.setdefault(name, [])
        waiting.append(answer)
        if len(waiting) == 1:
            Deferred.fromCoroutine(self._ask(name, purpose, avoid))
        return await answer

    async def _ask(self, name: str, purpose: Purpose, avoid: tuple[str, ...]) -> None:
        outcome: str | Failure
        try:
            outcome = await self._request(name, purpose, avoid)
        except NTMobileError as problem:
            self.note(name, str(problem))
            outcome = Failure(problem)
        except Exception:
            outcome = Failure()
            log.failure("asking for a direction to {name}", name=name)
        for waiting in self._asking.pop(name, []):
            waiting.callback(outcome)

    async def _request(self, name: str, purpose: Purpose, avoid: tuple[str, ...]) -> str:
        self._asked[name] = self.clock.seconds()
        self._asked.move_to_end(name)
        while len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        nonce = os.urandom(16)
        issued = int(self.registering.unix_time() * 1000)
        registration = self.registering.registration
        request = DirectionRequest(
            name,
            nonce,
            issued,
            self.sign(direction_statement(self.fqdn, name, nonce, issued)),
            purpose,
            avoid[:4],
            registration.generation if registration is not None else 0,
        )
        answer = await self.registering.request(request, ANSWER_TIMEOUT)
        if not isinstance(answer, DirectionResponse):
            raise Unreachable("the coordinator answered something else")
        if answer.outcome not in (Outcome.OK, Outcome.WAKING):
            raise _refusal(name, answer)
        refusal = self._refusals.pop(answer.direction, None)
        if refusal is not None:  # the direction itself was here before this answer
            raise refusal
        peer = self._peers.get(answer.direction, name)
        if answer.outcome == Outcome.WAKING:
            self.note(peer, "waking: it is off or asleep and has been notified")
        return peer

    def repair(self, wanted: AskDirection) -> None:
        """A tunnel wants a direction; it asks again by itself where this fails."""

        async def ask() -> None:
            try:
                await self.ask(wanted.peer, wanted.purpose, wanted.avoid)
            except NTMobileError as problem:
                log.info(
                    "no direction to {peer}: {problem}", peer=wanted.peer, problem=str(problem)
                )

        Deferred.fromCoroutine(ask())

    def directed(self, direction: RouteDirection) -> Outcome:
        """A Route Direction of our DC: verify, pin, hand it to the tunnel.

        :return: what the acknowledgement says.
        """
        try:
            at = self.registering.unix_time()
            certificate = self.trust.verify_device(direction.certificate, at)
            if certificate.fqdn != direction.peer or direction.peer == self.fqdn:
                raise CertificateError(f"the certificate is not that of {direction.peer}")
            if direction.requester not in (self.fqdn, direction.peer):
                raise CertificateError(f"{direction.requester} is neither of the two ends")
            if not self._asked_for(direction) and not self.policy.admits(direction.peer):
                log.info("refused {peer}: not in the allow list", peer=direction.peer)
                return Outcome.REFUSED
            self.pins.check(certificate)
            self.shown.learn(certificate)
        except UntrustedIdentity as problem:
            Deferred.fromCoroutine(self._succeed(direction, certificate, problem))
            return Outcome.OK
        except NTMobileError as problem:
            self._refuse(direction, problem)
            return Outcome.UNTRUSTED
        self._take(direction, certificate)
        return Outcome.OK

    def denied(self, refusal: DirectionRefusal) -> None:
        """The correspondent refused a direction: a tunnel that waits for no other one ends."""
        peer = self._peers.get(refusal.direction)
        problem = _refusal(peer or "this name", refusal)
        self._remember(refusal.direction, problem)
        tunnel = self.correspondence.find(peer) if peer is not None else None
        if peer is None or tunnel is None or tunnel.established:
            return
        if tunnel.identifiers <= self._refusals.keys():
            self.note(peer, str(problem))
            self.correspondence.end(peer, str(problem), self.clock.seconds())
            self.refused(peer, problem)

    def _asked_for(self, direction: RouteDirection) -> bool:
        """Whether we have asked for this device, or its user: no DC can just say so (R13)."""
        if direction.requester != self.fqdn:
            return False
        since = self.clock.seconds() - ASKED
        wanted = (direction.peer, names.user_of(direction.peer))
        return any(self._asked.get(name, float("-inf")) >= since for name in wanted)

    async def _succeed(
        self, direction: RouteDirection, certificate: DeviceCertificate, problem: NTMobileError
    ) -> None:
        """Another identity than the pinned one: it is good if the pinned one has signed it (R5)."""
        try:
            self.pins.learn(await self.ask_devices(names.user_of(direction.peer)))
            self.pins.check(certificate)
            self.shown.learn(certificate)
        except UntrustedIdentity as still:
            self._refuse(direction, still)
        except NTMobileError as failed:
            log.info("no device list: {problem}", problem=str(failed))
            self._refuse(direction, problem)
        else:
            log.info("{peer} has a new identity, signed by its former one", peer=direction.peer)
            self._take(direction, certificate)
            self.settled()

    def _refuse(self, direction: RouteDirection, problem: NTMobileError) -> None:
        log.warn("refused a direction: {problem}", problem=str(problem))
        self.note(direction.peer, str(problem))
        self._remember(direction.direction, problem)
        self.refused(direction.peer, problem)

    def _remember(self, direction: bytes, problem: NTMobileError) -> None:
        self._refusals[direction] = problem
        while len(self._refusals) > REMEMBERED:
            self._refusals.popitem(last=False)

    def _take(self, direction: RouteDirection, certificate: DeviceCertificate) -> None:
        now, at = self.clock.seconds(), self.registering.unix_time()
        self._peers[direction.direction] = direction.peer
        while len(self._peers) > REMEMBERED:
            self._peers.popitem(last=False)
        self.note(direction.peer, direction.reason)
        self.correspondence.directed(direction, certificate, now, at)

    def note(self, name: str, text: str) -> None:
        """Remember the last word about a name."""
        self.history[name] = text
        self.history.move_to_end(name)
        while len(self.history) > REMEMBERED:
            self.history.popitem(last=False)


def _refusal(name: str, answer: DirectionResponse | DirectionRefusal) -> NTMobileError:
    detail = answer.detail or "no reason given"
    text = detail if name in detail else f"{name}: {detail}"
    match answer.outcome:
        case Outcome.UNKNOWN | Outcome.REFUSED:
            return UnknownName(text)
        case Outcome.UNTRUSTED:
            return AuthenticationError(text)
        case _:
            return Unreachable(text)
