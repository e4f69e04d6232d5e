"""Two or more DCs' direction machines, joined in memory by carrying their effects out."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ntmobile.machines.direction.deciding import Direction
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
from ntmobile.machines.effects import Address
from ntmobile.machines.signalling.clients import Client, ClientTable, Policy
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message, decode, encode
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    LocationUpdate,
    RelayResponse,
    RouteDirectionRefusal,
    RouteDirectionTransfer,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    DirectionRefusal,
    DirectionRequest,
    DirectionResponse,
    Outcome,
    RegistrationRequest,
    RouteDirection,
    direction_statement,
)
from tests.realms import MemoryRealm

#: Unix time at which the realms' certificates are valid.
START = 1_790_000_000.0

DC1, DC2 = "dc1.ntm.example", "dc2.ntm.example"
PHONE, TABLET = f"phone.alice.{DC1}", f"tablet.alice.{DC1}"
LAPTOP, DESK = f"laptop.bob.{DC2}", f"desk.bob.{DC2}"
RELAYS = (Endpoint.of(("203.0.113.200", 4331)), Endpoint.of(("2001:db8::200", 4331)))


@define
class Device:
    """A client with its keys, where it is, and what it was told."""

    identity: Ed25519PrivateKey = field(repr=False)
    certificate: DeviceCertificate
    told: list[RouteDirection] = field(factory=list)
    refused: list[DirectionRefusal] = field(factory=list)
    generation: int = 0

    @property
    def fqdn(self) -> str:
        """Its name."""
        return self.certificate.fqdn


@define
class Relays:
    """The relays of a DC: names in the order of choice, and what each answers."""

    domain: str
    answers: dict[str, Outcome | None] = field(factory=dict)
    families: frozenset[int] = frozenset({4, 6})

    def choose(
        self, families: tuple[frozenset[int], frozenset[int]], avoid: frozenset[str]
    ) -> tuple[str, tuple[Endpoint, ...]] | None:
        """The first one that is not to be avoided."""
        if not all(side & self.families for side in families):
            return None
        for name in self.answers:
            if name not in avoid:
                return name, RELAYS
        return None


@define(eq=False)
class Coordinator:
    """One DC's machines."""

    domain: str
    realm: MemoryRealm
    world: World
    foreign: tuple[MemoryRealm, ...] = ()
    clients: ClientTable = field(init=False)
    relays: Relays = field(init=False)
    disclosure: Disclosure = field(init=False)
    waiting: WaitingDirections = field(init=False)
    direction: Direction = field(init=False)
    notified: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        trust = self.realm.trust(*self.foreign)
        self.clients = ClientTable(self.domain)
        self.relays = Relays(self.domain, {f"rs1.{self.domain}": Outcome.OK})
        self.disclosure = Disclosure(self.clients, trust)
        self.waiting = WaitingDirections(self.clients, self.disclosure.admitted)
        self.direction = Direction(
            self.clients,
            trust,
            self.relays,
            self.disclosure.disclose,
            self.waiting.transferred,
            self.world.random.randbytes,
        )

    def hears(self, domain: str, message: Message) -> Message | None:
        """A request of the DC of a domain, which its certificate has proven."""
        world = self.world
        match message:
            case InformationRequest():
                return self.disclosure.asked(domain, message, world.now, world.at)
            case RouteDirectionTransfer():
                answer, effects = self.waiting.transferred(domain, message, world.now)
                self.perform(effects)
                return answer
            case LocationUpdate():
                self.perform(self.direction.location_updated(domain, message, world.now, world.at))
            case RouteDirectionRefusal():
                self.perform(self.direction.refused(domain, message))
        return None

    def perform(self, effects: list[Effect]) -> None:
        """Carry effects out, as the service does."""
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case TellClient(fqdn, message):
                world.tell(self, fqdn, message)
            case Respond(token, response):
                assert isinstance(decode(encode(response, 1159)), DirectionResponse)
                world.responses[token] = response
            case AskCoordinator(domain, message, tag):
                world.asked.append((self.domain, domain, message))
                self._answered(message, tag, world.ask(self.domain, domain, message))
            case DirectRelay(relay, message, tag):
                outcome = self.relays.answers.get(relay)
                world.relayed.append((relay, message))
                answer = None
                if outcome is not None:
                    answer = RelayResponse(message.direction, outcome, b"bootboot")
                self.perform(self.direction.relay_answered(tag, answer, world.now))
            case TellCoordinator(domain, update):
                if domain == self.domain:
                    self.hears(domain, update)
                else:
                    world.ask(self.domain, domain, update)
            case Notify(request):
                self.notified.append(request.receiver)

    def _answered(self, message: Message, tag: bytes, answer: Message | Outcome) -> None:
        world = self.world
        if isinstance(answer, Outcome):
            self.perform(self.direction.failed(tag, answer, "no coordinator"))
        elif isinstance(message, RouteDirectionTransfer):
            self.perform(self.direction.transferred(tag, answer))
        else:
            self.perform(self.direction.informed(tag, answer, world.now, world.at))


