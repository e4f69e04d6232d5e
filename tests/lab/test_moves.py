"""Hosts move, and cables fail, as they should."""

from __future__ import annotations

from statistics import median

from ntmobile.lab.forwarder import Impairment
from ntmobile.lab.internet import RESOLVER4, RESOLVER6, Access
from ntmobile.lab.measure import TcpStream, UdpProbe, iperf, ping, start_udp_echo
from ntmobile.lab.network import EVERYTHING, ICMP4, UDP, Attachment, Host
from ntmobile.lab.node import Node
from tests.lab.case import LabTestCase


async def interface_addresses(node: Node, interface: str = "eth0") -> set[str]:
    """Give the global addresses of an interface, with prefix lengths."""
    shown = await node.run(["ip", "-br", "addr", "show", "dev", interface, "scope", "global"])
    return set(shown.stdout.split()[2:])


class MoveTests(LabTestCase):
    """A host changes its network under running programs."""

    async def test_roam(self) -> None:
        """A move keeps the interface and gives new addresses and routes; traffic goes on."""
        standing = await self.standing_lab()
        client, server = standing.host("global4"), standing.host("dc1")
        await start_udp_echo(server)
        before = await client.run(["ip", "-o", "link", "show", "eth0"])
        probe = await UdpProbe.start(client, server.ipv4)
        for network in ("home", "symmetric", "carrier", "dual"):
            await client.attachment.move(standing.networks[network])
            self.assertEqual(
                await interface_addresses(client), set(map(str, client.attachment.addresses))
            )
            for address in client.attachment.addresses:
                resolver = RESOLVER4 if address.version == 4 else RESOLVER6
                self.assertEqual((await ping(client, resolver)).received, 1)
        report = await probe.report()
        after = await client.run(["ip", "-o", "link", "show", "eth0"])
        self.assertEqual(before.stdout.split()[0], after.stdout.split()[0])
        assert report.longest_gap_ms is not None
        self.assertLess(report.longest_gap_ms, 1000)

    async def test_ipv4_to_ipv6(self) -> None:
        """A move between families leaves nothing of the old one behind."""
        standing = await self.standing_lab()
        client = standing.host("global4")
        await client.attachment.move(standing.networks["global6"])
        self.assertEqual((await ping(client, RESOLVER6)).received, 1)
        self.assertEqual((await ping(client, RESOLVER4, timeout=0.3)).received, 0)
        resolvers = await client.run(["cat", "/etc/resolv.conf"])
        self.assertIn(RESOLVER6, resolvers.stdout)
        self.assertNotIn(RESOLVER4, resolvers.stdout)

    async def test_new_address(self) -> None:
        """The same interface gets another address in the same network."""
        standing = await self.standing_lab()
        client = standing.host("dual")
        old = await interface_addresses(client)
        await client.attachment.readdress()
        new = await interface_addresses(client)
        self.assertEqual(len(new), 2)
        self.assertFalse(old & new)
        self.assertEqual((await ping(client, RESOLVER4)).received, 1)
        self.assertEqual((await ping(client, RESOLVER6)).received, 1)

    async def test_make_before_break(self) -> None:
        """A second interface takes over before the first one goes: nothing is lost."""
        standing = await self.standing_lab()
        client, server = standing.host("home"), standing.host("dc1")
        await start_udp_echo(server)
        probe = await UdpProbe.start(client, server.ipv4)
        first = client.attachment
        await client.plug(standing.networks["global4"], interface="eth1", metric=50)
        await first.unplug()
        self.assertEqual((await ping(client, RESOLVER4)).received, 1)
        report = await probe.report()
        self.assertLessEqual(report.lost, 3)

    async def test_restore(self) -> None:
        """After a test every client of the standing lab is where it was, as it was."""
        standing = await self.standing_lab()
        was = {name: client.attachment.addresses for name, client in standing.clients.items()}
        await standing.host("home").attachment.move(standing.networks["dual"])
        await standing.host("dual").plug(standing.networks["home"], interface="eth1")
        await standing.host("global4").attachment.unplug()
        await standing.host("carrier").attachment.set_mtu(1400)
        await standing.host("symmetric").attachment.down()
        await standing.host("guest").attachment.block()
        await standing.restore()
        for name, client in standing.clients.items():
            self.assertEqual(client.attachment.addresses, was[name])
            self.assertEqual(await interface_addresses(client), set(map(str, was[name])))
            server = RESOLVER4 if was[name][0].version == 4 else RESOLVER6
            self.assertEqual((await ping(client, server)).received, 1, name)


