from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage, NotRegistered
from ntmobile.machines.effects import Address
from ntmobile.machines.signalling.clients import (
    CORRESPONDENTS,
    LONGEST_KEEPALIVE,
    Client,
    ClientTable,
    Policy,
    Registered,
)
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import PolicyRequest, RegistrationRequest
from tests.realms import MemoryRealm

DOMAIN = "dc1.ntm.example"
PHONE, LAPTOP = f"phone.alice.{DOMAIN}", f"laptop.alice.{DOMAIN}"
PUBLIC4, PUBLIC6 = ("203.0.113.7", 4000), ("2001:db8::7", 4000)
NAT4 = ("203.0.113.99", 50_000)
HOME4 = ("192.168.1.7", 4000)


def ends(*addresses: Address) -> tuple[Endpoint, ...]:
    """Endpoints of addresses."""
    return tuple(Endpoint.of(each) for each in addresses)


def request(generation: int, *local: Address, keepalive: int = 20) -> RegistrationRequest:
    """A Registration Request of a client with these addresses."""
    return RegistrationRequest(generation, ends(*local), 1, keepalive)


class TableCase(SynchronousTestCase):
    """A table with two devices of one user."""

    realm = MemoryRealm()

    def setUp(self) -> None:
        """Log both in."""
        self.table = ClientTable(DOMAIN)
        self.phone = self.log_in(PHONE, b"index-01")
        self.laptop = self.log_in(LAPTOP, b"index-02")

    def log_in(self, fqdn: str, index: bytes) -> Client:
        """A login."""
        client = Client(self.realm.device(fqdn)[2], index, 1e6, Policy(("*",)))
        self.table.add(client)
        return client


class ExpiryTests(TableCase):
    def test_over(self) -> None:
        """A session that is over is found then, not before, and once."""
        early = Client(self.realm.device(f"desk.bob.{DOMAIN}")[2], b"index-03", 70.0, Policy())
        self.table.add(early)
        self.assertEqual(self.table.expired(69.9), [])
        self.assertEqual(self.table.expired(70.0), [early])
        self.assertEqual(self.table.expired(71.0), [])
        self.assertEqual(self.table.expired(1e6), [self.phone, self.laptop])

    def test_another_login(self) -> None:
        """Where a device has logged in again, only its newest session counts."""
        again = Client(self.phone.certificate, b"index-03", 2e6, Policy())
        self.table.add(again)
        self.assertEqual(self.table.expired(1e6), [self.laptop])
        self.assertEqual(self.table.expired(2e6), [again])

    def test_removed(self) -> None:
        """Who was removed is not found again."""
        self.table.remove(PHONE)
        self.assertEqual(self.table.expired(1e6), [self.laptop])