@define(eq=False)
class World:
    """DCs and devices.

    :ivar responses: answers to Direction Requests by token.
    :ivar asked: who asked whom what. :ivar forge: replaces the answer of a domain's DC.
    :ivar asleep: devices that take no directions. :ivar acknowledges: whether the others say so.
    :ivar refusing: devices that refuse what they are directed to.
    """

    seed: int = 0
    now: float = 0.0
    random: Random = field(init=False)
    coordinators: dict[str, Coordinator] = field(factory=dict)
    devices: dict[str, Device] = field(factory=dict)
    responses: dict[object, DirectionResponse] = field(factory=dict)
    asked: list[tuple[str, str, Message]] = field(factory=list)
    relayed: list[tuple[str, Any]] = field(factory=list)
    forge: dict[str, Callable[[Message], Message | Outcome | None]] = field(factory=dict)
    asleep: set[str] = field(factory=set)
    refusing: set[str] = field(factory=set)
    acknowledges: bool = True

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)

    @property
    def at(self) -> float:
        """Unix time of the AS's clock."""
        return START + self.now

    def coordinator(self, domain: str, realm: MemoryRealm, *foreign: MemoryRealm) -> Coordinator:
        """Add a DC."""
        found = self.coordinators[domain] = Coordinator(domain, realm, self, foreign)
        return found

    def device(self, fqdn: str, seen: Address, *local: Address, allow: str = "*") -> Device:
        """Log a device in and register it."""
        dc = self.coordinators[names.domain_of(fqdn)]
        identity, _, certificate = dc.realm.device(fqdn)
        device = self.devices[fqdn] = Device(identity, certificate)
        policy = Policy((allow,) if allow else ())
        index = self.random.randbytes(8)
        dc.clients.add(Client(certificate, index, self.now + 86400.0, policy))
        self.register(fqdn, seen, *local)
        return device

    def client(self, fqdn: str) -> Client:
        """What a device's DC knows of it."""
        found = self.coordinators[names.domain_of(fqdn)].clients.find(fqdn)
        assert found is not None
        return found

    def register(self, fqdn: str, seen: Address, *local: Address) -> None:
        """A device registers, seen under an address; its own addresses are that one or others."""
        device = self.devices[fqdn]
        device.generation += 1
        dc, client = self.coordinators[names.domain_of(fqdn)], self.client(fqdn)
        ends = tuple(Endpoint.of(one) for one in (local or (seen,)))
        request = RegistrationRequest(device.generation, ends, 1, 20)
        if dc.clients.register(client, request, seen, self.now).changed:
            dc.perform(dc.waiting.registered(client, self.now))

    def sleep(self, fqdn: str) -> None:
        """A device goes off without a word."""
        self.asleep.add(fqdn)
        self.client(fqdn).registered = False

    def wake(self, fqdn: str, seen: Address, *local: Address) -> None:
        """It comes back."""
        self.asleep.discard(fqdn)
        self.register(fqdn, seen, *local)

    def tell(self, dc: Coordinator, fqdn: str, message: RouteDirection | DirectionRefusal) -> None:
        """A DC sends a client a Route Direction, or that it is refused, in a datagram."""
        decoded = decode(encode(message, 1159), 1159)
        if fqdn in self.asleep or fqdn not in self.devices:
            return
        if isinstance(decoded, DirectionRefusal):
            self.devices[fqdn].refused.append(decoded)
            return
        assert isinstance(decoded, RouteDirection)
        self.devices[fqdn].told.append(decoded)
        if self.acknowledges:
            outcome = Outcome.REFUSED if fqdn in self.refusing else Outcome.OK
            word = decoded.direction, decoded.generation, outcome
            dc.perform(dc.waiting.acknowledged(fqdn, *word))

    def ask(self, source: str, domain: str, message: Message) -> Message | Outcome:
        """One DC asks another, over a link."""
        assert type(decode(encode(message))) is type(message)
        forge = self.forge.get(domain)
        if forge is not None:
            forged = forge(message)
            if forged is not None:
                return forged
        dc = self.coordinators.get(domain)
        if dc is None:
            return Outcome.UNKNOWN
        answer = dc.hears(source, message)
        return Outcome.UNREACHABLE if answer is None else answer

    def request(self, mn: str, cn: str, **changes: Any) -> DirectionRequest:
        """A signed Direction Request; ``changes`` replace fields after it was signed."""
        device = self.devices[mn]
        nonce = changes.pop("nonce", None) or self.random.randbytes(16)
        issued = changes.pop("issued", int(self.at * 1000))
        signature = device.identity.sign(direction_statement(mn, cn, nonce, issued))
        fields = {"peer": cn, "nonce": nonce, "issued": issued, "signature": signature, **changes}
        return DirectionRequest(**fields)

    def direct(self, mn: str, cn: str, request: DirectionRequest | None = None) -> object:
        """MN asks for CN; the token of its answer."""
        dc, token = self.coordinators[names.domain_of(mn)], object()
        request = request or self.request(mn, cn)
        dc.perform(dc.direction.asked(self.client(mn), request, token, self.now, self.at))
        return token

    def outcome(self, mn: str, cn: str, request: DirectionRequest | None = None) -> Outcome:
        """What MN hears."""
        return Outcome(self.responses[self.direct(mn, cn, request)].outcome)

    def information(self, mn: str, cn: str, /, **changes: Any) -> InformationRequest:
        """An NTM Information Request as MN's DC makes it; ``changes`` come after the signature."""
        made = self.request(mn, cn)
        fields: dict[str, Any] = {
            "mn": mn,
            "certificate": self.devices[mn].certificate.der,
            "cn": cn,
            "nonce": made.nonce,
            "issued": made.issued,
            "signature": made.signature,
        }
        fields.update(changes)
        return InformationRequest(**fields)

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for dc in self.coordinators.values():
                dc.direction.handle_timer(self.now)
                dc.perform(dc.waiting.handle_timer(self.now))
