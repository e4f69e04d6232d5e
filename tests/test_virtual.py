"""Virtual addresses: derived, stable, unique."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import QuotaExceeded
from ntmobile.wire import virtual

DOMAIN, PHONE = "dc1.ntm.example", "phone.alice.dc1.ntm.example"


class IPv6Tests(SynchronousTestCase):
    """R22: virtual IPv6 addresses lie in the prefix of their coordinator's domain."""

    def test_vector(self) -> None:
        """The derivation is part of the protocol, so it never changes."""
        self.assertEqual(virtual.prefix_of(DOMAIN), IPv6Network("fdd6:ca62:419:b50::/64"))
        address = virtual.address_of(DOMAIN, PHONE)
        self.assertEqual(address, IPv6Address("fdd6:ca62:419:b50:553f:673f:7aa7:5b4e"))

    def test_unique_local(self) -> None:
        """A prefix is a unique local /64, another for each domain."""
        prefixes = {virtual.prefix_of(f"dc{number}.ntm.example") for number in range(100)}
        self.assertEqual(len(prefixes), 100)
        for prefix in prefixes:
            self.assertTrue(prefix.subnet_of(IPv6Network("fd00::/8")))
            self.assertEqual(prefix.prefixlen, 64)

    @given(st.integers(0, 2**32 - 2))
    def test_in_the_prefix(self, salt: int) -> None:
        """R22: whatever the salt, an address is of its domain, and its identifier not reserved."""
        address = virtual.address_of(DOMAIN, PHONE, salt)
        self.assertTrue(virtual.is_virtual_of(DOMAIN, address))
        self.assertFalse(virtual.is_virtual_of("dc2.ntm.example", address))
        self.assertGreaterEqual(int(address) & (2**64 - 1), virtual.RESERVED_INTERFACES)

    def test_salt(self) -> None:
        """Another salt gives another address, for when two devices collide."""
        found = {virtual.address_of(DOMAIN, PHONE, salt) for salt in range(100)}
        self.assertEqual(len(found), 100)

    def test_reserved(self) -> None:
        """Identifiers of RFC 5453 and of the platform's own are passed over."""
        for interface in (0, 1, 0xFFFF, 0x02005EFFFE123456, 0xFDFFFFFFFFFFFF80, 0xFDFFFFFFFFFFFFFF):
            self.assertTrue(virtual._is_reserved(interface))
        for interface in (0x10000, 0x02005EFFFF000000, 0xFDFFFFFFFFFFFF7F, 2**64 - 1):
            self.assertFalse(virtual._is_reserved(interface))


class IPv4Tests(SynchronousTestCase):
    """Virtual IPv4 addresses come from the pool of the home coordinator."""

    def test_stable(self) -> None:
        """A device gets the same address from an empty pool each time, and devices differ."""
        first = virtual.pick_ipv4(virtual.POOL, PHONE, ())
        self.assertEqual(first, virtual.pick_ipv4(virtual.POOL, PHONE, ()))
        self.assertIn(first, virtual.POOL)
        self.assertNotEqual(first, virtual.pick_ipv4(virtual.POOL, "a" + PHONE, ()))

    def test_taken(self) -> None:
        """A taken address is passed over for the next free one."""
        first = virtual.pick_ipv4(virtual.POOL, PHONE, ())
        second = virtual.pick_ipv4(virtual.POOL, PHONE, {first})
        self.assertEqual(int(second), int(first) + 1)

    def test_whole_pool(self) -> None:
        """Every address of a pool is given, none twice, no reserved one; then it is full."""
        for pool, count in ((IPv4Network("10.9.8.0/28"), 14), (IPv4Network("10.9.8.0/24"), 239)):
            taken: set[IPv4Address] = set()
            for _ in range(count):
                taken.add(virtual.pick_ipv4(pool, PHONE, taken))
            self.assertEqual(len(taken), count)
            self.assertNotIn(pool.network_address, taken)
            self.assertNotIn(pool.broadcast_address, taken)
            error = self.assertRaises(QuotaExceeded, virtual.pick_ipv4, pool, PHONE, taken)
            self.assertIn(str(pool), str(error))

    def test_platform_addresses(self) -> None:
        """The first addresses of a pool of usual size are the platform's."""
        first, count = virtual.hosts_in(virtual.POOL)
        self.assertEqual((first, count), (16, 131072 - 1 - 16))
