"""A small virtual internet for tunnel machines: hosts, NATs, an RS, a DC; lossy where asked for.

Everything runs on one virtual clock. The relay server is the real machine; the DC is a stub that
makes directions of where the hosts are, after a delay, as design section 5 says.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from random import Random

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ntmobile.machines.effects import Address, Transmit, TransmitRun
from ntmobile.machines.relay.server import RelayServer
from ntmobile.machines.tunnel.events import (
    Deliver,
    DeliverRun,
    DirectionWanted,
    Effect,
    Ended,
)
from ntmobile.machines.tunnel.tunnel import LocalIdentity, Tunnel, unknown_hint
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.coordination import RelayDirection
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Purpose, Relay, RouteDirection

LOW, HIGH = "a.alice.dc1.ntm.example", "b.bob.dc2.ntm.example"
RS: Address = ("203.0.113.1", 4331)
RS6: Address = ("2001:db8:ffff::1", 4331)


def certified(fqdn: str, number: int) -> tuple[DeviceCertificate, bytes]:
    """A device certificate as tunnels see it, and its X25519 key."""
    private = sha256(fqdn.encode()).digest()
    certificate = DeviceCertificate(
        der=b"certificate of " + fqdn.encode() + bytes(100),
        fqdn=fqdn,
        serial=number,
        identity=bytes(32),
        x25519=X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw(),
        xwing_hash=bytes(32),
        ipv6=IPv6Address(f"fd00::{number}"),
        ipv4=IPv4Address(f"198.18.0.{number}"),
        not_before=0.0,
        not_after=86400.0,
        issuer="test",
    )
    return certificate, private


def packet(source: DeviceCertificate, destination: DeviceCertificate, payload: bytes) -> bytes:
    """An inner IPv6 packet; only the addresses are looked at."""
    head = b"\x60" + bytes(3) + len(payload).to_bytes(2, "big") + b"\xfd\x40"
    return head + source.ipv6.packed + destination.ipv6.packed + payload


@define(eq=False)
class Nat:
    """A NAT with one public address: endpoint-dependent filtering, mapping as asked for."""

    host: str
    symmetric: bool = False
    _ports: dict[tuple[Address, Address | None], int] = field(factory=dict)
    _inner: dict[int, Address] = field(factory=dict)
    _allowed: set[tuple[int, Address]] = field(factory=set)

    def outward(self, source: Address, destination: Address) -> Address:
        key = (source, destination if self.symmetric else None)
        port = self._ports.setdefault(key, 40000 + len(self._ports))
        self._inner[port] = source
        self._allowed.add((port, destination))
        return self.host, port

    def inward(self, source: Address, port: int) -> Address | None:
        return self._inner.get(port) if (port, source) in self._allowed else None

    def rebind(self) -> None:
        """Forget all bindings; new ones get other ports."""
        self._inner.clear()
        self._allowed.clear()
        self._ports = {(("0.0.0.0", n), None): n for n in range(len(self._ports) + 1)}


@define(eq=False)
class Node:
    """A device with a tunnel to one other."""

    internet: Internet
    certificate: DeviceCertificate
    key: bytes = field(repr=False)
    address: Address
    nat: Nat | None = None
    peer: Node | None = None
    tunnel: Tunnel | None = None
    received: list[tuple[float, bytes]] = field(factory=list)
    events: list[tuple[float, Effect]] = field(factory=list)
    wanted: list[tuple[float, DirectionWanted]] = field(factory=list)
    asks: bool = True
    up: bool = True
    mtu: int = 1500

    @property
    def name(self) -> str:
        return self.certificate.fqdn

    @property
    def other(self) -> Node:
        assert self.peer is not None
        return self.peer

    @property
    def open(self) -> Tunnel:
        """The tunnel, which must be there."""
        assert self.tunnel is not None
        return self.tunnel

    def begin(self) -> Tunnel:
        if self.tunnel is None or self.tunnel.ended:
            self.tunnel = Tunnel(
                local=LocalIdentity.of(self.certificate, self.key),
                peer=self.other.name,
                now=self.internet.now,
                addresses=[self.address],
                random=self.internet.random.randbytes,
            )
        return self.tunnel

    def ask(self, purpose: Purpose = Purpose.NEW) -> None:
        """Ask the DC for a direction."""
        self.internet.direct(self, self.other)

    def send(self, payload: bytes) -> None:
        """An application's packet."""
        self.begin().send(packet(self.certificate, self.other.certificate, payload), self.now)
        self.run()

    @property
    def now(self) -> float:
        return self.internet.now

    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.received]

    def move(self, address: Address, nat: Nat | None = None, *, tell: bool = True) -> None:
        """Another network: the old address is gone at once."""
        self.internet.place(self, address, nat)
        if tell and self.tunnel is not None:
            self.tunnel.network_changed([address], self.now)
            self.run()

    def restart(self) -> None:
        """Lose everything, but the certificate."""
        self.tunnel = None

    def receive(self, datagram: bytes, remote: Address) -> None:
        if not self.up:
            return
        tunnel = self.tunnel
        if tunnel is not None and datagram[4:12] in tunnel.identifiers:
            tunnel.datagram_received(datagram, remote, self.now)
            self.run()
        elif (hint := unknown_hint(datagram)) is not None:
            self.internet.transmit(self, hint, remote)

    def run(self) -> None:
        """Carry out effects, and see to the timer."""
        if self.tunnel is None:
            return
        for effect in self.tunnel.effects():
            if isinstance(effect, Transmit):
                self.internet.transmit(self, effect.datagram, effect.remote)
            elif isinstance(effect, TransmitRun):
                for at in range(0, len(effect.data), effect.segment):
                    datagram = bytes(effect.data[at : at + effect.segment])
                    self.internet.transmit(self, datagram, effect.remote)
            elif isinstance(effect, Deliver):
                self.received.append((self.now, effect.packet[40:]))
            elif isinstance(effect, DeliverRun):
                self.received += [(self.now, bytes(each[40:])) for each in effect.packets]
            else:
                self.events.append((self.now, effect))
                if isinstance(effect, DirectionWanted):
                    self.wanted.append((self.now, effect))
                    if self.asks:
                        self.ask(effect.purpose)
        due = self.tunnel.next_timer()
        if due is not None:
            tunnel = self.tunnel
            self.internet.at(max(due, self.now), lambda: self._timer(tunnel))

    def _timer(self, tunnel: Tunnel) -> None:
        due = tunnel.next_timer()
        if tunnel is self.tunnel and self.up and due is not None and due <= self.now:
            tunnel.handle_timer(self.now)
            self.run()

    def ended(self) -> list[str]:
        return [effect.reason for _, effect in self.events if isinstance(effect, Ended)]


