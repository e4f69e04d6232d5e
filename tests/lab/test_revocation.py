"""R34: who is removed or disabled loses what it has, everywhere, within about a second."""

from __future__ import annotations

from time import monotonic

from ntmobile.lab.process import together
from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import DC1, DC2, Platform
from ntmobile.testbed.traffic import ping
from tests.lab.platform_case import PlatformTestCase


class RevocationTests(PlatformTestCase):
    """Devices of a new user, with tunnels to devices of both domains."""

    async def doomed(self, user: str, host: str, *peers: Device) -> Device:
        """A device of a user, with a tunnel to each peer; one of them asks it."""
        platform = await self.platform()
        device = await platform.enroll(platform.lab.clients[host], user, f"{host}-2")
        await device.start()
        await device.ready()
        for peer in peers:
            await ping(device, peer.fqdn)
        return device

    async def end_of(self, device: Device, *peers: Device) -> float:
        """Wait until no peer has a tunnel to it; gives the seconds since the call."""
        began = monotonic()

        async def over() -> bool:
            return all(peer.tunnel(device) is None for peer in peers)

        await self.eventually(over, timeout=10, what=f"no tunnel to {device.fqdn}")
        return monotonic() - began

    async def check_gone(self, device: Device, peers: tuple[Device, ...], took: float) -> None:
        """It reaches nobody, nobody reaches it, and both are told in one line."""
        print(f"\n  {device.fqdn}: tunnels over after {took:.2f} s", end=" ")
        self.assertLess(took, 2)
        for asking, asked in ((device, peers[0]), (peers[0], device)):
            done = await asking.ntm("ping", asked.fqdn, "-c", "1", check=False)
            self.assertEqual(done.status, 1)
            self.assertRegex(done.stderr, r"^Error: [^\n]+\n$")
            print(f"\n  {done.stderr.strip()}", end=" ")
        status = device.status()
        assert status is not None
        self.assertFalse(status["registered"])
        print(f"\n  status: {status['problem']}", end=" ")

    async def peers(self) -> tuple[Platform, tuple[Device, ...]]:
        """The platform; a device at each DC, one of them behind a NAT."""
        platform = await self.platform()
        return platform, (platform.devices["home"], platform.devices["dual"])

    async def test_device_removed(self) -> None:
        """``ntm device remove``: tunnels end, with devices of the other domain too."""
        platform, peers = await self.peers()
        device = await self.doomed(f"alice@{DC1}", "global4", *peers)
        await platform.ntm("device", "remove", device.fqdn, "--realm", platform.directory)
        await self.check_gone(device, peers, await self.end_of(device, *peers))
        listed = await platform.ntm("device", "list", f"alice@{DC1}", "--realm", platform.directory)
        self.assertRegex(listed, rf"{device.fqdn}.*removed")

    async def test_user_disabled(self) -> None:
        """``ntm user disable`` and ``enable``: all devices end, and come back by themselves."""
        platform, peers = await self.peers()
        account = f"carol@{DC2}"
        await platform.add_user(account)
        devices = await together(
            self.doomed(account, "global4", *peers), self.doomed(account, "carrier", *peers)
        )
        await platform.ntm("user", "disable", account, "--realm", platform.directory)
        for device in devices:
            await self.check_gone(device, peers, await self.end_of(device, *peers))
        await platform.ntm("user", "enable", account, "--realm", platform.directory)
        for device in devices:
            await device.stop()
            await device.start()
            await device.ready()
            await ping(device, peers[0].fqdn)

    async def test_without_account_server(self) -> None:
        """What is revoked while the AS is away is so as soon as it is back."""
        platform, peers = await self.peers()
        device = await self.doomed(f"bob@{DC2}", "global6", *peers)
        await platform.servers["as"].stop()
        await platform.ntm("device", "remove", device.fqdn, "--realm", platform.directory)
        self.assertIsNotNone(peers[0].tunnel(device))
        await platform.start("as")
        took = await self.end_of(device, *peers)
        print(f"\n  tunnels over {took:.2f} s after the start of the AS", end=" ")
