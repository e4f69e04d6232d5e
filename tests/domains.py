"""Two DCs' domains, with sessions and clients' sessions, on a virtual clock without sockets."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from ntmobile.errors import NTMobileError, UnknownName, Unreachable
from ntmobile.interfaces import INotifier, Notification, NotificationResult, StoredClient
from ntmobile.machines.effects import Address
from ntmobile.machines.signalling.requests import Answered, Asked
from ntmobile.machines.signalling.session import ClientSession
from ntmobile.machines.signalling.table import SessionTable
from ntmobile.protocols.signalling import Signalling, SignallingPort
from ntmobile.servers.domain import Domain
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import RelayDirection, RelayResponse
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    DirectionRefusal,
    DirectionRequest,
    NotificationRequest,
    Outcome,
    RegistrationRequest,
    RevocationOrder,
    RouteDirection,
    RouteDirectionAcknowledgement,
    direction_statement,
)
from tests.coordinators import DC1, DC2, RELAYS, START
from tests.realms import MemoryRealm

DC = ("203.0.113.1", 4330)


@define(eq=False)
class Transport:
    """The socket of a DC's port."""

    deliver: Callable[[bytes, Address], None]
    name: str = ""

    def write(self, datagram: bytes, remote: Address) -> None:
        """Send a datagram."""
        self.deliver(datagram, remote)


@define(eq=False)
class Device:
    """A client with its session.

    :ivar told: Route Directions it acknowledged. :ivar ordered: devices it was told are revoked.
    :ivar deaf: takes nothing and says nothing. :ivar outcome: what it says of Route Directions.
    :ivar refused: of its own directions, those that the other end refused.
    :ivar notified: what it was told that waits.
    """

    world: World
    identity: Ed25519PrivateKey
    certificate: DeviceCertificate
    address: Address
    session: ClientSession
    generation: int = 0
    told: list[RouteDirection] = field(factory=list)
    ordered: list[str] = field(factory=list)
    answers: dict[object, Message] = field(factory=dict)
    deaf: bool = False
    outcome: Outcome = Outcome.OK
    refused: list[DirectionRefusal] = field(factory=list)
    sealed: list[bytes] = field(factory=list)
    notified: list[NotificationRequest] = field(factory=list)

    @property
    def fqdn(self) -> str:
        """Its name."""
        return self.certificate.fqdn

    def ask(self, message: Message, tag: object = None) -> object:
        """Ask the DC; the answer is found in :attr:`answers`."""
        tag = tag or object()
        self.session.conversation.request(message, tag, self.world.now)
        self.flush()
        return tag

    def answer(self, message: Message) -> Message:
        """Ask the DC, and let time pass until it has answered."""
        tag = self.ask(message)
        self.world.run(0.2)
        return self.answers[tag]

    def register(self, address: Address | None = None) -> Message:
        """Register, perhaps from elsewhere."""
        self.address = address or self.address
        self.generation += 1
        local = (Endpoint.of(self.address),)
        return self.answer(RegistrationRequest(self.generation, local, 1, 20))

    def request(self, cn: str, generation: int = 0) -> DirectionRequest:
        """A signed Direction Request."""
        nonce, issued = self.world.random.randbytes(16), int(self.world.at() * 1000)
        signature = self.identity.sign(direction_statement(self.fqdn, cn, nonce, issued))
        return DirectionRequest(cn, nonce, issued, signature, generation=generation)

    def received(self, datagram: bytes) -> None:
        """A datagram of the DC."""
        if self.deaf:
            return
        try:
            self.session.datagram_received(datagram, DC, self.world.now)
        except NTMobileError:
            return
        self.session.events()
        for event in self.session.conversation.events():
            if isinstance(event, Answered):
                self.answers[event.tag] = event.message
            elif isinstance(event, Asked):
                self._asked(event)
        self.flush()

    def _asked(self, asked: Asked) -> None:
        answer: Message = Acknowledgement()
        match asked.message:
            case RouteDirection() as message:
                self.told.append(message)
                answer = RouteDirectionAcknowledgement(
                    message.direction, message.generation, self.outcome
                )
            case DirectionRefusal() as refusal:
                self.refused.append(refusal)
            case RevocationOrder(peer):
                self.ordered.append(peer)
            case NotificationRequest() as request:
                self.notified.append(request)
        self.session.conversation.answer(asked.identifier, answer)

    def flush(self) -> None:
        """Send what is to be sent."""
        port = self.world.port_of(self.fqdn)
        for transmit in self.session.transmissions():
            self.sealed.append(transmit.datagram)
            if not self.deaf:
                self.world.clock.callLater(
                    0.01, port.datagramReceived, transmit.datagram, self.address
                )


