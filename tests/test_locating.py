from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.direction.locating import (
    addresses,
    is_host,
    positive_ttl,
    services,
    usable,
)
from ntmobile.protocols.joining import Joining
from ntmobile.wire.dns_messages import Reply
from ntmobile.wire.dns_records import Alias, Data, HostAddress, Record, ServicePort

NAME = "_ntm._tcp.dc1.ntm.example"


def reply(*data: Data, name: str = NAME, ttl: int = 60) -> Reply:
    return Reply(1, 0, 0, None, tuple(Record(name, ttl, each) for each in data), ())


class ServicesTests(SynchronousTestCase):
    def first(self, lot: int, *data: ServicePort) -> str:
        ordered, _ = services(reply(*data), NAME, lambda size: lot.to_bytes(size, "big"))
        return ordered[0].target

    def test_priority(self) -> None:
        """The lowest priority comes first, whatever its weight."""
        found = (ServicePort(2, 9, 1, "b.example"), ServicePort(1, 0, 1, "a.example"))
        self.assertEqual(self.first(5, *found), "a.example")

    def test_weight(self) -> None:
        """Within a priority the lot falls by weight; a weight of nothing has a small chance."""
        found = (
            ServicePort(1, 30, 1, "b.example"),
            ServicePort(1, 0, 1, "zero.example"),
            ServicePort(1, 10, 1, "a.example"),
        )
        lots = Counter(self.first(lot, *found) for lot in range(41))
        self.assertEqual(lots, {"b.example": 30, "a.example": 10, "zero.example": 1})

    @given(
        st.lists(
            st.builds(
                ServicePort,
                st.integers(0, 3),
                st.integers(0, 65535),
                st.integers(1, 65535),
                st.sampled_from(["a.example", "b.example", "c.example", "d.example"]),
            ),
            max_size=4,
        )
    )
    def test_every_one_once(self, data: list[ServicePort]) -> None:
        """The order has every record once, by priority."""
        ordered, _ = services(reply(*data), NAME)
        self.assertEqual(Counter(ordered), Counter(data))
        self.assertEqual([each.priority for each in ordered], sorted(p.priority for p in data))


class AddressesTests(SynchronousTestCase):
    def test_ttl_of_the_whole_way(self) -> None:
        """An address is believed as long as the shortest-lived record on the way to it."""
        records = (
            Record("a.example", 20, Alias("b.example")),
            Record("b.example", 90, HostAddress(ip_address("192.0.2.1"))),
        )
        found = addresses(Reply(1, 0, 0, None, records, ()), "a.example")
        self.assertEqual(found, ([ip_address("192.0.2.1")], 20))

    def test_usable(self) -> None:
        """Public and private addresses are usable; those of no single reachable host are not."""
        for text in ("192.0.2.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1", "64:ff9b::1"):
            self.assertTrue(usable(ip_address(text)), text)
        for text in (
            "127.9.9.9",
            "0.0.0.0",
            "239.1.1.1",
            "240.0.0.1",
            "169.254.0.1",
            "::1",
            "::",
            "ff0e::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
        ):
            self.assertFalse(usable(ip_address(text)), text)

    def test_hosts(self) -> None:
        """Host names have two labels or more and do not look like addresses."""
        for name in ("ns.example", "a-b.c1.example", "_x.example", "1.2.example"):
            self.assertTrue(is_host(name), name)
        for name in (
            "",
            "example",
            "1.2.3.4",
            "a..b",
            ".a.b",
            "a.b.",
            "a\\046b.c",
            "-a.b",
            "a" * 64 + ".b",
            "a." * 130 + "b",
        ):
            self.assertFalse(is_host(name), name)

    def test_bounds_of_ttl(self) -> None:
        """Times to live are kept within bounds."""
        self.assertEqual([positive_ttl([x, 9999]) for x in (0, 30, 1 << 31)], [5.0, 30.0, 3600.0])


class JoiningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.joining: Joining[int] = Joining()
        self.begun: list[Deferred[int]] = []

    async def begin(self) -> int:
        self.begun.append(Deferred())
        return await self.begun[-1]

    def test_once(self) -> None:
        """Who asks while it is under way joins; who asks afterwards begins anew."""
        waiting = [self.joining.join("a", self.begin) for _ in range(3)]
        self.assertEqual((len(self.begun), self.joining.count), (1, 1))
        self.assertIn("a", self.joining)
        self.begun[0].callback(5)
        self.assertEqual([self.successResultOf(each) for each in waiting], [5, 5, 5])
        self.assertNotIn("a", self.joining)
        self.joining.join("a", self.begin)
        self.assertEqual(len(self.begun), 2)

    def test_failure(self) -> None:
        """All who joined hear of a failure."""
        waiting = [self.joining.join("a", self.begin) for _ in range(2)]
        self.begun[0].errback(ValueError())
        for each in waiting:
            self.failureResultOf(each, ValueError)

    def test_cancel(self) -> None:
        """Who cancels is alone in that."""
        first, second = (self.joining.join("a", self.begin) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.begun[0].callback(5)
        self.assertEqual(self.successResultOf(second), 5)

    def test_at_once(self) -> None:
        """An operation that ends at once leaves nothing behind."""

        async def known() -> int:
            return 7

        self.assertEqual(self.successResultOf(self.joining.join("a", known)), 7)
        self.assertEqual(self.joining.count, 0)
