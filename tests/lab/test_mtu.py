"""Paths that carry less than others: found end to end, and again after a change; no stall."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from ntmobile.client.node import DEVICE_MTU
from ntmobile.lab.network import ICMP4
from ntmobile.lab.process import eventually
from ntmobile.machines.tunnel.constants import NARROW_MTU
from ntmobile.testbed.device import Device
from ntmobile.testbed.gaps import Conversation
from tests.lab.platform_case import PlatformTestCase

#: Milliseconds: ten times what a stream may stand still when a path's MTU falls.
STALL = 10_000


def path_mtu(device: Device, peer: Device) -> int | None:
    """What the active path of a tunnel carries whole, as ``ntm why --json`` tells."""
    paths = device.ask("why", name=peer.fqdn)["paths"]
    return next((path["mtu"] for path in paths if path["active"]), None)


class PathMtuTests(PlatformTestCase):
    """R23, R27: real routers, with and without ICMP."""

    async def carries(self, device: Device, peer: Device, expected: int) -> None:
        """Wait until a path is known to carry so much."""

        async def known() -> bool:
            return path_mtu(device, peer) == expected

        def last() -> str:
            return f"an MTU of {expected}; it is {path_mtu(device, peer)}"

        await eventually(IReactorTime(reactor), known, timeout=15, what=last)

    async def test_black_hole(self) -> None:
        """The MTU on the way falls, and no ICMP says so: the stream goes on, in smaller packets.

        After a handover the path is searched anew.
        """
        platform = await self.platform()
        near, far = platform.devices["global4"], platform.devices["dual"]
        conversation = await Conversation.start(near, far)
        for one, other in ((near, far), (far, near)):
            await self.carries(one, other, DEVICE_MTU)
        await near.host.attachment.block(f"{ICMP4} icmp type destination-unreachable")
        await far.host.attachment.set_mtu(1300)
        await self.carries(near, far, NARROW_MTU)
        await conversation.goes_on()
        await near.host.attachment.move(platform.lab.networks["home"])
        await far.host.attachment.set_mtu(1500)
        await far.host.attachment.move(platform.lab.networks["global4"])
        await self.carries(near, far, DEVICE_MTU)
        await conversation.goes_on()
        _, stream = await conversation.end()
        self.assertTrue(stream.intact, stream)
        print(f"\n  longest stall of the stream {stream.longest_stall_ms:.0f} ms", end=" ")
        self.assertLess(stream.longest_stall_ms, STALL)

    async def test_legs_of_a_relay(self) -> None:
        """The legs at a relay differ: the smaller one counts, at both ends."""
        platform = await self.platform()
        near, far = platform.devices["home"], platform.devices["carrier"]
        await far.host.attachment.set_mtu(1400)
        conversation = await Conversation.start(near, far)
        for one, other in ((near, far), (far, near)):
            await self.carries(one, other, 1400 - 64)
        await conversation.goes_on()
        _, stream = await conversation.end()
        self.assertTrue(stream.intact, stream)