class FaultTests(LabTestCase):
    """A cable fails in the ways that cables do."""

    async def cable(self, name: str) -> Attachment:
        return (await self.standing_lab()).host(name).attachment

    async def test_down_and_up(self) -> None:
        """An interface that was down has its addresses and routes again when it is up."""
        for client, server in (("dual", RESOLVER6), ("home", RESOLVER4)):
            cable = await self.cable(client)
            await cable.down()
            self.assertEqual((await ping(cable.node, server, timeout=0.3)).received, 0)
            await cable.up()
            self.assertEqual((await ping(cable.node, server)).received, 1)

    async def test_carrier(self) -> None:
        """A pulled cable takes the carrier away but leaves the address."""
        cable = await self.cable("home")
        await cable.carrier(False)
        link = await cable.node.run(["ip", "link", "show", "eth0"])
        self.assertIn("NO-CARRIER", link.stdout)
        self.assertEqual(await interface_addresses(cable.node), set(map(str, cable.addresses)))
        await cable.carrier(True)
        self.assertEqual((await ping(cable.node, RESOLVER4)).received, 1)

    async def test_block(self) -> None:
        """What is blocked is lost without an error, the rest goes, until it is lifted."""
        cable = await self.cable("dual")
        server = (await self.standing_lab()).host("dc1")
        await start_udp_echo(server)
        probe = await UdpProbe.start(cable.node, server.ipv6)
        await cable.block(UDP)
        self.assertEqual((await ping(cable.node, RESOLVER6)).received, 1)
        await cable.block(EVERYTHING)
        self.assertEqual((await ping(cable.node, RESOLVER6, timeout=0.3)).received, 0)
        await cable.unblock()
        self.assertEqual((await ping(cable.node, RESOLVER6)).received, 1)
        report = await probe.report()
        self.assertGreater(report.longest_gap_ms or 0, 300)
        self.assertEqual(report.refused, {})
        self.assertGreater(report.received, 0)

    async def test_narrow(self) -> None:
        """A narrow cable says "too big" to whom sends more than it carries, in both families."""
        standing = await self.standing_lab()
        cable, server = await self.cable("dual"), standing.host("dc1")
        await cable.set_mtu(1300)
        for address, header in ((cable.ipv4, 28), (cable.ipv6, 48)):
            fits, more = 1300 - header, 1301 - header
            options = ["-M", "do"]
            small = await ping(server, address, size=fits, options=options)
            self.assertEqual(small.received, 1)
            large = await ping(server, address, size=more, options=options, timeout=0.3)
            self.assertEqual(large.received, 0)
        throughput = await iperf(server, cable.node, cable.ipv4)
        self.assertGreater(throughput.bits_per_second, 1e6)

    async def test_narrow_uplink(self) -> None:
        """So it is with a router's cable: what is sent to the hosts behind it is told too."""
        standing = await self.standing_lab()
        home = standing.networks["firewall6"].router
        await home.attachment.set_mtu(1400)
        self.addCleanup(home.attachment.set_mtu, 1500)
        server, client = standing.host("dc1"), standing.host("firewall6")
        throughput = await iperf(client, server, server.ipv6, reverse=True)
        self.assertGreater(throughput.bits_per_second, 1e6)

    async def test_black_hole(self) -> None:
        """Where "too big" is lost as well, large packets vanish."""
        standing = await self.standing_lab()
        cable, server = await self.cable("global4"), standing.host("dc1")
        await cable.set_mtu(1300)
        await server.attachment.block(f"{ICMP4} icmp type destination-unreachable")
        self.addCleanup(server.attachment.unblock)
        large = await ping(server, cable.ipv4, size=1400, options=["-M", "do"], timeout=0.3)
        self.assertEqual(large.received, 0)


