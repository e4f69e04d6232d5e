"""The client's registration with its DC (paper, III: location registration; rules R7 to R10).

Sits on the signalling session: registers each family after every change of network, keeps the NAT
binding alive at an interval that adapts to what the NAT bears, and hands other requests through.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.requests import Answered, Asked, TimedOut
from ntmobile.machines.signalling.session import ClientSession, Lost, Opened, Reached
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Capability,
    Deregistration,
    KeepAlive,
    KeepAliveResponse,
    PolicyRequest,
    RegistrationRequest,
    RegistrationResponse,
    RouteDirectionRequest,
)

#: Seconds in which a registration is answered, or the DC counts as silent.
PATIENCE: Final = 5.0
#: A binding that held so many intervals in a row is tried with a longer one.
HELD: Final = 3
GROWTH: Final = 1.5


class State(Enum):
    """How far the client has come."""

    DOWN = "down"
    STARTING = "starting"
    REGISTERED = "registered"
    SILENT = "the coordinator does not answer"


@frozen(slots=True)
class Registered:
    """The DC has our location. ``observed``: how it sees us in this family; ``fresh``: newly so."""

    family: int
    observed: Endpoint
    translated: bool
    fresh: bool


@frozen(slots=True)
class Rebound:
    """The NAT gave us another address without our moving: paths through it are to be probed."""

    family: int
    observed: Endpoint


@frozen(slots=True)
class Silent:
    """The DC stopped answering. Live tunnels stay; we go on trying."""


Event: TypeAlias = Registered | Rebound | Silent | Lost | Reached | Asked | Answered | TimedOut


@define
class _Family:
    """What is known of one family: how the DC sees us there."""

    observed: Endpoint | None = None
    translated: bool = False


@define
class Registration:
    """One client's registration.

    :ivar generation: of the location; start it above any former one, such as at unix milliseconds.
    :ivar shortest: :ivar longest: bounds of the keep-alive interval in seconds.
    :ivar interval: the present one.
    """

    session: ClientSession
    generation: int
    version: str = ""
    shortest: float = 15.0
    longest: float = 120.0
    policy: PolicyRequest | None = None
    state: State = field(default=State.DOWN, init=False)
    interval: float = field(init=False)
    _local: dict[int, tuple[Endpoint, ...]] = field(factory=dict, init=False)
    _families: dict[int, _Family] = field(factory=dict, init=False)
    _due: float | None = field(default=None, init=False)
    _held: int = field(default=0, init=False)
    _bound: float = field(default=float("inf"), init=False)
    _fetched: bool = field(default=False, init=False)
    _events: list[Event] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.interval = self.shortest

    # -- events in

    def start(self, local: Mapping[int, tuple[Endpoint, ...]], now: float) -> None:
        """Say hello and register. ``local``: family to own addresses with the socket's port."""
        self.state = State.STARTING
        self._local = dict(local)
        self.session.start(now)

    def network_changed(self, local: Mapping[int, tuple[Endpoint, ...]], now: float) -> None:
        """Own addresses are these now: register them at once, and ask again what is open."""
        self._local = dict(local)
        self.generation += 1
        self._families.clear()
        self.interval, self._held = self.shortest, 0
        if self.state is State.DOWN:
            return
        if self.state is State.REGISTERED:
            self.state = State.STARTING
        if self.session.open:
            self._withdraw()
            self.session.conversation.resend(now)
            self._register(now)
        else:
            self.session.start(now)

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """A signalling datagram; raises what the session raises."""
        self.session.datagram_received(datagram, remote, now)
        self._settle(now)

    def request(self, message: Message, tag: object, now: float, timeout: float = 10.0) -> None:
        """Ask the DC; ends in ``Answered`` or ``TimedOut`` with this tag."""
        self.session.conversation.request(message, tag, now, timeout=timeout)

    def answer(self, asked: Asked, message: Message) -> None:
        """Answer a request of the DC."""
        self.session.conversation.answer(asked.identifier, message, asked.remote)

    def knock(self, tag: object, family: int) -> Transmit | None:
        """A question whether the DC can be reached in a family; ends in ``Reached`` or nothing."""
        remote = self._remote(family)
        return None if remote is None else self.session.knock(tag, remote)

    def set_policy(self, policy: PolicyRequest, now: float) -> None:
        """Whom this client admits, from now on."""
        self.policy = policy
        if self.session.open:
            self._tell_policy(now)

    def stop(self, now: float) -> None:
        """Tell the DC that we go; the location ends."""
        if self.session.open and self.state is not State.DOWN:
            self.request(Deregistration(self.generation), "deregistration", now, timeout=1.0)
        self.state, self._due = State.DOWN, None

    def revoked(self) -> None:
        """The session is over; nothing more is sent."""
        self.state, self._due = State.DOWN, None

    def handle_timer(self, now: float) -> None:
        """Keep alive, and whatever the session has due."""
        self.session.handle_timer(now)
        if self._due is not None and now >= self._due:
            self._keep_alive(now)
        self._settle(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        due = [t for t in (self.session.next_timer(), self._due) if t is not None]
        return min(due, default=None)

    # -- what comes out

    def transmissions(self) -> list[Transmit]:
        """Drain what is to be sent."""
        return self.session.transmissions()

    def events(self) -> list[Event]:
        """Drain what happened."""
        drained, self._events = self._events, []
        return drained

    @property
    def observed(self) -> dict[int, tuple[Endpoint, bool]]:
        """Family to how the DC sees us, and whether a NAT is in between."""
        return {
            family: (known.observed, known.translated)
            for family, known in self._families.items()
            if known.observed is not None
        }

    # -- inside

    def _remote(self, family: int) -> Address | None:
        return next((r for r in self.session.remotes if (":" in r[0]) == (family == 6)), None)

    def _reachable(self) -> list[tuple[int, Address]]:
        """Families in which both we and the DC have addresses."""
        found = [(family, self._remote(family)) for family in (4, 6) if self._local.get(family)]
        return [(family, remote) for family, remote in found if remote is not None]

    def _register(self, now: float) -> None:
        self._withdraw()
        for family, remote in self._reachable():
            self._register_family(family, remote, now)
        self._due = now + self.interval

    def _withdraw(self) -> None:
        """What was said of a former location is not to be said again."""
        for family in (4, 6):
            self.session.conversation.withdraw(("register", family))
            self.session.conversation.withdraw(("alive", family))

    def _register_family(self, family: int, remote: Address, now: float) -> None:
        message = RegistrationRequest(
            self.generation,
            self._local[family][:8],
            int(Capability.REALTIME),
            max(1, int(self.interval)),
            self.version,
        )
        tag = ("register", family)
        conversation = self.session.conversation
        conversation.withdraw(tag)
        conversation.request(message, tag, now, timeout=PATIENCE, remote=remote)

    def _keep_alive(self, now: float) -> None:
        """Hold each family that is registered; try again to register those that are not."""
        self._due = now + self.interval
        if not self.session.open:
            return
        for family, remote in self._reachable():
            if family in self._families:
                message = KeepAlive(self.generation, max(1, int(self.interval)))
                self.session.conversation.request(
                    message, ("alive", family), now, timeout=PATIENCE, remote=remote
                )
            else:
                self._register_family(family, remote, now)

    def _tell_policy(self, now: float) -> None:
        """Tell the DC whom we admit, again and again until it says that it knows."""
        if self.policy is not None:
            self.session.conversation.withdraw("policy")
            self.request(self.policy, "policy", now)

    def _settle(self, now: float) -> None:
        for event in self.session.events():
            if isinstance(event, Opened):
                self._register(now)
                self._tell_policy(now)
            elif isinstance(event, Reached):
                self._events.append(event)
            else:
                self.state, self._due = State.SILENT, None
                self._events.append(event)
        for happened in self.session.conversation.events():
            match happened:
                case Answered(("register", int() as family), RegistrationResponse() as answer):
                    self._registered(family, answer, now)
                case Answered(("alive", int() as family), KeepAliveResponse() as answer):
                    self._alive(family, answer, now)
                case TimedOut(("register" | "alive", int() as family)):
                    self._unanswered(family, now)
                case TimedOut("policy"):
                    self._tell_policy(now)
                case TimedOut("fetch"):
                    self._fetched = False
                case Answered("policy" | "deregistration" | "fetch") | TimedOut("deregistration"):
                    pass
                case _:
                    self._events.append(happened)

    def _registered(self, family: int, answer: RegistrationResponse, now: float) -> None:
        if answer.generation != self.generation:
            return
        fresh = self.state is not State.REGISTERED or family not in self._families
        if not self._families:
            # Where to begin; what the NAT bears is found out from there.
            self._bound = float(answer.longest or self.longest)
            self.interval = min(self._most, max(self.shortest, float(answer.keepalive)))
        self.state = State.REGISTERED
        known = self._families.setdefault(family, _Family())
        known.observed, known.translated = answer.observed, answer.translated
        self._events.append(Registered(family, answer.observed, answer.translated, fresh))
        if not self._fetched:
            self._fetched = True
            self.request(RouteDirectionRequest(self.generation), "fetch", now)

    def _alive(self, family: int, answer: KeepAliveResponse, now: float) -> None:
        known = self._families.get(family)
        if known is None or answer.generation != self.generation:
            return
        if known.observed != answer.observed:
            known.observed = answer.observed
            known.translated = answer.observed not in self._local.get(family, ())
            self.interval = max(self.shortest, self.interval / GROWTH / GROWTH)
            self._held = 0
            self._events.append(Rebound(family, answer.observed))
            return
        if family != min(self._families):
            return  # both families share one interval, and one is asked as often as the other
        self._held += 1
        if self._held >= HELD and self.interval < self._most:
            self._held = 0
            self.interval = min(self._most, self.interval * GROWTH)

    @property
    def _most(self) -> float:
        """The longest interval: the lower of the device's own bound and its DC's."""
        return max(self.shortest, min(self.longest, self._bound))

    def _unanswered(self, family: int, now: float) -> None:
        """No answer in this family. Where none is left, the session starts afresh."""
        self._families.pop(family, None)
        self.interval, self._held = self.shortest, 0
        if self._families or self.state is State.DOWN:
            return
        if self.state is not State.SILENT:
            self.state = State.SILENT
            self._events.append(Silent())
        self._fetched = False
        self.session.start(now)