@define(eq=False)
class Internet:
    """The clock, the wires between hosts, the RS and the DC."""

    random: Random = field(factory=lambda: Random(1))
    now: float = 100.0
    latency: float = 0.010
    dc_latency: float = 0.010
    loss: float = 0.0
    duplication: float = 0.0
    jitter: float = 0.0
    nodes: list[Node] = field(factory=list)
    sent: list[tuple[float, str, bytes, Address]] = field(factory=list)
    tap: Callable[[Node | None, bytes, Address, Address], bool] | None = None
    relay: RelayServer = field(init=False)
    relay_up: bool = True
    relayed: bool = True
    directions: list[tuple[Node, RouteDirection]] = field(factory=list)
    blocked: set[tuple[str, str]] = field(factory=set)
    partitioned: bool = False
    unix_time: float = 1000.0
    late: dict[str, float] = field(factory=dict)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self.relay = RelayServer(b"boot0000", random=self.random.randbytes)

    # -- time

    def at(self, time: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        steps = 0
        while self._queue and self._queue[0][0] <= end:
            time, _, call = heapq.heappop(self._queue)
            self.now = max(self.now, time)
            call()
            steps += 1
            if steps > 200_000:
                raise AssertionError("the simulation runs in circles")
        self.now = end

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> float:
        """Let time pass until something holds; how long that took."""
        start = self.now
        while not condition():
            if not self._queue or self.now - start > seconds:
                raise AssertionError(f"not within {seconds} s")
            time, _, call = heapq.heappop(self._queue)
            self.now = max(self.now, time)
            call()
        return self.now - start

    # -- hosts

    def pair(
        self,
        first: tuple[str, Nat | None] = ("192.0.2.1", None),
        second: tuple[str, Nat | None] = ("198.51.100.2", None),
    ) -> tuple[Node, Node]:
        """Two devices that know of each other; the first has the lower FQDN."""
        nodes = []
        for name, number, (host, nat) in ((LOW, 1, first), (HIGH, 2, second)):
            certificate, key = certified(name, number)
            nodes.append(Node(self, certificate, key, (host, 5000), nat))
        nodes[0].peer, nodes[1].peer = nodes[1], nodes[0]
        self.nodes += nodes
        return nodes[0], nodes[1]

    def place(self, node: Node, address: Address, nat: Nat | None) -> None:
        node.address, node.nat = address, nat

    # -- datagrams

    def transmit(self, node: Node, datagram: bytes, remote: Address) -> None:
        """A host sends."""
        if not node.up or self.partitioned or (":" in remote[0]) != (":" in node.address[0]):
            return
        self.sent.append((self.now, node.name, datagram, remote))
        source = node.address
        if node.nat is not None and not self._beside(node, remote):
            source = node.nat.outward(node.address, remote)
        self.carry(node, datagram, source, remote)

    def _beside(self, node: Node, remote: Address) -> bool:
        return any(each.address == remote and each.nat is node.nat for each in self.nodes)

    def carry(self, node: Node | None, datagram: bytes, source: Address, remote: Address) -> None:
        """The wire: loses, duplicates, delays, reorders."""
        if self.tap is not None and not self.tap(node, datagram, source, remote):
            return
        if (source[0], remote[0]) in self.blocked:
            return
        if node is not None and len(datagram) + 28 > node.mtu:
            return
        for _ in range(2 if self.random.random() < self.duplication else 1):
            if self.random.random() < self.loss:
                continue
            delay = self.latency + self.random.random() * self.jitter
            self.at(self.now + delay, lambda: self.arrive(datagram, source, remote))

    def arrive(self, datagram: bytes, source: Address, remote: Address) -> None:
        """A datagram reaches an address."""
        if remote in (RS, RS6):
            if self.relay_up:
                for effect in self.relay.datagram_received(datagram, source, self.now):
                    own = RS6 if ":" in effect.remote[0] else RS
                    self.carry(None, effect.datagram, own, effect.remote)
            return
        for node in self.nodes:
            if node.nat is not None and node.nat.host == remote[0]:
                inner = node.nat.inward(source, remote[1])
                if inner == node.address and len(datagram) + 28 <= node.mtu:
                    node.receive(datagram, source)
            elif (
                node.address == remote
                and len(datagram) + 28 <= node.mtu
                and (node.nat is None or self._inside(node, source))
            ):
                node.receive(datagram, source)

    def _inside(self, node: Node, source: Address) -> bool:
        return any(each.address == source and each.nat is node.nat for each in self.nodes)

    def restart_relay(self) -> None:
        """The RS forgets everything; its DC directs it again (R26)."""
        orders = [
            RelayDirection(direction.direction, self._keys(direction.direction), 60)
            for direction in {d.direction: d for _, d in self.directions}.values()
        ]
        self.relay = RelayServer(self.random.randbytes(8), random=self.random.randbytes)
        for order in orders:
            self.relay.direct(order, self.now)

    def _keys(self, direction: bytes) -> tuple[bytes, bytes]:
        return sha256(b"0" + direction).digest(), sha256(b"1" + direction).digest()

    # -- the DC

    def direct(self, mn: Node, cn: Node) -> None:
        """MN asks for a direction to CN; both get one, after a while."""
        self.at(self.now + self.dc_latency, lambda: self._decide(mn, cn))

    def _decide(self, mn: Node, cn: Node) -> None:
        if self.partitioned:
            return
        identifier = self.random.randbytes(8)
        key = self.random.randbytes(32)
        same = mn.nat is cn.nat and mn.nat is not None
        apart = mn.nat is not None and cn.nat is not None and not same
        initiator = cn if mn.nat is None and cn.nat is not None else mn
        keys = self._keys(identifier)
        if self.relayed:
            self.relay.direct(RelayDirection(identifier, keys, 60), self.now)
        for side, (node, other) in enumerate(((mn, cn), (cn, mn))):
            nameable = not apart and (other.nat is None or same)
            direction = RouteDirection(
                direction=identifier,
                generation=1,
                peer=other.name,
                certificate=other.certificate.der,
                requester=mn.name,
                initiator=node is initiator,
                candidates=(Endpoint.of(other.address),) if nameable else (),
                temporal_key=key,
                lifetime=60,
                relay=self._relay(keys[side], side) if self.relayed else None,
                relay_first=apart,
            )
            self.directions.append((node, direction))
            delay = self.dc_latency + self.late.get(node.name, 0.0)
            self.at(self.now + delay, self._delivery(node, direction))

    def _relay(self, key: bytes, side: int) -> Relay:
        return Relay("rs.dc1.ntm.example", (Endpoint.of(RS), Endpoint.of(RS6)), key, side)

    def _delivery(self, node: Node, direction: RouteDirection) -> Callable[[], None]:
        def deliver() -> None:
            if node.up and not self.partitioned:
                unix_time = self.unix_time + self.now
                node.begin().direct(direction, node.other.certificate, self.now, unix_time)
                node.run()

        return deliver

    # -- what went over the wires

    def count(self, kind: Kind, node: Node | None = None, remote: Address | None = None) -> int:
        """How many datagrams of a kind a node sent, to an address."""
        return sum(
            1
            for _, name, datagram, to in self.sent
            if datagram[0] == kind
            and (node is None or name == node.name)
            and (remote is None or to == remote)
        )
