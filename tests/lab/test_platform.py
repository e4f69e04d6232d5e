"""The platform stands, quickly, and its names are found the way that they are anywhere."""

from __future__ import annotations

from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import DC1, DC2, REALM, Platform
from tests.lab.platform_case import PlatformTestCase


class PlatformTests(PlatformTestCase):
    """What every other test stands on."""

    async def dig(self, platform: Platform, host: str, *words: str) -> list[str]:
        """Ask the resolver of a host; gives the answers."""
        asking = platform.lab.host(host)
        done = await asking.run(["dig", "+short", "+tries=1", "+time=5", *words])
        return sorted(done.stdout.splitlines())

    async def test_up(self) -> None:
        """All servers and a device in each network are up in seconds."""
        platform = await self.platform()
        print(f"\n  {len(platform.devices)} devices after {platform.took:.1f} s", end=" ")
        self.assertLess(platform.took, 60)  # 15 where nothing else runs
        for device in platform.devices.values():
            status = (await device.ntm("status", "--json")).json()
            self.assertEqual(status["fqdn"], device.fqdn)
            self.assertTrue(status["registered"])

    async def test_seen(self) -> None:
        """The DC sees which devices are behind a NAT."""
        platform = await self.platform()
        behind = {"home", "home-b", "symmetric", "carrier", "carrier-b", "guest", "guest-b"}
        for name, device in platform.devices.items():
            status = device.status()
            assert status is not None
            self.assertEqual(status["network"]["nat"], name in behind, name)

    async def test_delegation(self) -> None:
        """Anybody finds the DCs through the DNS: NS at the parent, SRV and addresses at the DC."""
        platform = await self.platform()
        for domain in (DC1, DC2):
            dc = platform.lab.servers[domain.partition(".")[0]]
            self.assertEqual(await self.dig(platform, "home", domain, "NS"), [f"ns.{domain}."])
            ports = await self.dig(platform, "home", f"_ntm._udp.{domain}", "SRV")
            self.assertEqual(len(ports), 1)
            self.assertRegex(ports[0], r" 4330 ")
            self.assertEqual(await self.dig(platform, "home", f"ns.{domain}", "A"), [dc.ipv4])
            self.assertEqual(await self.dig(platform, "global6", f"ns.{domain}", "AAAA"), [dc.ipv6])

    async def test_devices_hidden(self) -> None:
        """Nobody finds devices there, where the DC's configuration names no network."""
        platform = await self.platform()
        device = platform.devices["home"]
        for kind in ("A", "AAAA"):
            self.assertEqual(await self.dig(platform, "global4", device.fqdn, kind), [])

    async def test_names_inside(self) -> None:
        """Inside a device's virtual network its correspondents' names are found, others not."""
        platform = await self.platform()
        here, there = platform.devices["global6"], platform.devices["guest"]
        done = await here.run(["getent", "ahosts", there.fqdn])
        self.assertEqual(self.addresses(done.stdout), set(there.virtual.values()))
        done = await here.run(["getent", "ahosts", "nobody.bob.dc2.ntm.example"], check=False)
        self.assertNotEqual(done.status, 0)
        done = await here.run(["getent", "ahosts", f"www.{REALM}"], check=False)
        self.assertNotEqual(done.status, 0)
        await self.end(here, there)

    @staticmethod
    def addresses(shown: str) -> set[str]:
        """The addresses that getent showed."""
        return {line.split()[0] for line in shown.splitlines()}

    async def test_why(self) -> None:
        """``ntm why`` and ``ntm netcheck`` explain."""
        platform = await self.platform()
        here, there = platform.devices["home"], platform.devices["symmetric"]
        why = (await here.ntm("why", there.fqdn, "--json")).json()
        self.assertIn("behind different NATs", why["decision"])
        self.assertEqual([path["kind"] for path in why["paths"] if path["active"]], ["relay"])
        found = (await here.ntm("netcheck", "--json")).json()
        self.assertTrue(found["udp"])
        self.assertTrue(found["nat"])
        await self.unknown(here)

    async def unknown(self, device: Device) -> None:
        """A name that nobody has is one clear line."""
        done = await device.ntm("ping", "nobody.alice.dc1.ntm.example", "-c", "1", check=False)
        self.assertEqual(done.status, 1)
        self.assertRegex(done.stderr, r"^Error: nobody is called nobody\.alice[^\n]*\n$")
