"""DC_MN: from a Direction Request to Route Directions for both ends (paper, III; rules R13 to R18).

For each request: CN's information is asked of its DC, the route is decided, an RS is directed, and
the two Route Directions go out, CN's by way of its own DC, which alone has a relationship with it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from attrs import define, field
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ntmobile.errors import CertificateError, InvalidName
from ntmobile.machines.direction.records import (
    CAPACITY,
    DECISIONS,
    DIRECTION_LIFETIME,
    FRESHNESS,
    AskCoordinator,
    DirectRelay,
    Effect,
    Pending,
    Respond,
    TellClient,
)
from ntmobile.machines.direction.route import Route, decide
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.signalling.clients import Client, ClientTable
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    InformationResponse,
    LocationUpdate,
    RelayDirection,
    RelayResponse,
    RouteDirectionRefusal,
    RouteDirectionTransfer,
    RouteDirectionTransferResponse,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    DirectionRefusal,
    DirectionRequest,
    DirectionResponse,
    Outcome,
    Relay,
    RouteDirection,
    direction_statement,
)


class RelayChoice(Protocol):
    """The relays a DC can use; see :class:`ntmobile.machines.direction.relays.RelayRegistry`."""

    def choose(
        self, families: tuple[frozenset[int], frozenset[int]], avoid: frozenset[str]
    ) -> tuple[str, tuple[Endpoint, ...]] | None:
        """Name and endpoints of the least loaded RS that has a family of each set."""


class Signatory(Protocol):
    """Who signs requests: a client, or what a certificate says of a device."""

    @property
    def fqdn(self) -> str:
        """The device's name."""

    @property
    def identity(self) -> bytes:
        """Its raw Ed25519 public key."""


def check_request(
    mn: Signatory, cn: str, nonce: bytes, issued: int, signature: bytes, at: float
) -> bool:
    """Whether MN really asked for CN, and lately (R13). ``at``: unix seconds of the AS's clock."""
    if abs(issued / 1000 - at) > FRESHNESS:
        return False
    statement = direction_statement(mn.fqdn, cn, nonce, issued)
    try:
        Ed25519PublicKey.from_public_bytes(mn.identity).verify(signature, statement)
    except InvalidSignature:
        return False
    return True


