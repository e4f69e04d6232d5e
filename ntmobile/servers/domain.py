"""The heart of a DC: one domain's clients, sessions and directions, without any socket.

What comes in from clients and from other servers is put to the machines; what they want is carried
out through the :class:`~ntmobile.servers.outside.Outside` that the service provides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NotRegistered, NTMobileError, UnknownName
from ntmobile.interfaces import INotifier, StoredClient
from ntmobile.machines.direction.deciding import Direction, RelayChoice
from ntmobile.machines.direction.disclosure import Disclosure
from ntmobile.machines.direction.records import (
    AskCoordinator,
    DirectRelay,
    Effect,
    Notify,
    Respond,
    TellClient,
    TellCoordinator,
)
from ntmobile.machines.direction.waiting import WaitingDirections
from ntmobile.machines.revocation.orders import RevocationOrders
from ntmobile.machines.signalling.clients import Client, ClientTable, Policy
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.signalling.table import ClientAnswered, ClientAsked, ClientHeard
from ntmobile.protocols import trace
from ntmobile.protocols.signalling import Event, Signalling
from ntmobile.servers.notices import NoticesAbroad
from ntmobile.servers.notifying import Notifying
from ntmobile.servers.outside import Outside
from ntmobile.servers.storing import from_store, to_store
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    InformationResponse,
    LinkAcknowledgement,
    LocationUpdate,
    RevocationNotice,
    RouteDirectionRefusal,
    RouteDirectionTransfer,
)
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    Deregistration,
    DirectionRefusal,
    DirectionRequest,
    DirectionResponse,
    KeepAlive,
    KeepAliveResponse,
    NotificationRequest,
    Outcome,
    PolicyRequest,
    PolicyResponse,
    RegistrationRequest,
    RegistrationResponse,
    RevocationOrder,
    RouteDirection,
    RouteDirectionAcknowledgement,
    RouteDirectionRequest,
    RouteDirectionWaiting,
)

log = Logger()

#: Seconds between looks for what is over.
TICK: Final = 1.0
#: Clients that are stored at once, so that others do not wait long meanwhile.
BATCH: Final = 500
#: Direction Requests of a client that overtook its registration.
EARLY: Final = 64
#: Seconds for which a client is told to end tunnels, until it registers again.
ORDERED: Final = 30.0
#: Seconds in which a registration follows the Direction Request that overtook it.
OVERTAKEN: Final = 10.0


@define(eq=False)
class Domain:
    """One DC's domain.

    :ivar unix_time: seconds of the AS's clock (R12).
    :ivar renewed: whose certificate or policy is another, for who keeps these (``StoredData``).
    :ivar came_back: told of each client that registers anew or at another address.
    :ivar lease_until: monotonic time until which new work is done without a word of the AS (R34).
    """

    name: str
    trust: TrustStore
    relays: RelayChoice
    outside: Outside
    notifier: INotifier
    clock: IReactorTime
    unix_time: Callable[[], float]
    default_allow: tuple[str, ...]
    _random: Callable[[int], bytes]
    keepalive: tuple[int, int] = (25, 120)
    lease_until: float = 0.0
    signalling: Signalling = field(init=False)
    clients: ClientTable = field(init=False)
    disclosure: Disclosure = field(init=False)
    waiting: WaitingDirections = field(init=False)
    direction: Direction = field(init=False)
    changed: set[str] = field(factory=set, init=False)
    removed: set[str] = field(factory=set, init=False)
    renewed: set[str] = field(factory=set, init=False)
    keys: dict[str, bytes] = field(factory=dict, init=False, repr=False)
    orders: RevocationOrders = field(factory=RevocationOrders, init=False)
    abroad: NoticesAbroad = field(init=False)
    notifying: Notifying = field(init=False)
    came_back: Callable[[str], object] = field(default=lambda fqdn: None, init=False)
    _early: dict[str, deque[tuple[float, Asked]]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.clients = ClientTable(self.name)
        self.abroad = NoticesAbroad(self.outside, self.clock)
        self.notifying = Notifying(
            self.name, self.clients, self.notifier, self.clock, lambda: self.signalling
        )
        self.disclosure = Disclosure(self.clients, self.trust)
        self.waiting = WaitingDirections(self.clients, self.disclosure.admitted)
        self.direction = Direction(
            self.clients,
            self.trust,
            self.relays,
            self.disclosure.disclose,
            self.waiting.transferred,
            self._random,
        )

    # -- sessions

    def admit(self, certificate: DeviceCertificate, key: bytes, lifetime: float) -> bytes:
        """A login succeeded: open a session. :return: its index."""
        index = self._random(8)
        now = self.clock.seconds()
        policy = Policy(self.default_allow)
        client = Client(certificate, index, now + lifetime, policy)
        former = self.clients.add(client)
        if former is not None:
            self.signalling.table.remove(former.index)
        self.signalling.table.add(index, key)
        self.keys[client.fqdn] = key
        self.removed.discard(client.fqdn)
        self.changed.add(client.fqdn)
        self.renewed.add(client.fqdn)
        log.info("{fqdn} logged in", fqdn=client.fqdn)
        return index

    def session(self, index: bytes) -> tuple[str, bytes] | None:
        """Whose session an index is, and its key."""
        try:
            fqdn = self.clients.of_index(index).fqdn
        except NotRegistered:
            return None
        return fqdn, self.keys[fqdn]

    def restore(self, stored: StoredClient) -> None:
        """A client from the durable store, after a restart."""
        now, at = self.clock.seconds(), self.unix_time()
        if stored.expires <= at:
            self.removed.add(stored.fqdn)
            return
        try:
            client = from_store(stored, now + stored.expires - at)
        except NTMobileError as problem:
            log.warn("forgot {fqdn}: {problem}", fqdn=stored.fqdn, problem=str(problem))
            self.removed.add(stored.fqdn)
            return
        self.clients.add(client)
        self.clients.resume_order(stored.order)
        self.signalling.table.add(stored.index, stored.key)
        self.keys[client.fqdn] = stored.key

    def stored(self, fqdn: str) -> StoredClient | None:
        """What the durable store shall keep of a client."""
        client = self.clients.find(fqdn)
        if client is None or client.fqdn != fqdn:
            return None
        expires = self.unix_time() + client.expires - self.clock.seconds()
        return to_store(client, self.keys[fqdn], expires)

    def drain_changes(self, most: int = BATCH) -> tuple[list[StoredClient], list[str]]:
        """At most so many clients to be stored, and all names to be removed."""
        some = [self.changed.pop() for _ in range(min(most, len(self.changed)))]
        found = [self.stored(fqdn) for fqdn in some]
        removed = list(self.removed)
        self.removed.clear()
        return [one for one in found if one is not None], removed

    def revoke(self, fqdn: str, serial: bytes = b"") -> None:
        """End a client's session and its correspondents' tunnels with it, now (R34).

        A serial of a certificate that was replaced ends the tunnels that were made with it; those
        of the present one are soon made again.
        """
        client = self.clients.find(fqdn)
        if client is None or client.fqdn != fqdn:
            return
        log.info("{fqdn} is revoked", fqdn=fqdn)
        if not serial or int.from_bytes(serial, "big") == client.certificate.serial:
            # Told once, so that its owner hears why; the session is over whether it listens or not.
            order, now = RevocationOrder(fqdn), self.clock.seconds()
            self.signalling.table.request(client.index, order, None, now, 0.1)
            self.signalling.flush()
            self._forget(client)
            self.perform(self.direction.revoked(fqdn))
        self.end_tunnels(fqdn, tuple(client.correspondents))
        until = self.clock.seconds() + client.certificate.not_after - self.unix_time()
        self.abroad.tell(fqdn, client.correspondents, serial, until)

    def end_tunnels(self, revoked: str, correspondents: tuple[str, ...]) -> None:
        """Order our clients among ``correspondents`` to end their tunnels with a revoked device.

        Those who are off, or were never heard since a restart, are told when they register. Our RSs
        forget it at once, so it does not depend on whether the clients obey.
        """
        self.waiting.revoked(revoked)
        self.outside.end_relays(revoked)
        now = self.clock.seconds()
        for peer in correspondents:
            client = self.clients.find(peer)
            if client is not None and client.fqdn == peer:
                self.orders.add(peer, revoked, now)
                self._order(client, revoked, now)
        self.signalling.flush()

    def _order(self, client: Client, revoked: str, now: float) -> None:
        table, order = self.signalling.table, RevocationOrder(revoked)
        table.withdraw(client.index, order)
        table.request(client.index, order, order, now, ORDERED)

    def _forget(self, client: Client) -> None:
        self.clients.remove(client.fqdn)
        self.signalling.table.remove(client.index)
        self.keys.pop(client.fqdn, None)
        self.orders.forget(client.fqdn)
        self.notifying.machine.forget(client.fqdn)
        self._early.pop(client.fqdn, None)
        self.changed.discard(client.fqdn)
        self.removed.add(client.fqdn)

    def tick(self) -> None:
        """Every second: forget what is over."""
        now = self.clock.seconds()
        self.direction.handle_timer(now)
        self.perform(self.waiting.handle_timer(now))
        self.notifying.tick()
        self.orders.handle_timer(now)
        self.abroad.tick()
        self.signalling.table.tick(now)
        for fqdn, early in list(self._early.items()):
            while early and now - early[0][0] >= OVERTAKEN:
                early.popleft()
            if not early:
                del self._early[fqdn]
        for client in self.clients.expired(now):
            self._forget(client)

    # -- from clients

    def tell(self, event: Event) -> None:
        """An event of the signalling sessions."""
        try:
            self._told(event, self.clock.seconds())
        except NotRegistered:
            log.debug("a word of a client that is gone meanwhile")

    def _told(self, event: Event, now: float) -> None:
        match event:
            case ClientAsked(index, asked):
                client = self.clients.of_index(index)
                self._asked(client, asked, now)
            case ClientHeard(index, remote):
                client = self.clients.of_index(index)
                if self.clients.heard(client, remote, now):
                    self.changed.add(client.fqdn)
                    self.perform(self.waiting.registered(client, now))
            case ClientAnswered(index, _, RouteDirectionAcknowledgement(direction) as word):
                if trace.switch.on:
                    trace.trace(word, self.clients.of_index(index).fqdn, self.name)
                fqdn = self.clients.of_index(index).fqdn
                self.perform(
                    self.waiting.acknowledged(fqdn, direction, word.generation, word.outcome)
                )
            case ClientAnswered(index, RevocationOrder(revoked), Acknowledgement()):
                self.orders.acknowledged(self.clients.of_index(index).fqdn, revoked)
            case ClientAnswered(_, NotificationRequest() as request, answer):
                self.notifying.answered(request, answer)
            case ClientAnswered():
                pass

    def _asked(self, client: Client, asked: Asked, now: float) -> None:
        if trace.switch.on:
            trace.trace(asked.message, client.fqdn, self.name)
        match asked.message:
            case RegistrationRequest() as request:
                self._register(client, asked, request, now)
            case KeepAlive(generation, interval):
                self.clients.keep_alive(client, interval)
                observed = self.clients.seen(client, asked.remote)
                self._answer(client, asked, KeepAliveResponse(generation, observed))
            case PolicyRequest() as policy:
                self.clients.set_policy(client, policy)
                self.changed.add(client.fqdn)
                self.renewed.add(client.fqdn)
                self._answer(client, asked, PolicyResponse(policy.generation))
            case DirectionRequest() as request:
                if request.generation > client.location.generation:
                    early = self._early.setdefault(client.fqdn, deque(maxlen=EARLY))
                    early.append((now, asked))
                else:
                    self._direct(client, asked, request, now)
            case RouteDirectionRequest():
                count, effects = self.waiting.fetched(client, now)
                self._answer(client, asked, RouteDirectionWaiting(count))
                self.perform(effects)
            case Deregistration():
                self.clients.deregister(client)
                self._answer(client, asked, Acknowledgement())
            case _:
                self._answer(client, asked, Acknowledgement(Outcome.REFUSED, "not understood"))

    def _direct(self, client: Client, asked: Asked, request: DirectionRequest, now: float) -> None:
        if now > self.lease_until:
            detail = "the coordinator has not heard its account server for long"
            self._answer(client, asked, DirectionResponse(Outcome.BUSY, detail=detail))
            return
        token = (client, asked)
        self.perform(self.direction.asked(client, request, token, now, self.unix_time()))

    def _register(
        self, client: Client, asked: Asked, request: RegistrationRequest, now: float
    ) -> None:
        result = self.clients.register(client, request, asked.remote, now)
        response = RegistrationResponse(
            request.generation,
            result.observed,
            result.translated,
            int(client.lifetime),
            self.keepalive[0],
            int(self.unix_time() * 1000),
            self.keepalive[1],
        )
        self._answer(client, asked, response)
        if result.changed:
            self.changed.add(client.fqdn)
            self.perform(self.waiting.registered(client, now))
            self.notifying.registered(client.fqdn)
            self.came_back(client.fqdn)
        for revoked in self.orders.of(client.fqdn, now):
            self._order(client, revoked, now)
        for _, early in self._early.pop(client.fqdn, ()):
            self._asked(client, early, now)

    def _answer(self, client: Client, asked: Asked, message: Message) -> None:
        if trace.switch.on:
            trace.trace(message, self.name, client.fqdn)
        self.signalling.table.answer(client.index, asked, message)

    # -- from other servers

    def coordinator_asked(self, domain: str, message: Message) -> Message | None:
        """A request of the DC of ``domain``, which its certificate has proven."""
        now, at = self.clock.seconds(), self.unix_time()
        self.abroad.notices.present(domain)
        match message:
            case InformationRequest():
                if now > self.lease_until:  # for all alike, so that nobody learns more (R13)
                    return InformationResponse(Outcome.BUSY)
                return self.disclosure.asked(domain, message, now, at)
            case RouteDirectionTransfer():
                answer, effects = self.waiting.transferred(domain, message, now)
                self.perform(effects)
                return answer
            case LocationUpdate():
                self.perform(self.direction.location_updated(domain, message, now, at))
                return LinkAcknowledgement()
            case RouteDirectionRefusal():
                self.perform(self.direction.refused(domain, message))
                return LinkAcknowledgement()
            case RevocationNotice(revoked, correspondents):
                if names.domain_of(revoked) != domain:
                    raise AuthenticationError(f"{domain} does not speak for {revoked}")
                # Of those only whom it was directed to: orders are kept, and they are not many.
                met = tuple(one for one in correspondents if self._has_met(one, revoked))
                self.end_tunnels(revoked, met)
                return LinkAcknowledgement()
            case _:
                raise AuthenticationError("not a request that a coordinator makes")

    def _has_met(self, fqdn: str, peer: str) -> bool:
        client = self.clients.find(fqdn)
        return client is not None and peer in client.correspondents

    # -- effects

    def perform(self, effects: list[Effect]) -> None:
        """Carry out what the direction machines want."""
        for effect in effects:
            self._perform(effect)
        self.signalling.flush()

    def _perform(self, effect: Effect) -> None:
        now = self.clock.seconds()
        match effect:
            case TellClient(fqdn, message):
                client = self.clients.find(fqdn)
                if client is not None:
                    if trace.switch.on:
                        trace.trace(message, self.name, client.fqdn)
                    self._direct_client(client, message, now)
            case Respond((Client() as client, Asked() as asked), response):
                self._answer(client, asked, response)
            case AskCoordinator():
                _begin(self._ask_coordinator(effect))
            case DirectRelay():
                _begin(self._direct_relay(effect))
            case TellCoordinator(domain, word):
                if domain == self.name:
                    self.coordinator_asked(domain, word)
                else:
                    self._tell_coordinator(domain, word)
            case Notify(request, unheard):
                self._nudge(request.receiver, now)
                self.notifying.wanted(request, unheard=unheard)
            case _:
                raise AssertionError(f"an effect nobody carries out: {effect}")

    def _direct_client(
        self, client: Client, message: RouteDirection | DirectionRefusal, now: float
    ) -> None:
        """Send a Route Direction until it is acknowledged (R16) or a newer one replaces it."""
        table, tag = self.signalling.table, message.direction
        lifetime = message.lifetime if isinstance(message, RouteDirection) else ORDERED
        table.withdraw(client.index, tag)
        table.request(client.index, message, tag, now, float(lifetime))
        self.changed.add(client.fqdn)  # it has another correspondent

    def _nudge(self, fqdn: str, now: float) -> None:
        """Where it is we that were off: have the client say hello (R7)."""
        client = self.clients.find(fqdn)
        if client is not None:
            remotes = tuple(one.pair() for one in client.location.observed)
            self.signalling.table.nudge(client.index, remotes, now)

    def _tell_coordinator(self, domain: str, message: Message) -> None:
        async def tell() -> None:
            try:
                await self.outside.ask_coordinator(domain, message)
            except NTMobileError as problem:
                log.warn("could not tell {domain}: {problem}", domain=domain, problem=str(problem))

        _begin(tell())

    async def _ask_coordinator(self, ask: AskCoordinator) -> None:
        domain, message, tag = ask.domain, ask.message, ask.tag
        try:
            answer = await self.outside.ask_coordinator(domain, message, ask.then)
        except UnknownName as problem:
            effects = self.direction.failed(tag, Outcome.UNKNOWN, str(problem)[:200])
        except AuthenticationError as problem:
            effects = self.direction.failed(tag, Outcome.UNTRUSTED, str(problem)[:200])
        except NTMobileError as problem:
            detail = f"the coordinator of {domain} cannot be reached: {problem}"
            effects = self.direction.failed(tag, Outcome.UNREACHABLE, detail[:200])
        else:
            now, at = self.clock.seconds(), self.unix_time()
            if isinstance(message, RouteDirectionTransfer):
                effects = self.direction.transferred(tag, answer)
            else:
                effects = self.direction.informed(tag, answer, now, at)
        self.perform(effects)

    async def _direct_relay(self, ask: DirectRelay) -> None:
        try:
            answer: Message | None = await self.outside.direct_relay(
                ask.relay, ask.message, ask.devices
            )
        except NTMobileError as problem:
            log.warn("relay {relay}: {problem}", relay=ask.relay, problem=str(problem))
            answer = None
        self.perform(self.direction.relay_answered(ask.tag, answer, self.clock.seconds()))


def _begin(work: Coroutine[Any, Any, None]) -> None:
    """Begin what goes on by itself; a fault in it is logged."""
    Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("a task failed", failure))
