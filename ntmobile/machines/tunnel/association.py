"""The state of one tunnel, and what its parts do together (design, section 5).

Parts: :mod:`.directions` (handshakes and legs), :mod:`.sessions` (keys), :mod:`.paths` and
:mod:`.probing` (where to send), :mod:`.liveness` and :mod:`.wanting` (when to do something about
it). :class:`Association` joins them: after every event :meth:`Association.settle` does what follows
from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.constants import NEVER
from ntmobile.machines.tunnel.directions import Directions
from ntmobile.machines.tunnel.events import Doubted, Effect, Ended, Established, PathChanged
from ntmobile.machines.tunnel.identity import LocalIdentity
from ntmobile.machines.tunnel.leg import LegEvent, LegStatus, family_of
from ntmobile.machines.tunnel.liveness import Liveness
from ntmobile.machines.tunnel.opening import OpenDirection
from ntmobile.machines.tunnel.paths import Path, PathSet, PathState
from ntmobile.machines.tunnel.probing import PROBES, Probing
from ntmobile.machines.tunnel.rekeying import Rekeying
from ntmobile.machines.tunnel.session import Session
from ntmobile.machines.tunnel.sessions import SessionSet
from ntmobile.machines.tunnel.wanting import Wanting
from ntmobile.wire.codec import Message, encode
from ntmobile.wire.headers import Flag
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Purpose
from ntmobile.wire.messages.tunnel import PathOffer, TunnelEnd, TunnelKeepAlive

_CONTROL: Final = int(Flag.CONTROL)
#: An offer of new addresses is repeated so often, as paths come to work.
_OFFERS: Final = 3
#: A direction that came so recently is given time to lead to new keys.
_PATIENCE: Final = 5.0


class Association:
    """Everything of one tunnel but its data plane; the parameters are those of ``Tunnel``."""

    def __init__(
        self,
        local: LocalIdentity,
        peer: str,
        addresses: Sequence[Address],
        random: Callable[[int], bytes],
        idle: float,
        keepalive: float,
        now: float,
    ) -> None:
        self.local = local
        self.peer = peer
        self.addresses = tuple(addresses)
        #: Hosts that are never probed (own gateways, R17).
        self.refused: frozenset[str] = frozenset()
        self.random = random
        self.keepalive = keepalive
        #: Bytes of the largest inner packet there is to send.
        self.mtu = constants.INNER_MTU
        self.paths = PathSet()
        self.directions = Directions(self.paths, random, keepalive)
        self.sessions = SessionSet()
        self.probing = Probing(self.paths, random, keepalive)
        self.liveness = Liveness(now, idle, keepalive)
        self.wanting = Wanting()
        self.rekeying: Rekeying | None = None
        self.effects: list[Effect] = []
        self.drops: Counter[str] = Counter()
        self.handovers = 0
        self.ended = False
        self.timer = NEVER
        #: The correspondent seems to have lost the keys, or they are too old: handshake, please.
        self.keys_wanted = False
        self._hint_check = NEVER
        self._hinted = now
        self._confirm_at = NEVER
        self._confirm_wait = constants.HANDSHAKE_RETRY
        self._alarmed = False
        self._moving = False
        self._offers = 0
        self._generation = 0

    @property
    def families(self) -> frozenset[int]:
        """Families of the own addresses; empty where they are not known."""
        return frozenset(family_of(address) for address in self.addresses)

    def reachable(self, remote: Address) -> bool:
        """Whether this side has an address of that family."""
        return not self.addresses or family_of(remote) in self.families

    # -- sending

    def tell(self, path: Path, message: Message, now: float) -> None:
        """Send a control message on a path; nothing while there is no key to send under (R19)."""
        session = self.sessions.current
        epoch = session.ring.current if session is not None else None
        if epoch is None:
            return
        datagram = epoch.seal(_CONTROL, path.identifier, encode(message))
        if not path.affords(len(datagram)):
            self.drops["over the amplification limit"] += 1
            return
        path.sent += len(datagram)
        if path is self.paths.active and not isinstance(message, PROBES):
            self.liveness.sent = now
        self.effects.append(Transmit(datagram, path.remote))

    def keep_alive(self, path: Path, now: float) -> None:
        """Say that this side is here, and by that name the path it uses (R21)."""
        self.liveness.owed = None
        if path is self.paths.active:
            self.liveness.sent = now  # even where nothing may be sent there yet
        self.tell(path, TunnelKeepAlive(), now)

    # -- sessions

    def begin_session(
        self, direction: OpenDirection | None, session: Session, path: Path, now: float
    ) -> bool:
        """A handshake succeeded: send under its keys, unless another one wins (R15)."""
        before = self.sessions.current
        renewed = before is not None and session.adopted == 0.0 and not session.crosses(before)
        if direction is not None:
            direction.spend()
        if not self.sessions.adopt(session, now):
            return False
        self.directions.settle()
        if renewed and direction is not None:
            self.directions.supersede(direction)
        self.rekeying = Rekeying(session, self.random)
        self.paths.controlling = session.initiator
        self.paths.begin_on(path, now)
        self.keys_wanted, self._hint_check = False, NEVER
        self.liveness.heard, self.liveness.unanswered = now, None
        self.effects.append(
            Established(session.direction, session.initiator, path, before is not None)
        )
        if session.initiator:
            path.pmtu.search(self.mtu, now)
        for other in self.paths:
            other.ensure(now)
        self.confirm(now)
        return True

    def confirm(self, now: float, *, used: bool = False) -> None:
        """There is a new epoch to send under: use it until the other side does too (R19).

        :param used: something was sent under it already.
        """
        self._confirm_wait = constants.HANDSHAKE_RETRY
        self._confirm_at = now + self._confirm_wait if used else now

    # -- what follows from an event

    def settle(self, now: float) -> None:
        """Do all that is due now, and find out when there is more."""
        if self.ended:
            return
        self.sessions.expire(now)
        self._run_directions(now)
        if self.sessions.current is not None:
            self._run_session(self.sessions.current, now)
        self._choose(now)
        self._judge(now)
        if self.ended:
            return
        wanted = self.wanting.due(now)
        if wanted is not None:
            self.effects.append(wanted)
        self._set_timer(now)

    def _run_directions(self, now: float) -> None:
        """Legs and handshakes. What a leg sends goes first: it proves the address (R25)."""
        if self.sessions.current is None or self.keys_wanted:
            self.directions.begin(now)
        for direction in self.directions:
            leg = direction.leg
            if leg is not None:
                leg.handle_timer(now)
                self.effects += leg.transmissions()
                for event in leg.events():
                    self._leg_changed(direction, event, now)
                    self.effects += leg.transmissions()
            self.effects += direction.transmissions(now)

    def _leg_changed(self, direction: OpenDirection, event: LegEvent, now: float) -> None:
        leg = direction.leg
        assert leg is not None  # the event is its
        if event is LegEvent.MISSED:
            self.wanting.avoid(leg.relay.name)
            self.wanting.want(Purpose.REPAIR if self.sessions.current else Purpose.NEW)
            return
        if event is LegEvent.RESTARTED:
            # It has forgotten this leg, though it may answer as if it had not.
            if leg.status in (LegStatus.BOUND, LegStatus.JOINED):
                leg.bind(now, self.families)
            return
        path = self.directions.relay_path(direction)
        if path is None:
            return
        if event is not LegEvent.CONFIRMING:
            self.wanting.works(leg.relay.name)
        direction.relayed(path, now, event)
        if self.sessions.current is not None:
            # What is sent now arrives right behind the proof of the address.
            if path.state is not PathState.VALID or path is self.paths.active:
                path.begin(now)
            active = self.paths.active
            if path is active:
                self.keep_alive(path, now)
            elif active is not None and active.doubtful:
                self.paths.attempt(path)

    def _run_session(self, session: Session, now: float) -> None:
        active = self.paths.active
        if session.ring.current_proven:
            self._confirm_at = NEVER
        elif active is not None and now >= self._confirm_at:
            self._confirm_at = now + self._confirm_wait
            self._confirm_wait = min(2 * self._confirm_wait, constants.HANDSHAKE_RETRY_LIMIT)
            self.keep_alive(active, now)
        if self.liveness.silent(now) and active is not None and active.due is None:
            active.begin(now)
        if active is not None and self.liveness.keepalive(now):
            self.keep_alive(active, now)
            if active.due is None:
                active.begin(now)
        if active is not None:
            active.pmtu.verify(now)
        for path, challenge in self.probing.due(now):
            if self.reachable(path.remote):
                self.tell(path, challenge, now)
        self._rekey(session, now)

    def _rekey(self, session: Session, now: float) -> None:
        rekeying, active = self.rekeying, self.paths.active
        if rekeying is None or active is None:
            return
        due = rekeying.due()
        used = now - self.liveness.used < constants.REKEY_GRACE
        if due is not None and now >= due and used and now < session.expires:
            rekeying.begin(now)
        request = rekeying.pending(now)
        if request is not None:
            self.tell(active, request, now)

    def _choose(self, now: float) -> None:
        active = self.paths.active
        doubtful = active is not None and active.doubtful
        if doubtful and not self._alarmed and self.sessions.current is not None:
            self._alarmed = True
            self.effects.append(Doubted())
            self._probe_others(now)
        elif not doubtful:
            self._alarmed = False
            if self.paths.trial is not None and self.paths.trial.relay is not None:
                self.paths.trial = None
        reason = self.paths.choose(now)
        path = self.paths.active
        if path is None or self.sessions.current is None:
            return
        if reason is None and self._moving and path.state is PathState.VALID:
            reason = "it works from here too"
            active = path
        elif reason is None:
            return
        self._moving = False
        self.handovers += active is not None
        self._alarmed = False
        self.wanting.recovered()
        self.effects.append(PathChanged(path, reason))
        self.keep_alive(path, now)
        path.pmtu.search(self.mtu, now)

    def _probe_others(self, now: float) -> None:
        """The active path is in doubt: find out at once which others work."""
        for path in self.paths:
            if path is not self.paths.active and (path.proven is not None or path.relay):
                path.begin(now)
        for direction in self.directions:
            if direction.leg is not None:
                direction.leg.check(now)
                self.effects += direction.leg.transmissions()
        for path, challenge in self.probing.due(now):
            if self.reachable(path.remote):
                self.tell(path, challenge, now)

    def _judge(self, now: float) -> None:
        """See whether something is missing that only a direction brings, or it is over."""
        session, liveness = self.sessions.current, self.liveness
        if session is None:
            if now >= self._given_up():
                self.end("no answer" if len(self.directions) else "no direction", now)
            return
        if now >= self._hint_check:
            self._hint_check = NEVER
            self.keys_wanted = self.keys_wanted or liveness.heard <= self._hinted
        if now >= session.expires - constants.RENEWAL_MARGIN:
            self.keys_wanted = True
        if self.keys_wanted:
            if not any(each.open(now) and each.known > now - _PATIENCE for each in self.directions):
                self.wanting.want(Purpose.NEW)
        elif self._lost(now):
            self.wanting.want(Purpose.REPAIR)
        epoch = session.ring.current
        overdue = constants.REKEY_AFTER + 4 * constants.REKEY_GRACE
        if now >= session.expires and epoch is not None and now >= epoch.born + overdue:
            self.end("the certificates are too old (R20)", now)
        reason = liveness.over(now)
        if reason is not None:
            self.end(reason, now)

    def _given_up(self) -> float:
        """When a tunnel that never stood is over (R18)."""
        expiries = [each.expires for each in self.directions]
        return max(expiries, default=self.liveness.used + constants.DIRECTION_LIFETIME)

    def _lost(self, now: float) -> bool:
        """No path works, and that for longer than a few probes take."""
        active, unanswered = self.paths.active, self.liveness.unanswered
        if active is None or active.state is PathState.FAILED:
            return not any(path.state is PathState.VALID for path in self.paths)
        quiet = unanswered is not None and now >= unanswered + 2 * constants.SILENCE
        return quiet and active.state is PathState.PROBING

    # -- time

    def arm(self, due: float) -> None:
        """There is something to do at ``due``, if nothing is earlier."""
        if due < self.timer:
            self.timer = due

    def _set_timer(self, now: float) -> None:
        times: list[float | None] = [self.wanting.next_timer(), self.sessions.next_timer()]
        for direction in self.directions:
            times.append(direction.next_timer())
            if direction.leg is not None:
                times.append(direction.leg.next_timer())
        session = self.sessions.current
        if session is None or self.keys_wanted:
            times.append(self.directions.waiting(now))
        if session is None:
            times.append(self._given_up())
        else:
            times += [self._confirm_at, self._hint_check, self.liveness.next_timer()]
            times += [self.probing.next_timer(), self.paths.next_timer(now)]
            times.append(self._rekey_at(session, now))
            active = self.paths.active
            if active is not None:
                times.append(active.pmtu.verify_at())
            if not self.keys_wanted:
                times.append(session.expires - constants.RENEWAL_MARGIN)
            unanswered = self.liveness.unanswered
            if unanswered is not None and now < unanswered + 2 * constants.SILENCE:
                times.append(unanswered + 2 * constants.SILENCE)
        self.timer = min((time for time in times if time is not None), default=NEVER)

    def _rekey_at(self, session: Session, now: float) -> float | None:
        due = self.rekeying.next_timer() if self.rekeying is not None else None
        if due is None or due > now:
            return due
        # It is due, but the tunnel is not used, or too old: look again later.
        return now + constants.REKEY_GRACE

    # -- events that concern the whole

    def nominated(self, path: Path, now: float) -> None:
        """The newest datagram, and no probe, came on this path (R21)."""
        active = self.paths.active
        again = self.paths.nominate(path, now)
        if path is active:
            # It was given up, or is in doubt, and yet something comes on it.
            if path.due is None and now >= path.failed + constants.SETTLE:
                path.begin(now)
        elif again and active is not None:
            self.keep_alive(active, now)

    def doubt(self, path: Path, now: float) -> None:
        """A hint says that the correspondent has no session: see whether it still answers (R15)."""
        if self._hint_check == NEVER and not self.keys_wanted:
            self._hinted = now
            self._hint_check = now + max(constants.HINT_CHECK, 3 * (path.rtt or 0.0))
            path.begin(now)
            self.keep_alive(path, now)

    def moved(self, addresses: Sequence[Address], refused: Collection[str], now: float) -> None:
        """Own addresses are these now: probe, rebind, offer and ask, all in this instant."""
        self.addresses, self.refused = tuple(addresses), frozenset(refused)
        if not addresses:
            return
        session = self.sessions.current
        self.wanting.urgent(Purpose.NEW if session is None or self.keys_wanted else Purpose.REPAIR)
        for direction in self.directions:
            if direction.leg is not None:
                direction.leg.bind(now, self.families)
            direction.again(now)
        self._generation += 1
        self._offers = _OFFERS
        for path in self.paths:
            if not self.reachable(path.remote):
                path.fail(now)
            else:
                path.moved(now)
                if path.relay is not None and path is not self.paths.active:
                    path.due = None  # when its leg is bound again
        active = self.paths.active
        if session is not None and active is not None and self.reachable(active.remote):
            self.offer(active, now)
            self.keep_alive(active, now)
        self._alarmed = self._moving = True

    def offer(self, path: Path, now: float) -> None:
        """Name the own new addresses on a path, a few times after a move."""
        if not self._offers:
            return
        self._offers -= 1
        endpoints = tuple(Endpoint.of(address) for address in self.addresses)
        self.tell(path, PathOffer(self._generation, endpoints[: constants.CANDIDATES]), now)

    def end(self, reason: str, now: float, *, tell: bool = True) -> None:
        """It is over; the correspondent is told on every path that may work."""
        if self.ended:
            return
        if tell:
            for path in self.paths:
                if path is self.paths.active or path.state is PathState.VALID:
                    self.tell(path, TunnelEnd(reason[:200]), now)
        self.ended, self.timer = True, NEVER
        self.sessions.current = None
        self.effects.append(Ended(reason))
