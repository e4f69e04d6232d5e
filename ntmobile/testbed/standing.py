"""A lab with every server, and a client in every kind of network."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from ntmobile.lab.internet import SERVERS, Access, Internet
from ntmobile.lab.network import Host, Router, Segment, Server
from ntmobile.lab.node import Lab

#: Client → the kind of its network. Each has a network of its own, named "net-CLIENT".
CLIENTS = {
    "global4": Access.GLOBAL4,
    "global6": Access.GLOBAL6,
    "dual": Access.DUAL,
    "home": Access.HOME,
    "symmetric": Access.SYMMETRIC,
    "carrier": Access.CARRIER,
    "firewall6": Access.FIREWALL6,
    "guest": Access.GUESTS,
}

#: The special pairs: "two hosts behind one NAT", "two homes behind one carrier NAT", "isolated
#: guests behind one NAT". The second of each is made for the first.
PAIRS = {"home": "home-b", "carrier": "carrier-b", "guest": "guest-b"}


@define(eq=False)
class StandingLab:
    """Hosts by name (:data:`ntmobile.lab.internet.SERVERS`, :data:`CLIENTS`, :data:`PAIRS`)."""

    lab: Lab
    internet: Internet
    servers: dict[str, Server] = field(factory=dict)
    clients: dict[str, Host] = field(factory=dict)
    #: The network that each client belongs to.
    networks: dict[str, Segment] = field(factory=dict)
    _numbers: dict[str, int] = field(factory=dict)

    @classmethod
    async def build(
        cls,
        lab: Lab,
        clients: Mapping[str, Access] = CLIENTS,
        pairs: Mapping[str, str] = PAIRS,
    ) -> StandingLab:
        """Fill an empty lab.

        :param clients: client → the kind of its network, which is its own.
        :param pairs: client → another one of the same network, or behind the same carrier.
        """
        standing = cls(lab, await Internet.build(lab))
        for name in SERVERS:
            standing.servers[name] = await standing.internet.server(name)
        for name, kind in clients.items():
            await standing._settle(name, await standing.internet.access(kind, f"net-{name}"))
        for first, second in pairs.items():
            network = standing.networks[first]
            if clients[first] is Access.CARRIER:
                carrier = lab.nodes[f"net-{first}-cgn"]
                assert isinstance(carrier, Router)
                uplink = carrier.segments["lan"]
                network = await standing.internet.home(f"net-{second}", uplink=uplink)
            await standing._settle(second, network)
        return standing

    async def _settle(self, name: str, network: Segment) -> None:
        self.networks[name] = network
        self.clients[name] = await self.internet.client(name, network)
        self._numbers[name] = self.clients[name].attachment.number

    def host(self, name: str) -> Host:
        """Give a server or client."""
        return self.servers[name] if name in self.servers else self.clients[name]

    async def restore(self) -> None:
        """Bring every client home that has moved, with one interface, at its first address."""
        for name, client in self.clients.items():
            home = ("eth0", self.networks[name], self._numbers[name])
            for cable in list(client.attachments.values()):
                await cable.unblock()
                if cable.altered or (cable.interface, cable.segment, cable.number) != home:
                    await cable.unplug()
            if not client.attachments:
                await client.plug(self.networks[name], number=self._numbers[name])
