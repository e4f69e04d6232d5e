"""The tunnel of one pair of devices: a session over a set of paths (R15 to R26; design, section 5).

Sans I/O: events go in with ``now`` (monotonic seconds), effects are drained, timers are asked for.
Here are its interface and its data plane; the rest is in :mod:`.association`.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines import constants
from ntmobile.machines.admission import Admission
from ntmobile.machines.association import Association
from ntmobile.machines.candidates import directed, reachable_relay
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.identity import LocalIdentity as LocalIdentity
from ntmobile.machines.paths import Path, PathState
from ntmobile.machines.probing import PROBES
from ntmobile.machines.splitting import Joining, halves
from ntmobile.machines.tunnel_control import Control
from ntmobile.machines.tunnel_effects import Deliver, Effect
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE, Flag, Header, Kind
from ntmobile.wire.messages.realtime import Purpose, RouteDirection

_DATA: Final = int(Kind.TUNNEL_DATA)
_CONTROL: Final = int(Flag.CONTROL)
_FIRST: Final = int(Flag.FIRST)
_SECOND: Final = int(Flag.SECOND)
_HALF: Final = _FIRST | _SECOND
_RESERVED: Final = 0xFF & ~(int(Flag.EPOCH) | _CONTROL | _HALF)
_SEALED: Final = HEADER_SIZE + TAG_SIZE
_NARROW: Final = constants.NARROW_PAYLOAD - _SEALED
_WIDE: Final = constants.INNER_MTU


class Tunnel:
    """One tunnel; the caller has verified and pinned whom it is with.

    :param local: this side. :param peer: FQDN of the correspondent.
    :param addresses: own local addresses; empty where they are not known (all families are tried).
    :param refused: hosts that are never probed, whoever names them: own gateways (R17).
    :param idle: seconds without inner packets that end it. :param keepalive: seconds, 15 to 25.
    :ivar received_bytes: :ivar sent_bytes: of inner packets.
    """

    def __init__(
        self,
        *,
        local: LocalIdentity,
        peer: str,
        now: float,
        addresses: Sequence[Address] = (),
        refused: Collection[str] = (),
        random: Callable[[int], bytes] = os.urandom,
        idle: float = constants.IDLE,
        keepalive: float = constants.KEEPALIVE,
    ) -> None:
        self._association = Association(local, peer, addresses, random, idle, keepalive, now)
        self._association.refused = frozenset(refused)
        self._control = Control(self._association)
        self._admission = Admission(self._association)
        self._paths = self._association.paths
        self._sessions = self._association.sessions
        self._liveness = self._association.liveness
        self._queue: deque[bytes] = deque(maxlen=constants.QUEUE)
        self._joining = Joining()
        # R22: source and destination of an inner packet, as they stand in its header.
        self._inner6 = b""
        self._inner4 = b""
        self.received_bytes = 0
        self.sent_bytes = 0

    # -- what is known of it

    @property
    def peer(self) -> str:
        """FQDN of the correspondent."""
        return self._association.peer

    @property
    def established(self) -> bool:
        """There is a session to send under."""
        return self._sessions.current is not None

    @property
    def ended(self) -> bool:
        """It is over."""
        return self._association.ended

    @property
    def initiator(self) -> bool:
        """This side controls which path is used."""
        return self._paths.controlling

    @property
    def active(self) -> Path | None:
        """The path that carries the traffic."""
        return self._paths.active

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths known, the active one first."""
        return tuple(sorted(self._paths, key=lambda path: path is not self._paths.active))

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip on the active path, smoothed."""
        return self.active.rtt if self.active is not None else None

    @property
    def identifiers(self) -> frozenset[bytes]:
        """The indices this tunnel answers to; the same object as long as nothing changes."""
        return self._association.directions.identifiers

    @property
    def handovers(self) -> int:
        """Changes of the active path since it was established."""
        return self._association.handovers

    @property
    def drops(self) -> Counter[str]:
        """Datagrams and packets dropped, by reason."""
        return self._association.drops

    @property
    def last_used(self) -> float:
        """When an inner packet last went either way (R17: repaired in this order)."""
        return self._liveness.used

    # -- events

    def direct(
        self,
        direction: RouteDirection,
        certificate: DeviceCertificate,
        now: float,
        unix_time: float | None = None,
    ) -> None:
        """A direction for this pair, new or updated, its certificate verified and pinned.

        It begins the handshake, or adds paths to a living session (R15).

        :param unix_time: the time of certificates, if known (R12): when is a fresh one due?
        """
        association = self._association
        if association.ended or direction.peer != association.peer:
            return
        relay = reachable_relay(direction.relay, association.addresses)
        direction = msgspec.structs.replace(direction, relay=relay)
        parties = association.local.with_peer(certificate, initiator=direction.initiator)
        certified = None
        if unix_time is not None:
            certified = now + association.local.until(certificate, unix_time)
        known = association.directions.add(direction, parties, now, certified)
        if known is None:
            return
        association.wanting.satisfied()
        self._certify(certificate)
        if known.leg is not None and known.leg.remote is None:
            known.leg.bind(now, association.families)
        addresses, refused = association.addresses, association.refused
        for remote in directed(direction.candidates, addresses, refused):
            if association.reachable(remote):
                path = association.paths.add(Path(direction.direction, remote))
                if self.established:
                    path.ensure(now)
                else:
                    known.join(path, now)
        association.directions.retire(now)
        association.settle(now)

    def _certify(self, certificate: DeviceCertificate) -> None:
        local = self._association.local
        self._inner6 = certificate.ipv6.packed + local.ipv6.packed
        self._inner4 = certificate.ipv4.packed + local.ipv4.packed

    def network_changed(
        self, addresses: Sequence[Address], now: float, refused: Collection[str] = ()
    ) -> None:
        """Own addresses are these now: probe, rebind, offer and ask, all in this instant.

        The active path stays in use until another one, or itself, has proven itself. No addresses
        means no network: nothing is tried until there are some.

        :param refused: hosts that are never probed, whoever names them: own gateways (R17).
        """
        if not self._association.ended:
            self._association.moved(addresses, refused, now)
            self._association.settle(now)

    def coordinator_back(self, now: float) -> None:
        """The DC can be asked again: a direction that is wanted is wanted now."""
        self._association.wanting.hurry()
        self._association.settle(now)

    def too_big(self, remote: Address, now: float) -> None:
        """The system refused a datagram of full size to this address: split from now on (R23)."""
        for path in self._paths:
            if path.remote == remote:
                path.narrow(now)

    def renew(self, local: LocalIdentity) -> None:
        """A fresh own certificate, for handshakes from now on."""
        self._association.local = local

    def ping(self, sequence: int, now: float) -> None:
        """Ask the other agent for an answer; ends in a ``RoundTrip``, or in nothing."""
        if not self._association.ended:
            self._control.ping(sequence, now)

    def end(self, reason: str, now: float) -> None:
        """Tell the correspondent and stop."""
        self._association.end(reason, now)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if now >= self._association.timer:
            self._association.settle(now)
            if self._queue:
                self._flush(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` is to be called; cheap, ask after every event."""
        timer = self._association.timer
        return None if timer == constants.NEVER else timer

    def effects(self) -> list[Effect]:
        """Drain what is to be done, in order."""
        drained, self._association.effects = self._association.effects, []
        return drained

    # -- the data plane, outwards

    def send(self, packet: bytes, now: float) -> None:
        """An inner packet for the correspondent; queued until there is a session and a path.

        Where there is not even a direction, one is wanted.
        """
        session, path = self._sessions.current, self._paths.active
        epoch = session.ring.current if session is not None else None
        liveness = self._liveness
        liveness.used = now
        size = len(packet)
        if epoch is None or path is None or (path.limited and not path.affords(size + _SEALED)):
            self._enqueue(packet, now)
            return
        effects = self._association.effects
        if size <= _NARROW or (path.wide and size <= _WIDE):
            datagram = epoch.seal(0, path.identifier, packet)
            effects.append(Transmit(datagram, path.remote))
            path.sent += len(datagram)
            if self._paths.trial is not None:
                self._try(self._paths.trial, datagram)
        elif size <= 2 * _NARROW:
            for flag, half in zip((_FIRST, _SECOND), halves(packet), strict=True):
                datagram = epoch.seal(flag, path.identifier, half)
                effects.append(Transmit(datagram, path.remote))
                path.sent += len(datagram)
                if self._paths.trial is not None:
                    self._try(self._paths.trial, datagram)
        else:
            self.drops["packet too long"] += 1
            return
        self.sent_bytes += size
        liveness.sent, liveness.owed = now, None
        if liveness.unanswered is None:
            liveness.unanswered = now
            self._association.arm(now + constants.SILENCE)
        if epoch.counter >= constants.REKEY_DATAGRAMS:
            self._association.arm(now)

    def _try(self, trial: Path, datagram: bytes) -> None:
        """Send the same datagram on a second path, as far as R21 allows."""
        if trial.affords(len(datagram)) and self._paths.trial_left >= len(datagram):
            self._paths.trial_left -= len(datagram)
            trial.sent += len(datagram)
            self._association.effects.append(Transmit(datagram, trial.remote))

    def _enqueue(self, packet: bytes, now: float) -> None:
        if self._association.ended:
            return
        if not self.identifiers and self._association.wanting.purpose is None:
            self._association.wanting.want(Purpose.NEW)
            self._association.arm(now)
        if len(self._queue) == constants.QUEUE:
            self.drops["queue full"] += 1
        self._queue.append(packet)

    def _flush(self, now: float) -> bool:
        """Send what waited; whether anything was sent."""
        waiting, self._queue = self._queue, deque(maxlen=constants.QUEUE)
        used = self._liveness.used
        for packet in waiting:
            self.send(packet, now)
        self._liveness.used = used
        return len(self._queue) < len(waiting)

    # -- the data plane, inwards

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """Any datagram whose index is one of :attr:`identifiers`. Never raises: drops are counted.

        Kinds TUNNEL_* and RELAY_RESPONSE, RELAY_TOO_BIG, RELAY_UNKNOWN.
        """
        if self._association.ended:
            return
        if len(datagram) < HEADER_SIZE or datagram[2] or datagram[3]:
            self.drops["malformed"] += 1
            return
        try:
            if datagram[0] == _DATA:
                self._data_received(datagram, remote, now)
            else:
                started = self._admission.received(datagram, remote, now)
                if started:
                    self._started(now)
                self._association.settle(now)
        except MalformedMessage:
            self.drops["malformed"] += 1
        except AuthenticationError:
            self.drops["not authentic"] += 1

    def _data_received(self, datagram: bytes, remote: Address, now: float) -> None:
        flags = datagram[1]
        if len(datagram) < _SEALED or flags & _RESERVED:
            raise MalformedMessage("tunnel data with unknown flags, or too short")
        counter = int.from_bytes(datagram[12:20], "big")
        session = self._sessions.current
        epoch = session.ring.opening(flags) if session is not None else None
        newest = epoch is not None and counter > epoch.window.highest
        plaintext = epoch.open(datagram, counter) if epoch is not None else None
        if session is None or epoch is None or plaintext is None:
            self._other_received(datagram, counter, remote, now)
            return
        path = self._paths.find(datagram[4:12], remote)
        if path is None:
            path = self._paths.observe(datagram[4:12], remote)
        if path.limited:
            path.received += len(datagram)
        path.heard = session.heard = self._liveness.heard = now
        if session.used is None:
            session.used = now
        self._liveness.unanswered = None
        if epoch is not session.ring.current:
            # An older epoch's datagram is never the newest; one of the upcoming makes it current.
            newest = session.ring.opened(epoch, now) and newest
        self._opened(flags, plaintext, epoch.number, counter, path, newest, now)

    def _opened(
        self,
        flags: int,
        plaintext: bytes,
        epoch: int,
        counter: int,
        path: Path,
        newest: bool,
        now: float,
    ) -> None:
        """An authentic datagram: a control message, an inner packet, or half of one."""
        if flags & _CONTROL:
            message = self._control.received(plaintext, path, now)
            if newest and not isinstance(message, PROBES):
                self._association.nominated(path, now)
            self._association.settle(now)
            if self._queue:
                self._flush(now)
            return
        if flags & _HALF:
            first = bool(flags & _FIRST)
            joined = self._joining.add(epoch, counter, plaintext, first=first)
            if joined is not None:
                self._deliver(joined, now)
        else:
            self._deliver(plaintext, now)
        if newest and (path is not self._paths.active or path.state is not PathState.VALID):
            self._association.nominated(path, now)
            self._association.settle(now)

    def _deliver(self, packet: bytes, now: float) -> None:
        """An inner packet is for the application if its addresses are the certified ones (R22)."""
        version = packet[0] >> 4 if packet else 0
        if version == 6 and len(packet) >= 40:
            genuine = packet[8:40] == self._inner6
        elif version == 4 and len(packet) >= 20:
            genuine = packet[12:20] == self._inner4
        else:
            genuine = False
        if not genuine:
            self.drops["inner address"] += 1
            return
        liveness = self._liveness
        liveness.used = now
        if liveness.owed is None:
            liveness.owed = now
            self._association.arm(now + constants.PASSIVE_KEEPALIVE)
        self.received_bytes += len(packet)
        self._association.effects.append(Deliver(packet))

    def _other_received(self, datagram: bytes, counter: int, remote: Address, now: float) -> None:
        """What the current session does not open: the first under new keys, or the last under old.

        If nothing opens it and there is no session at all, the other side hears so.
        """
        opened = self._sessions.open(datagram, counter, now)
        if opened is None:
            self.drops["not authentic"] += 1
            self._admission.unopened(datagram, remote, now)
            return
        session, epoch, plaintext = opened
        path = self._paths.find(datagram[4:12], remote)
        if path is None:
            path = self._paths.observe(datagram[4:12], remote)
        path.received += len(datagram)
        path.heard = self._liveness.heard = now
        if self._sessions.proven(session, now):
            session.ring.opened(epoch, now)
            if self._admission.began(session, path, now):
                self._started(now)
        current = session is self._sessions.current
        flags = datagram[1]
        if current or not flags & _CONTROL:
            self._opened(flags, plaintext, epoch.number, counter, path, current, now)
        self._association.settle(now)

    def _started(self, now: float) -> None:
        """A session begins: the first packets go out at once, and confirm its keys (R19)."""
        if self._flush(now):
            self._association.confirm(now, used=True)


def unknown_hint(datagram: bytes) -> bytes | None:
    """The hint for a tunnel datagram of an index that no tunnel here has (R15).

    Only TUNNEL_DATA gets one, never larger than itself; how often, the caller limits.
    """
    if len(datagram) < _SEALED or datagram[0] != _DATA:
        return None
    counter = int.from_bytes(datagram[12:20], "big")
    return Header(Kind.TUNNEL_UNKNOWN, 0, datagram[4:12], counter).pack()
