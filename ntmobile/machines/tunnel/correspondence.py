"""All tunnels of a client: who is asked for, whose a datagram is, whom to repair first (R17)."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.machines.effects import Address, Transmit, TransmitRun
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.tunnel.constants import INNER_MTU
from ntmobile.machines.tunnel.early import EarlyRequests
from ntmobile.machines.tunnel.events import (
    Deliver,
    DeliverRun,
    DirectionWanted,
    Doubted,
    Ended,
    Established,
    PathChanged,
    RoundTrip,
)
from ntmobile.machines.tunnel.tunnel import LocalIdentity, Tunnel, unknown_hint
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.realtime import Purpose, RouteDirection
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

#: Tunnels at once; the one used least recently ends for a new one.
CAPACITY: Final = 4096
#: Bytes of a header that name a tunnel.
_INDEX: Final = slice(4, 12)


@frozen(slots=True)
class AskDirection:
    """A direction towards a peer is wanted of our DC."""

    peer: str
    purpose: Purpose
    avoid: tuple[str, ...]


@frozen(slots=True)
class Of:
    """An effect of the tunnel with a peer."""

    peer: str
    effect: Deliver | DeliverRun | Established | PathChanged | Doubted | Ended | RoundTrip


Effect: TypeAlias = Transmit | TransmitRun | AskDirection | Of


@define
class Correspondence:
    """The tunnels of a client, by correspondent and by index.

    :ivar local: who we are. :ivar addresses: own addresses, given to each tunnel.
    :ivar gateways: hosts that are never probed (R17).
    :ivar mtu: bytes of the largest inner packet that applications send.
    :ivar strays: datagrams of no tunnel.
    """

    local: LocalIdentity
    _random: Callable[[int], bytes]
    idle: float = 300.0
    keepalive: float = 20.0
    addresses: tuple[Address, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu: int = INNER_MTU
    hints: RateLimiter = field(factory=lambda: RateLimiter(rate=1, burst=2, capacity=1000))
    strays: int = field(default=0, init=False)
    _early: EarlyRequests = field(factory=EarlyRequests, init=False)
    _tunnels: OrderedDict[str, Tunnel] = field(factory=OrderedDict, init=False)
    _indices: dict[bytes, Tunnel] = field(factory=dict, init=False)
    _known: dict[str, frozenset[bytes]] = field(factory=dict, init=False)
    _timers: list[tuple[float, str]] = field(factory=list, init=False)
    _due: dict[str, float] = field(factory=dict, init=False)
    _effects: list[Effect] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._tunnels)

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """All tunnels, last used first."""
        return tuple(sorted(self._tunnels.values(), key=lambda one: -one.last_used))

    def find(self, peer: str) -> Tunnel | None:
        """The tunnel with a device."""
        return self._tunnels.get(peer)

    def directed(
        self,
        direction: RouteDirection,
        certificate: DeviceCertificate,
        now: float,
        unix_time: float,
    ) -> None:
        """A Route Direction whose certificate was verified and pinned.

        An identifier that another correspondent's tunnel has is not taken from it: some other DC
        than its own may have made this direction.
        """
        holder = self._indices.get(direction.direction)
        if holder is not None and holder.peer != direction.peer:
            return
        tunnel = self._tunnels.get(direction.peer)
        if tunnel is None:
            tunnel = self._new(direction.peer, now)
        tunnel.direct(direction, certificate, now, unix_time)
        early = self._early.take(direction.direction, now)
        if early is not None:
            tunnel.datagram_received(*early, now)
        self._settle(tunnel, now)

    def _new(self, peer: str, now: float) -> Tunnel:
        if len(self._tunnels) >= CAPACITY:
            self.end(self.tunnels[-1].peer, "too many tunnels", now)
        tunnel = Tunnel(
            local=self.local,
            peer=peer,
            now=now,
            addresses=self.addresses,
            refused=self.gateways,
            random=self._random,
            idle=self.idle,
            keepalive=self.keepalive,
            mtu=self.mtu,
        )
        self._tunnels[peer] = tunnel
        return tunnel

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """A datagram of a tunnel or of an RS; those of no tunnel are counted."""
        tunnel = self._indices.get(datagram[_INDEX])
        if tunnel is None:
            self._stray(datagram, remote, now)
            return
        tunnel.datagram_received(datagram, remote, now)
        self._settle(tunnel, now)

    def run_received(self, data: memoryview, segment: int, remote: Address, now: float) -> int:
        """Datagrams of one length after another, the last perhaps shorter; of any tunnels.

        :return: where those of the first one's tunnel end; at least the first is taken.
        """
        tunnel = self._indices.get(bytes(data[_INDEX]))
        if tunnel is not None:
            end = tunnel.run_received(data, segment, remote, now)
            self._settle(tunnel, now)
            return end
        end = min(segment, len(data))
        self.datagram_received(bytes(data[:end]), remote, now)
        return end

    def _stray(self, datagram: bytes, remote: Address, now: float) -> None:
        """A datagram of no tunnel here.

        On data a bare hint goes back, so that a handshake follows (R8, R15).
        """
        self.strays += 1
        self._early.hold(datagram, remote, now)
        hint = unknown_hint(datagram)
        if hint is not None and self.hints.allow(remote, now):
            self._effects.append(Transmit(hint, remote))

    def send(self, peer: str, packet: Buffer, now: float, offload: Offload | None = None) -> bool:
        """An inner packet for a device; ``False`` if there is no tunnel with it."""
        tunnel = self._tunnels.get(peer)
        if tunnel is None:
            return False
        tunnel.send(packet, now, offload)
        self._settle(tunnel, now)
        return True

    def open(self, peer: str, packet: Buffer, now: float, offload: Offload | None = None) -> None:
        """Begin a tunnel with a known device; the packet waits in it for the direction."""
        tunnel = self._new(peer, now)
        self._effects.append(AskDirection(peer, Purpose.NEW, ()))
        tunnel.send(packet, now, offload)
        self._settle(tunnel, now)

    def ping(self, peer: str, sequence: int, now: float) -> bool:
        """Ask the other agent for an answer; ``False`` if there is no tunnel with it."""
        tunnel = self._tunnels.get(peer)
        if tunnel is None:
            return False
        tunnel.ping(sequence, now)
        self._settle(tunnel, now)
        return True

    def network_changed(self, addresses: Sequence[Address], now: float) -> None:
        """Own addresses are these now: every tunnel is repaired, the last used one first (R17)."""
        self.addresses = tuple(addresses)
        for tunnel in self.tunnels:
            tunnel.network_changed(self.addresses, now, self.gateways)
            self._settle(tunnel, now)

    def coordinator_back(self, now: float) -> None:
        """The DC can be asked again, after it could not: tunnels need not wait for their retry."""
        for tunnel in self.tunnels:
            tunnel.coordinator_back(now)
            self._settle(tunnel, now)

    def renew(self, local: LocalIdentity) -> None:
        """A fresh certificate of our own."""
        self.local = local
        for tunnel in self._tunnels.values():
            tunnel.renew(local)

    def end(self, peer: str, reason: str, now: float) -> None:
        """End the tunnel with a device, if there is one."""
        tunnel = self._tunnels.get(peer)
        if tunnel is not None:
            tunnel.end(reason, now)
            self._settle(tunnel, now)

    def too_big(self, remote: Address, size: int, now: float) -> None:
        """The system refused a datagram of ``size`` bytes to this address (R23)."""
        for tunnel in tuple(self._tunnels.values()):
            if any(path.remote == remote for path in tunnel.paths):
                tunnel.too_big(remote, size, now)
                self._settle(tunnel, now)

    def handle_timer(self, now: float) -> None:
        """What is due in any tunnel."""
        while self._timers and self._timers[0][0] <= now:
            due, peer = heapq.heappop(self._timers)
            tunnel = self._tunnels.get(peer)
            if tunnel is None or self._due.get(peer) != due:
                continue
            del self._due[peer]
            tunnel.handle_timer(now)
            self._settle(tunnel, now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` may have something to do."""
        return self._timers[0][0] if self._timers else None

    def effects(self) -> list[Effect]:
        """Drain what is to be done, in order."""
        drained, self._effects = self._effects, []
        return drained

    def _settle(self, tunnel: Tunnel, now: float) -> None:
        """Collect a tunnel's effects; keep its indices and its timer."""
        peer = tunnel.peer
        ended = False
        for effect in tunnel.effects():
            if isinstance(effect, Transmit | TransmitRun):
                self._effects.append(effect)
            elif isinstance(effect, DirectionWanted):
                self._effects.append(AskDirection(peer, effect.purpose, effect.avoid))
            else:
                ended = ended or isinstance(effect, Ended)
                self._effects.append(Of(peer, effect))
        if ended:
            self._drop(tunnel)
            return
        if tunnel.identifiers is not self._known.get(peer):
            self._index(tunnel)
        due = tunnel.next_timer()
        if due is not None and due < self._due.get(peer, float("inf")):
            self._due[peer] = due
            heapq.heappush(self._timers, (due, peer))

    def _index(self, tunnel: Tunnel) -> None:
        former = self._known.get(tunnel.peer, frozenset())
        for index in former - tunnel.identifiers:
            if self._indices.get(index) is tunnel:
                del self._indices[index]
        for index in tunnel.identifiers - former:
            self._indices[index] = tunnel
        self._known[tunnel.peer] = tunnel.identifiers

    def _drop(self, tunnel: Tunnel) -> None:
        for index in self._known.pop(tunnel.peer, frozenset()):
            if self._indices.get(index) is tunnel:
                del self._indices[index]
        if self._tunnels.get(tunnel.peer) is tunnel:
            del self._tunnels[tunnel.peer]
        self._due.pop(tunnel.peer, None)
