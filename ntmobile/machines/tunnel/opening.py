"""One direction that a tunnel holds: its leg, its handshake, and when what is sent where (R15)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from ntmobile.machines.effects import Transmit
from ntmobile.machines.tunnel.constants import (
    DIRECT_HEAD_START,
    DIRECTION_LIFETIME,
    HANDSHAKE_RETRY,
    HANDSHAKE_RETRY_LIMIT,
)
from ntmobile.machines.tunnel.handshake import Initiation, Parties, Reception
from ntmobile.machines.tunnel.leg import LegEvent, RelayLeg
from ntmobile.machines.tunnel.paths import Path
from ntmobile.wire.messages.realtime import RouteDirection


@define
class _Target:
    """A path that message 1 is sent on."""

    path: Path
    due: float
    wait: float = HANDSHAKE_RETRY
    attempts: int = 0
    asked: float = 0.0


@define(eq=False)
class OpenDirection:
    """A direction, from its arrival until its paths are not needed any more.

    :ivar parties: the two ends, in the roles of this direction.
    :ivar known: when it came. :ivar expires: when its temporal key does (R18).
    :ivar leg: at its relay, if it has one. :ivar certified: until when both certificates are valid.
    """

    message: RouteDirection
    parties: Parties
    known: float
    certified: float | None = None
    leg: RelayLeg | None = None
    reception: Reception = field(factory=Reception)
    initiation: Initiation | None = None
    begun: float = 0.0
    _psk: bytes | None = field(default=None, repr=False)
    _relay_at: float = float("inf")
    _targets: list[_Target] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._psk = self.message.temporal_key

    @property
    def identifier(self) -> bytes:
        """The index of its datagrams."""
        return self.message.direction

    @property
    def expires(self) -> float:
        """When its temporal key is not to be used any more (R18)."""
        return self.known + min(DIRECTION_LIFETIME, float(self.message.lifetime))

    def open(self, now: float) -> bool:
        """Its temporal key lives: a handshake is made under it, or can be (R18)."""
        return self._psk is not None and now < self.expires

    def fresh(self, now: float) -> bool:
        """As before, and no message 1 was accepted under it (R19)."""
        return self.open(now) and not self.reception.spent

    def spend(self) -> None:
        """Its handshake is over: no temporal key is kept for longer than it is needed (R18)."""
        self._psk = None
        self.cancel()

    def cancel(self) -> None:
        """Send message 1 no more."""
        self.initiation = None
        self._targets.clear()

    def update(
        self, message: RouteDirection, parties: Parties, known: float, *, renew: bool
    ) -> None:
        """A newer generation of it; with ``renew`` its temporal key is another one.

        Where a certificate changed, message 1 is made anew: the old one fits no prologue.
        """
        if renew and self._psk is not None:
            self._psk = message.temporal_key
            self.cancel()
        elif parties != self.parties:
            self.cancel()
        self.message, self.parties, self.known = message, parties, known

    # -- as initiator

    def begin(self, now: float, paths: list[Path], random: Callable[[int], bytes]) -> None:
        """Begin the handshake: on these direct paths at once, through the relay when it is time."""
        if self._psk is None or self.initiation is not None:
            return
        self.initiation = Initiation(self.identifier, self.parties, self._psk, random)
        self.begun = now
        head_start = 0.0 if self.message.relay_first or not paths else DIRECT_HEAD_START
        self._relay_at = now + head_start
        self._targets = [_Target(path, now) for path in paths]

    def join(self, path: Path, now: float) -> None:
        """A direct path that came later takes message 1 at once."""
        if self.initiation is not None and all(each.path is not path for each in self._targets):
            self._targets.append(_Target(path, now))

    def reach(self, path: Path, now: float) -> None:
        """``path`` takes message 1 at once, or as soon as it is time for the relay."""
        if self.initiation is None:
            return
        target = next((each for each in self._targets if each.path is path), None)
        if target is None:
            self._targets.append(_Target(path, max(now, self._relay_at)))
        else:
            target.due = max(now, self._relay_at)

    def again(self, now: float) -> None:
        """This side moved: message 1 goes out again at once; through the relay when it is bound."""
        for target in self._targets:
            if target.path.relay is None:
                target.due = now

    def relayed(self, path: Path, now: float, event: LegEvent) -> None:
        """The leg got on. The RS holds a request for 2 s until the other side is there (R25)."""
        late = event is LegEvent.JOINED and now - self.begun > HANDSHAKE_RETRY_LIMIT
        if event is LegEvent.CONFIRMING or late or self.attempts(path) == 0:
            self.reach(path, now)

    def transmissions(self, now: float) -> list[Transmit]:
        """Message 1, wherever it is to be sent now."""
        result: list[Transmit] = []
        if self.initiation is None:
            return result
        for target in list(self._targets):
            if now < target.due:
                continue
            path = target.path
            if path.relay is None and path.granted <= 0:
                self._targets.remove(target)
                continue
            path.granted -= 1
            target.attempts += 1
            target.asked = now
            target.due = now + target.wait
            target.wait = min(2 * target.wait, HANDSHAKE_RETRY_LIMIT)
            result.append(Transmit(self.initiation.request, path.remote))
        return result

    def attempts(self, path: Path | None) -> int:
        """How often message 1 was sent on a path."""
        return next((each.attempts for each in self._targets if each.path is path), 0)

    def asked(self, path: Path) -> float:
        """When message 1 was last sent on a path."""
        return next((each.asked for each in self._targets if each.path is path), self.begun)

    def next_timer(self) -> float | None:
        """When :meth:`transmissions` has something."""
        return min((each.due for each in self._targets), default=None)

    # -- as responder

    def answer(self, datagram: bytes) -> bytes | None:
        """The answer to a request that was answered before: the same again."""
        return self.reception.repeated(datagram)

    def psk(self, now: float) -> bytes | None:
        """The temporal key, while it may be used."""
        return self._psk if self.fresh(now) else None
