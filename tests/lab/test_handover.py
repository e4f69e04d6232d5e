"""Devices move while their programs talk: nothing reconnects, and the pause is short."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from ntmobile.lab.forwarder import Impairment
from ntmobile.lab.process import pause, together
from ntmobile.testbed.gaps import Conversation, Journey, Move
from ntmobile.testbed.platform import Platform
from tests.lab.platform_case import PlatformTestCase

#: Longest gaps in milliseconds: ten times the bars of the design (section 9), which a benchmark
#: judges.
ONE_MOVES, BOTH_MOVE = 1000, 10_000
#: A cable that loses nothing.
GOOD = Impairment()


class HandoverTests(PlatformTestCase):
    """Each test holds a TCP stream and a 10 ms UDP probe over each tunnel, and moves devices."""

    async def journey(self, *pairs: tuple[str, str]) -> tuple[Platform, Journey]:
        """Begin a conversation of each pair; the first of each asks."""
        platform = await self.platform()
        conversations = await together(
            *(
                Conversation.start(platform.devices[one], platform.devices[other])
                for one, other in pairs
            )
        )
        return platform, Journey(IReactorTime(reactor), conversations)

    def judge(self, gaps: Mapping[str, tuple[float, float]], limit: float) -> None:
        """Print the gaps; each must be below the limit."""
        for name, (longest, usable) in gaps.items():
            print(f"\n  {name}: gap {longest:.0f} ms, {usable:.0f} ms after the move", end=" ")
        for name, (longest, _) in gaps.items():
            self.assertLess(longest, limit, name)

    async def one_moves(self, mover: str, peer: str, *networks: str) -> None:
        """Move one device through networks; all to a peer that stays."""
        platform, journey = await self.journey((mover, peer))
        cable = platform.lab.clients[mover].attachment
        here = mover
        for network in networks:
            target = platform.lab.networks[network]
            name = f"{mover} with {peer}: {here} to {network}"
            await journey.move(name, partial(cable.move, target))
            here = network
        self.judge(await journey.end(), ONE_MOVES)

    async def test_global_nat(self) -> None:
        """From a global address behind a NAT, and back; the correspondent is global."""
        await self.one_moves("global4", "dual", "home", "global4")

    async def test_global_nat_far(self) -> None:
        """The same; the correspondent is behind a carrier's NAT."""
        await self.one_moves("global4", "carrier", "home", "global4")

    async def test_nat_nat(self) -> None:
        """From one NAT to another; the correspondent is global."""
        await self.one_moves("home", "global4", "guest", "symmetric")

    async def test_nat_nat_far(self) -> None:
        """The same; the correspondent is behind a carrier's NAT, so all goes through relays."""
        await self.one_moves("home", "carrier", "guest", "symmetric")

    async def test_ipv4_ipv6(self) -> None:
        """From IPv4 to IPv6 and back; the correspondent has both."""
        await self.one_moves("global4", "dual", "global6", "global4")

    async def test_ipv4_ipv6_far(self) -> None:
        """The same; the correspondent has IPv4 behind a NAT only, so a relay translates."""
        await self.one_moves("global4", "home", "global6", "global4")

    async def test_asked(self) -> None:
        """Who was asked moves: from its NAT to another, away from one that is global."""
        platform, journey = await self.journey(("global4", "home"))
        cable = platform.lab.clients["home"].attachment
        network = platform.lab.networks["symmetric"]
        await journey.move("home, which was asked, to symmetric", partial(cable.move, network))
        self.judge(await journey.end(), ONE_MOVES)

    async def test_new_address(self) -> None:
        """The same interface gets another address, with a global peer, and behind a NAT."""
        platform, journey = await self.journey(("global4", "dual"), ("home", "carrier"))
        for name in ("global4", "home"):
            cable = platform.lab.clients[name].attachment
            first = [each for each in journey.conversations if each.one.host.name == name][:1]
            rest = [each for each in journey.conversations if each not in first]
            journey.conversations = first
            await journey.move(f"{name} gets another address", partial(cable.readdress))
            journey.conversations = first + rest
        self.judge(await journey.end(), ONE_MOVES)

    async def test_both(self) -> None:
        """Both, behind NATs, move to other NATs at once."""
        platform, journey = await self.journey(("home", "carrier"))
        lab = platform.lab
        cables = [lab.clients[name].attachment for name in ("home", "carrier")]

        async def move(*to: str) -> None:
            targets = [lab.networks[each] for each in to]
            await together(*(one.move(to) for one, to in zip(cables, targets, strict=True)))

        for there in (("guest", "symmetric"), ("home", "carrier")):
            name = f"home and carrier to {' and '.join(there)} at once"
            await journey.move(name, partial(move, *there))
        self.judge(await journey.end(), BOTH_MOVE)

    async def test_several(self) -> None:
        """Several tunnels of one device, direct ones and relayed ones, move together."""
        peers = ("global4", "dual", "carrier", "firewall6")
        platform, journey = await self.journey(*(("home", peer) for peer in peers))
        cable = platform.lab.clients["home"].attachment
        network = platform.lab.networks["symmetric"]
        name = f"home to symmetric with {', '.join(peers)}"
        await journey.move(name, partial(cable.move, network))
        self.judge(await journey.end(), ONE_MOVES)

    async def test_make_before_break(self) -> None:
        """A second interface comes, then the first one goes."""
        platform, journey = await self.journey(("home", "dual"))
        host = platform.lab.clients["home"]
        first, network = host.attachment, platform.lab.networks["global4"]

        async def second() -> None:
            await host.plug(network, interface="eth1", metric=50)

        await journey.move("home gets a second interface", second)
        await journey.move("home loses the first interface", first.unplug)
        self.judge(await journey.end(), ONE_MOVES)

    async def test_preferred_and_dead(self) -> None:
        """A second interface that the system prefers swallows everything: the first is kept.

        When it begins to work, it is taken; when it dies again, the first one is taken back.
        """
        platform, journey = await self.journey(("home", "dual"))
        host, device = platform.lab.clients["home"], platform.devices["home"]
        network = platform.lab.networks["global4"]
        dead = Impairment(loss=1.0)
        began = time.time()
        second = await host.plug(network, interface="eth1", metric=50, impairment=dead)
        await device.uses("eth0", preferred="eth1")
        await pause(platform.lab.lab.reactor, 3.0)
        journey.moves.append(Move("a dead interface comes", began, time.time()))
        link = second.link
        assert link is not None  # it is impaired
        await journey.move("the preferred interface begins to work", partial(link.set, GOOD))
        await device.uses("eth1", preferred="eth1")
        await journey.move("the preferred interface dies silently", partial(link.set, dead))
        await device.uses("eth0", preferred="eth1")
        gaps = await journey.end()
        silent = {name: gaps.pop(name) for name in list(gaps)[2:]}
        self.judge(gaps, ONE_MOVES)
        self.judge(silent, BOTH_MOVE)
