"""The internet of the demo: real NATs between network namespaces, or this machine's loopback."""

from __future__ import annotations

import sys
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.base import ReactorBase

from ntmobile.demo.platform import DC_CN, DC_MN, Platform, Site
from ntmobile.demo.program import Place
from ntmobile.lab.internet import RESOLVER4, SERVERS, Access, Internet
from ntmobile.lab.network import Host, Segment
from ntmobile.lab.node import Lab

_PORTS: Final = {"as": 4335, "dc1": 4330, "dc2": 4330, "rs1": 4331}


class World(Protocol):
    """Where the demo happens."""

    async def build(self) -> Platform:
        """Make it; gives the platform in it, with nothing running yet."""

    async def move_phone(self) -> str:
        """Move the phone to another network; says where it is now."""

    async def move_both(self) -> str:
        """Move both devices at once; says where they are now."""

    def close(self, *, keep: bool) -> None:
        """End all programs, and remove all files unless they are to be kept."""


@define(eq=False)
class LabWorld:
    """A lab of network namespaces."""

    lab: Lab
    _networks: dict[str, Segment] = field(factory=dict)
    _hosts: dict[str, Host] = field(factory=dict)

    @classmethod
    def make(cls, reactor: ReactorBase) -> LabWorld:
        """Start an empty lab."""
        return cls(Lab.start(reactor))

    async def build(self) -> Platform:
        """See :class:`World`."""
        internet = await Internet.build(self.lab)
        places: dict[str, Place] = {}
        for name in (*_PORTS, "dns"):
            places[name] = await internet.server(name)
        kinds = {
            "campus": Access.GLOBAL4,
            "office": Access.HOME,
            "home": Access.HOME,
            "mobile": Access.CARRIER,
            "cafe": Access.SYMMETRIC,
        }
        for name, kind in kinds.items():
            self._networks[name] = await internet.access(kind, name)
        for device, network in (("phone", "campus"), ("laptop", "office")):
            self._hosts[device] = await internet.client(device, self._networks[network])
            places[device] = self._hosts[device]
        sites = {name: Site((f"192.0.2.{SERVERS[name]}",), port) for name, port in _PORTS.items()}
        delegations = [
            f"{domain}={sites[name].addresses[0]}"
            for name, domain in (("dc1", DC_MN), ("dc2", DC_CN))
        ]
        argv = [sys.executable, "-m", "ntmobile.demo.programs.resolver", RESOLVER4, *delegations]
        resolver = await places["dns"].spawn(argv, name="dns")
        await resolver.wait_for("^ready$")
        return Platform(self.lab.directory, places, sites, '[lookup]\nplugin = "dns"\n')

    async def move_phone(self) -> str:
        """See :class:`World`."""
        await self._hosts["phone"].attachment.move(self._networks["home"])
        return ""

    async def move_both(self) -> str:
        """See :class:`World`."""
        await self._hosts["phone"].attachment.move(self._networks["mobile"])
        await self._hosts["laptop"].attachment.move(self._networks["cafe"])
        return ""

    def close(self, *, keep: bool) -> None:
        """See :class:`World`."""
        self.lab.keep = keep
        self.lab.close()
