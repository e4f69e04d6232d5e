"""Cables, switches and routers: segments, the attachments of nodes to them, and moves.

A :class:`Segment` is a switch with a router on it (a bridge in the router's namespace). A node is
*plugged* into a segment and gets an address and a default route as if by DHCP; routers are nodes
and are plugged into other segments in the same way. An :class:`Attachment` is one such cable: it
can be moved to another segment, pulled, filtered, narrowed and impaired under running programs.
"""

from __future__ import annotations

import ipaddress
import sys

from attrs import define, field

from ntmobile.lab.forwarder import Impairment, Link
from ntmobile.lab.nat import blocking
from ntmobile.lab.node import Node, Step, ip_step
from ntmobile.lab.supervision import TOOLS, LabError

#: nft matches for :meth:`Attachment.block`.
EVERYTHING = "meta protocol { ip, ip6 }"
UDP = "meta l4proto udp"
TCP = "meta l4proto tcp"
#: Every ICMP but the neighbour discovery of IPv6, without which nothing goes.
ICMP4 = "meta l4proto icmp"
ICMP6 = (
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem,"
    " echo-request, echo-reply }"
)

#: Host numbers that segments give out start here, below are routers.
FIRST_NUMBER = 10

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _asking_again(interface: str) -> list[str]:
    """Give the ``ip`` lines that have neighbours asked for again after 100 ms, not 1 s.

    A switch may lose the first question behind a cable that was just plugged in.
    """
    tables = ("arp_cache", "ndisc_cache")
    return [f"ntable change name {table} dev {interface} retrans 100" for table in tables]


@define(eq=False)
class Segment:
    """A switched network behind a router, with at most one prefix a family."""

    router: Router = field(repr=False)
    bridge: str
    ipv4: ipaddress.IPv4Network | None
    ipv6: ipaddress.IPv6Network | None
    #: Hosts here cannot talk to each other, only to the router ("client isolation").
    isolated: bool
    resolvers: list[str] = field(factory=list)
    _next: int = FIRST_NUMBER
    _released: list[int] = field(factory=list)

    @property
    def networks(self) -> list[Network]:
        """The prefixes in use."""
        return [network for network in (self.ipv4, self.ipv6) if network is not None]

    def allocate(self) -> int:
        """Take a host number: one never used before, else the one longest free."""
        last = min(network.num_addresses for network in self.networks) - 2
        if self._next <= last:
            self._next += 1
            return self._next - 1
        if not self._released:
            raise LabError(f"no address is left in {self.bridge}")
        return self._released.pop(0)

    def release(self, number: int) -> None:
        """Give a host number back."""
        if number not in self._released:
            self._released.append(number)

    def claim(self, number: int | None) -> int:
        """Take a certain number, or any."""
        if number is None:
            return self.allocate()
        if number in self._released:
            self._released.remove(number)
        return number

    def addresses(self, number: int) -> list[Address]:
        """Give the addresses of the host of that number."""
        return [
            ipaddress.ip_interface(f"{network.network_address + number}/{network.prefixlen}")
            for network in self.networks
        ]

    def routes(self, interface: str, metric: int) -> list[str]:
        """Give the ``ip`` lines of the default routes of a host here."""
        return [
            f"route replace default via {network.network_address + 1} dev {interface}"
            f" metric {metric}"
            for network in self.networks
        ]