class RegistrationTests(TableCase):
    def test_global(self) -> None:
        """Seen under an address of its own, a client is not behind a NAT."""
        found = self.table.register(self.phone, request(5, PUBLIC4), PUBLIC4, 1.0)
        self.assertEqual(found, Registered(Endpoint.of(PUBLIC4), translated=False, changed=True))
        self.assertEqual(
            self.phone.located(1.0), Location(5, ends(PUBLIC4), ends(PUBLIC4), (), online=True)
        )

    def test_behind_a_nat(self) -> None:
        """Seen under another address or port than any of its own, it is behind a NAT."""
        for seen in (NAT4, (HOME4[0], 4001), (PUBLIC4[0], 4001)):
            found = self.table.register(self.phone, request(5, HOME4, PUBLIC4), seen, 1.0)
            self.assertTrue(found.translated)
            self.assertEqual(self.phone.location.translated, (4,))

    def test_both_families(self) -> None:
        """The registrations of both families make one location, whichever comes first."""
        locations = []
        for order in ((PUBLIC6, NAT4), (NAT4, PUBLIC6)):
            for seen in order:
                self.table.register(self.phone, request(5, HOME4, PUBLIC6), seen, 1.0)
            locations.append(self.phone.location)
            self.phone.location = Location(0, (), ())
        self.assertEqual(locations[0], locations[1])
        self.assertEqual(locations[0], Location(5, ends(NAT4, PUBLIC6), ends(HOME4, PUBLIC6), (4,)))

    def test_again(self) -> None:
        """The same registration again, of either family, changes nothing."""
        for seen in (NAT4, PUBLIC6):
            self.table.register(self.phone, request(5, HOME4, PUBLIC6), seen, 1.0)
        for seen in (NAT4, PUBLIC6, NAT4):
            found = self.table.register(self.phone, request(5, HOME4, PUBLIC6), seen, 2.0)
            self.assertFalse(found.changed)

    def test_newest_wins(self) -> None:
        """R9: an older generation that was overtaken does not undo a newer one."""
        self.table.register(self.phone, request(6, PUBLIC4), PUBLIC4, 1.0)
        found = self.table.register(self.phone, request(5, HOME4), NAT4, 2.0)
        self.assertFalse(found.changed)
        self.assertEqual(self.phone.location.generation, 6)
        self.assertEqual(self.phone.location.observed, ends(PUBLIC4))

    def test_a_move_leaves_nothing_behind(self) -> None:
        """R9: a newer generation starts afresh: the other family of the old network is gone."""
        for seen in (NAT4, PUBLIC6):
            self.table.register(self.phone, request(5, HOME4, PUBLIC6), seen, 1.0)
        self.table.register(self.phone, request(6, PUBLIC4), PUBLIC4, 2.0)
        self.assertEqual(self.phone.location, Location(6, ends(PUBLIC4), ends(PUBLIC4)))

    def test_waking(self) -> None:
        """A client that was silent too long and registers the same again has woken: a change."""
        self.table.register(self.phone, request(5, PUBLIC4), PUBLIC4, 0.0)
        self.assertTrue(self.phone.online(59.9))
        self.assertFalse(self.phone.online(60.0))
        found = self.table.register(self.phone, request(5, PUBLIC4), PUBLIC4, 100.0)
        self.assertTrue(found.changed)

    def test_lifetime(self) -> None:
        """Three planned keep-alives, at least 15 s, at most three hours."""
        for interval, lifetime in ((1, 15.0), (120, 360.0), (1 << 30, 3.0 * LONGEST_KEEPALIVE)):
            self.table.register(self.phone, request(5, PUBLIC4, keepalive=interval), PUBLIC4, 0.0)
            self.assertEqual(self.phone.lifetime, lifetime)
            self.table.keep_alive(self.phone, 0)
            self.assertEqual(self.phone.lifetime, lifetime)

    def test_mapped_address(self) -> None:
        """A socket of both families shows IPv4 inside IPv6; it is IPv4 all the same."""
        found = self.table.register(
            self.phone, request(5, PUBLIC4), ("::ffff:203.0.113.7", 4000), 1.0
        )
        self.assertEqual(found.observed, Endpoint.of(PUBLIC4))
        self.assertFalse(found.translated)

    def test_deregistration(self) -> None:
        """A client that says it goes is off at once, and its last location is remembered."""
        self.table.register(self.phone, request(5, PUBLIC4), PUBLIC4, 1.0)
        self.table.deregister(self.phone)
        self.assertEqual(
            self.phone.located(1.0), Location(5, ends(PUBLIC4), ends(PUBLIC4), (), online=False)
        )

    @given(
        st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from([PUBLIC4, NAT4, PUBLIC6])), max_size=12
        )
    )
    def test_any_order(self, arrivals: list[tuple[int, Address]]) -> None:
        """R9: whatever the order of arrival, the location is of the newest generation alone."""
        table = ClientTable(DOMAIN)
        client = Client(self.phone.certificate, b"index-09", 1e6, Policy())
        table.add(client)
        newest = 0
        for generation, seen in arrivals:
            table.register(client, request(generation, HOME4, PUBLIC6), seen, 1.0)
            newest = max(newest, generation)
            self.assertEqual(client.location.generation, newest)
            families = [one.family for one in client.location.observed]
            self.assertEqual(families, sorted(set(families)))
            self.assertLessEqual(set(client.location.translated), set(families))


class HeardTests(TableCase):
    def setUp(self) -> None:
        """The phone is behind a NAT."""
        super().setUp()
        self.table.register(self.phone, request(5, HOME4), NAT4, 0.0)

    def test_rebound(self) -> None:
        """R9: the newest datagram from another port: the NAT rebound; the location follows."""
        moved = (NAT4[0], 50_001)
        self.assertTrue(self.table.heard(self.phone, moved, 5.0))
        self.assertEqual(self.phone.location, Location(5, ends(moved), ends(HOME4), (4,)))
        self.assertFalse(self.table.heard(self.phone, moved, 6.0))
        self.assertEqual(self.table.seen(self.phone, NAT4), Endpoint.of(moved))

    def test_holds_the_registration(self) -> None:
        """Any authentic newest datagram holds the registration."""
        self.table.heard(self.phone, NAT4, 50.0)
        self.assertTrue(self.phone.online(100.0))

    def test_unregistered_family(self) -> None:
        """A datagram of a family that was not registered tells nothing of the location."""
        self.assertFalse(self.table.heard(self.phone, PUBLIC6, 5.0))
        self.assertEqual(self.phone.location.observed, ends(NAT4))
        self.assertEqual(self.table.seen(self.phone, PUBLIC6), Endpoint.of(PUBLIC6))

    def test_out_of_the_nat(self) -> None:
        """Heard from an address of its own, the client is behind no NAT any more."""
        self.assertTrue(self.table.heard(self.phone, HOME4, 5.0))
        self.assertEqual(self.phone.location.translated, ())


