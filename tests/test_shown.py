from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import ntmobile.machines.device.shown as module
from ntmobile.errors import CertificateError, MalformedMessage
from ntmobile.machines.device.shown import Shown, ShownAddresses
from ntmobile.machines.tunnel.candidates import PRIVATE
from ntmobile.wire import virtual
from ntmobile.wire.certificates import DeviceCertificate
from tests.packets import ipv4, ipv6
from tests.realms import MemoryRealm

OWN6, OWN4 = IPv6Address("fd00::1"), IPv4Address("198.18.0.20")
SHARED = IPv4Address("198.18.7.7")
REALM = MemoryRealm()
BASE = REALM.device("phone.alice.dc1.ntm.example")[2]


def certificate(name: str, address: IPv4Address | str, domain: str = "dc1") -> DeviceCertificate:
    """What is certified of a device; its IPv6 address follows from its name."""
    fqdn = f"{name}.bob.{domain}.ntm.example"
    ipv6_address = virtual.address_of(f"{domain}.ntm.example", fqdn)
    return evolve(BASE, fqdn=fqdn, ipv6=ipv6_address, ipv4=IPv4Address(address))


class LearningTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A client with addresses of its own."""
        self.shown = ShownAddresses(OWN6, OWN4)

    def test_as_certified(self) -> None:
        """Where nothing is in the way, a correspondent is shown as certified."""
        found = self.shown.learn(certificate("a", SHARED))
        self.assertEqual((found.ipv4, found.certified), (SHARED, SHARED))
        self.assertIs(self.shown.at(SHARED.packed), found)
        self.assertIs(self.shown.at(found.ipv6.packed), found)
        self.assertIs(self.shown.of(found.fqdn), found)

    def test_same_address(self) -> None:
        """R24: of two correspondents with the same IPv4 address the second is shown elsewhere."""
        first = self.shown.learn(certificate("a", SHARED))
        second = self.shown.learn(certificate("b", SHARED, "dc2"))
        self.assertEqual(first.ipv4, SHARED)
        self.assertNotEqual(second.ipv4, SHARED)
        self.assertIn(second.ipv4, virtual.POOL)
        self.assertIs(self.shown.at(SHARED.packed), first)
        self.assertIs(self.shown.at(second.ipv4.packed), second)

    def test_own_address(self) -> None:
        """R24: a correspondent with our own IPv4 address is shown elsewhere."""
        self.assertNotEqual(self.shown.learn(certificate("a", OWN4)).ipv4, OWN4)

    def test_address_of_another(self) -> None:
        """R22: a DC that certifies an address twice leads nobody's packets to another device."""
        first = self.shown.learn(certificate("a", SHARED))
        thief = evolve(certificate("b", "198.18.7.8"), ipv6=first.ipv6)
        problem = self.assertRaises(CertificateError, self.shown.learn, thief)
        self.assertIn(f"the virtual address of {first.fqdn}", str(problem))
        self.assertIs(self.shown.at(first.ipv6.packed), first)
        self.assertIsNone(self.shown.of(thief.fqdn))
        self.shown.learn(certificate("b", "198.18.7.8"))
        self.assertRaises(CertificateError, self.shown.learn, thief)
        self.assertIs(self.shown.at(first.ipv6.packed), first)

    def test_own_ipv6_address(self) -> None:
        """R22: nobody is shown under this device's own address."""
        thief = evolve(certificate("a", SHARED), ipv6=OWN6)
        self.assertRaises(CertificateError, self.shown.learn, thief)

    def test_inside_a_network(self) -> None:
        """R24: nobody is shown inside a network that the client is in."""
        self.shown.set_networks([IPv4Network("198.18.0.0/16")])
        found = self.shown.learn(certificate("a", SHARED))
        self.assertIn(found.ipv4, IPv4Network("198.19.0.0/16"))

    def test_behind_the_pool(self) -> None:
        """R24: where the whole pool is a network of the client's, others take its place."""
        self.shown.set_networks([IPv4Network("198.18.0.0/15")])
        found = self.shown.learn(certificate("a", SHARED))
        self.assertIn(found.ipv4, IPv4Network("100.64.0.0/10"))
        self.shown.set_networks([IPv4Network("198.18.0.0/15"), IPv4Network("100.64.0.0/10")])
        moved = self.shown.of(found.fqdn)
        assert moved is not None
        self.assertIn(moved.ipv4, IPv4Network("10.0.0.0/8"))

    def test_carrier_network(self) -> None:
        """R24: in a carrier's 100.64.0.0/10 and a home's 192.168.0.0/16 nothing has to move."""
        first = self.shown.learn(certificate("a", SHARED))
        moved = self.shown.set_networks(
            [IPv4Network("100.64.0.0/10"), IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")]
        )
        self.assertEqual(moved, [])
        self.assertIs(self.shown.of(first.fqdn), first)

    def test_address_of_the_internet(self) -> None:
        """R24: a foreign realm that certifies an address of the internet takes it from nobody."""
        for address in ("8.8.8.8", "203.0.113.9", "198.17.255.255", "198.20.0.1"):
            found = self.shown.learn(certificate("a", address))
            self.assertIn(found.ipv4, virtual.POOL)
            self.assertIsNone(self.shown.at(IPv4Address(address).packed))
        for address in ("10.1.2.3", "100.64.3.4", "198.19.1.1"):
            self.assertEqual(self.shown.learn(certificate("a", address)).ipv4, IPv4Address(address))

    def test_the_same_again(self) -> None:
        """Learning the same again changes nothing: connections go on."""
        self.shown.learn(certificate("a", SHARED))
        second = self.shown.learn(certificate("b", SHARED, "dc2"))
        for _ in range(3):
            self.assertIs(self.shown.learn(certificate("b", SHARED, "dc2")), second)

    def test_stable(self) -> None:
        """An address stays when what was in its way has gone."""
        self.shown.set_networks([IPv4Network("198.18.0.0/16")])
        found = self.shown.learn(certificate("a", SHARED))
        self.assertEqual(self.shown.set_networks([]), [])
        self.assertIs(self.shown.learn(certificate("a", SHARED)), found)

    def test_new_certified_address(self) -> None:
        """A device that was enrolled anew elsewhere leaves its former address."""
        self.shown.learn(certificate("a", SHARED))
        again = self.shown.learn(certificate("a", "198.18.9.9"))
        self.assertIsNone(self.shown.at(SHARED.packed))
        self.assertIs(self.shown.at(again.ipv4.packed), again)

    def test_moving_into_a_network(self) -> None:
        """R24: who is shown inside a network the client comes to is shown anew, and named."""
        inside = self.shown.learn(certificate("a", SHARED))
        outside = self.shown.learn(certificate("b", "198.19.0.9"))
        self.assertEqual(self.shown.set_networks([IPv4Network("198.18.0.0/16")]), [inside.fqdn])
        moved = self.shown.of(inside.fqdn)
        assert moved is not None
        self.assertNotIn(moved.ipv4, IPv4Network("198.18.0.0/16"))
        self.assertIs(self.shown.of(outside.fqdn), outside)

    def test_no_address_left(self) -> None:
        """In a network that covers everything a correspondent stays where it is."""
        found = self.shown.learn(certificate("a", SHARED))
        self.shown.set_networks([IPv4Network("0.0.0.0/0")])
        again = self.shown.of(found.fqdn)
        assert again is not None
        self.assertEqual(again.ipv4, SHARED)

    def test_bounded(self) -> None:
        """The table is bounded: the one learnt longest ago goes."""
        self.patch(module, "CAPACITY", 3)
        for name in "abcd":
            self.shown.learn(certificate(name, f"198.18.1.{ord(name)}"))
            self.shown.learn(certificate("a", f"198.18.1.{ord('a')}"))
        self.assertIsNone(self.shown.of("b.bob.dc1.ntm.example"))
        self.assertIsNone(self.shown.at(IPv4Address(f"198.18.1.{ord('b')}").packed))
        self.assertIsNotNone(self.shown.of("a.bob.dc1.ntm.example"))

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from("abcdef"), st.integers(16, 19)),
                st.sampled_from(["198.18.0.0/16", "198.18.0.0/24", "198.18.0.0/15", "10.0.0.0/8"]),
            ),
            max_size=20,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_any_course(self, steps: list[tuple[str, int] | str]) -> None:
        """R24: whatever comes, each address belongs to one, and none is ours or in a network."""
        shown = ShownAddresses(OWN6, OWN4)
        for step in steps:
            if isinstance(step, str):
                shown.set_networks([IPv4Network(step)])
            else:
                shown.learn(certificate(step[0], f"198.18.0.{step[1]}"))
            addresses = [one.ipv4 for one in shown.remembered]
            self.assertEqual(len(set(addresses)), len(addresses))
            self.assertNotIn(OWN4, addresses)
            for one in shown.remembered:
                self.assertIs(shown.at(one.ipv4.packed), one)
                self.assertIs(shown.at(one.ipv6.packed), one)
                self.assertFalse(any(one.ipv4 in network for network in shown.networks))


