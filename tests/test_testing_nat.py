"""NATs of the virtual internet."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.testing import (
    Host,
    Mailbox,
    NatBox,
    NatKind,
    NatPolicy,
    Network,
    VirtualInternet,
)


def nat_of(network: Network) -> NatBox:
    """The NAT of a network that has one."""
    nat = network.gateways[4]
    assert isinstance(nat, NatBox)
    return nat


class NatTests(SynchronousTestCase):
    """The kinds of NAT, told apart by what they let in."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.server = self.internet.host("server", "203.0.113.1")
        self.other = self.internet.host("other", "203.0.113.2")
        self.one = Mailbox.at(self.server, 1000)
        self.same_address = Mailbox.at(self.server, 1001)
        self.stranger = Mailbox.at(self.other, 1000)

    def home(self, nat: NatKind | NatPolicy, name: str = "home") -> tuple[Network, Host]:
        """A home with a phone behind a NAT."""
        network = self.internet.network(name, "192.168.1.0/24", nat=nat)
        return network, network.host(f"phone at {name}")

    def admitted(self, kind: NatKind) -> tuple[bool, bool, bool]:
        """Who gets in through a mapping made for one: it, its other port, a stranger."""
        _, phone = self.home(kind)
        inside = Mailbox.at(phone)
        inside.send(b"out", self.one.address)
        self.internet.advance(1)
        outside = self.one.sources[-1]
        for sender in (self.one, self.same_address, self.stranger):
            sender.send(repr(sender.address).encode(), outside)
        self.internet.advance(1)
        senders = (self.one, self.same_address, self.stranger)
        first, second, third = (sender.address in inside.sources for sender in senders)
        return first, second, third

    def test_full_cone(self) -> None:
        """A full cone's mapping is open to everyone."""
        self.assertEqual(self.admitted(NatKind.FULL_CONE), (True, True, True))

    def test_restricted_cone(self) -> None:
        """A restricted cone's mapping is open to an address that was sent to, any port."""
        self.assertEqual(self.admitted(NatKind.RESTRICTED_CONE), (True, True, False))

    def test_port_restricted_cone(self) -> None:
        """A port-restricted cone's mapping is open to the exact endpoint."""
        self.assertEqual(self.admitted(NatKind.PORT_RESTRICTED_CONE), (True, False, False))

    def test_symmetric(self) -> None:
        """A symmetric NAT's mapping is open to the exact endpoint."""
        self.assertEqual(self.admitted(NatKind.SYMMETRIC), (True, False, False))

    def ports_seen(self, nat: NatKind | NatPolicy) -> tuple[int, int]:
        """The outside ports that two servers see for one socket."""
        _, phone = self.home(nat)
        inside = Mailbox.at(phone, 5000)
        inside.send(b"", self.one.address)
        inside.send(b"", self.stranger.address)
        self.internet.advance(1)
        self.assertNotEqual(self.one.sources[0][0], phone.address())
        return self.one.sources[0][1], self.stranger.sources[0][1]

    def test_cones_reuse_the_mapping(self) -> None:
        """A cone shows one port to all."""
        first, second = self.ports_seen(NatKind.PORT_RESTRICTED_CONE)
        self.assertEqual(first, second)

    def test_symmetric_does_not(self) -> None:
        """A symmetric NAT shows each destination another port."""
        first, second = self.ports_seen(NatKind.SYMMETRIC)
        self.assertNotEqual(first, second)

    def test_preserved_port(self) -> None:
        """A NAT may keep the inside port while it is free."""
        policy = NatPolicy(preserve_ports=True)
        self.assertEqual(self.ports_seen(policy), (5000, 5000))
        second = Mailbox.at(self.internet.networks["home"].host("tablet"), 5000)
        second.send(b"", self.one.address)
        self.internet.advance(1)
        self.assertNotEqual(self.one.sources[-1][1], 5000)

    def test_timeout(self) -> None:
        """An unused mapping ends, an outgoing datagram in time keeps it."""
        _, phone = self.home(NatPolicy(timeout=30))
        inside = Mailbox.at(phone)
        inside.send(b"", self.one.address)
        self.internet.advance(29)
        inside.send(b"", self.one.address)
        self.internet.advance(29)
        outside = self.one.sources[-1]
        self.one.send(b"in time", outside)
        self.internet.advance(2)
        self.one.send(b"too late", outside)
        self.internet.advance(1)
        self.assertEqual(inside.payloads, [b"in time"])

    def test_inbound_refresh(self) -> None:
        """Where the policy says so, incoming datagrams keep a mapping too."""
        _, phone = self.home(NatPolicy(timeout=30, inbound_refreshes=True))
        inside = Mailbox.at(phone)
        inside.send(b"", self.one.address)
        self.internet.advance(1)
        for _ in range(3):
            self.internet.advance(25)
            self.one.send(b"in", self.one.sources[0])
        self.internet.advance(1)
        self.assertEqual(len(inside.payloads), 3)

    def test_rebind(self) -> None:
        """A NAT that restarts forgets: what comes in is dropped, what goes out looks different."""
        network, phone = self.home(NatKind.FULL_CONE)
        inside = Mailbox.at(phone)
        inside.send(b"", self.one.address)
        self.internet.advance(1)
        nat_of(network).rebind()
        self.one.send(b"lost", self.one.sources[0])
        self.internet.advance(1)
        inside.send(b"", self.one.address)
        self.internet.advance(1)
        self.assertEqual(inside.payloads, [])
        self.assertNotEqual(self.one.sources[0], self.one.sources[1])
        self.assertEqual(len(nat_of(network).mappings), 1)

    def test_renumber(self) -> None:
        """A NAT can get another outside address, and nobody answers at the old one."""
        network, phone = self.home(NatKind.FULL_CONE)
        inside = Mailbox.at(phone)
        inside.send(b"", self.one.address)
        self.internet.advance(1)
        address = nat_of(network).renumber("203.0.113.99")
        inside.send(b"", self.one.address)
        self.one.send(b"lost", self.one.sources[0])
        self.internet.advance(1)
        self.assertEqual((address, self.one.sources[1][0]), ("203.0.113.99", "203.0.113.99"))
        self.assertEqual(inside.payloads, [])

    def hairpin(self, hairpin: bool) -> list[bytes]:
        """What one host hears from another behind the same NAT, sent to its outside address."""
        network, phone = self.home(NatPolicy(NatKind.FULL_CONE, hairpin=hairpin))
        inside, neighbour = Mailbox.at(phone), Mailbox.at(network.host("tablet"))
        inside.send(b"", self.one.address)
        self.internet.advance(1)
        neighbour.send(b"round", self.one.sources[0])
        self.internet.advance(1)
        if inside.sources:
            self.assertEqual(inside.sources[0][0], nat_of(network).address)
        return inside.payloads

    def test_hairpin(self) -> None:
        """A NAT that hairpins joins its inside hosts by outside addresses."""
        self.assertEqual(self.hairpin(True), [b"round"])

    def test_no_hairpin(self) -> None:
        """A NAT that does not drops such datagrams."""
        self.assertEqual(self.hairpin(False), [])

    def test_neighbours(self) -> None:
        """Hosts of one network reach each other directly, and not where guests are isolated."""
        network, phone = self.home(NatKind.SYMMETRIC)
        inside, neighbour = Mailbox.at(phone), Mailbox.at(network.host("tablet"))
        neighbour.send(b"hello", inside.address)
        self.internet.advance(1)
        self.assertEqual(inside.sources, [neighbour.address])
        network.isolated = True
        neighbour.send(b"hello again", inside.address)
        inside.send(b"out", self.one.address)
        self.internet.advance(1)
        self.assertEqual((inside.payloads, self.one.payloads), ([b"hello"], [b"out"]))
        self.one.send(b"answer", self.one.sources[0])
        self.internet.advance(1)
        self.assertIn(b"answer", inside.payloads)

    def test_carrier(self) -> None:
        """A home behind a carrier's NAT is translated twice, both ways."""
        carrier = self.internet.network("carrier", "100.64.0.0/10", nat=NatKind.SYMMETRIC)
        home = self.internet.network(
            "home", "192.168.1.0/24", behind=carrier, nat=NatKind.PORT_RESTRICTED_CONE
        )
        inside = Mailbox.at(home.host("phone"))
        inside.send(b"out", self.one.address)
        self.internet.advance(1)
        self.assertTrue(nat_of(home).address.startswith("100.64."))
        self.assertEqual(self.one.sources[0][0], nat_of(carrier).address)
        self.one.send(b"in", self.one.sources[0])
        self.internet.advance(1)
        self.assertEqual(inside.datagrams, [(b"in", self.one.address)])

    def test_same_private_addresses(self) -> None:
        """Two homes may use the same private addresses; neither reaches the other by them."""
        _, phone = self.home(NatKind.FULL_CONE)
        _, friend = self.home(NatKind.FULL_CONE, "second home")
        self.assertEqual(phone.address(), friend.address())
        inside = Mailbox.at(friend, 5000)
        Mailbox.at(phone).send(b"x", (phone.address(), 5000))
        self.internet.advance(1)
        self.assertEqual(inside.payloads, [])

    def test_refusal_comes_back(self) -> None:
        """The news that a port is closed comes back through the mapping."""
        _, phone = self.home(NatKind.SYMMETRIC)
        inside = Mailbox.at(phone)
        inside.port.connect("203.0.113.1", 9)
        inside.port.write(b"anyone?")
        self.internet.advance(1)
        self.assertEqual(inside.refusals, 1)

    def test_ports_run_out(self) -> None:
        """A NAT without a free port drops."""
        network, phone = self.home(NatKind.SYMMETRIC)
        nat = nat_of(network)
        nat.ports = (2000, 2001)
        inside = Mailbox.at(phone)
        for port in range(3):
            inside.send(b"", ("203.0.113.1", 1000 + port))
        self.internet.advance(1)
        self.assertEqual(len(nat.mappings), 2)