@define(eq=False)
class Attachment:
    """A cable from an interface of a node to a port of a segment."""

    node: Host = field(repr=False)
    interface: str
    segment: Segment
    port: str
    number: int
    metric: int
    mtu: int = 1500
    #: Prefixes that the segment's router reaches through this node.
    delegated: list[Network] = field(factory=list)
    link: Link | None = None
    #: Not as it was plugged: narrowed, impaired, or down for a while.
    altered: bool = False
    _blocked: bool = False

    @property
    def addresses(self) -> list[Address]:
        """The addresses of this interface, IPv4 first."""
        return self.segment.addresses(self.number)

    @property
    def ipv4(self) -> str:
        """The IPv4 address, as text."""
        return self._address(4)

    @property
    def ipv6(self) -> str:
        """The (global) IPv6 address, as text."""
        return self._address(6)

    def _address(self, version: int) -> str:
        for address in self.addresses:
            if address.version == version:
                return str(address.ip)
        raise LabError(f"{self.node.name} has no IPv{version} in {self.segment.bridge}")

    def _connect(self) -> Step:
        """Connect the far end to the segment."""
        lines = [f"link set {self.port} master {self.segment.bridge} mtu {self.mtu} up"]
        if self.segment.isolated:
            lines.append(f"link set {self.port} type bridge_slave isolated on")
        return ip_step(self.segment.router, *lines)

    def _address_lines(self) -> list[str]:
        dev = self.interface
        lines = [f"addr replace {address} dev {dev}" for address in self.addresses]
        return [*_asking_again(dev), *lines, *self.segment.routes(dev, self.metric)]

    def _narrow_lines(self) -> list[str]:
        """Tell the segment's router of a smaller MTU to this node, so that it says "too big"."""
        dev = self.segment.bridge
        lines = [
            f"route replace {address.ip} dev {dev} mtu {self.mtu}" for address in self.addresses
        ]
        return lines + [line for prefix in self.delegated for line in self._delegate_lines(prefix)]

    def _delegate_lines(self, prefix: Network) -> list[str]:
        via = self._address(prefix.version)
        return [f"route replace {prefix} via {via} dev {self.segment.bridge} mtu {self.mtu}"]

    def _leave(self) -> list[Step]:
        """Take back what the segment's router was told of this node."""
        if self.mtu == 1500:
            return []
        lines = [f"route del {a.ip} dev {self.segment.bridge}" for a in self.addresses]
        return [ip_step(self.segment.router, *lines)]

    async def delegate(self, prefix: Network) -> None:
        """Have the segment's router send a prefix to this node (prefix delegation)."""
        self.delegated.append(prefix)
        await self.segment.router.ip(*self._delegate_lines(prefix))

    async def move(self, segment: Segment, number: int | None = None) -> None:
        """Move to another segment, keeping the interface: as a Wi-Fi device that roams.

        The interface loses its carrier and its addresses and gets new ones, in some milliseconds.
        Blocks are lifted; impairments stay with the cable.
        """
        await self.unblock()
        old, self.delegated = self.segment.router, []
        leave = self._leave()
        self.segment.release(self.number)
        self.segment = segment
        self.number = segment.claim(number)
        pull = [f"link set {self.port} down nomaster"]
        if segment.router is not old:
            pull.append(f"link set {self.port} netns {{netns:{segment.router.name}}}")
        await self.node.lab.configure(
            *leave,
            ip_step(old, *pull),
            ip_step(self.node, f"addr flush dev {self.interface} scope global"),
            self._connect(),
            ip_step(self.node, *self._address_lines()),
        )
        self._tell_resolvers()
        if self.mtu != 1500:
            await self.set_mtu(self.mtu)

    async def readdress(self, number: int | None = None) -> None:
        """Get another address in the same segment, on the same interface."""
        old = self.addresses
        leave = self._leave()
        freed, self.number = self.number, self.segment.claim(number)
        self.segment.release(freed)
        removals = [f"addr del {address} dev {self.interface}" for address in old]
        await self.node.lab.configure(*leave, ip_step(self.node, *removals, *self._address_lines()))

    async def unplug(self) -> None:
        """Remove the interface, as a pulled USB modem."""
        await self.node.lab.configure(*self._leave())
        del self.node.attachments[self.interface]
        self.segment.release(self.number)
        await self.node.ip(f"link del {self.interface}")
        if self.link is not None:
            await self.segment.router.ip(f"link del {self.port}")
            await self.link.remove()

    async def carrier(self, present: bool) -> None:
        """Pull the cable at the far end, or put it back: addresses stay, the carrier goes."""
        self.altered = True
        await self.segment.router.ip(f"link set {self.port} {'up' if present else 'down'}")

    async def down(self) -> None:
        """Set the interface down: routes (and IPv6 addresses) go."""
        self.altered = True
        await self.node.ip(f"link set {self.interface} down")

    async def up(self) -> None:
        """Set the interface up again, with the addresses and routes it had."""
        await self.node.ip(f"link set {self.interface} up", *self._address_lines())

    async def block(self, match: str = EVERYTHING) -> None:
        """Lose silently, both ways, what an nft match says (``UDP``, ``"udp dport 4330"``)."""
        await self.unblock()
        await self.segment.router.nft(blocking(self.port, match))
        self._blocked = True

    async def unblock(self) -> None:
        """Lift the block."""
        if self._blocked:
            self._blocked = False
            await self.segment.router.nft(f"delete table netdev block_{self.port}\n")

    async def set_mtu(self, mtu: int) -> None:
        """Set the MTU of the cable; the router behind it says "too big" by ICMP, as it should.

        (Block :data:`ICMP4` or :data:`ICMP6` on the other side for a black hole.)
        """
        self.mtu, self.altered = mtu, True
        router = self.segment.router
        await self.node.lab.configure(
            ip_step(self.node, f"link set {self.interface} mtu {mtu}"),
            ip_step(router, f"link set {self.port} mtu {mtu}", *self._narrow_lines()),
        )

    async def impair(self, impairment: Impairment) -> None:
        """Change the delay and loss of this cable; it must have been plugged with some."""
        if self.link is None:
            raise LabError(f"{self.node.name} was plugged without an impairment")
        await self.link.set(impairment)

    def _tell_resolvers(self) -> None:
        if self.segment.resolvers:
            self.node.set_resolvers(self.segment.resolvers)