class RestoringTests(SynchronousTestCase):
    def test_restored(self) -> None:
        """A later agent shows everybody as the earlier one did."""
        before = ShownAddresses(OWN6, OWN4)
        before.learn(certificate("a", SHARED))
        second = before.learn(certificate("b", SHARED, "dc2"))
        after = ShownAddresses(OWN6, OWN4)
        after.restore(before.remembered)
        self.assertEqual(after.remembered, before.remembered)
        self.assertEqual(after.learn(certificate("b", SHARED, "dc2")), second)

    def test_in_the_way(self) -> None:
        """What became ours, or lies in a network, or was learnt meanwhile, is not restored."""
        before = ShownAddresses(OWN6, IPv4Address("198.18.0.99"))
        for name, address in (("a", OWN4), ("b", SHARED), ("c", "198.19.3.3")):
            before.learn(certificate(name, address))
        after = ShownAddresses(OWN6, OWN4, (IPv4Network("198.18.7.0/24"),))
        learnt = after.learn(certificate("c", "198.19.5.5"))
        after.restore(before.remembered)
        self.assertEqual(after.remembered, (learnt,))


class PacketTests(SynchronousTestCase):
    def setUp(self) -> None:
        """One correspondent is shown as certified, one is not."""
        self.shown = ShownAddresses(OWN6, OWN4)
        self.plain: Shown = self.shown.learn(certificate("a", SHARED))
        self.other: Shown = self.shown.learn(certificate("b", SHARED, "dc2"))

    def packet(self, source: IPv4Address, destination: IPv4Address) -> bytes:
        """A UDP packet."""
        return ipv4(source.packed, destination.packed, 17, b"\x12\x34\x00\x35\x00\x0c\x00\x00data")

    def test_as_it_is(self) -> None:
        """A packet for or from somebody shown as certified is not touched."""
        out = self.packet(OWN4, SHARED)
        self.assertEqual(self.shown.outbound(out), (self.plain.fqdn, out))
        back = self.packet(SHARED, OWN4)
        self.assertIs(self.shown.inbound(self.plain.fqdn, back), back)

    def test_translated(self) -> None:
        """R24: a packet goes out under the certified address and comes in under the shown one."""
        found = self.shown.outbound(self.packet(OWN4, self.other.ipv4))
        self.assertEqual(found, (self.other.fqdn, self.packet(OWN4, SHARED)))
        back = self.shown.inbound(self.other.fqdn, self.packet(SHARED, OWN4))
        self.assertEqual(back, self.packet(self.other.ipv4, OWN4))

    def test_ipv6(self) -> None:
        """IPv6 is never translated."""
        out = ipv6(OWN6.packed, self.other.ipv6.packed, 17, b"\x12\x34\x00\x35\x00\x0c\x00\x00data")
        self.assertEqual(self.shown.outbound(out), (self.other.fqdn, out))
        self.assertIs(self.shown.inbound(self.other.fqdn, out), out)

    def test_to_nobody(self) -> None:
        """A packet to somebody unknown goes to nobody."""
        self.assertIsNone(self.shown.outbound(self.packet(OWN4, IPv4Address("198.18.77.77"))))
        stranger = IPv6Address("fd00::77").packed
        self.assertIsNone(self.shown.outbound(ipv6(OWN6.packed, stranger, 17, bytes(8))))
        self.assertIsNone(self.shown.inbound("nobody.bob.example", self.packet(SHARED, OWN4)))

    @given(st.binary(max_size=80))
    def test_garbage(self, packet: bytes) -> None:
        """R11: bytes that are no packet are malformed outwards, and harmless inwards."""
        try:
            self.shown.outbound(packet)
        except MalformedMessage:
            self.assertFalse(len(packet) >= 40 and packet[0] >> 4 == 6)
        self.shown.inbound(self.other.fqdn, packet)

    def test_private_pools(self) -> None:
        """Everybody else is shown in ranges that are private or the virtual pool."""
        ranges = (virtual.POOL, *(one for one in PRIVATE if isinstance(one, IPv4Network)))
        for pool in module.POOLS:
            self.assertTrue(any(pool.subnet_of(one) for one in ranges))
