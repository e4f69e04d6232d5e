from __future__ import annotations

from itertools import product

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.direction.addresses import nameable, private_of
from ntmobile.machines.direction.route import Route, decide
from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.candidates import is_private
from ntmobile.wire.messages.fields import Endpoint, Location


def ends(*addresses: Address) -> tuple[Endpoint, ...]:
    """Endpoints of addresses."""
    return tuple(Endpoint.of(each) for each in addresses)


def place(
    *local: Address, nat: str = "", nat6: str = "", generation: int = 1, port: int = 50_000
) -> Location:
    """Where a host with these addresses is; ``nat`` is what its DC sees of a family's."""
    observed: list[Address] = []
    translated: list[int] = []
    for family, outside in ((4, nat), (6, nat6)):
        own = [one for one in local if (":" in one[0]) == (family == 6)]
        if outside:
            observed.append((outside, port))
            translated.append(family)
        elif own:
            observed.append(own[0])
    return Location(generation, ends(*observed), ends(*local), tuple(translated))


A4, B4 = ("203.0.113.7", 4000), ("203.0.113.8", 4000)
A6, B6 = ("2001:db8::7", 4000), ("2001:db8::8", 4000)
HOME_A, HOME_B = ("192.168.1.7", 4000), ("192.168.1.8", 4000)
CGN_A, CGN_B = ("100.64.0.7", 4000), ("100.64.0.8", 4000)

GLOBAL_A, GLOBAL_B = place(A4), place(B4)
SIX_A, SIX_B = place(A6), place(B6)
NAT_A, NAT_B = place(HOME_A, nat="198.51.100.1"), place(HOME_B, nat="198.51.100.2")
SAME_A = place(HOME_A, nat="198.51.100.1", port=50_001)
SAME_B = place(HOME_B, nat="198.51.100.1", port=50_002)
CARRIED_A = place(CGN_A, nat="198.51.100.1", port=50_001)
CARRIED_B = place(CGN_B, nat="198.51.100.1", port=50_002)
#: Behind one NAT, with nothing of its own that could be named: it hides its interfaces.
BARE_A = place(nat="198.51.100.1", port=50_001)
DUAL_A, DUAL_B = place(A4, A6), place(B4, B6)
#: IPv4 behind a NAT, IPv6 without one: most homes and phones.
HALF_A = place(HOME_A, A6, nat="198.51.100.1")
HALF_B = place(HOME_B, B6, nat="198.51.100.2")
#: IPv6 translated too (NPTv6).
NPT_B = place(B4, ("fd00::8", 4000), nat6="2001:db8::99")
NOWHERE = Location(0, (), ())


@frozen
class Row:
    """One row of the table.

    :ivar initiates: ``mn`` or ``cn``. :ivar to_cn: what MN gets. :ivar to_mn: what CN gets.
    :ivar relay_first: the relay is used at once.
    """

    mn: Location
    cn: Location
    initiates: str
    to_cn: tuple[Address, ...]
    to_mn: tuple[Address, ...]
    relay_first: bool
    reason: str


NAT_ADDRESS_A, NAT_ADDRESS_B = ("198.51.100.1", 50_000), ("198.51.100.2", 50_000)

