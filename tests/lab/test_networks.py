"""Each kind of access network of the lab behaves as it is named."""

from __future__ import annotations

import sys

from ntmobile.lab.internet import RESOLVER4, RESOLVER6
from ntmobile.lab.measure import NatReport, nat_kind, ping, tool
from ntmobile.lab.network import Router
from ntmobile.testbed.standing import CLIENTS, StandingLab
from tests.lab.case import LabTestCase


def router(standing: StandingLab, name: str) -> Router:
    """Give a router by name."""
    found = standing.lab.nodes[name]
    assert isinstance(found, Router)
    return found


class ReachTests(LabTestCase):
    """Who reaches whom."""

    async def test_families(self) -> None:
        """Each client reaches the servers in just the families of its network."""
        standing = await self.standing_lab()
        expected = dict.fromkeys(CLIENTS, (True, False))
        expected |= {"global6": (False, True), "dual": (True, True), "firewall6": (False, True)}
        reached = {}
        for name in CLIENTS:
            host = standing.host(name)
            reports = [await ping(host, address) for address in (RESOLVER4, RESOLVER6)]
            reached[name] = (bool(reports[0].received), bool(reports[1].received))
        self.assertEqual(reached, expected)

    async def test_same_home(self) -> None:
        """Two hosts behind one NAT reach each other on private addresses."""
        standing = await self.standing_lab()
        first, second = standing.host("home"), standing.host("home-b")
        self.assertEqual((await ping(first, second.ipv4)).received, 1)
        self.assertEqual((await ping(second, first.ipv4)).received, 1)

    async def test_isolated_guests(self) -> None:
        """Isolated guests reach the world but not each other."""
        standing = await self.standing_lab()
        first, second = standing.host("guest"), standing.host("guest-b")
        self.assertEqual((await ping(second, RESOLVER4)).received, 1)
        self.assertEqual((await ping(first, second.ipv4, timeout=0.5)).received, 0)

    async def test_two_homes_of_one_carrier(self) -> None:
        """Homes behind one carrier have one public address, and private ones that collide."""
        standing = await self.standing_lab()
        servers = standing.host("rs1"), standing.host("rs2")
        reports = [
            await nat_kind(standing.host(client), *servers) for client in ("carrier", "carrier-b")
        ]
        self.assertEqual(reports[0].mapped[0][0], reports[1].mapped[0][0])
        self.assertEqual(reports[0].local[0], reports[1].local[0])

    async def test_no_hairpin(self) -> None:
        """A datagram from inside to the public side of the own NAT goes nowhere."""
        standing = await self.standing_lab()
        for first, second in (("home", "home-b"), ("carrier", "carrier-b")):
            servers = standing.host("rs1"), standing.host("rs2")
            mapped = (await nat_kind(standing.host(first), *servers)).mapped[0]
            asked = await standing.host(second).run(
                tool("nat_probe", mapped[0], mapped[0], mapped[1])
            )
            self.assertEqual(asked.json(), {"reachable": False})

    async def test_private_addresses_stay_private(self) -> None:
        """The core does not route private addresses, and drops them as a source."""
        standing = await self.standing_lab()
        host = standing.host("global4")
        self.assertEqual((await ping(host, "192.168.1.10", timeout=0.3)).received, 0)
        await host.ip("addr add 192.168.1.77/32 dev eth0")
        self.addCleanup(host.ip, "addr del 192.168.1.77/32 dev eth0")
        spoofed = await ping(host, RESOLVER4, timeout=0.3, options=["-I", "192.168.1.77"])
        self.assertEqual(spoofed.received, 0)


class TranslationTests(LabTestCase):
    """Each NAT maps and filters as it is named."""

    async def probe(self, client: str, ipv6: bool = False) -> NatReport:
        standing = await self.standing_lab()
        first, second = standing.host("rs1"), standing.host("rs2")
        return await nat_kind(standing.host(client), first, second, ipv6=ipv6)

    async def test_global(self) -> None:
        """Nobody translates or filters a global address."""
        for client, ipv6 in (
            ("global4", False),
            ("dual", False),
            ("dual", True),
            ("global6", True),
        ):
            report = await self.probe(client, bool(ipv6))
            self.assertFalse(report.translated)
            self.assertEqual(report.filtering, "endpoint-independent")

    async def test_port_restricted(self) -> None:
        """A home NAT keeps one mapping for all, and lets in only who was sent to."""
        for client in ("home", "carrier", "guest"):
            report = await self.probe(client)
            self.assertTrue(report.translated)
            self.assertNotEqual(report.local[1], report.mapped[0][1])
            self.assertEqual(report.mapping, "endpoint-independent")
            self.assertEqual(report.filtering, "address-and-port-dependent")

    async def test_symmetric(self) -> None:
        """A symmetric NAT has another mapping for each destination."""
        report = await self.probe("symmetric")
        self.assertTrue(report.translated)
        self.assertEqual(report.mapping, "address-and-port-dependent")
        self.assertEqual(report.filtering, "address-and-port-dependent")

    async def test_carrier_is_two_levels(self) -> None:
        """Behind a carrier NAT the home router itself has an address of 100.64.0.0/10."""
        standing = await self.standing_lab()
        report = await self.probe("carrier")
        self.assertTrue(report.local[0].startswith("192.168."))
        self.assertTrue(router(standing, "net-carrier").ipv4.startswith("100.64."))
        self.assertEqual(report.mapped[0][0], router(standing, "net-carrier-cgn").ipv4)

    async def test_firewall(self) -> None:
        """A firewall translates nothing and lets in only who was sent to."""
        report = await self.probe("firewall6", ipv6=True)
        self.assertFalse(report.translated)
        self.assertEqual(report.filtering, "address-and-port-dependent")

    async def test_rebinding(self) -> None:
        """A router that forgets its connections gives the same socket another outside port."""
        standing = await self.standing_lab()
        server, client = standing.host("rs1"), standing.host("home")
        reflector = await server.spawn(tool("reflector", server.ipv4, 3478))
        await reflector.wait_for("^ready$")
        ask = "import socket; s = socket.socket(2, 2); s.settimeout(5); s.bind(('', 40000));"
        ask += f"s.sendto(b'reflect', ('{server.ipv4}', 3478)); print(s.recv(99).decode())"
        ports = []
        for _ in range(3):
            seen = await client.run([sys.executable, "-c", ask])
            ports.append(seen.stdout.split()[1])
            if len(ports) == 2:
                await router(standing, "net-home").forget_connections()
        self.assertEqual(ports[0], ports[1])
        self.assertNotEqual(ports[1], ports[2])

    async def test_mapping_expires(self) -> None:
        """The life of an unused mapping can be set, for tests of keep-alives."""
        standing = await self.standing_lab()
        server, client = standing.host("rs1"), standing.host("home")
        nat = router(standing, "net-home")
        await nat.set_udp_timeout(1)
        self.addCleanup(nat.set_udp_timeout, 120)
        reflector = await server.spawn(tool("reflector", server.ipv4, 3478))
        await reflector.wait_for("^ready$")
        script = (
            "import socket, time; s = socket.socket(2, 2); s.settimeout(1); d = ('%s', 3478)\n"
            "def ask(): s.sendto(b'reflect', d); return s.recv(99).decode().split()[1]\n"
            "first = ask(); time.sleep(0.5); second = ask(); time.sleep(2.5)\n"
            "print(first, second, ask())"
        )
        seen = await client.run([sys.executable, "-c", script % server.ipv4])
        first, second, third = seen.stdout.split()
        self.assertEqual(first, second)
        self.assertNotEqual(second, third)
