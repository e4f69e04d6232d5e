"""Servers restart, vanish or cannot be reached: tunnels stay or come back, errors are clear."""

from __future__ import annotations

from time import monotonic

from ntmobile.lab.network import Server
from ntmobile.lab.process import pause
from ntmobile.testbed.device import Device
from ntmobile.testbed.gaps import Conversation
from ntmobile.testbed.platform import DC1, Platform
from tests.lab.platform_case import PlatformTestCase


class OutageTestCase(PlatformTestCase):
    """A conversation goes on under an outage."""

    async def talk(self, one: str, other: str) -> tuple[Platform, Conversation]:
        """Begin a conversation."""
        platform = await self.platform()
        devices = platform.devices
        return platform, await Conversation.start(devices[one], devices[other])

    async def settled(self, talk: Conversation, what: str, limit: float) -> None:
        """End it: the stream went on to the end, with no longer gap than ``limit`` ms."""
        await talk.goes_on()
        probe, stream = await talk.end()
        assert probe.longest_gap_ms is not None
        print(f"\n  {what}: gap {probe.longest_gap_ms:.0f} ms", end=" ")
        self.assertTrue(stream.intact, stream.errors)
        self.assertLess(probe.longest_gap_ms, limit)

    async def reaches(self, one: Device, other: Device, timeout: float) -> float:
        """Wait until a device reaches another anew; gives the seconds that it took."""
        began = monotonic()
        one.ask("end", name=other.fqdn)

        async def reached() -> bool:
            done = await one.ntm("ping", other.fqdn, "-c", "1", check=False)
            return done.status == 0

        await self.eventually(reached, timeout=timeout, what=f"{one.fqdn} reaches {other.fqdn}")
        return monotonic() - began

    async def restarted(self, platform: Platform, name: str) -> None:
        """Have a server start again, and this test leave it running."""
        if await platform.servers[name].status() is None:
            await platform.servers[name].stop()
        await platform.start(name)


class CoordinatorTests(OutageTestCase):
    """What becomes of the DCs' clients."""

    async def test_restarted(self) -> None:
        """A DC that is restarted in order finds its clients again; tunnels notice nothing."""
        platform, talk = await self.talk("global4", "home")
        await self.restarted(platform, "dc1")
        devices = platform.devices
        took = await self.reaches(devices["global4"], devices["dual"], 30)
        print(f"\n  a DC restarted: a new tunnel after {took:.1f} s", end=" ")
        await self.settled(talk, "a DC restarted", 200)

    async def test_killed(self) -> None:
        """So does one that was killed, and one that was away for a while."""
        platform, talk = await self.talk("home", "carrier")
        await pause(platform.clock, 1.5)  # what a DC must not lose is written after a second
        await platform.servers["dc2"].kill()
        await pause(platform.clock, 3)
        await platform.start("dc2")
        devices = platform.devices
        took = await self.reaches(devices["symmetric"], devices["home"], 30)
        print(f"\n  a DC killed: a new tunnel after {took:.1f} s", end=" ")
        await self.settled(talk, "a DC killed, away for 3 s", 200)

    async def test_own_unreachable(self) -> None:
        """Without its DC a device keeps its tunnels, and says why there is no new one."""
        await self.unreachable("dc1", "the coordinator does not answer")

    async def test_other_unreachable(self) -> None:
        """So it is with the DC of the correspondent."""
        await self.unreachable("dc2", "coordinator of dc2.ntm.example cannot be reached")

    async def unreachable(self, name: str, said: str) -> None:
        platform, talk = await self.talk("global4", "home")
        cable = platform.lab.servers[name].attachment
        await cable.block()
        self.addCleanup(cable.unblock)
        one, other = platform.devices["global4"], platform.devices["guest"]
        began = monotonic()
        done = await one.ntm("ping", other.fqdn, "-c", "1", check=False, timeout=30)
        took = monotonic() - began
        print(f"\n  {name} unreachable, after {took:.1f} s: {done.stderr.strip()}", end=" ")
        self.assertEqual(done.status, 1)
        self.assertRegex(done.stderr, rf"^Error: [^\n]*{said}[^\n]*\n$")
        self.assertLess(took, 20)
        await cable.unblock()
        took = await self.reaches(one, other, 40)
        print(f"\n  {name} reachable again: a new tunnel after {took:.1f} s", end=" ")
        await self.settled(talk, f"{name} unreachable", 200)


class RelayTests(OutageTestCase):
    """What becomes of relayed tunnels."""

    async def test_restarted(self) -> None:
        """An RS that restarts carries its tunnels again."""
        platform, talk = await self.talk("home", "carrier")
        await platform.servers["rs2"].kill()
        await platform.start("rs2")
        await self.settled(talk, "an RS killed and started", 10_000)

    async def test_lost(self) -> None:
        """Where an RS is lost, another takes its tunnels over."""
        platform = await self.platform()
        lab = platform.lab
        spare = await lab.lab.add(Server, "rs3")
        await spare.plug(lab.internet.servers, number=23)
        await platform.add_relay("rs3", DC1, spare)
        started = await platform.start("rs3", spare)
        await started.wait_for("registered with")
        talk = await Conversation.start(platform.devices["symmetric"], platform.devices["home"])
        tunnel = talk.one.tunnel(talk.other)
        assert tunnel is not None
        lost = tunnel["relay"].partition(".")[0]
        await platform.servers[lost].kill()
        await talk.goes_on()
        tunnel = talk.one.tunnel(talk.other)
        assert tunnel is not None
        self.assertNotEqual(tunnel["relay"].partition(".")[0], lost)
        await self.settled(talk, "an RS lost, another there", 10_000)
        if lost == "rs1":
            await platform.start("rs1")
            await platform.servers["rs3"].kill()

    async def test_only_one_lost(self) -> None:
        """Where there is no other, tunnels wait for it, and connections with them."""
        platform, talk = await self.talk("home", "carrier")
        await platform.servers["rs2"].kill()
        await pause(platform.clock, 5)
        await platform.start("rs2")
        await self.settled(talk, "the only RS away for 5 s", 20_000)
