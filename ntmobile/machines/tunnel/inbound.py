"""The data plane of a tunnel, inwards: sealed datagrams become inner packets (R19, R21, R22).

A run of datagrams is opened in one pass into one buffer; whatever is not an ordinary datagram of
the present keys goes through :meth:`Inbound.datagram_received` by itself.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Final

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.admission import Admission
from ntmobile.machines.tunnel.association import Association
from ntmobile.machines.tunnel.constants import SEALED
from ntmobile.machines.tunnel.control import Control
from ntmobile.machines.tunnel.events import Deliver, DeliverRun
from ntmobile.machines.tunnel.keys import Epoch
from ntmobile.machines.tunnel.outbound import Outbound
from ntmobile.machines.tunnel.paths import Path, PathState
from ntmobile.machines.tunnel.probing import PROBES
from ntmobile.machines.tunnel.session import Session
from ntmobile.machines.tunnel.splitting import Joining
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.headers import HEADER_SIZE, Flag, Kind

_DATA: Final = int(Kind.TUNNEL_DATA)
_CONTROL: Final = int(Flag.CONTROL)
_FIRST: Final = int(Flag.FIRST)
_HALF: Final = _FIRST | int(Flag.SECOND)
_PARTIAL: Final = int(Flag.PARTIAL)
_ORDINARY: Final = int(Flag.EPOCH) | _PARTIAL
_RESERVED: Final = 0xFF & ~(_ORDINARY | _CONTROL | _HALF)
#: Of an inner packet: its first byte, and its addresses where the families have them.
_INNER6: Final = struct.Struct("B7x32s")
_INNER4: Final = struct.Struct("B11x8s")


class Inbound:
    """Opens what comes from the correspondent.

    :ivar octets: of inner packets received.
    """

    def __init__(self, association: Association, control: Control, outbound: Outbound) -> None:
        self.octets = 0
        self._association = association
        self._control = control
        self._outbound = outbound
        self._admission = Admission(association)
        self._paths = association.paths
        self._sessions = association.sessions
        self._liveness = association.liveness
        self._joining = Joining()
        # R22: source and destination of an inner packet, as they stand in its header.
        self._inner6 = b""
        self._inner4 = b""

    @property
    def drops(self) -> Counter[str]:
        """Datagrams and packets dropped, by reason."""
        return self._association.drops

    def certify(self, certificate: DeviceCertificate) -> None:
        """The correspondent's addresses, from which alone inner packets are taken (R22)."""
        local = self._association.local
        self._inner6 = certificate.ipv6.packed + local.ipv6.packed
        self._inner4 = certificate.ipv4.packed + local.ipv4.packed

    # -- runs

    def run_received(self, data: memoryview, segment: int, remote: Address, now: float) -> int:
        """Datagrams of ``segment`` bytes, the last perhaps shorter.

        :return: where those of the first one's index end; at least the first is taken.
        """
        plain = memoryview(bytearray(len(data)))
        at, end = 0, len(data)
        while at < end:
            opened = self._stretch(data, at, segment, plain, remote, now)
            if opened == at:
                if at and data[at + 4 : at + 12] != data[4:12]:
                    return at
                opened = min(at + segment, end)
                self.datagram_received(bytes(data[at:opened]), remote, now)
            at = opened
        return end

    def _stretch(
        self,
        data: memoryview,
        at: int,
        segment: int,
        plain: memoryview,
        remote: Address,
        now: float,
    ) -> int:
        """Open what can be opened in one go from ``at`` on; where that ends."""
        session = self._sessions.current
        epoch = None if session is None else session.ring.current
        end = len(data)
        if session is None or epoch is None or end - at < SEALED:
            return at
        path = self._paths.find(bytes(data[at + 4 : at + 12]), remote)
        flags = data[at + 1]
        ordinary = data[at] == _DATA and not flags & ~_ORDINARY and not data[at + 2] | data[at + 3]
        if path is None or path.limited or not ordinary or flags & 3 != epoch.bits:
            return at
        end, packets = epoch.open_run(data, at, segment, plain)
        if not packets:
            return at
        self._received(session, epoch, path, now)
        if not self._all_genuine(packets):
            packets = [packet for packet in packets if self._genuine(packet)]
        if packets:
            self._take(sum(map(len, packets)), now)
            self._association.effects.append(DeliverRun(packets, bool(flags & _PARTIAL)))
        self._newest(path, now)
        return end

    def _all_genuine(self, packets: list[memoryview]) -> bool:
        """Whether all packets of a run are of one family and between the certified addresses."""
        least = min(len(packets[0]), len(packets[-1]))
        version = packets[0][0] >> 4 if least else 0
        if version == 6 and least >= 40:
            unpack, known = _INNER6.unpack_from, self._inner6
        elif version == 4 and least >= 20:
            unpack, known = _INNER4.unpack_from, self._inner4
        else:
            return False
        for packet in packets:
            first, addresses = unpack(packet)
            if addresses != known or first >> 4 != version:
                return False
        return True

    def _genuine(self, packet: memoryview) -> bool:
        """Whether an inner packet is between the certified addresses (R22); else it is counted."""
        version = packet[0] >> 4 if packet else 0
        if version == 6 and len(packet) >= 40:
            if _INNER6.unpack_from(packet)[1] == self._inner6:
                return True
        elif version == 4 and len(packet) >= 20 and _INNER4.unpack_from(packet)[1] == self._inner4:
            return True
        self.drops["inner address"] += 1
        return False

    def _received(self, session: Session, epoch: Epoch, path: Path, now: float) -> None:
        """Something authentic came on a path, under the current keys."""
        path.heard = session.heard = self._liveness.heard = now
        if session.used is None:
            session.used = now
        if path is self._paths.active:  # what comes another way says nothing of this one
            self._liveness.unanswered = None
        epoch.proven = True

    def _take(self, octets: int, now: float) -> None:
        """Inner packets came: they are use, and owe an answer."""
        liveness = self._liveness
        liveness.used = now
        if liveness.owed is None:
            liveness.owed = now
            self._association.arm(now + constants.PASSIVE_KEEPALIVE)
        self.octets += octets

    def _newest(self, path: Path, now: float) -> None:
        """The newest datagram, and no probe, came on this path (R21)."""
        if path is not self._paths.active or path.state is not PathState.VALID:
            self._association.nominated(path, now)
            self._association.settle(now)

    # -- single datagrams

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """Any datagram of this tunnel. Never raises: drops are counted."""
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
        if len(datagram) < SEALED or flags & _RESERVED:
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
        self._received(session, epoch, path, now)
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
            self._outbound.flush(now)
            return
        if flags & _HALF:
            first = bool(flags & _FIRST)
            joined = self._joining.add(epoch, counter, plaintext, first=first)
            if joined is not None:
                self._deliver(joined, flags, now)
        else:
            self._deliver(plaintext, flags, now)
        if newest:
            self._newest(path, now)

    def _deliver(self, packet: bytes, flags: int, now: float) -> None:
        """An inner packet is for the application if its addresses are the certified ones (R22)."""
        if self._genuine(memoryview(packet)):
            self._take(len(packet), now)
            self._association.effects.append(Deliver(packet, bool(flags & _PARTIAL)))

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
        if self._outbound.flush(now):
            self._association.confirm(now, used=True)
