"""The lab is what it says: networks behave as they are named, moves work, nothing is left."""

from __future__ import annotations

from tests.lab.case import LabTestCase
from tests.lab.internet import RESOLVER4, RESOLVER6
from tests.lab.measure import NatReport, nat_kind
from tests.lab.standing import CLIENTS


class ReachTests(LabTestCase):
    """Who reaches the servers, in which family."""

    async def test_families(self) -> None:
        """Each client reaches the servers in just the families of its network."""
        standing = await self.standing_lab()
        expected = dict.fromkeys(CLIENTS, (True, False))
        expected |= {"global6": (False, True), "dual": (True, True), "firewall6": (False, True)}
        reached = {}
        for name in CLIENTS:
            host = standing.host(name)
            runs = [
                await host.run(["ping", "-c1", "-W1", address], check=False)
                for address in (RESOLVER4, RESOLVER6)
            ]
            reached[name] = (runs[0].status == 0, runs[1].status == 0)
        self.assertEqual(reached, expected)


class TranslationTests(LabTestCase):
    """Each NAT maps and filters as it is named."""

    async def probe(self, client: str, ipv6: bool = False) -> NatReport:
        standing = await self.standing_lab()
        first, second = standing.host("rs1"), standing.host("rs2")
        return await nat_kind(standing.host(client), first, second, ipv6=ipv6)

    async def test_global(self) -> None:
        """Nobody translates or filters a global address."""
        for client in ("global4", "dual"):
            report = await self.probe(client)
            self.assertFalse(report.translated)
            self.assertEqual(report.filtering, "endpoint-independent")

    async def test_port_restricted(self) -> None:
        """A home NAT keeps one mapping for all, and lets in only who was sent to."""
        for client in ("home", "carrier"):
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

    async def test_firewall(self) -> None:
        """A firewall translates nothing and lets in only who was sent to."""
        report = await self.probe("firewall6", ipv6=True)
        self.assertFalse(report.translated)
        self.assertEqual(report.filtering, "address-and-port-dependent")
