"""The data plane of a tunnel, outwards: inner packets become sealed datagrams (R19, R23).

What an application's system hands over in one piece (up to 64 KiB of TCP, or of equal UDP
datagrams) is cut to what the path carries whole, sealed in place and leaves as one run.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, TypeAlias

from ntmobile.errors import MalformedMessage
from ntmobile.machines.effects import Transmit, TransmitRun
from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.association import Association
from ntmobile.machines.tunnel.constants import SEALED
from ntmobile.machines.tunnel.events import Deliver
from ntmobile.machines.tunnel.keys import Epoch
from ntmobile.machines.tunnel.paths import Path
from ntmobile.machines.tunnel.splitting import halves
from ntmobile.wire import icmp
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE, Flag
from ntmobile.wire.messages.realtime import Purpose
from ntmobile.wire.offload import GsoKind, Offload
from ntmobile.wire.packet import Buffer
from ntmobile.wire.segmentation import Segmentation

_FIRST: Final = int(Flag.FIRST)
_SECOND: Final = int(Flag.SECOND)
_PARTIAL: Final = int(Flag.PARTIAL)

_Waiting: TypeAlias = tuple[bytes, Offload | None]


class Outbound:
    """Seals what goes to the correspondent.

    :ivar octets: of inner packets sent.
    """

    def __init__(self, association: Association) -> None:
        self.octets = 0
        self._association = association
        self._paths = association.paths
        self._sessions = association.sessions
        self._liveness = association.liveness
        self._queue: deque[_Waiting] = deque(maxlen=constants.QUEUE)

    @property
    def drops(self) -> Counter[str]:
        """Packets dropped, by reason."""
        return self._association.drops

    def send(self, packet: Buffer, offload: Offload | None, now: float) -> None:
        """An inner packet; queued until there is a session and a path.

        Where there is not even a direction, one is wanted.

        :param offload: what is still to be done with it: cut it, complete its checksum.
        """
        session, path = self._sessions.current, self._paths.active
        epoch = session.ring.current if session is not None else None
        liveness = self._liveness
        liveness.used = now
        size = len(packet)
        if epoch is None or path is None or (path.limited and not path.affords(size + SEALED)):
            self._enqueue(packet, offload, now)
            return
        partial = _PARTIAL if offload is not None and offload.partial else 0
        if size <= path.pmtu.value:
            self._one(epoch, path, partial, packet)
        elif not self._cut(epoch, path, packet, offload, partial):
            return
        self.octets += size
        liveness.sent, liveness.owed = now, None
        if liveness.unanswered is None:
            liveness.unanswered = now
            self._association.arm(now + constants.SILENCE)
        if size > constants.NARROW_MTU:
            pmtu = path.pmtu
            if pmtu.used <= pmtu.tried:
                self._association.arm(pmtu.tried + constants.MTU_VERIFY)
            pmtu.used = now
        if epoch.counter >= constants.REKEY_DATAGRAMS:
            self._association.arm(now)

    def _cut(
        self, epoch: Epoch, path: Path, packet: Buffer, offload: Offload | None, partial: int
    ) -> bool:
        """A packet that is too large for one datagram; whether it was sent."""
        if partial and offload is not None:
            try:
                segments = Segmentation(packet, offload, path.pmtu.value)
            except MalformedMessage:
                segments = None
            if segments is not None and segments.length <= path.pmtu.value:
                self._run(epoch, path, segments)
                return True
            if segments is not None and segments.count > 1:
                return self._datagrams(epoch, path, segments)
        if offload is not None and offload.kind is not GsoKind.NONE:
            self.drops["segments that cannot be cut"] += 1
            return False
        return self._split(epoch, path, partial, packet)

    def _one(self, epoch: Epoch, path: Path, flags: int, packet: Buffer) -> None:
        datagram = epoch.seal(flags, path.identifier, packet)
        self._association.effects.append(Transmit(datagram, path.remote))
        path.sent += len(datagram)
        trial = self._affordable(len(datagram))
        if trial is not None:
            self._association.effects.append(Transmit(datagram, trial.remote))

    def _run(self, epoch: Epoch, path: Path, segments: Segmentation) -> None:
        """The pieces of a packet as one run, sealed where they are written."""
        count, length = segments.count, segments.length
        run = bytearray(count * SEALED + (count - 1) * length + segments.last)
        view = memoryview(run)
        segments.write_run(view, HEADER_SIZE, TAG_SIZE)
        epoch.seal_run(view, length + SEALED, _PARTIAL, path.identifier)
        self._association.effects.append(TransmitRun(run, length + SEALED, path.remote))
        path.sent += len(run)
        trial = self._affordable(len(run))
        if trial is not None:
            self._association.effects.append(TransmitRun(run, length + SEALED, trial.remote))

    def _datagrams(self, epoch: Epoch, path: Path, segments: Segmentation) -> bool:
        """Datagrams of an application that are themselves too large for the path: each is split."""
        sent = True
        for number in range(segments.count):
            piece = bytearray(segments.length)
            size = segments.write(number, piece, 0)
            whole = memoryview(piece)[:size]
            if size <= path.pmtu.value:
                self._one(epoch, path, _PARTIAL, whole)
            else:
                sent = self._split(epoch, path, _PARTIAL, whole) and sent
        return sent

    def _split(self, epoch: Epoch, path: Path, flags: int, packet: Buffer) -> bool:
        """In two halves (R23); where that does not do, its sender hears what would fit."""
        if len(packet) <= 2 * constants.NARROW_MTU:
            for flag, half in zip((_FIRST, _SECOND), halves(bytes(packet)), strict=True):
                self._one(epoch, path, flags | flag, half)
            return True
        self.drops["packet too long"] += 1
        told = icmp.too_big(packet, max(path.pmtu.value, constants.INNER_MTU))
        if told is not None:
            self._association.effects.append(Deliver(told))
        return False

    def _affordable(self, size: int) -> Path | None:
        """A second path to send the same on, as far as R21 allows."""
        trial = self._paths.trial
        if trial is None or self._paths.trial_left < size or not trial.affords(size):
            return None
        self._paths.trial_left -= size
        trial.sent += size
        return trial

    def _enqueue(self, packet: Buffer, offload: Offload | None, now: float) -> None:
        if self._association.ended:
            return
        if not self._association.directions.identifiers and (
            self._association.wanting.purpose is None
        ):
            self._association.wanting.want(Purpose.NEW)
            self._association.arm(now)
        if len(self._queue) == constants.QUEUE:
            self.drops["queue full"] += 1
        self._queue.append((bytes(packet), offload))

    def flush(self, now: float) -> bool:
        """Send what waited; whether anything was sent."""
        if not self._queue:
            return False
        waiting, self._queue = self._queue, deque(maxlen=constants.QUEUE)
        used = self._liveness.used
        for packet, offload in waiting:
            self.send(packet, offload, now)
        self._liveness.used = used
        return len(self._queue) < len(waiting)
