"""Which addresses a tunnel may send to unasked (R17)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.candidates import directed, is_forbidden, is_private, offered
from ntmobile.machines.effects import Address
from ntmobile.wire.messages.fields import Endpoint

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