@define(eq=False)
class Host(Node):
    """A node that can be plugged into segments."""

    attachments: dict[str, Attachment] = field(factory=dict, repr=False)

    @property
    def attachment(self) -> Attachment:
        """The first cable."""
        return next(iter(self.attachments.values()))

    @property
    def ipv4(self) -> str:
        """The IPv4 address of the first cable, as text."""
        return self.attachment.ipv4

    @property
    def ipv6(self) -> str:
        """The IPv6 address of the first cable, as text."""
        return self.attachment.ipv6

    async def plug(
        self,
        segment: Segment,
        *,
        interface: str = "eth0",
        number: int | None = None,
        metric: int | None = None,
        impairment: Impairment | None = None,
    ) -> Attachment:
        """Add an interface in a segment; the default route of the lowest ``metric`` is used.

        By default that is the first interface: two routes of one metric would replace each other.
        """
        if metric is None:
            metric = 100 + max([a.metric for a in self.attachments.values()], default=0)
        port = f"p{self.lab.number()}"
        attachment = Attachment(self, interface, segment, port, segment.claim(number), metric)
        far = segment.router
        steps: list[Step]
        if impairment is None:
            veth = f"link add {interface} type veth peer name {port} netns {{netns:{far.name}}}"
            steps = [ip_step(self, veth)]
        else:
            attachment.altered = True
            attachment.link = await Link.join(self, interface, far, port, impairment)
            steps = []
        await self.lab.configure(
            *steps,
            attachment._connect(),
            ip_step(self, f"link set {interface} up", *attachment._address_lines()),
        )
        self.attachments[interface] = attachment
        attachment._tell_resolvers()
        return attachment


@define(eq=False)
class Server(Host):
    """A host whose programs may serve ports below 1024 (53, 443)."""

    def settings(self) -> list[tuple[str, str]]:
        """Give the kernel settings: low ports are free."""
        return [*super().settings(), ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")]


@define(eq=False)
class Router(Host):
    """A host that forwards, with segments behind it."""

    segments: dict[str, Segment] = field(factory=dict, repr=False)

    def settings(self) -> list[tuple[str, str]]:
        """Give the kernel settings: packets are forwarded."""
        return [
            *super().settings(),
            ("/proc/sys/net/ipv4/ip_forward", "1"),
            ("/proc/sys/net/ipv6/conf/all/forwarding", "1"),
        ]

    async def segment(
        self,
        bridge: str,
        *,
        ipv4: ipaddress.IPv4Network | None = None,
        ipv6: ipaddress.IPv6Network | None = None,
        isolated: bool = False,
        resolvers: list[str] | None = None,
    ) -> Segment:
        """Make a switched network here; this router has the number 1 in it."""
        segment = Segment(self, bridge, ipv4, ipv6, isolated, resolvers or [])
        await self.ip(
            # An MTU set by hand stays when that of a port changes; the switch has no delays.
            f"link add {bridge} mtu 1500 type bridge forward_delay 0 mcast_snooping 0",
            f"link set {bridge} up",
            *_asking_again(bridge),
            *(f"addr add {address} dev {bridge} nodad" for address in segment.addresses(1)),
        )
        self.segments[bridge] = segment
        return segment

    async def forget_connections(self) -> None:
        """Lose the state of translation and firewall, as a router that was restarted.

        The next datagram from inside gets another outside port ("NAT rebinding").
        """
        tool = str(TOOLS / "flush_conntrack.py")
        await self.lab.configure((self.name, [sys.executable, tool], ""))

    async def set_udp_timeout(self, seconds: int) -> None:
        """Set how long an unused UDP mapping is kept (Linux: 30 s, 120 s once answered)."""
        base = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"
        settings = [(base, str(seconds)), (f"{base}_stream", str(seconds))]
        await self.lab.supervision.call("write", host=self.name, settings=settings)