class ImpairmentTests(LabTestCase):
    """The forwarder in a cable delays, loses, duplicates and reorders as it is told."""

    async def far(self, impairment: Impairment) -> Host:
        """Give a new host at the end of such a cable."""
        standing = await self.standing_lab()
        host = await standing.lab.add(Host, f"far-{standing.lab.number()}")
        await host.plug(standing.networks["dual"], impairment=impairment)

        async def remove() -> None:
            for cable in list(host.attachments.values()):
                await cable.unplug()
            await standing.lab.remove(host)

        self.addCleanup(remove)
        return host

    async def test_delay(self) -> None:
        """25 ms each way are 50 ms there and back, within 5 ms, and can be changed."""
        host = await self.far(Impairment(delay=0.025))
        first, *rtts = (await ping(host, RESOLVER4, count=20, interval=0.02)).rtts_ms
        self.assertGreaterEqual(min(first, *rtts), 50)
        self.assertLess(median(rtts), 55)
        await host.attachment.impair(Impairment(delay=0.005))
        rtts = (await ping(host, RESOLVER6, count=20, interval=0.02)).rtts_ms[1:]
        self.assertGreaterEqual(min(rtts), 10)
        self.assertLess(median(rtts), 15)

    async def test_loss(self) -> None:
        """The share that is lost is the one asked for."""
        host = await self.far(Impairment(loss=0.2))
        report = await ping(host, RESOLVER4, count=400, interval=0.002, timeout=0.3)
        self.assertGreater(report.received, 400 * 0.55)  # 0.8 there times 0.8 back: 0.64
        self.assertLess(report.received, 400 * 0.73)

    async def test_disorder(self) -> None:
        """Datagrams come twice, and late, in the shares asked for."""
        standing = await self.standing_lab()
        server = standing.host("dc1")
        await start_udp_echo(server)
        host = await self.far(Impairment(delay=0.005, reorder=0.1, reorder_by=0.05, duplicate=0.1))
        probe = await UdpProbe.start(host, server.ipv4, interval=0.005)
        await ping(host, RESOLVER4, count=100, interval=0.01)
        report = await probe.report()
        self.assertEqual(report.lost, 0)
        self.assertGreater(report.duplicates, report.sent * 0.05)
        self.assertGreater(report.reordered, report.sent * 0.05)

    async def test_stream(self) -> None:
        """TCP comes through whole, large segments included."""
        standing = await self.standing_lab()
        server = standing.host("dc1")
        host = await self.far(Impairment(delay=0.005, loss=0.001))
        stream = await TcpStream.start(host, server, server.ipv4, rate=20e6)
        await ping(host, RESOLVER4, count=50, interval=0.01)
        report = await stream.report()
        self.assertTrue(report.intact, report.errors)
        self.assertGreater(report.received, 1e5)

    async def test_rate(self) -> None:
        """A cable of 10 Mbit/s carries that and not more."""
        standing = await self.standing_lab()
        server = standing.host("dc1")
        host = await self.far(Impairment(rate=10e6, queue=50))
        throughput = await iperf(host, server, server.ipv4, seconds=2)
        self.assertGreater(throughput.bits_per_second, 5e6)
        self.assertLess(throughput.bits_per_second, 11e6)

    async def test_move(self) -> None:
        """The impairment moves with the cable."""
        standing = await self.standing_lab()
        host = await self.far(Impairment(delay=0.01))
        home = await standing.internet.access(Access.HOME, f"net-{standing.lab.number()}")
        await host.attachment.move(home)
        self.assertGreaterEqual(min((await ping(host, RESOLVER4, count=3)).rtts_ms), 20)
