"""The client's leg at a relay server: bind, prove, keep warm, notice loss (R25, R26).

::

    client                                RS
      | request(counter n, nonce)          |   to each of its addresses
      |----------------------------------->|
      |<-----------------------------------|   CHALLENGE(cookie): the first one decides the family
      | request(counter n, cookie)         |   the handshake may follow right behind
      |----------------------------------->|
      |<-----------------------------------|   BOUND, or JOINED when the other side is bound too

A rebind is the same under the next counter; the RS keeps the old leg until the new one is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import Enum

from attrs import define, field

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.tunnel.constants import (
    BIND_ATTEMPTS,
    BIND_RETRY,
    BIND_RETRY_LIMIT,
    HINT_INTERVAL,
    KEEPALIVE,
    MISSED_ANSWERS,
)
from ntmobile.wire.headers import Header
from ntmobile.wire.messages.realtime import Relay
from ntmobile.wire.messages.relaying import (
    LegState,
    RelayTooBig,
    RelayTunnelRequest,
    RelayTunnelResponse,
)
from ntmobile.wire.relaying import UNASKED, open_relayed, seal_relayed


class LegStatus(Enum):
    """Where a leg stands."""

    IDLE = "idle"  #: not asked for, or no address of a family that the RS has
    BINDING = "binding"  #: asked, no challenge yet
    CONFIRMING = "confirming"  #: the cookie went back; what follows it is taken
    BOUND = "bound"  #: ours is bound, the other side's is not
    JOINED = "joined"  #: datagrams pass


class LegEvent(Enum):
    """What happened to a leg."""

    CONFIRMING = "confirming"  #: a handshake sent now arrives just after the proof
    BOUND = "bound"  #: proven, or proven anew
    JOINED = "joined"  #: the other side is there
    MISSED = "missed"  #: so many answers were missed that another relay is wanted (R26)
    RESTARTED = "restarted"  #: the boot identifier is another (R26)


def family_of(remote: Address) -> int:
    """4 or 6, of a numeric address."""
    return 6 if ":" in remote[0] else 4


@define(eq=False)
class RelayLeg:
    """One side's leg of one direction.

    :ivar identifier: the direction. :ivar relay: the RS, our key and side.
    :ivar remote: the address of the RS that answers, None before the first challenge.
    :ivar rtt: seconds to the RS and back, None before the first answer.
    :ivar missed: answers missed in a row.
    """

    identifier: bytes
    relay: Relay
    _random: Callable[[int], bytes]
    keepalive: float = KEEPALIVE
    status: LegStatus = LegStatus.IDLE
    remote: Address | None = None
    boot: bytes | None = None
    rtt: float | None = None
    missed: int = 0
    _counter: int = 0
    _nonce: bytes = b""
    _request: bytes = field(default=b"", repr=False)
    _targets: tuple[Address, ...] = ()
    _asked: float = 0.0
    _attempts: int = 0
    _wait: float = BIND_RETRY
    _due: float | None = None
    _waiting: bool = False
    _told: bool = False
    _hinted: float = float("-inf")
    _transmissions: list[Transmit] = field(factory=list)
    _events: list[LegEvent] = field(factory=list)

    @property
    def usable(self) -> bool:
        """Datagrams sent now are taken by the RS."""
        return self.status in (LegStatus.CONFIRMING, LegStatus.BOUND, LegStatus.JOINED)

    def bind(self, now: float, families: Container[int] = ()) -> None:
        """Bind, or bind again from wherever this side is now, under the next counter.

        :param families: those this side has an address in; empty means not known.
        """
        endpoints = [endpoint.pair() for endpoint in self.relay.endpoints]
        targets = [one for one in endpoints if not families or family_of(one) in families]
        if self.remote in targets:
            targets.sort(key=lambda one: one != self.remote)
        self._targets = tuple(targets)
        if not targets:
            self.status, self._due, self._waiting = LegStatus.IDLE, None, False
            return
        self._counter += 1
        self.status = LegStatus.BINDING
        self._ask(now, b"", keepalive=False, wait=BIND_RETRY)

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> RelayTooBig | None:
        """A RELAY_RESPONSE or RELAY_TOO_BIG; the latter is returned.

        :raises AuthenticationError: it is not the RS's, or answers nothing we asked.
        :raises MalformedMessage: it is no such datagram.
        """
        header, message = open_relayed(self.relay.key, datagram)
        if remote not in self._targets and remote != self.remote:
            raise AuthenticationError("a relay message from an address that is not the relay's")
        if isinstance(message, RelayTooBig):
            return message
        if not isinstance(message, RelayTunnelResponse):
            raise MalformedMessage("a relay message that only a client sends")
        self._answered(header, message, remote, now)
        return None

    def check(self, now: float) -> None:
        """Ask now whether the leg stands, rather than when it is time anyway."""
        if self.status in (LegStatus.BOUND, LegStatus.JOINED) and not self._waiting:
            self._due = now

    def hinted(self, now: float) -> None:
        """A RELAY_UNKNOWN: unauthenticated, so it only makes us ask again, now and then."""
        if self.status in (LegStatus.BOUND, LegStatus.JOINED) and (
            now - self._hinted >= HINT_INTERVAL
        ):
            self._hinted = now
            self._rebind(now)

    def _answered(
        self, header: Header, message: RelayTunnelResponse, remote: Address, now: float
    ) -> None:
        unasked = message.nonce == UNASKED
        if unasked:
            if header.counter != self._counter or message.state != LegState.JOINED:
                raise AuthenticationError("relay news of an earlier leg")
        elif not self._waiting or message.nonce != self._nonce:
            raise AuthenticationError("a relay answer to nothing we asked")
        if not unasked:
            if self._attempts == 1:
                sample = now - self._asked
                self.rtt = sample if self.rtt is None else 0.875 * self.rtt + 0.125 * sample
            self._waiting, self.missed, self._told = False, 0, False
        if self.boot is not None and message.boot != self.boot:
            self._events.append(LegEvent.RESTARTED)
        self.boot = message.boot
        if message.state == LegState.CHALLENGE:
            self._challenged(message, remote, now)
        elif message.state == LegState.REFUSED:
            # The RS says the counter above which it listens; a refused rate is tried more slowly.
            self._counter = max(self._counter, header.counter) + 1
            self.status = LegStatus.BINDING
            self._prepare(b"", keepalive=False)
            self._attempts, self._waiting = 0, True
            self._wait = min(self._wait * 2, BIND_RETRY_LIMIT)
            self._due = now + (self._wait if header.counter < self._counter - 1 else 0.0)
        elif message.state in (LegState.BOUND, LegState.JOINED):
            self._bound(message.state == LegState.JOINED, remote, now)

    def _challenged(self, message: RelayTunnelResponse, remote: Address, now: float) -> None:
        if self.status in (LegStatus.BOUND, LegStatus.JOINED):
            # A keep-alive from an address that is not the leg's any more; the proof needs a new
            # counter, because the leg uses this one.
            self._counter += 1
        self.remote = remote
        self.status = LegStatus.CONFIRMING
        self._targets = (remote, *(one for one in self._targets if one != remote))
        self._ask(now, message.cookie, keepalive=False, wait=BIND_RETRY)
        self._events.append(LegEvent.CONFIRMING)

    def _bound(self, joined: bool, remote: Address, now: float) -> None:
        before = self.status
        self.remote = remote
        self.status = LegStatus.JOINED if joined else LegStatus.BOUND
        self._due, self._waiting = now + self.keepalive, False
        if before in (LegStatus.BINDING, LegStatus.CONFIRMING):
            self._events.append(LegEvent.BOUND)
        if joined and before is not LegStatus.JOINED:
            self._events.append(LegEvent.JOINED)

    def _rebind(self, now: float) -> None:
        self._counter += 1
        self.status = LegStatus.BINDING
        self._ask(now, b"", keepalive=False, wait=BIND_RETRY)

    def _prepare(self, cookie: bytes, *, keepalive: bool) -> None:
        self._nonce = self._random(16)
        message = RelayTunnelRequest(self.relay.side, self._nonce, cookie, keepalive)
        self._request = seal_relayed(self.relay.key, self.identifier, self._counter, message)

    def _ask(self, now: float, cookie: bytes, *, keepalive: bool, wait: float) -> None:
        self._prepare(cookie, keepalive=keepalive)
        self._attempts, self._wait, self._waiting, self._asked = 1, wait, True, now
        self._due = now + wait
        self._send()

    def _send(self) -> None:
        # Only a challenge without cookie may go to both families: a cookie binds.
        everywhere = self.status is LegStatus.BINDING or self.remote is None
        targets = self._targets if everywhere else (self.remote,)
        self._transmissions += [Transmit(self._request, one) for one in targets if one is not None]

    def handle_timer(self, now: float) -> None:
        """Retransmit, refresh, and say when too many answers were missed."""
        if self._due is None or now < self._due:
            return
        if not self._waiting:
            wait = max(2 * BIND_RETRY, 3 * (self.rtt or 0.0))
            self._ask(now, b"", keepalive=True, wait=wait)
            return
        bound = self.status in (LegStatus.BOUND, LegStatus.JOINED)
        self.missed += 1
        if not self._told and self.missed >= (MISSED_ANSWERS if bound else BIND_ATTEMPTS):
            self._told = True
            self._events.append(LegEvent.MISSED)
        if bound and self.missed >= MISSED_ANSWERS:
            self._rebind(now)
            return
        if self.status is LegStatus.CONFIRMING and self._attempts >= MISSED_ANSWERS:
            # The address may be another by now, or the cookie too old: from the beginning.
            wait = self._wait
            self._rebind(now)
            self._wait = wait
            return
        self._attempts += 1
        self._wait = min(self._wait * 2, BIND_RETRY_LIMIT)
        self._due = now + self._wait
        self._send()

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        return self._due

    def transmissions(self) -> list[Transmit]:
        """Drain what is to be sent."""
        drained, self._transmissions = self._transmissions, []
        return drained

    def events(self) -> list[LegEvent]:
        """Drain what happened."""
        drained, self._events = self._events, []
        return drained