@define
class Direction:
    """The DC_MN half of a DC's directions.

    :ivar local_information: asks this DC's own half about a CN of the same domain: MN, name of CN,
        monotonic and unix time.
    """

    clients: ClientTable
    trust: TrustStore
    relays: RelayChoice
    local_information: Callable[[str, str, float, float], InformationResponse]
    local_transfer: Callable[
        [str, RouteDirectionTransfer, float], tuple[RouteDirectionTransferResponse, list[Effect]]
    ]
    _random: Callable[[int], bytes]
    limiter: RateLimiter = field(factory=lambda: RateLimiter(rate=20, burst=100, capacity=20_000))
    _pending: dict[bytes, Pending] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many directions are remembered."""
        return len(self._pending)

    def asked(
        self, client: Client, request: DirectionRequest, token: object, now: float, at: float
    ) -> list[Effect]:
        """A Direction Request of a client of ours. ``at``: unix seconds."""
        fqdn, peer = client.fqdn, request.peer

        def refuse(outcome: Outcome, detail: str) -> list[Effect]:
            return [Respond(token, DirectionResponse(outcome, detail=detail))]

        if not self.limiter.allow(fqdn, now) or len(self._pending) >= CAPACITY:
            return refuse(Outcome.BUSY, "too many requests; try again in a few seconds")
        domains = coordinator_domains(peer, self.clients.domain)
        if not domains or peer == fqdn:
            return refuse(Outcome.REFUSED, f"{peer} is not the name of another device")
        trusted = [each for each in domains if self.trust.trusts(each)]
        if not trusted:
            return refuse(
                Outcome.UNTRUSTED, f"no realm is trusted for {domains[0]}; ntm realm trust"
            )
        if not check_request(client, peer, request.nonce, request.issued, request.signature, at):
            return refuse(Outcome.REFUSED, "the request is not signed by this device, or is stale")
        pending = self._begin(client, request, token, trusted, now)
        if pending.domain != self.clients.domain:
            return [_ask(pending)]
        answer = self.local_information(fqdn, peer, now, at)
        found = self.clients.find(answer.cn)
        if answer.outcome != Outcome.OK or found is None:
            return self._unknown(pending)
        return self._found(pending, answer, found.der, now)

    def _begin(
        self,
        client: Client,
        request: DirectionRequest,
        token: object,
        domains: list[str],
        now: float,
    ) -> Pending:
        question = InformationRequest(
            client.fqdn,
            client.der,
            request.peer,
            request.nonce,
            request.issued,
            request.signature,
            request.purpose,
        )
        pending = Pending(
            direction=self._random(8),
            mn=client.fqdn,
            question=question,
            token=token,
            expires=now + DIRECTION_LIFETIME,
            temporal_key=self._random(32),
            relay_keys=(self._random(32), self._random(32)),
            peer=request.peer,
            domain=domains[0],
            others=domains[1:],
            avoid=set(request.avoid),
        )
        self._pending[pending.direction] = pending
        return pending

    def failed(self, tag: bytes, outcome: Outcome, detail: str) -> list[Effect]:
        """The direction cannot be made; where the name may be another's, that one is asked first.

        The first reason is told, since that is the likelier reading of the name.
        """
        pending = self._pending.get(tag)
        if pending is None:
            return []
        if pending.refusal is None:
            pending.refusal = (outcome, detail)
        if pending.location is None and pending.others:
            pending.domain = pending.others.pop(0)
            return [_ask(pending)]
        del self._pending[tag]
        return self._respond(pending, *pending.refusal)

    def _unknown(self, pending: Pending) -> list[Effect]:
        """The DC of that very domain knows nobody of that name: that is the reason to tell."""
        pending.refusal = (Outcome.UNKNOWN, _nobody(pending.peer))
        return self.failed(pending.direction, *pending.refusal)

    def informed(self, tag: bytes, answer: Message, now: float, at: float) -> list[Effect]:
        """DC_CN's NTM Information Response."""
        pending = self._pending.get(tag)
        if pending is None or pending.location is not None:
            return []
        if not isinstance(answer, InformationResponse):
            return self.failed(tag, Outcome.UNREACHABLE, "its coordinator answered nonsense")
        if answer.outcome == Outcome.BUSY:
            return self.failed(tag, Outcome.BUSY, "its coordinator is busy; try again soon")
        if answer.outcome != Outcome.OK or answer.location is None:
            return self._unknown(pending)
        try:
            certificate = self.trust.verify_device(answer.certificate, at)
        except CertificateError as problem:
            return self.failed(tag, Outcome.UNTRUSTED, str(problem)[:200])
        if certificate.fqdn != answer.cn or not names.is_within(answer.cn, pending.peer):
            return self.failed(tag, Outcome.UNTRUSTED, "its certificate is of another device")
        if names.domain_of(answer.cn) != pending.domain:
            detail = f"the coordinator of {pending.domain} does not speak for {answer.cn}"
            return self.failed(tag, Outcome.UNTRUSTED, detail)
        return self._found(pending, answer, certificate.der, now)

    def _found(
        self,
        pending: Pending,
        answer: InformationResponse,
        certificate: bytes,
        now: float,
    ) -> list[Effect]:
        pending.peer, pending.certificate = answer.cn, certificate
        pending.location, pending.hide = answer.location, answer.hide
        pending.refusal = None
        return self._route(pending, now)

    def relay_answered(self, tag: bytes, answer: Message | None, now: float) -> list[Effect]:
        """The RS's Relay Response, or None: then the next one takes over (R26)."""
        pending = self._pending.get(tag)
        if pending is None or pending.relay is None:
            return []
        if isinstance(answer, RelayResponse) and answer.outcome == Outcome.OK:
            return self._issue(pending, now)
        pending.avoid.add(pending.relay)
        return self._route(pending, now)

    def location_updated(
        self, domain: str, update: LocationUpdate, now: float, at: float
    ) -> list[Effect]:
        """CN registered elsewhere while its direction was pending (R16): decide again."""
        pending = self._pending.get(update.direction)
        if (
            pending is None
            or pending.peer != update.cn
            or pending.domain != domain
            or pending.location is None
            or update.location.generation < pending.location.generation
            or pending.generation >= DECISIONS
        ):
            return []
        certificate = pending.certificate
        if update.certificate:
            try:
                verified = self.trust.verify_device(update.certificate, at)
            except CertificateError:
                return []
            if verified.fqdn != update.cn:
                return []
            certificate = verified.der
        if (update.location, certificate) == (pending.location, pending.certificate):
            return []
        pending.location, pending.certificate = update.location, certificate
        return self._route(pending, now)

    def transferred(self, tag: bytes, answer: Message) -> list[Effect]:
        """DC_CN's answer to the Route Direction Transfer: MN hears whether CN has to wake."""
        pending = self._pending.get(tag)
        if pending is None:
            return []
        match answer:
            case RouteDirectionTransferResponse(Outcome.OK):
                return self._respond(pending, Outcome.OK, "")
            case RouteDirectionTransferResponse(Outcome.WAKING):
                detail = "it is off or asleep and has been notified"
                return self._respond(pending, Outcome.WAKING, detail)
            case RouteDirectionTransferResponse(Outcome.BUSY):
                return self.failed(tag, Outcome.BUSY, "its coordinator is busy; try again soon")
            case RouteDirectionTransferResponse():
                return self._unknown(pending)
        return self.failed(tag, Outcome.UNREACHABLE, "its coordinator answered nonsense")

    def refused(self, domain: str, refusal: RouteDirectionRefusal) -> list[Effect]:
        """CN itself refused: MN hears what it would have heard of CN's DC (R13)."""
        pending = self._pending.get(refusal.direction)
        if pending is None or (pending.domain, pending.peer) != (domain, refusal.cn):
            return []
        del self._pending[refusal.direction]
        answer = Outcome.UNKNOWN, _nobody(pending.peer)
        told = TellClient(pending.mn, DirectionRefusal(refusal.direction, *answer))
        return [told, *self._respond(pending, *answer)]

    def revoked(self, fqdn: str) -> list[Effect]:
        """A device is revoked: what is being made for it or towards it ends (R34)."""
        effects: list[Effect] = []
        for tag in [t for t, one in self._pending.items() if fqdn in (one.mn, one.peer)]:
            pending = self._pending[tag]
            pending.others.clear()
            effects += self._unknown(pending)
        return effects

    def handle_timer(self, now: float) -> None:
        """Forget directions, and their temporal keys, after 60 s (R18); call it every second."""
        while self._pending:  # in the order of their ends
            oldest = next(iter(self._pending))
            if now < self._pending[oldest].expires:
                break
            del self._pending[oldest]

    # -- the decision

    def _route(self, pending: Pending, now: float) -> list[Effect]:
        client = self.clients.find(pending.mn)
        if client is None or pending.location is None:
            return self.failed(pending.direction, Outcome.REFUSED, "logged out meanwhile")
        hide = pending.hide or client.policy.hides_from(pending.peer)
        route = decide(client.located(now), pending.location, hide=hide)
        pending.route = route
        choice = self.relays.choose(route.relay_families, frozenset(pending.avoid))
        if choice is None:
            pending.relay = None
            if not route.direct and pending.location.online:
                detail = f"{route.reason}, and no relay server of {self.clients.domain} is there"
                return self.failed(pending.direction, Outcome.NO_RELAY, detail)
            return self._issue(pending, now)
        pending.relay, pending.endpoints = choice
        lifetime = int(DIRECTION_LIFETIME)
        message = RelayDirection(pending.direction, pending.relay_keys, lifetime)
        ends = (pending.mn, pending.peer)
        return [DirectRelay(choice[0], message, pending.direction, ends)]

    def _issue(self, pending: Pending, now: float) -> list[Effect]:
        client, route = self.clients.find(pending.mn), pending.route
        if client is None or route is None or pending.certificate is None:
            return []
        pending.generation += 1
        client.talks_to(pending.peer)
        to_mn = self._message(pending, route, now, pending.certificate, mn=True)
        to_cn = self._message(pending, route, now, client.der, mn=False)
        effects: list[Effect] = [TellClient(pending.mn, to_mn)]
        transfer = RouteDirectionTransfer(pending.peer, to_cn)
        domain = names.domain_of(pending.peer)
        if domain != self.clients.domain:
            return [*effects, AskCoordinator(domain, transfer, pending.direction)]
        answer, more = self.local_transfer(domain, transfer, now)
        return [*effects, *more, *self.transferred(pending.direction, answer)]

    def _message(
        self, pending: Pending, route: Route, now: float, certificate: bytes, *, mn: bool
    ) -> RouteDirection:
        relay = None
        if pending.relay is not None:
            side = 0 if mn else 1
            relay = Relay(pending.relay, pending.endpoints, pending.relay_keys[side], side)
        return RouteDirection(
            direction=pending.direction,
            generation=pending.generation,
            peer=pending.peer if mn else pending.mn,
            certificate=certificate,
            requester=pending.mn,
            initiator=route.mn_initiates is mn,
            candidates=route.to_cn if mn else route.to_mn,
            temporal_key=pending.temporal_key,
            lifetime=max(1, int(pending.expires - now)),
            relay=relay,
            relay_first=route.relay_first,
            reason=route.reason,
        )

    def _respond(self, pending: Pending, outcome: Outcome, detail: str) -> list[Effect]:
        token, pending.token = pending.token, None
        if token is None:
            return []
        return [Respond(token, DirectionResponse(outcome, pending.direction, detail))]


def _ask(pending: Pending) -> AskCoordinator:
    then = pending.others[0] if pending.others else None
    return AskCoordinator(pending.domain, pending.question, pending.direction, then)


def _nobody(name: str) -> str:
    return f"nobody is called {name}, or not for you to reach"


def coordinator_domains(name: str, own: str) -> list[str]:
    """The domains whose DCs may know a name, the likeliest first; none where it is no name.

    ``a.b.c.d`` is a device of ``c.d`` or else a user of ``b.c.d``. Of our own domain we know which.
    """
    if names.is_user_of(name, own) or names.is_device_of(name, own):
        return [own]
    user, _, rest = name.partition(".")
    found = []
    with suppress(InvalidName):
        found.append(names.domain_of(name))
    with suppress(InvalidName):
        names.check_user(user)
        found.append(names.check_domain(rest))
    return [each for each in found if each != own]
