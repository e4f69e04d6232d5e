"""Networks and firewalls: who reaches whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.testing import (
    Event,
    Firewall,
    Link,
    Mailbox,
    NatKind,
    VirtualInternet,
)


class NetworkTests(SynchronousTestCase):
    """Addresses and routes."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.server = Mailbox.at(self.internet.host("server", "203.0.113.1", "2001:db8::1"), 53)

    def test_allocation(self) -> None:
        """Hosts get free addresses of each family, or those they ask for if they are free."""
        home = self.internet.network("home", "192.168.1.0/24", "2001:db8:1::/64")
        self.assertEqual(home.host("a").addresses, ["192.168.1.1", "2001:db8:1::1"])
        self.assertEqual(home.host("b", "192.168.1.2").addresses, ["192.168.1.2"])
        self.assertEqual(home.host("c").addresses, ["192.168.1.3", "2001:db8:1::2"])
        self.assertRaises(ValueError, home.host, "d", "192.168.1.2")
        self.assertRaises(ValueError, home.host, "e", "192.168.2.2")

    def test_full(self) -> None:
        """A network without a free address says so, and takes nothing half."""
        tiny = self.internet.network("tiny", "2001:db8:1::/64", "192.168.1.0/30")
        first = tiny.host("a")
        tiny.host("b")
        c = self.internet.host("c")
        self.assertRaises(ValueError, c.attach, tiny)
        self.assertEqual(c.interfaces, [])
        first.move(self.internet.backbone)
        self.assertEqual(c.attach(tiny).addresses[1], "192.168.1.1")

    def test_names_are_unique(self) -> None:
        """Two hosts or networks of one name, or two prefixes of one family, are refused."""
        self.assertRaises(ValueError, self.internet.host, "server")
        self.assertRaises(ValueError, self.internet.network, "backbone")
        self.assertRaises(ValueError, self.internet.network, "x", "10.0.0.0/24", "10.1.0.0/24")

    def test_routed_network(self) -> None:
        """A network behind a plain router is reached by its addresses."""
        office = self.internet.network("office", "198.51.100.0/24", "2001:db8:2::/64")
        inside = Mailbox.at(office.host("desk"), 7)
        self.server.send(b"in", inside.address)
        self.internet.advance(1)
        inside.send(b"out", self.server.address)
        self.internet.advance(1)
        self.assertEqual((inside.payloads, self.server.payloads), ([b"in"], [b"out"]))
        self.assertEqual(self.server.sources, [("198.51.100.1", 7)])

    def test_nested_routes(self) -> None:
        """A routed network behind a routed network is reached too."""
        outer = self.internet.network("outer", "198.51.100.0/25")
        inner = self.internet.network("inner", "198.51.100.128/25", behind=outer)
        inside = Mailbox.at(inner.host("deep"))
        self.server.send(b"in", inside.address)
        self.internet.advance(1)
        self.assertEqual(inside.payloads, [b"in"])
        self.assertTrue(outer.contains(inner))

    def test_nobody_there(self) -> None:
        """A datagram to an address that nobody has ends, and the capture says where."""
        home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.FULL_CONE)
        phone = Mailbox.at(home.host("phone"))
        for address in ("192.168.1.77", "203.0.113.77", "10.9.9.9"):
            phone.send(b"x", (address, 1))
        self.internet.advance(1)
        places = [capture.place for capture in self.internet.captures(Event.DROPPED)]
        self.assertEqual(places, ["home", "backbone", "backbone"])

    def test_family_without_gateway(self) -> None:
        """A network without a prefix of a family has no way there."""
        home = self.internet.network("home", "192.168.1.0/24")
        self.assertRaises(OSError, home.host("phone").source_for, "2001:db8::1")

    def test_uplink(self) -> None:
        """A network's uplink takes its own time, both ways."""
        far = self.internet.network("far", "198.51.100.0/24", uplink=Link(delay=0.3))
        inside = Mailbox.at(far.host("phone"))
        inside.send(b"x", self.server.address)
        self.assertAlmostEqual(self.internet.run_until(lambda: bool(self.server.payloads)), 0.3)
        self.server.send(b"y", inside.address)
        self.assertAlmostEqual(self.internet.run_until(lambda: bool(inside.payloads)), 0.3)


class FirewallTests(SynchronousTestCase):
    """A stateful firewall in front of IPv6."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.server = Mailbox.at(self.internet.host("server", "2001:db8::1"), 53, "::")
        self.home = self.internet.network("home", "2001:db8:1::/64", firewall=True)
        self.phone = Mailbox.at(self.home.host("phone"), 5000, "::")
        firewall = self.home.gateways[6]
        assert isinstance(firewall, Firewall)
        self.firewall = firewall

    def heard(self) -> list[bytes]:
        """What the phone has heard after a second."""
        self.internet.advance(1)
        return self.phone.payloads

    def test_unasked(self) -> None:
        """What nobody asked for does not come in."""
        self.server.send(b"x", self.phone.address)
        self.assertEqual(self.heard(), [])

    def test_answer(self) -> None:
        """An answer does, by exact addresses and ports, untranslated."""
        self.phone.send(b"x", self.server.address)
        self.internet.advance(1)
        self.assertEqual(self.server.sources, [self.phone.address])
        Mailbox.at(self.server.port.host, 54, "::").send(b"other port", self.phone.address)
        self.server.send(b"answer", self.phone.address)
        self.assertEqual(self.heard(), [b"answer"])

    def test_timeout(self) -> None:
        """A flow that either side uses stays, an unused one ends."""
        self.phone.send(b"x", self.server.address)
        for _ in range(3):
            self.internet.advance(25)
            self.server.send(b"y", self.phone.address)
        self.assertEqual(len(self.heard()), 3)
        self.internet.advance(30)
        self.server.send(b"late", self.phone.address)
        self.assertEqual(len(self.heard()), 3)

    def test_forget(self) -> None:
        """A restarted firewall knows no flows."""
        self.phone.send(b"x", self.server.address)
        self.internet.advance(1)
        self.firewall.forget()
        self.server.send(b"y", self.phone.address)
        self.assertEqual(self.heard(), [])

    def test_admitted(self) -> None:
        """A port may be open to all."""
        self.firewall.admits.add(("udp", 5000))
        self.server.send(b"x", self.phone.address)
        self.assertEqual(self.heard(), [b"x"])

    def test_blocked_protocol(self) -> None:
        """A firewall may let a protocol through in neither direction."""
        self.firewall.blocks.add("udp")
        self.phone.send(b"x", self.server.address)
        self.server.send(b"x", self.phone.address)
        self.assertEqual((self.heard(), self.server.payloads), ([], []))

    def test_nat_and_firewall(self) -> None:
        """A dual-stack home has a NAT for IPv4 and a firewall for IPv6."""
        dual = self.internet.network(
            "dual", "192.168.1.0/24", "2001:db8:9::/64", nat=NatKind.SYMMETRIC, firewall=True
        )
        host = dual.host("tablet")
        four, six = Mailbox.at(host, 1), Mailbox.at(host, 1, "::")
        server = Mailbox.at(self.internet.host("dual server", "203.0.113.9", "2001:db8::9"), 1)
        server6 = Mailbox.at(server.port.host, 1, "::")
        four.send(b"4", server.address)
        six.send(b"6", server6.address)
        self.internet.advance(1)
        self.assertNotEqual(server.sources[0][0], host.address(4))
        self.assertEqual(server6.sources[0][0], host.address(6))
