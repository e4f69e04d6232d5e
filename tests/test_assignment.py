from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import InvalidName, QuotaExceeded, StorageFailed
from ntmobile.machines.signalling.clients import Client, ClientTable, Policy
from ntmobile.servers.assignment import Assignments
from ntmobile.servers.naming import DomainNames
from ntmobile.wire import virtual
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import RegistrationRequest
from tests.realms import MemoryRealm

DOMAIN = "dc1.ntm.example"
PHONE = f"phone.alice.{DOMAIN}"


class Memory:
    """The part of a location store that keeps addresses."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, bytes]] = {}
        self.full = False

    def assignments(self) -> dict[str, tuple[bytes, bytes]]:
        """All of them."""
        return dict(self.kept)

    def assign(self, fqdn: str, ipv6: bytes, ipv4: bytes) -> None:
        """Keep one."""
        if self.full:
            raise StorageFailed("the disk is full")
        self.kept[fqdn] = (ipv6, ipv4)


class AssignmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A DC with a small pool."""
        self.store = Memory()
        self.assignments = self.make()

    def make(self, pool: str = "198.18.0.0/24") -> Assignments:
        """A DC that starts."""
        return Assignments(DOMAIN, IPv4Network(pool), cast(Any, self.store))

    def test_assigned(self) -> None:
        """R22: a device gets its name, an IPv6 address of the domain, an IPv4 one of the pool."""
        fqdn, ipv6, ipv4 = self.assignments.assign("alice", "phone")
        self.assertEqual(fqdn, PHONE)
        self.assertTrue(virtual.is_virtual_of(DOMAIN, ipv6))
        self.assertIn(ipv4, IPv4Network("198.18.0.0/24"))

    def test_for_life(self) -> None:
        """The same device has the same addresses at every login, after a restart too."""
        first = self.assignments.assign("alice", "phone")
        self.assertEqual(self.assignments.assign("alice", "phone"), first)
        again = self.make()
        self.assertEqual(again.assign("alice", "phone"), first)
        self.assertEqual(again.of(PHONE), first[1:])

    def test_each_its_own(self) -> None:
        """No two devices share an address, up to the last of the pool."""
        pool = virtual.hosts_in(IPv4Network("198.18.0.0/26"))[1]
        assignments = self.make("198.18.0.0/26")
        found = [assignments.assign("alice", f"d{number}") for number in range(pool)]
        self.assertEqual(len({ipv6 for _, ipv6, _ in found}), pool)
        self.assertEqual(len({ipv4 for _, _, ipv4 in found}), pool)
        with self.assertRaises(QuotaExceeded):
            assignments.assign("alice", "one-more")
        self.assertIsNone(assignments.of(f"one-more.alice.{DOMAIN}"))

    def test_colliding_ipv6(self) -> None:
        """Where two names lead to one IPv6 address, the second gets the next."""
        taken = virtual.address_of(DOMAIN, PHONE)
        self.store.kept[f"other.bob.{DOMAIN}"] = (taken.packed, bytes((198, 18, 0, 77)))
        _, ipv6, _ = self.make().assign("alice", "phone")
        self.assertEqual(ipv6, virtual.address_of(DOMAIN, PHONE, 1))

    def test_wrong_names(self) -> None:
        """R1: what cannot be a name, or is a server's, is assigned nothing."""
        for user, device in (
            ("", "a"),
            ("a", ""),
            ("as", "x"),
            ("a.b", "x"),
            ("A", "x"),
            ("a", "x" * 60),
        ):
            with self.assertRaises(InvalidName):
                self.assignments.assign(user, device)
        self.assertEqual(self.store.kept, {})

    def test_not_kept(self) -> None:
        """What could not be kept was not assigned."""
        self.store.full = True
        with self.assertRaises(StorageFailed):
            self.assignments.assign("alice", "phone")
        self.assertIsNone(self.assignments.of(PHONE))
        self.assertFalse(self.assignments.has_user(f"alice.{DOMAIN}"))


class DomainNameTests(SynchronousTestCase):
    realm = MemoryRealm()

    def setUp(self) -> None:
        """Two devices with addresses, of one user; one of them has registered."""
        self.store = Memory()
        self.assignments = Assignments(DOMAIN, virtual.POOL, cast(Any, self.store))
        self.clients = ClientTable(DOMAIN)
        self.names = DomainNames(self.clients, self.assignments)
        self.addresses: dict[str, tuple[IPv6Address, IPv4Address]] = {}
        for device in ("phone", "tablet"):
            fqdn, ipv6, ipv4 = self.assignments.assign("alice", device)
            self.addresses[fqdn] = (ipv6, ipv4)

    def register(self, fqdn: str) -> None:
        """A device registers."""
        client = self.clients.find(fqdn)
        if client is None:
            client = Client(self.realm.device(fqdn)[2], fqdn.encode()[:8], 1e9, Policy())
            self.clients.add(client)
        seen = ("203.0.113.7", 4000)
        request = RegistrationRequest(client.location.generation + 1, (Endpoint.of(seen),), 1, 20)
        self.clients.register(client, request, seen, 0.0)

    def test_devices(self) -> None:
        """A device that ever logged in has its addresses in the zone, on or off."""
        self.assertEqual(self.names.virtual_addresses(PHONE), self.addresses[PHONE])
        self.assertIsNone(self.names.virtual_addresses(f"nobody.alice.{DOMAIN}"))

    def test_users(self) -> None:
        """A user's name has the addresses of the device that registered last."""
        user = f"alice.{DOMAIN}"
        self.assertIsNone(self.names.virtual_addresses(user))
        self.assertTrue(self.names.has_below(user))
        for fqdn in self.addresses:
            self.register(fqdn)
            self.assertEqual(self.names.virtual_addresses(user), self.addresses[fqdn])
        self.assertFalse(self.names.has_below(f"bob.{DOMAIN}"))
