"""The internet of the demo: real NATs between network namespaces, or this machine's loopback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Protocol

from attrs import define, field, frozen
from twisted.internet.base import ReactorBase

from ntmobile.demo.counting import Counting
from ntmobile.demo.platform import CN, DC_CN, DC_MN, Platform, Site
from ntmobile.demo.program import PROGRAMS, Place, Program, python
from ntmobile.lab.internet import RESOLVER4, SERVERS, Access, Internet
from ntmobile.lab.network import Host, Segment
from ntmobile.lab.node import Lab

_PORTS: Final = {"as": 4335, "dc1": 4330, "dc2": 4330, "rs1": 4331, "cs1": 4332}
#: The counter's port on the laptop.
COUNTER_PORT: Final = 7007
_COUNTER: Final = PROGRAMS / "counter.py"


@frozen
class Act:
    """What is said of an act before it begins.

    :ivar title: one line. :ivar words: some more.
    """

    title: str
    words: str


#: The acts about stored data are the same in every world.
OFF: Final = Act(
    "The laptop is switched off. The phone sends it a file, and a message",
    "Both are encrypted for the laptop, on the phone. One half of the key goes by the two "
    "coordinators, the other, and the data, by the cache server (CS): none can read them.",
)
ON: Final = Act(
    "The laptop is switched on, hears that something waits, and fetches it",
    "It puts the halves of the key together, verifies that all is from the phone, and confirms "
    "it under its own signature, which the phone verifies.",
)


class World(Protocol):
    """Where the demo happens.

    :ivar networks: what it is made of, for the list of steps.
    :ivar acts: the devices come up, first contact, the phone moves, both move.
    """

    networks: str
    acts: tuple[Act, Act, Act, Act]

    async def build(self) -> Platform:
        """Make it; gives the platform in it, with nothing running yet."""

    async def start_devices(self, platform: Platform) -> None:
        """Start both devices; they register."""

    async def start_counting(self, platform: Platform) -> Counting:
        """Start the ordinary program; returns when the phone's end has its first answer."""

    async def move_phone(self) -> None:
        """Move the phone to another network."""

    async def move_both(self) -> None:
        """Move both devices at once."""

    async def switch_off(self, platform: Platform) -> None:
        """End the ordinary program, and the laptop; the phone has an agent then."""

    def close(self, *, keep: bool) -> Path | None:
        """End all programs, and remove all files unless they are to be kept; tells where."""


@define(eq=False)
class LabWorld:
    """A lab of network namespaces; see :class:`World`."""

    lab: Lab
    networks: str = "five networks with real NATs, servers, a DNS resolver"
    acts: tuple[Act, Act, Act, Act] = (
        Act(
            "ntm up: phone and laptop log in, and register where they are",
            "The phone is in a campus network with a global address, the laptop in an office "
            "behind a NAT.",
        ),
        Act(
            "A program on the phone opens a TCP connection to laptop.bob.dc2.ntm.example",
            "The first use of the name makes the tunnel. Nobody can reach the laptop behind its "
            "NAT from outside, so it is the laptop that opens the way.",
        ),
        Act(
            "The phone goes home: another network, another address, behind another NAT",
            "Nobody can reach either of them from outside now, so the relay carries the tunnel.",
        ),
        Act(
            "Both move at the same moment",
            "The phone enters a mobile network with two NATs in a row, the laptop a cafe. "
            "Neither knows where the other is; their coordinators do.",
        ),
    )
    _segments: dict[str, Segment] = field(factory=dict)
    _hosts: dict[str, Host] = field(factory=dict)
    _counters: tuple[Program, ...] = ()

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
            self._segments[name] = await internet.access(kind, name)
        for device, network in (("phone", "campus"), ("laptop", "office")):
            self._hosts[device] = await internet.client(device, self._segments[network])
            places[device] = self._hosts[device]
        sites = {name: Site((f"192.0.2.{SERVERS[name]}",), port) for name, port in _PORTS.items()}
        servers = {DC_MN: sites["dc1"], DC_CN: sites["dc2"]}
        argv = [sys.executable, "-m", "ntmobile.demo.programs.resolver", RESOLVER4]
        argv += [f"{domain}={site.addresses[0]}" for domain, site in servers.items()]
        resolver = await places["dns"].spawn(argv, name="dns")
        await resolver.wait_for("^ready$")
        return Platform(self.lab.directory, places, sites)

    async def start_devices(self, platform: Platform) -> None:
        """See :class:`World`: ``ntm up``."""
        await platform.start_agents()

    async def start_counting(self, platform: Platform) -> Counting:
        """See :class:`World`: ``ntm exec`` on both."""
        argv = python(_COUNTER, "serve", str(COUNTER_PORT))
        inside = platform.exec("laptop", *argv)
        server = await platform.places["laptop"].spawn(inside, name="counter-server")
        await server.wait_for("^ready$")
        argv = python(_COUNTER, "count", CN, str(COUNTER_PORT))
        inside = platform.exec("phone", *argv)
        client = await platform.places["phone"].spawn(inside, name="counter-client")
        await client.wait_for("^1 ", timeout=30)
        self._counters = (client, server)
        return Counting(server, client)

    async def move_phone(self) -> None:
        """See :class:`World`."""
        await self._hosts["phone"].attachment.move(self._segments["home"])

    async def move_both(self) -> None:
        """See :class:`World`."""
        await self._hosts["phone"].attachment.move(self._segments["mobile"])
        await self._hosts["laptop"].attachment.move(self._segments["cafe"])

    async def switch_off(self, platform: Platform) -> None:
        """See :class:`World`."""
        for program in self._counters:
            await program.stop()
        await platform.stop("laptop")

    def close(self, *, keep: bool) -> Path | None:
        """See :class:`World`."""
        self.lab.keep = self.lab.keep or keep
        self.lab.close()
        return self.lab.directory if self.lab.keep else None
