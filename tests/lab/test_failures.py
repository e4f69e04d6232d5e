"""A device sleeps, its NAT forgets it, its agent restarts, its disk is full, its clock is wrong."""

from __future__ import annotations

import signal
import sys
import time

from ntmobile.lab.network import Router
from ntmobile.lab.process import pause
from ntmobile.testbed.device import Device
from ntmobile.testbed.gaps import Conversation
from ntmobile.testbed.platform import DC1, Platform
from ntmobile.testbed.traffic import ping
from tests.lab.platform_case import PlatformTestCase

ALICE = f"alice@{DC1}"


#: Ends all tunnels of a state directory.
_END = """
import sys, pathlib
from ntmobile.client.control import call
call(pathlib.Path(sys.argv[1]), "end")
"""


class FailureTests(PlatformTestCase):
    """Programs talk meanwhile, and notice a pause at most."""

    async def talk(self, one: str, other: str) -> tuple[Platform, Conversation]:
        """Begin a conversation."""
        platform = await self.platform()
        devices = platform.devices
        return platform, await Conversation.start(devices[one], devices[other])

    async def settled(self, conversation: Conversation, what: str) -> None:
        """End a conversation: its stream went on to the end; print the longest gap."""
        await conversation.goes_on()
        probe, stream = await conversation.end()
        print(f"\n  {what}: gap {probe.longest_gap_ms:.0f} ms", end=" ")
        self.assertTrue(stream.intact, stream.errors)

    async def test_suspended(self) -> None:
        """A device that was suspended for longer than its NAT remembers goes on talking."""
        platform, talk = await self.talk("home", "carrier")
        router = platform.lab.networks["home"].router
        platform.replug("home", "home-b")  # which the DC cannot reach either
        await router.set_udp_timeout(1)
        self.addCleanup(router.set_udp_timeout, 120)
        assert talk.one.agent is not None
        await talk.one.agent.signal(signal.SIGSTOP)
        await pause(platform.clock, 5)
        await talk.one.agent.signal(signal.SIGCONT)
        await self.settled(talk, "suspended for 5 s")

    async def test_rebinding_direct(self) -> None:
        """A NAT that forgets its bindings does not end a direct tunnel."""
        platform, talk = await self.talk("home", "dual")
        platform.replug("home", "home-b")
        await platform.lab.networks["home"].router.forget_connections()
        await self.settled(talk, "NAT of a direct tunnel rebound")

    async def test_rebinding_relayed(self) -> None:
        """Nor a relayed one, also where it is the carrier's."""
        platform, talk = await self.talk("home", "carrier")
        carrier = platform.lab.lab.nodes["net-carrier-cgn"]
        assert isinstance(carrier, Router)
        platform.replug("carrier", "carrier-b")
        await carrier.forget_connections()
        await self.settled(talk, "carrier's NAT of a relayed tunnel rebound")

    async def restart(self, number: int, what: str) -> None:
        _, talk = await self.talk("global4", "home")
        device, agent = talk.one, talk.one.agent
        assert agent is not None
        await agent.signal(number)
        await agent.exited()
        await device.start(standing=True)
        await device.ready()
        await self.settled(talk, what)

    async def test_agent_restarted(self) -> None:
        """Programs keep their connections while the agent is restarted in order."""
        await self.restart(signal.SIGTERM, "agent restarted")

    async def test_agent_killed(self) -> None:
        """And when it is killed without a word."""
        await self.restart(signal.SIGKILL, "agent killed and started")

    async def test_full_disk(self) -> None:
        """A device whose disk is full works on, and says so; it cannot be made on one."""
        platform = await self.platform()
        host = platform.lab.clients["global4"]
        small = host.home / "small"
        small.mkdir()
        # In the host's own mount namespace: nobody who removes files sees it.
        options = "size=512k,mode=0700"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small)]
        await host.run(mount, privileged=True)
        fill = ["sh", "-c", f"cat /dev/zero > {small}/filling"]
        free = ["rm", str(small / "filling")]

        await host.run(fill, check=False)
        enrolment = platform.enrolment(ALICE, "full", small / "state")
        refused = await host.run(enrolment, check=False)
        self.assertEqual(refused.status, 1)
        self.assertRegex(refused.stderr, r"\nError: .*: cannot be written: No space left .*\n$")

        await host.run(free)
        device = await platform.enroll(host, ALICE, "full", state=small / "state")
        known, stranger = platform.devices["dual"], platform.devices["home"]
        await device.start()
        await self.works(device, known)

        await host.run(fill, check=False)
        await host.run([sys.executable, "-c", _END, str(device.state)])
        await self.works(device, known)
        refused = await device.ntm("ping", stranger.fqdn, "-c", "1", check=False, timeout=5)
        self.assertEqual(refused.status, 1)
        self.assertRegex(refused.stderr, r"^Error: .*pins.db.*full.*\n$")
        await device.stop()
        await device.start()
        await self.works(device, known)

        await host.run(free)
        await self.works(device, stranger)

    async def works(self, device: Device, peer: Device) -> None:
        """Wait until a device reaches another, by its commands alone."""

        async def reached() -> bool:
            return (await device.ntm("ping", peer.fqdn, "-c", "1", check=False)).status == 0

        await self.eventually(reached, timeout=15, what=f"{device.fqdn} reaches {peer.fqdn}")
        await ping(device, peer.fqdn)

    async def test_wrong_clock(self) -> None:
        """R12: a device whose clock is wrong by years is told so, and works."""
        platform = await self.platform()
        host = platform.lab.clients["dual"]
        for label, years in (("late", -3), ("early", 4)):
            env = platform.shifted_clock(years * 365 * 86400)
            device = await platform.enroll(host, ALICE, label, env=env)
            await device.start()
            await device.ready()
            assert device.agent is not None
            await device.agent.wait_for("clock")
            await ping(device, platform.devices["home"].fqdn)
            await device.stop()

    async def test_user_name(self) -> None:
        """A user's name stands for the device that registered last."""
        platform = await self.platform()
        began = time.monotonic()
        done = await platform.devices["global4"].ntm("ping", "bob.dc2.ntm.example", "-c", "1")
        self.assertLess(time.monotonic() - began, 5)
        self.assertIn(".bob.dc2.ntm.example", done.stdout)