@implementer(INotifier)
@define(eq=False)
class Side:
    """One DC: its domain and the world around it.

    :ivar notified: clients that a notification went to. :ivar relayed: Relay Directions.
    :ivar pushes: what the notifier will answer, in this order; then it accepts all.
    :ivar relaying: the directions at the relay, and their devices.
    """

    name: str
    world: World
    realm: MemoryRealm
    domain: Domain = field(init=False)
    port: SignallingPort = field(init=False)
    notified: list[str] = field(factory=list)
    pushes: list[Deferred[NotificationResult]] = field(factory=list)
    relayed: list[RelayDirection] = field(factory=list)
    relaying: dict[bytes, tuple[str, str]] = field(factory=dict)
    sent: list[tuple[str, Address]] = field(factory=list)
    unreachable: set[str] = field(factory=set)
    silent: set[str] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.start()

    def start(self, stored: tuple[StoredClient, ...] = ()) -> None:
        """Start, with what the store has."""
        world = self.world
        self.domain = Domain(
            self.name,
            self.realm.trust(),
            self,
            self,
            self,
            world.clock,
            world.at,
            ("*",),
            world.random.randbytes,
        )
        table = SessionTable(world.random.randbytes)
        self.domain.signalling = Signalling(world.clock, table, self.domain.tell)
        self.port = self.domain.signalling.port(ipv6=False)
        cast(Any, self.port).transport = Transport(self._send, "first")
        self.domain.lease_until = world.now + 600.0
        for one in stored:
            self.domain.restore(one)

    def _send(self, datagram: bytes, remote: Address) -> None:
        for device in self.world.devices.values():
            if device.address == remote and names.domain_of(device.fqdn) == self.name:
                self.world.clock.callLater(0.01, device.received, datagram)

    def choose(self, families: object, avoid: object) -> tuple[str, tuple[Endpoint, ...]]:
        """The one relay."""
        return f"rs1.{self.name}", RELAYS

    async def ask_coordinator(
        self, domain: str, message: Message, then: str | None = None
    ) -> Message:
        """Ask the other DC."""
        side = self.world.sides.get(domain)
        if side is None or domain in self.unreachable:
            raise UnknownName(f"no coordinator of {domain}")
        if domain in self.silent:
            raise Unreachable("no answer to a question")
        answer = side.domain.coordinator_asked(self.name, message)
        assert answer is not None
        return answer

    async def direct_relay(
        self, relay: str, message: RelayDirection, devices: tuple[str, str]
    ) -> Message:
        """Direct the relay."""
        self.relayed.append(message)
        self.relaying[message.direction] = devices
        return RelayResponse(message.direction, Outcome.OK, b"bootboot")

    def end_relays(self, device: str) -> None:
        """End the tunnels of a device."""
        for direction in [one for one, ends in self.relaying.items() if device in ends]:
            del self.relaying[direction]

    def notify(self, notification: Notification) -> Deferred[NotificationResult]:
        """Wake a client."""
        self.notified.append(notification.receiver)
        if self.pushes:
            return self.pushes.pop(0)
        return succeed(NotificationResult())

    def close(self) -> Deferred[None]:
        """Nothing is open."""
        return succeed(None)


@define(eq=False)
class World:
    """Both DCs and their devices."""

    realm: MemoryRealm
    random: Random = field(factory=lambda: Random(3))
    clock: Clock = field(factory=Clock)
    sides: dict[str, Side] = field(factory=dict)
    devices: dict[str, Device] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name in (DC1, DC2):
            self.sides[name] = Side(name, self, self.realm)

    @property
    def now(self) -> float:
        """Monotonic time."""
        return self.clock.seconds()

    def at(self) -> float:
        """Unix time of the AS's clock."""
        return START + self.clock.seconds()

    def port_of(self, fqdn: str) -> SignallingPort:
        """The port of a device's DC."""
        return self.sides[names.domain_of(fqdn)].port

    def device(self, fqdn: str, address: Address) -> Device:
        """Log a device in, say hello, register."""
        identity, _, certificate = self.realm.device(fqdn)
        return self.log_in(identity, certificate, address)

    def log_in(
        self, identity: Ed25519PrivateKey, certificate: DeviceCertificate, address: Address
    ) -> Device:
        """A login of a device that has keys."""
        fqdn, key = certificate.fqdn, self.random.randbytes(32)
        index = self.sides[names.domain_of(fqdn)].domain.admit(certificate, key, 86400.0)
        session = ClientSession(index, key, (DC,), self.random.randbytes)
        device = Device(self, identity, certificate, address, session)
        former = self.devices.get(fqdn)
        device.generation = former.generation if former is not None else 0
        self.devices[fqdn] = device
        session.start(self.now)
        device.flush()
        self.run(0.1)
        device.register()
        return device

    def run(self, seconds: float) -> None:
        """Let time pass, in small steps; the DCs tick every second."""
        for _ in range(max(1, round(seconds / 0.01))):
            before = int(self.now)
            self.clock.advance(0.01)
            if int(self.now) > before:
                for side in self.sides.values():
                    side.domain.tick()
            for device in self.devices.values():
                due = device.session.next_timer()
                if due is not None and due <= self.now and not device.deaf:
                    device.session.handle_timer(self.now)
                    device.flush()
