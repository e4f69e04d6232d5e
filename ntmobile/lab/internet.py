"""The internet of a lab: a core router, servers, and every kind of access network.

=====================  ===============================================================
203.0.113.0/25         uplinks of home and firewall routers ("isp"), with
2001:db8:1::/64        their IPv6; each is delegated a /64 of 2001:db8:100::/40
203.0.113.128/25       uplinks of carrier translators
192.0.2.0/24           servers, with 2001:db8::/64
198.51.100.0/24        cut into /27 for global IPv4 and dual-stack access networks
2001:db8:200::/40      cut into /64 for global IPv6 and dual-stack access networks
100.64.0.0/10          behind each carrier translator (they do not know of each other)
192.168.1.0/24         every home, on purpose: private addresses repeat in real life
=====================  ===============================================================

The core has no default route and loses in silence what it does not know; it drops spoofed sources.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator

from attrs import Factory, define, field

from ntmobile.lab import nat
from ntmobile.lab.nat import Mapping
from ntmobile.lab.network import Host, Router, Segment, Server
from ntmobile.lab.node import Lab

#: Servers by name and host number in 192.0.2.0/24 and 2001:db8::/64.
SERVERS = {"as": 10, "dc1": 11, "dc2": 12, "rs1": 21, "rs2": 22, "cs1": 31, "dns": 53}

RESOLVER4, RESOLVER6 = "192.0.2.53", "2001:db8::35"  # 0x35 is 53

HOME4 = ipaddress.IPv4Network("192.168.1.0/24")
CARRIER4 = ipaddress.IPv4Network("100.64.0.0/10")


class Access(enum.Enum):
    """The kinds of access network; the values are their names in documents and reports."""

    GLOBAL4 = "global-v4"
    GLOBAL6 = "global-v6"
    DUAL = "dual-stack"
    HOME = "port-restricted-nat"
    SYMMETRIC = "symmetric-nat"
    CARRIER = "carrier-nat"
    #: IPv6 behind a stateful firewall, no IPv4.
    FIREWALL6 = "ipv6-firewall"
    #: The same with translated IPv4: the usual home of today.
    FIREWALL6_NAT4 = "ipv6-firewall-nat4"
    #: Isolated guests behind one translator.
    GUESTS = "isolated-guests"


def _pool4(prefix: str, length: int) -> Iterator[ipaddress.IPv4Network]:
    return ipaddress.IPv4Network(prefix).subnets(new_prefix=length)


def _pool6(prefix: str) -> Iterator[ipaddress.IPv6Network]:
    return ipaddress.IPv6Network(prefix).subnets(new_prefix=64)


@define(eq=False)
class Internet:
    """A core router with the segments that every lab has, and makers of access networks."""

    lab: Lab = field(repr=False)
    core: Router
    servers: Segment
    isp: Segment
    carriers: Segment
    _global4: Iterator[ipaddress.IPv4Network] = Factory(lambda: _pool4("198.51.100.0/24", 27))
    _global6: Iterator[ipaddress.IPv6Network] = Factory(lambda: _pool6("2001:db8:200::/40"))
    _delegated: Iterator[ipaddress.IPv6Network] = Factory(lambda: _pool6("2001:db8:100::/40"))

    @classmethod
    async def build(cls, lab: Lab) -> Internet:
        """Make the core and its segments."""
        core = await lab.add(Router, "core")
        await core.ip("route add blackhole 0.0.0.0/0", "route add blackhole ::/0")
        await core.nft(nat.core())
        servers = await core.segment(
            "servers",
            ipv4=ipaddress.IPv4Network("192.0.2.0/24"),
            ipv6=ipaddress.IPv6Network("2001:db8::/64"),
            resolvers=[RESOLVER4, RESOLVER6],
        )
        isp = await core.segment(
            "isp",
            ipv4=ipaddress.IPv4Network("203.0.113.0/25"),
            ipv6=ipaddress.IPv6Network("2001:db8:1::/64"),
        )
        carriers = await core.segment("carriers", ipv4=ipaddress.IPv4Network("203.0.113.128/25"))
        return cls(lab, core, servers, isp, carriers)

    async def server(self, name: str) -> Server:
        """Add one of :data:`SERVERS`, at its fixed addresses in both families."""
        server = await self.lab.add(Server, name)
        await server.plug(self.servers, number=SERVERS[name])
        return server

    async def client(self, name: str, segment: Segment) -> Host:
        """Add a host in an access network."""
        host = await self.lab.add(Host, name)
        await host.plug(segment)
        return host

    async def carrier(self, name: str, mapping: Mapping = Mapping.PORT_RESTRICTED) -> Segment:
        """Add a carrier's translator; gives its inside, for homes to be plugged into."""
        router = await self.lab.add(Router, name)
        await router.plug(self.carriers, interface="wan")
        inside = await router.segment("lan", ipv4=CARRIER4)
        await router.nft(nat.translation("wan", mapping, nat.CARRIER_PORTS))
        await router.nft(nat.filtering("wan", ipv6=False))
        return inside

    async def home(
        self,
        name: str,
        *,
        uplink: Segment | None = None,
        mapping: Mapping = Mapping.PORT_RESTRICTED,
        ipv4: ipaddress.IPv4Network | None = HOME4,
        ipv6: bool = False,
        isolated: bool = False,
    ) -> Segment:
        """Add a home router; gives its inside.

        IPv4 is translated, IPv6 gets a delegated prefix behind a stateful firewall.
        """
        router = await self.lab.add(Router, name)
        wan = await router.plug(uplink or self.isp, interface="wan")
        prefix = next(self._delegated) if ipv6 else None
        inside = await router.segment(
            "lan",
            ipv4=ipv4,
            ipv6=prefix,
            isolated=isolated,
            resolvers=[RESOLVER4] * bool(ipv4) + [RESOLVER6] * ipv6,
        )
        if prefix is not None:
            await wan.delegate(prefix)
        if ipv4 is not None:
            await router.nft(nat.translation("wan", mapping))
        await router.nft(nat.filtering("wan", ipv6=ipv6))
        return inside

    async def public(self, name: str, *, ipv4: bool, ipv6: bool) -> Segment:
        """Add an access network of global addresses."""
        return await self.core.segment(
            name,
            ipv4=next(self._global4) if ipv4 else None,
            ipv6=next(self._global6) if ipv6 else None,
            resolvers=[RESOLVER4] * ipv4 + [RESOLVER6] * ipv6,
        )

    async def access(self, kind: Access, name: str, carrier: Segment | None = None) -> Segment:
        """Add an access network of a kind; ``name`` names its router or switch (to 15 letters).

        A home behind a carrier's translator gets a carrier of its own unless one is given.
        """
        match kind:
            case Access.GLOBAL4:
                return await self.public(name, ipv4=True, ipv6=False)
            case Access.GLOBAL6:
                return await self.public(name, ipv4=False, ipv6=True)
            case Access.DUAL:
                return await self.public(name, ipv4=True, ipv6=True)
            case Access.HOME:
                return await self.home(name)
            case Access.SYMMETRIC:
                return await self.home(name, mapping=Mapping.SYMMETRIC)
            case Access.CARRIER:
                return await self.home(name, uplink=carrier or await self.carrier(f"{name}-cgn"))
            case Access.FIREWALL6:
                return await self.home(name, ipv4=None, ipv6=True)
            case Access.FIREWALL6_NAT4:
                return await self.home(name, ipv6=True)
            case Access.GUESTS:
                return await self.home(name, isolated=True)
