"""Which addresses a tunnel may send to unasked (R17)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.candidates import (
    directed,
    is_forbidden,
    is_private,
    offered,
    reachable_relay,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Relay

OWN: list[Address] = [("192.168.1.7", 5000), ("2001:db8::7", 5000)]


def endpoints(*hosts: str) -> list[Endpoint]:
    return [Endpoint.of((host, 5000)) for host in hosts]


class CandidateTests(SynchronousTestCase):
    """R17: candidates are no attack list."""

    def test_private_ranges(self) -> None:
        """R17: private are RFC 1918, ULA and 100.64.0.0/10, and nothing else."""
        for host in ("10.0.0.1", "172.31.0.1", "192.168.9.9", "100.127.0.1", "fd00::1"):
            self.assertTrue(is_private(host), host)
        for host in (
            "172.32.0.1",
            "100.128.0.1",
            "198.18.0.1",
            "127.0.0.1",
            "2001:db8::1",
            "fe80::1",
        ):
            self.assertFalse(is_private(host), host)

    def test_mapped(self) -> None:
        """R17: an IPv4 address in the dress of IPv6 does not pass by the rules."""
        hidden = Endpoint(bytes(10) + b"\xff\xff\x7f\0\0\1", 5000)
        self.assertEqual(directed([hidden], OWN), [])

    def test_never(self) -> None:
        """R17: never loopback, multicast, link-local, unspecified or broadcast."""
        for host in (
            *("127.0.0.1", "::1", "224.0.0.1", "ff02::1", "169.254.0.1", "fe80::1"),
            *("0.0.0.0", "::", "255.255.255.255"),
        ):
            self.assertTrue(is_forbidden(host, []), host)
            self.assertEqual([], directed(endpoints(host), OWN))

    def test_one_machine(self) -> None:
        """Loopback is a candidate only where it is this host's own address: all on one machine."""
        self.assertEqual(
            [("127.0.0.1", 5000)], directed(endpoints("127.0.0.1"), [("127.0.0.1", 6000)])
        )

    def test_directed(self) -> None:
        """R17: at most four, each once, never an own address or gateway."""
        hosts = ["192.168.1.7", "192.168.1.1", "192.0.2.1", "192.0.2.1"]
        hosts += [f"192.0.2.{number}" for number in range(2, 9)]
        self.assertEqual(
            [(f"192.0.2.{number}", 5000) for number in range(1, 5)],
            directed(endpoints(*hosts), OWN, {"192.168.1.1"}),
        )

    def test_offered(self) -> None:
        """R17: of an offer's public addresses, only those heard from count."""
        hosts = ("192.0.2.1", "198.51.100.1", "10.0.0.9", "fd00::9")
        self.assertEqual(
            ["192.0.2.1", "10.0.0.9", "fd00::9"],
            [host for host, _ in offered(endpoints(*hosts), {"192.0.2.1"}, OWN)],
        )


class RelayTests(SynchronousTestCase):
    """R17: nor is the relay of a direction, which a foreign DC may have made."""

    def possible(self, *hosts: str, own: str = "192.168.1.2") -> list[str]:
        """Which hosts of a relay are left."""
        endpoints = tuple(Endpoint.of((each, 4331)) for each in hosts)
        relay = Relay("rs1.dc1.example", endpoints, bytes(32), 0)
        found = reachable_relay(relay, [(own, 5000)])
        return [] if found is None else [str(each.ip) for each in found.endpoints]

    def test_possible(self) -> None:
        """A relay may be anywhere where servers are, the own network and gateway included."""
        for host in ("203.0.113.9", "192.168.1.1", "2001:db8::9"):
            self.assertEqual(self.possible(host), [host])

    def test_impossible(self) -> None:
        """R17: nothing is sent to loopback, multicast, broadcast, link-local or no address."""
        for host in ("127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255", "169.254.1.1"):
            self.assertEqual(self.possible(host), [])
        self.assertEqual(self.possible("0.0.0.0", "2001:db8::9"), ["2001:db8::9"])
        self.assertIsNone(reachable_relay(None, []))

    def test_one_machine(self) -> None:
        """Where this device itself is on loopback, a relay may be there too."""
        self.assertEqual(self.possible("127.0.0.9", own="127.0.0.1"), ["127.0.0.9"])
