"""What benchmarks read: options, releases, profiles, windows, the machine."""

from __future__ import annotations

import argparse

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.bench.__main__ import names
from ntmobile.bench.machine import cpu_model, describe
from ntmobile.bench.profiles import RATE, lines, markdown, parse
from ntmobile.bench.programs import releases
from ntmobile.bench.relay import best_window
from ntmobile.bench.results import NothingTransferred
from ntmobile.bench.tunnel_peers import gigabits
from ntmobile.bench.wireguard_interface import settings


class OptionTests(SynchronousTestCase):
    """``--only``."""

    def test_order(self) -> None:
        """Parts are measured in one order, however they are named."""
        self.assertEqual(["relay", "tunnel"], names("tunnel, relay"))

    def test_unknown(self) -> None:
        """A part that there is not is named."""
        problem = self.assertRaises(argparse.ArgumentTypeError, names, "relay,tunel")
        self.assertIn("not tunel", str(problem))


class ReleaseTests(SynchronousTestCase):
    """The answer of ``go list -m -versions``."""

    def test_newest_first(self) -> None:
        """By number, not by letter; previews are no releases."""
        listed = "example.org/x v1.9.5 v1.10.3 v1.11.0-rc1 v0.99.0\n"
        self.assertEqual(["v1.10.3", "v1.9.5", "v0.99.0"], releases(listed))

    def test_none(self) -> None:
        """A module without releases has none."""
        self.assertEqual([], releases("example.org/x\n"))


class ProfileTests(SynchronousTestCase):
    """py-spy's folded stacks."""

    RAW = "main (a.py:1);f (a.py:2) 30\nmain (a.py:1);g (b.py:5);f (a.py:2) 20\nmain (a.py:1) 50\n"

    def test_own_time(self) -> None:
        """A sample counts for the function on top, on whatever stack."""
        self.assertEqual({"f (a.py:2)": 50, "main (a.py:1)": 50}, dict(parse(self.RAW)))

    def test_waiting(self) -> None:
        """Waiting for datagrams is no work."""
        raw = "main (a.py:1);EPollReactor.doPoll (twisted/internet/epollreactor.py:215) 7\n"
        self.assertEqual({}, dict(parse(raw)))

    def test_microseconds(self) -> None:
        """Samples become microseconds a datagram."""
        found = lines(parse(self.RAW), datagrams=1000.0)
        self.assertEqual(50 / RATE * 1000, found[0].micros)
        self.assertEqual(1.0, sum(line.share for line in found))

    def test_table(self) -> None:
        """They are shown as a table, under what was handled."""
        page = markdown("Relay", lines(parse(self.RAW), 1000.0), 250.0)
        self.assertIn("250 datagrams/s", page)
        self.assertIn("| `f (a.py:2)` |", page)


class WindowTests(SynchronousTestCase):
    """Which number of datagrams under way suits a relay best."""

    def found(self, window: int, rate: float, lost: int = 0, came: int = 1000) -> dict[str, float]:
        """A look at one window."""
        return {"window": window, "rate": rate, "lost": lost, "sent": 1000, "received": came}

    def test_fastest_without_loss(self) -> None:
        """A higher rate with loss does not count."""
        looks = [self.found(32, 10.0), self.found(64, 20.0), self.found(128, 30.0, lost=11)]
        self.assertEqual(64, best_window(looks))

    def test_nothing_received(self) -> None:
        """Where nothing arrives there is no window, and no result."""
        looks = [self.found(32, 0.0, came=0)]
        self.assertRaises(NothingTransferred, best_window, looks)


class CountTests(SynchronousTestCase):
    """What a receiver counted."""

    def test_gigabits(self) -> None:
        """Bytes and seconds are a rate."""
        self.assertEqual(1.0, gigabits({"bytes": 250_000_000, "seconds": 2.0}))

    def test_too_little(self) -> None:
        """A flow that hardly began is none."""
        self.assertRaises(NothingTransferred, gigabits, {"bytes": 1000, "seconds": 1.0})


class MachineTests(SynchronousTestCase):
    """The description of the machine."""

    def test_processor(self) -> None:
        """The processor's name is the system's."""
        text = "processor\t: 0\nmodel name\t: A Fast One\nflags\t: fpu\n" * 2
        self.assertEqual("A Fast One", cpu_model(text))

    def test_complete(self) -> None:
        """It has what a reader needs to compare."""
        self.assertLessEqual({"CPU", "kernel", "Python", "load before"}, set(describe()))


class WireGuardTests(SynchronousTestCase):
    """The configuration protocol."""

    def test_settings(self) -> None:
        """A ``set`` ends in an empty line; the device's lines precede its peer's."""
        names = ("private_key", "port", "peer_key", "peer", "peer_network")
        text = settings({name: name.upper() for name in names})
        self.assertTrue(text.startswith("set=1\nprivate_key=PRIVATE_KEY\n"), text)
        self.assertTrue(text.endswith("\n\n"), text)
        self.assertLess(text.index("listen_port"), text.index("public_key"))
