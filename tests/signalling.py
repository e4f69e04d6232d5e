"""A client's session and its DC's table, joined by a wire in memory that tests may cut and tap."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import define, field

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.session import ClientSession, Lost, Opened, Reached
from ntmobile.machines.signalling.table import (
    ClientAnswered,
    ClientAsked,
    ClientHeard,
    SessionTable,
)
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.realtime import Acknowledgement

INDEX, KEY = b"session!", bytes(range(32))
CLIENT4, CLIENT6 = ("203.0.113.7", 40007), ("2001:db8::7", 40007)
DC4, DC6 = ("203.0.113.1", 4330), ("2001:db8::1", 4330)


@define
class Flight:
    """A datagram on its way."""

    at: float
    upward: bool
    datagram: bytes
    source: Address
    target: Address


@define
class Joined:
    """One client and its DC.

    :ivar latency: seconds one way. :ivar lost: whether a flight is lost.
    :ivar flown: everything that ever flew. :ivar asked: what the DC was asked.
    :ivar respond: what the DC answers.
    """

    latency: float = 0.01
    remotes: tuple[Address, ...] = (DC4,)
    seed: int = 0
    now: float = 0.0
    lost: Callable[[Flight], bool] = lambda flight: False
    respond: Callable[[ClientAsked], Message | None] = lambda asked: Acknowledgement()
    flown: list[Flight] = field(factory=list)
    flying: list[Flight] = field(factory=list)
    asked: list[ClientAsked] = field(factory=list)
    heard: list[Address] = field(factory=list)
    answered: list[ClientAnswered] = field(factory=list)
    client_at: tuple[Address, ...] = (CLIENT4, CLIENT6)
    problems: list[Exception] = field(factory=list)
    random: Random = field(init=False)
    table: SessionTable = field(init=False)
    client: ClientSession = field(init=False)
    events: list[Opened | Lost | Reached] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        self.restart_coordinator()
        self.client = self.new_client()

    def new_client(self) -> ClientSession:
        """A client that starts."""
        return ClientSession(INDEX, KEY, self.remotes, self.random.randbytes)

    def restart_coordinator(self, *, knows: bool = True) -> None:
        """A DC that starts; it knows the session, or not."""
        self.table = SessionTable(self.random.randbytes)
        if knows:
            self.table.add(INDEX, KEY)

    def start(self) -> None:
        """The client says hello, and its keys are agreed."""
        self.client.start(self.now)
        self.run(1.0)
        assert self.client.open

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self._collect()
            times = [flight.at for flight in self.flying]
            times += [
                due
                for due in (self.client.next_timer(), self.table.next_timer())
                if due is not None
            ]
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            self.client.handle_timer(self.now)
            self.table.handle_timer(self.now)
            for flight in [one for one in self.flying if one.at <= self.now]:
                self.flying.remove(flight)
                self.land(flight)

    def land(self, flight: Flight) -> None:
        """A datagram arrives."""
        if flight.upward:
            self.table.datagram_received(flight.datagram, flight.source, self.now)
            return
        try:
            self.client.datagram_received(flight.datagram, flight.source, self.now)
        except Exception as problem:
            self.problems.append(problem)

    def _fly(self, transmit: Transmit, upward: bool) -> None:
        family = ":" in transmit.remote[0]
        client = next(one for one in self.client_at if (":" in one[0]) == family)
        source = client if upward else (DC6 if family else DC4)
        flight = Flight(self.now + self.latency, upward, transmit.datagram, source, transmit.remote)
        self.flown.append(flight)
        if not self.lost(flight):
            self.flying.append(flight)

    def _collect(self) -> None:
        self.events += self.client.events()
        for transmit in self.client.transmissions():
            self._fly(transmit, upward=True)
        while effects := self.table.effects():
            for effect in effects:
                match effect:
                    case Transmit():
                        self._fly(effect, upward=False)
                    case ClientHeard(_, remote):
                        self.heard.append(remote)
                    case ClientAsked(index, asked):
                        self.asked.append(effect)
                        answer = self.respond(effect)
                        if answer is not None:
                            self.table.answer(index, asked, answer)
                    case ClientAnswered():
                        self.answered.append(effect)
