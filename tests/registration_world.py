"""A client and its DC in a small world that loses, delays and translates datagrams."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import define, field

from ntmobile.errors import NTMobileError
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.clients import Client, ClientTable, Policy
from ntmobile.machines.signalling.registration import (
    Registration,
)
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.signalling.session import ClientSession
from ntmobile.machines.signalling.table import (
    ClientAnswered,
    ClientAsked,
    ClientHeard,
    SessionTable,
)
from ntmobile.machines.tunnel.candidates import is_private
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    Deregistration,
    KeepAlive,
    KeepAliveResponse,
    PolicyRequest,
    PolicyResponse,
    RegistrationRequest,
    RegistrationResponse,
    RouteDirectionRequest,
    RouteDirectionWaiting,
)
from tests.realms import MemoryRealm
from tests.signalling import DC4, DC6, INDEX, KEY

DOMAIN, FQDN = "dc1.ntm.example", "phone.alice.dc1.ntm.example"
HOME4, HOME6 = ("192.168.1.7", 4000), ("2001:db8:1::7", 4000)
CAFE4, CAFE6 = ("10.0.0.7", 4000), ("2001:db8:2::7", 4000)
HOME = {4: HOME4, 6: HOME6}
CAFE = {4: CAFE4, 6: CAFE6}


def local(network: dict[int, Address]) -> dict[int, tuple[Endpoint, ...]]:
    """Own addresses by family."""
    return {family: (Endpoint.of(address),) for family, address in network.items()}


@define
class Nat:
    """Translates IPv4; a binding that rests longer than ``timeout`` gets another port."""

    host: str = "198.51.100.1"
    timeout: float = 1e9
    port: int = 50_000
    used: float = 0.0

    def outside(self, source: Address, now: float) -> Address:
        """The source as the internet sees it."""
        if ":" in source[0] or not is_private(source[0]):
            return source
        if now - self.used > self.timeout:
            self.port += 1
        self.used = now
        return self.host, self.port


@define
class World:
    """A client's registration and its DC's tables, with a lossy network and a NAT in between."""

    realm: MemoryRealm
    seed: int = 0
    latency: float = 0.01
    loss: float = 0.0
    nat: Nat = field(factory=Nat)
    network: dict[int, Address] = field(factory=lambda: dict(HOME))
    remotes: tuple[Address, ...] = (DC4, DC6)
    cut: Callable[[Address, bool], bool] = lambda remote, upward: False
    keepalive: int = 15
    longest: int = 0
    now: float = 0.0
    random: Random = field(init=False)
    clients: ClientTable = field(init=False)
    client: Client = field(init=False)
    table: SessionTable = field(init=False)
    registration: Registration = field(init=False)
    events: list[object] = field(factory=list)
    asked: list[tuple[float, Message]] = field(factory=list)
    answered: list[ClientAnswered] = field(factory=list)
    flying: list[tuple[float, int, bool, bytes, Address, Address]] = field(factory=list)
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        self.clients = ClientTable(DOMAIN)
        certificate = self.realm.device(FQDN)[2]
        self.client = Client(certificate, INDEX, 1e9, Policy(("*",)))
        self.clients.add(self.client)
        self.restart()
        session = ClientSession(INDEX, KEY, self.remotes, self.random.randbytes)
        self.registration = Registration(session, 1000, "0.1")

    def restart(self, *, knows: bool = True) -> None:
        """The DC restarts: keys are gone, the session perhaps too."""
        self.table = SessionTable(self.random.randbytes)
        if knows:
            self.table.add(INDEX, KEY)

    def start(self) -> None:
        """Start, and let the registration settle."""
        self.registration.start(local(self.network), self.now)
        self.run(2.0)

    def move(self, network: dict[int, Address], nat: Nat | None = None) -> None:
        """The client is elsewhere now."""
        self.network = dict(network)
        self.nat = nat or Nat("198.51.100.2")
        self.registration.network_changed(local(network), self.now)

    @property
    def location(self) -> Location:
        """What the DC knows."""
        return self.client.located(self.now)

    def requests(self, kind: type[Message], since: float = 0.0) -> list[Message]:
        """What the DC was asked since then."""
        return [one for at, one in self.asked if isinstance(one, kind) and at >= since]

    def told(self, kind: type) -> list[object]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self._collect()
            times = [each[0] for each in self.flying]
            for due in (self.registration.next_timer(), self.table.next_timer()):
                times += [] if due is None else [due]
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            self.registration.handle_timer(self.now)
            self.table.handle_timer(self.now)
            for each in sorted(each for each in self.flying if each[0] <= self.now):
                self.flying.remove(each)
                self._land(*each[2:])

    def _land(self, upward: bool, datagram: bytes, source: Address, target: Address) -> None:
        if upward:
            self.table.datagram_received(datagram, source, self.now)
        elif any(
            self.nat.outside(own, self.now) == target or own == target
            for own in self.network.values()
        ):
            try:
                self.registration.datagram_received(datagram, source, self.now)
            except NTMobileError:
                self.events.append("dropped")

    def _fly(self, transmit: Transmit, upward: bool) -> None:
        family = 6 if ":" in transmit.remote[0] else 4
        source = DC6 if family == 6 else DC4
        if upward:
            own = self.network.get(family)
            if own is None:
                return
            source = self.nat.outside(own, self.now)
        if self.cut(transmit.remote, upward) or self.random.random() < self.loss:
            return
        self.count += 1
        at = self.now + self.latency + self.random.random() * self.latency * (self.loss > 0)
        flight = (at, self.count, upward, transmit.datagram, source, transmit.remote)
        self.flying.append(flight)

    def _collect(self) -> None:
        self.events += self.registration.events()
        for transmit in self.registration.transmissions():
            self._fly(transmit, upward=True)
        while effects := self.table.effects():
            for effect in effects:
                match effect:
                    case Transmit():
                        self._fly(effect, upward=False)
                    case ClientHeard(_, remote):
                        self.clients.heard(self.client, remote, self.now)
                    case ClientAnswered():
                        self.answered.append(effect)
                    case ClientAsked(index, asked):
                        self.asked.append((self.now, asked.message))
                        self.table.answer(index, asked, self._answer(asked))

    def _answer(self, asked: Asked) -> Message:
        match asked.message:
            case RegistrationRequest() as request:
                done = self.clients.register(self.client, request, asked.remote, self.now)
                return RegistrationResponse(
                    request.generation,
                    done.observed,
                    done.translated,
                    60,
                    self.keepalive,
                    0,
                    self.longest,
                )
            case KeepAlive(generation, interval):
                self.clients.keep_alive(self.client, interval)
                return KeepAliveResponse(generation, self.clients.seen(self.client, asked.remote))
            case PolicyRequest(generation):
                return PolicyResponse(generation)
            case RouteDirectionRequest():
                return RouteDirectionWaiting(0)
            case Deregistration():
                self.clients.deregister(self.client)
        return Acknowledgement()
