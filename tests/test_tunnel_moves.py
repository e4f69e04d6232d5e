"""Tunnels whose ends move again before everything of the last move is over."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.tunnels import Internet, Nat, Node


class AgainTests(SynchronousTestCase):
    """A device that moves twice within a second."""

    def setUp(self) -> None:
        self.internet = Internet(latency=0.0005, dc_latency=0.002)
        home = Nat("198.51.100.2")
        self.mover, self.peer = self.internet.pair(second=("10.0.0.2", home))
        self.mover.ask()
        self.mover.begin()
        self.talk(1.0)
        self.moves = 0

    def talk(self, seconds: float) -> None:
        """Have both send every 10 ms."""
        for _ in range(round(seconds * 100)):
            for node in (self.mover, self.peer):
                node.send(b"%.3f" % self.internet.now)
            self.internet.run(0.010)

    def gap(self, node: Node, since: float) -> float:
        """The longest time without a packet, in seconds, since then."""
        times = [since, *(time for time, _ in node.received if time > since), self.internet.now]
        return max(after - before for before, after in pairwise(times))

    def translated(self) -> None:
        """Move the device behind a NAT it was never behind."""
        self.moves += 1
        self.mover.move(("10.1.0.2", 5000), Nat(f"203.0.113.{100 + self.moves}"))

    def test_back(self) -> None:
        """From a global address where the direct path was just found, back to the relay."""
        for wait in (0.1, 0.2, 0.3, 0.6, 0.9):
            self.translated()
            self.talk(3.0)
            self.moves += 1
            self.mover.move((f"192.0.2.{100 + self.moves}", 5000))
            self.talk(wait)
            since = self.internet.now
            self.translated()
            self.talk(1.5)
            for node in (self.mover, self.peer):
                self.assertLess(self.gap(node, since), 0.05, f"{node.name} after {wait} s")
