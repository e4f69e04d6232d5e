from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import ConfigurationError
from ntmobile.machines.zone import NEGATIVE_TTL, USER_TTL, VirtualAddresses, Zone
from ntmobile.wire.dns_records import (
    Answer,
    Authority,
    HostAddress,
    Kind,
    NotAny,
    Question,
    Rcode,
    ServerName,
    ServicePort,
)

DOMAIN = "dc1.ntm.example"
PHONE = (IPv6Address("fd12:3456::20"), IPv4Address("198.18.0.20"))
LAPTOP = (IPv6Address("fd12:3456::30"), None)
FRIEND = "192.0.2.10"
STRANGER = "203.0.113.5"


class Clients:
    """Alice has a phone and a laptop, which registered last; Bob's device never registered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._addresses: dict[str, VirtualAddresses] = {
            "phone.alice.dc1.ntm.example": PHONE,
            "laptop.alice.dc1.ntm.example": LAPTOP,
            "alice.dc1.ntm.example": LAPTOP,
            "watch.bob.dc1.ntm.example": PHONE,
        }

    def virtual_addresses(self, name: str) -> VirtualAddresses | None:
        self.asked.append(name)
        return self._addresses.get(name)

    def has_below(self, name: str) -> bool:
        return any(each.endswith("." + name) for each in self._addresses)


class ZoneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clients = Clients()
        self.zone = Zone(
            DOMAIN,
            self.clients,
            (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")),
            udp_port=4330,
            tcp_port=4440,
            networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48")),
        )

    def ask(self, name: str, kind: int, asker: str = STRANGER, klass: int = 1) -> Answer:
        return self.zone.answer(Question(name, kind, klass), asker)

    def assertNoData(self, answer: Answer) -> None:
        self.assertEqual((answer.rcode, answer.answers), (Rcode.NOERROR, ()))
        self.assertSoa(answer)

    def assertNoName(self, answer: Answer) -> None:
        self.assertEqual((answer.rcode, answer.answers), (Rcode.NXDOMAIN, ()))
        self.assertSoa(answer)

    def assertSoa(self, answer: Answer) -> None:
        self.assertTrue(answer.authoritative)
        (record,) = answer.authority
        self.assertEqual((record.name, record.data.kind), (DOMAIN, Kind.SOA))
        self.assertEqual(record.ttl, NEGATIVE_TTL)

    def test_apex(self) -> None:
        """SOA and NS stand at the apex; NS brings the name server's addresses along."""
        soa = self.ask(DOMAIN, Kind.SOA)
        self.assertTrue(soa.authoritative)
        self.assertIsInstance(soa.answers[0].data, Authority)
        ns = self.ask(DOMAIN, Kind.NS)
        self.assertEqual(ns.answers[0].data, ServerName("ns.dc1.ntm.example"))
        self.assertEqual(
            [record.data for record in ns.additional],
            [HostAddress(IPv4Address("192.0.2.1")), HostAddress(IPv6Address("2001:db8::1"))],
        )
        self.assertNoData(self.ask(DOMAIN, Kind.A))

    def test_name_server(self) -> None:
        """The name server has A and AAAA, and nothing else."""
        self.assertEqual(
            self.ask(f"ns.{DOMAIN}", Kind.AAAA).answers[0].data,
            HostAddress(IPv6Address("2001:db8::1")),
        )
        self.assertNoData(self.ask(f"ns.{DOMAIN}", Kind.NS))

    def test_services(self) -> None:
        """SRV names the ports for UDP and TCP at the name server's host."""
        for transport, port in (("udp", 4330), ("tcp", 4440)):
            answer = self.ask(f"_ntm._{transport}.{DOMAIN}", Kind.SRV)
            self.assertEqual(answer.answers[0].data, ServicePort(0, 0, port, f"ns.{DOMAIN}"))
            self.assertEqual(len(answer.additional), 2)

    def test_empty_non_terminals(self) -> None:
        """Names with only names below them exist: NODATA with SOA and AA, for any type."""
        for name in ("_udp", "_tcp"):
            self.assertNoData(self.ask(f"{name}.{DOMAIN}", Kind.A))
            self.assertNoData(self.ask(f"{name}.{DOMAIN}", Kind.SRV))
        self.assertNoData(self.ask(f"bob.{DOMAIN}", Kind.A, FRIEND))
        self.assertNoData(self.ask(f"bob.{DOMAIN}", Kind.NS, FRIEND))

    def test_nested_name_server(self) -> None:
        """The names between a deeper name server and the apex exist too."""
        zone = Zone(DOMAIN, self.clients, (IPv4Address("192.0.2.1"),), host=f"a.ns.{DOMAIN}")
        self.assertNoData(zone.answer(Question(f"ns.{DOMAIN}", Kind.A), STRANGER))

    def test_name_server_outside(self) -> None:
        """A name server outside the zone is named, its addresses are not ours to give."""
        zone = Zone(DOMAIN, self.clients, (IPv4Address("192.0.2.1"),), host="ns.example.org")
        answer = zone.answer(Question(DOMAIN, Kind.NS), STRANGER)
        self.assertEqual(answer.answers[0].data, ServerName("ns.example.org"))
        self.assertEqual(answer.additional, ())
        self.assertEqual(
            zone.answer(Question("ns.example.org", Kind.A), STRANGER).rcode, Rcode.REFUSED
        )

    def test_name_server_of_a_users_name(self) -> None:
        """A name server may not have a name that a user or device could get."""
        for host in (f"alice.{DOMAIN}", f"ns.alice.{DOMAIN}"):
            self.assertRaises(ConfigurationError, Zone, DOMAIN, self.clients, (), host=host)

    def test_devices_for_configured_networks(self) -> None:
        """Askers in the configured networks see devices' virtual addresses, in both families."""
        name = f"phone.alice.{DOMAIN}"
        for asker in (FRIEND, "::ffff:192.0.2.10", "2001:db8:1::5%eth0"):
            self.assertEqual(
                [record.data for record in self.ask(name, Kind.AAAA, asker).answers],
                [HostAddress(PHONE[0])],
            )
            self.assertEqual(
                [record.data for record in self.ask(name, Kind.A, asker).answers],
                [HostAddress(PHONE[1])],
            )
        self.assertNoData(self.ask(name, Kind.SRV, FRIEND))
        self.assertNoData(self.ask(f"laptop.alice.{DOMAIN}", Kind.A, FRIEND))

    def test_user_stands_for_the_last_device(self) -> None:
        """A user's name gives the device that registered last, with a short time to live."""
        answer = self.ask(f"alice.{DOMAIN}", Kind.AAAA, FRIEND)
        self.assertEqual([record.data for record in answer.answers], [HostAddress(LAPTOP[0])])
        self.assertEqual(answer.answers[0].ttl, USER_TTL)

    def test_strangers_see_no_clients(self) -> None:
        """To other askers clients do not exist, and cannot be told from those that never did."""
        for kind in (Kind.A, Kind.AAAA, Kind.ANY, Kind.NS, 99):
            invented = self.ask(f"no.body.{DOMAIN}", kind)
            self.assertNoName(invented)
            for name in (f"phone.alice.{DOMAIN}", f"alice.{DOMAIN}", f"bob.{DOMAIN}"):
                for asker in (STRANGER, "2001:db8:2::1", "not an address"):
                    self.assertEqual(self.ask(name, kind, asker), invented)
        self.assertEqual(self.clients.asked, [])

    def test_no_network_is_the_default(self) -> None:
        """Without configured networks nobody sees a client."""
        zone = Zone(DOMAIN, self.clients, ())
        self.assertNoName(zone.answer(Question(f"alice.{DOMAIN}", Kind.A), "127.0.0.1"))

    def test_unknown_names(self) -> None:
        """What nobody has is NXDOMAIN with the SOA: reserved, too deep, malformed, absent."""
        for name in ("www", "x.www", "no.alice", "a.b.c", "-", "\\065", "_x", "ns.ns", "phone.ns"):
            self.assertNoName(self.ask(f"{name}.{DOMAIN}", Kind.A, FRIEND))

    def test_outside_the_zone(self) -> None:
        """Other zones and the parent are refused, names that merely end alike too."""
        for name in ("", "ntm.example", "dc2.ntm.example", f"x{DOMAIN}", f"a\\046{DOMAIN}"):
            answer = self.ask(name, Kind.SOA, FRIEND)
            self.assertEqual(answer, Answer(Rcode.REFUSED))

    def test_transfers_and_other_classes(self) -> None:
        """AXFR, IXFR, other meta types and classes are refused; OPT as a question is malformed."""
        for kind in (Kind.AXFR, Kind.IXFR, 253, 254, 249, 250, 128):
            self.assertEqual(self.ask(DOMAIN, kind, FRIEND), Answer(Rcode.REFUSED))
        for klass in (3, 254, 255, 0):
            self.assertEqual(self.ask(DOMAIN, Kind.SOA, FRIEND, klass), Answer(Rcode.REFUSED))
        self.assertEqual(self.ask(DOMAIN, Kind.OPT), Answer(Rcode.FORMERR))

    def test_any(self) -> None:
        """ANY gets one small record (RFC 8482), also where there is no data; NXDOMAIN stays so."""
        for name in (DOMAIN, f"_tcp.{DOMAIN}"):
            answer = self.ask(name, Kind.ANY)
            self.assertEqual([record.data for record in answer.answers], [NotAny()])
        self.assertNoName(self.ask(f"nobody.{DOMAIN}", Kind.ANY))

    @given(
        st.lists(
            st.sampled_from(["alice", "phone", "ns", "_ntm", "_udp", "bob", "x-", "\\000"]),
            max_size=4,
        ),
        st.integers(0, 65535),
        st.sampled_from([FRIEND, STRANGER, ""]),
    )
    def test_every_question_has_one_of_four_answers(
        self, labels: list[str], kind: int, asker: str
    ) -> None:
        """Whatever is asked: data with AA, or SOA with AA, or a bare refusal."""
        answer = self.ask(".".join([*labels, DOMAIN]), kind, asker)
        if answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
            self.assertTrue(answer.authoritative)
            self.assertEqual(len(answer.authority), 0 if answer.answers else 1)
        else:
            self.assertIn(answer, (Answer(Rcode.REFUSED), Answer(Rcode.FORMERR)))

    @given(
        st.lists(st.sampled_from(["alice", "phone", "ns", "_ntm", "_udp", "bob"]), max_size=3),
        st.sampled_from([FRIEND, STRANGER]),
    )
    def test_nothing_exists_below_what_does_not(self, labels: list[str], asker: str) -> None:
        """RFC 8020: a name above one that exists, within the zone, never is NXDOMAIN."""
        name = ".".join([*labels, DOMAIN])
        if self.ask(name, Kind.A, asker).rcode == Rcode.NOERROR:
            while name != DOMAIN:
                name = name.partition(".")[2]
                self.assertEqual(self.ask(name, Kind.NS, asker).rcode, Rcode.NOERROR)