class NameTests(TableCase):
    def test_device(self) -> None:
        """A device is found by its FQDN, whether it registered or not."""
        self.assertIs(self.table.find(PHONE), self.phone)
        self.assertIsNone(self.table.find(f"tablet.alice.{DOMAIN}"))

    def test_user(self) -> None:
        """A user's name stands for the device that registered last; for none before that."""
        user = f"alice.{DOMAIN}"
        self.assertTrue(self.table.has_user(user))
        self.assertIsNone(self.table.find(user))
        for number, device in enumerate((self.phone, self.laptop, self.phone)):
            self.table.register(device, request(number + 1, PUBLIC4), PUBLIC4, 0.0)
            self.assertIs(self.table.find(user), device)
        self.table.remove(PHONE)
        self.assertIs(self.table.find(user), self.laptop)
        self.table.remove(LAPTOP)
        self.assertIsNone(self.table.find(user))
        self.assertFalse(self.table.has_user(user))

    def test_order_after_a_restart(self) -> None:
        """After a restart registrations go on counting above those that were stored."""
        self.laptop.order = 70
        self.table.resume_order(70)
        self.table.resume_order(3)
        self.table.register(self.phone, request(1, PUBLIC4), PUBLIC4, 0.0)
        self.assertIs(self.table.find(f"alice.{DOMAIN}"), self.phone)

    def test_sessions(self) -> None:
        """A new login replaces the session; location, policy and correspondents stay."""
        self.table.register(self.phone, request(5, PUBLIC4), PUBLIC4, 1.0)
        self.table.set_policy(self.phone, PolicyRequest(1, (LAPTOP,)))
        self.phone.talks_to(LAPTOP)
        again = Client(self.phone.certificate, b"index-03", 1e6, Policy(("*",)))
        self.assertIs(self.table.add(again), self.phone)
        with self.assertRaises(NotRegistered):
            self.table.of_index(b"index-01")
        self.assertIs(self.table.of_index(b"index-03"), again)
        self.assertEqual(again.location.generation, 5)
        self.assertEqual(again.policy.allow, (LAPTOP,))
        self.assertEqual(list(again.correspondents), [LAPTOP])
        self.assertFalse(again.online(1.0))
        self.assertEqual(len(self.table), 2)
        self.assertEqual({one.fqdn for one in self.table}, {PHONE, LAPTOP})

    def test_removed(self) -> None:
        """R34: who was removed is found no more, by name nor by session."""
        self.assertIs(self.table.remove(PHONE), self.phone)
        self.assertIsNone(self.table.remove(PHONE))
        self.assertIsNone(self.table.find(PHONE))
        with self.assertRaises(NotRegistered):
            self.table.of_index(b"index-01")


class PolicyTests(TableCase):
    def test_admits(self) -> None:
        """R13: the allow list has FQDNs and suffix patterns; what matches none is not admitted."""
        policy = Policy((f"*.alice.{DOMAIN}", "phone.bob.dc2.ntm.example"))
        self.assertTrue(policy.admits(PHONE))
        self.assertTrue(policy.admits("phone.bob.dc2.ntm.example"))
        self.assertFalse(policy.admits("laptop.bob.dc2.ntm.example"))
        self.assertFalse(policy.admits(f"alice.{DOMAIN}"))
        self.assertFalse(policy.admits(f"phone.malice.{DOMAIN}"))
        self.assertFalse(Policy().admits(PHONE))
        self.assertTrue(Policy(("*",)).admits(PHONE))

    def test_newest_wins(self) -> None:
        """R9, R13: an older policy that was overtaken does not undo a newer one."""
        self.table.set_policy(self.phone, PolicyRequest(5, ()))
        self.table.set_policy(self.phone, PolicyRequest(4, ("*",)))
        self.assertEqual(self.phone.policy, Policy((), (), 5))

    def test_hidden(self) -> None:
        """R13: where addresses are hidden, only the families are told, not even to the DC."""
        for seen in (NAT4, PUBLIC6):
            self.table.register(self.phone, request(5, HOME4, PUBLIC6), seen, 1.0)
        hidden = self.phone.located(1.0, hide=True)
        self.assertEqual([one.family for one in hidden.observed], [4, 6])
        self.assertEqual({bytes(one.address) for one in hidden.observed}, {bytes(4), bytes(16)})
        self.assertEqual((hidden.local, hidden.translated), ((), (4,)))
        self.assertEqual((hidden.generation, hidden.online), (5, True))

    def test_correspondents_are_bounded(self) -> None:
        """R34: the newest correspondents are remembered, each once."""
        for number in range(CORRESPONDENTS + 10):
            self.phone.talks_to(f"device{number}.bob.{DOMAIN}")
            self.phone.talks_to(LAPTOP)
        self.assertEqual(len(self.phone.correspondents), CORRESPONDENTS)
        self.assertIn(LAPTOP, self.phone.correspondents)
        self.assertNotIn(f"device0.bob.{DOMAIN}", self.phone.correspondents)


class EndpointTests(SynchronousTestCase):
    def test_pair(self) -> None:
        """An endpoint is an address as Twisted gives it, zone left out, and back."""
        for host, shown in (
            ("203.0.113.7", "203.0.113.7"),
            ("2001:DB8:0::7", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ):
            endpoint = Endpoint.of((host, 4000))
            self.assertEqual(endpoint.pair(), (shown, 4000))
            self.assertEqual(endpoint.family, 6 if ":" in shown else 4)

    def test_not_numeric(self) -> None:
        """A name is no address."""
        for host in ("localhost", "", "203.0.113", "1.2.3.4.5"):
            with self.assertRaises(MalformedMessage):
                Endpoint.of((host, 1))