#: The route decision of the design, section 5, and what follows from it for several families.
TABLE = {
    "both global": Row(GLOBAL_A, GLOBAL_B, "mn", (B4,), (A4,), False, "both global: direct"),
    "both global, IPv6": Row(SIX_A, SIX_B, "mn", (B6,), (A6,), False, "both global: direct"),
    "MN behind NAT": Row(NAT_A, GLOBAL_B, "mn", (B4,), (), False, "one behind NAT: direct"),
    "CN behind NAT": Row(GLOBAL_A, NAT_B, "cn", (), (A4,), False, "one behind NAT: direct"),
    "both behind the same NAT": Row(
        SAME_A, SAME_B, "mn", (HOME_B,), (HOME_A,), False, "both behind the same NAT: direct"
    ),
    "both in one carrier's network": Row(
        CARRIED_A, CARRIED_B, "mn", (CGN_B,), (CGN_A,), False, "both behind the same NAT: direct"
    ),
    "same NAT, MN says no address": Row(
        BARE_A, SAME_B, "mn", (HOME_B,), (), False, "both behind the same NAT: direct"
    ),
    "same NAT, CN says no address": Row(
        SAME_B, BARE_A, "cn", (), (HOME_B,), False, "both behind the same NAT: direct"
    ),
    "same NAT, neither says one": Row(
        BARE_A, BARE_A, "mn", (), (), True, "both behind the same NAT: relay"
    ),
    "different NATs": Row(NAT_A, NAT_B, "mn", (), (), True, "behind different NATs: relay"),
    "IPv4 only and IPv6 only": Row(GLOBAL_A, SIX_B, "mn", (), (), True, "no common family: relay"),
    "IPv6 only and IPv4 only": Row(SIX_A, NAT_B, "mn", (), (), True, "no common family: relay"),
    "dual and dual": Row(DUAL_A, DUAL_B, "mn", (B6, B4), (A6, A4), False, "both global: direct"),
    "dual and IPv4": Row(DUAL_A, GLOBAL_B, "mn", (B4,), (A4,), False, "both global: direct"),
    "IPv6 and dual": Row(SIX_A, DUAL_B, "mn", (B6,), (A6,), False, "both global: direct"),
    "dual and CN behind NAT": Row(DUAL_A, NAT_B, "cn", (), (A4,), False, "one behind NAT: direct"),
    "MN behind NAT and dual": Row(NAT_A, DUAL_B, "mn", (B4,), (), False, "one behind NAT: direct"),
    "two homes with IPv6": Row(HALF_A, HALF_B, "mn", (B6,), (A6,), False, "both global: direct"),
    "a home with IPv6 and dual": Row(
        HALF_A, DUAL_B, "mn", (B6, B4), (A6,), False, "both global: direct"
    ),
    "dual and a home with IPv6": Row(
        DUAL_A, HALF_B, "cn", (B6,), (A6, A4), False, "both global: direct"
    ),
    "a home with IPv6 and IPv4 behind another NAT": Row(
        HALF_A, NAT_B, "mn", (), (), True, "behind different NATs: relay"
    ),
    "a home with IPv6 and IPv6 only": Row(
        HALF_A, SIX_B, "mn", (B6,), (A6,), False, "both global: direct"
    ),
    "MN behind NAT in IPv4, CN in IPv6": Row(
        HALF_A, NPT_B, "mn", (B4,), (A6,), False, "one behind NAT: direct"
    ),
    "CN never registered": Row(GLOBAL_A, NOWHERE, "mn", (), (), True, "no common family: relay"),
}


def addresses(endpoints: tuple[Endpoint, ...]) -> tuple[Address, ...]:
    """As Twisted gives them."""
    return tuple(one.pair() for one in endpoints)


class RouteTableTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Every row of the design's route decision, and what follows from it for two families."""
        for name, row in TABLE.items():
            route = decide(row.mn, row.cn)
            self.assertEqual(
                Row(
                    row.mn,
                    row.cn,
                    "mn" if route.mn_initiates else "cn",
                    addresses(route.to_cn),
                    addresses(route.to_mn),
                    route.relay_first,
                    route.reason,
                ),
                row,
                name,
            )

    def test_relay_families(self) -> None:
        """The relay must be reachable by both, in a family each has; by one unseen, in any."""
        for name, row in TABLE.items():
            route = decide(row.mn, row.cn)
            for side, location in zip(route.relay_families, (row.mn, row.cn), strict=True):
                families = {one.family for one in location.observed}
                self.assertEqual(side, families or {4, 6}, name)

    def test_hidden(self) -> None:
        """R13: where one hides its addresses, neither gets any, whatever the networks."""
        for row in TABLE.values():
            route = decide(row.mn, row.cn, hide=True)
            self.assertEqual((route.to_cn, route.to_mn, route.relay_first), ((), (), True))
            self.assertFalse(route.direct)
            self.assertEqual(route.reason, "addresses are hidden: relay only")

    def test_direct(self) -> None:
        """A direct path is worth trying exactly where somebody gets an address."""
        for name, row in TABLE.items():
            self.assertEqual(decide(row.mn, row.cn).direct, bool(row.to_cn or row.to_mn), name)

    def test_forged_private_addresses(self) -> None:
        """R17: of what a client claims, private addresses are named, and only behind one NAT."""
        claims: list[Address] = [
            ("198.18.0.1", 53),
            ("127.0.0.1", 22),
            ("224.0.0.1", 9),
            ("169.254.1.1", 80),
            ("0.0.0.0", 1),
            ("255.255.255.255", 9),
            ("203.0.113.50", 53),
            ("10.1.2.3", 4000),
        ]
        liar = place(*claims, nat="198.51.100.1", port=50_009)
        self.assertEqual(addresses(decide(SAME_A, liar).to_cn), (("10.1.2.3", 4000),))
        self.assertEqual(decide(NAT_B, liar).to_cn, ())
        self.assertEqual(decide(GLOBAL_A, liar).to_cn, ())

    def test_at_most_four(self) -> None:
        """R17: at most four candidates, each once."""
        many = place(*((f"10.0.0.{n}", 4000) for n in range(8)), nat="198.51.100.1")
        self.assertEqual(len(decide(SAME_A, many).to_cn), 4)
        twice = place(HOME_B, HOME_B, nat="198.51.100.1")
        self.assertEqual(addresses(decide(SAME_A, twice).to_cn), (HOME_B,))


