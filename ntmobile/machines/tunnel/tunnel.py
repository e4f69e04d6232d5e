"""The tunnel of one pair of devices: a session over a set of paths (R15 to R26; design, section 5).

Sans I/O: events go in with ``now`` (monotonic seconds), effects are drained, timers are asked for.
Here are its interface and its data plane; the rest is in :mod:`.association`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel import constants
from ntmobile.machines.tunnel.association import Association
from ntmobile.machines.tunnel.candidates import directed, reachable_relay
from ntmobile.machines.tunnel.control import Control
from ntmobile.machines.tunnel.events import Effect
from ntmobile.machines.tunnel.identity import LocalIdentity as LocalIdentity
from ntmobile.machines.tunnel.inbound import Inbound
from ntmobile.machines.tunnel.outbound import Outbound
from ntmobile.machines.tunnel.paths import Path
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.realtime import RouteDirection
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

_DATA: Final = int(Kind.TUNNEL_DATA)


class Tunnel:
    """One tunnel; the caller has verified and pinned whom it is with.

    :param local: this side. :param peer: FQDN of the correspondent.
    :param addresses: own local addresses; empty where they are not known (all families are tried).
    :param refused: hosts that are never probed, whoever names them: own gateways (R17).
    :param idle: seconds without inner packets that end it. :param keepalive: seconds, 15 to 25.
    :param mtu: bytes of the largest inner packet that applications send.
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
        mtu: int = constants.INNER_MTU,
    ) -> None:
        self._association = Association(local, peer, addresses, random, idle, keepalive, now)
        self._association.refused = frozenset(refused)
        self._association.mtu = mtu
        self._control = Control(self._association)
        self._outbound = Outbound(self._association)
        self._inbound = Inbound(self._association, self._control, self._outbound)
        self._paths = self._association.paths
        self._sessions = self._association.sessions

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
    def received_bytes(self) -> int:
        """Of inner packets."""
        return self._inbound.octets

    @property
    def sent_bytes(self) -> int:
        """Of inner packets."""
        return self._outbound.octets

    @property
    def last_used(self) -> float:
        """When an inner packet last went either way (R17: repaired in this order)."""
        return self._association.liveness.used

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
        self._inbound.certify(certificate)
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

    def too_big(self, remote: Address, size: int, now: float) -> None:
        """The system refused a datagram of ``size`` bytes to this address: see what fits (R23)."""
        for path in self._paths:
            if path.remote == remote:
                path.pmtu.refused(size - constants.SEALED, 0, now)
        self._association.settle(now)

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
            self._outbound.flush(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` is to be called; cheap, ask after every event."""
        timer = self._association.timer
        return None if timer == constants.NEVER else timer

    def effects(self) -> list[Effect]:
        """Drain what is to be done, in order."""
        drained, self._association.effects = self._association.effects, []
        return drained

    # -- the data plane

    def send(self, packet: Buffer, now: float, offload: Offload | None = None) -> None:
        """An inner packet for the correspondent; queued until there is a session and a path.

        Where there is not even a direction, one is wanted.

        :param offload: what is still to be done with it: cut it, complete its checksum.
        """
        self._outbound.send(packet, offload, now)

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """Any datagram whose index is one of :attr:`identifiers`. Never raises: drops are counted.

        Kinds TUNNEL_* and RELAY_RESPONSE, RELAY_TOO_BIG, RELAY_UNKNOWN.
        """
        self._inbound.datagram_received(datagram, remote, now)

    def run_received(self, data: memoryview, segment: int, remote: Address, now: float) -> int:
        """Datagrams of ``segment`` bytes one after another, the last perhaps shorter.

        :return: where those of the first one's index end; at least the first is taken.
        """
        return self._inbound.run_received(data, segment, remote, now)


def unknown_hint(datagram: bytes) -> bytes | None:
    """The hint for a tunnel datagram of an index that no tunnel here has (R15).

    Only TUNNEL_DATA gets one, never larger than itself; how often, the caller limits.
    """
    if len(datagram) < constants.SEALED or datagram[0] != _DATA:
        return None
    counter = int.from_bytes(datagram[12:20], "big")
    return Header(Kind.TUNNEL_UNKNOWN, 0, datagram[4:12], counter).pack()