def locations() -> st.SearchStrategy[Location]:
    """Any location, possible or not."""
    pool = [A4, B4, A6, HOME_A, HOME_B, CGN_A, ("224.0.0.1", 5), ("::1", 7), ("fd00::1", 8)]
    endpoints = st.lists(st.sampled_from(pool).map(Endpoint.of), max_size=8).map(tuple)
    families = st.lists(st.sampled_from([4, 6]), max_size=2, unique=True).map(tuple)
    return st.builds(Location, st.integers(0, 9), endpoints, endpoints, families, st.booleans())


class RoutePropertyTests(SynchronousTestCase):
    @given(locations(), locations(), st.booleans())
    def test_any_two(self, mn: Location, cn: Location, hide: bool) -> None:
        """Whatever two DCs say: a decision, within bounds, and nobody initiates towards nothing."""
        route = decide(mn, cn, hide=hide)
        self.assert_sound(route, mn, cn)

    def assert_sound(self, route: Route, mn: Location, cn: Location) -> None:
        """What holds of every decision."""
        self.assertEqual(route.relay_first, not route.direct)
        for named, location in ((route.to_cn, cn), (route.to_mn, mn)):
            self.assertLessEqual(len(named), 4)
            for one in named:
                observed = one in location.observed
                self.assertTrue(observed or (one in location.local and is_private(str(one.ip))))
                self.assertFalse(one.ip.is_multicast)
        if route.direct:
            self.assertTrue(route.to_cn if route.mn_initiates else route.to_mn)

    @given(locations(), locations())
    def test_both_ways(self, mn: Location, cn: Location) -> None:
        """Whoever asks, each is named the same addresses of the other."""
        forth, back = decide(mn, cn), decide(cn, mn)
        self.assertEqual((forth.to_cn, forth.to_mn), (back.to_mn, back.to_cn))
        self.assertEqual(forth.relay_families, back.relay_families[::-1])


class NameableTests(SynchronousTestCase):
    def test_ranges(self) -> None:
        """R17: private is RFC 1918, RFC 6598 and ULA, to the last address, and nothing else."""
        inside = (
            "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 "
            "100.64.0.0 100.127.255.255 fc00:: fdff::1"
        )
        outside = (
            "9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 "
            "100.63.255.255 100.128.0.0 127.0.0.1 169.254.0.1 198.18.0.1 fbff:: fe80::1 ::1 "
            "2001:db8::1"
        )
        for text, expected in ((inside, True), (outside, False)):
            for host in text.split():
                self.assertEqual(is_private(host), expected, host)

    def test_private_of_a_family(self) -> None:
        """Only the family in question counts."""
        location = place(HOME_A, ("fd00::1", 4000), A6, A4)
        self.assertEqual(addresses(tuple(private_of(location, 4))), (HOME_A,))
        self.assertEqual(addresses(tuple(private_of(location, 6))), (("fd00::1", 4000),))

    def test_never_named(self) -> None:
        """R17: multicast, unspecified and broadcast addresses are nobody's."""
        hosts = ("224.0.0.1", "0.0.0.0", "255.255.255.255", "ff02::1", "::")
        for host, port in product(hosts, (1, 53)):
            self.assertEqual(nameable(ends((host, port), A4)), ends(A4))
