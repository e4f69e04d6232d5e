from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.constants import (
    INNER_MTU,
    MTU_ATTEMPTS,
    MTU_INTERVAL,
    MTU_VERIFY,
    NARROW_MTU,
)
from ntmobile.machines.tunnel.path_mtu import LADDER, PathMtu

PATIENCE = 0.1


class Line:
    """A search over a path that carries so much, until time stands still."""

    def __init__(self, carries: int, *, loses: int = 0) -> None:
        self.pmtu = PathMtu()
        self.carries = carries
        self.loses = loses  # challenges lost by chance, the first ones
        self.now = 0.0
        self.sent: list[int] = []

    def run(self, limit: int = 1416) -> None:
        """Search until there is nothing due."""
        self.pmtu.search(limit, self.now)
        self.settle()

    def settle(self) -> None:
        """Let time pass while something is due."""
        while self.pmtu.due is not None:
            self.now = max(self.now, self.pmtu.due)
            for size in self.pmtu.sizes(self.now, PATIENCE):
                self.sent.append(size)
                if self.loses:
                    self.loses -= 1
                elif size <= self.carries:
                    self.pmtu.echoed(size)


class SearchTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """R23: where everything fits, one round trip finds it, with two challenges."""
        line = Line(1500)
        line.run()
        self.assertEqual(line.pmtu.value, 1416)
        self.assertEqual(line.sent, [INNER_MTU, 1416])
        self.assertEqual(line.now, 0.0)

    @given(st.integers(1000, 9000), st.sampled_from((1280, 1416, 1436, 8936)))
    def test_any(self, carries: int, limit: int) -> None:
        """R23: the largest size tried that fits is found, and never one that does not."""
        line = Line(carries)
        line.run(limit)
        fit = [size for size in (*LADDER, limit, NARROW_MTU) if size <= min(carries, limit)]
        self.assertEqual(line.pmtu.value, max(fit, default=NARROW_MTU))

    def test_loss(self) -> None:
        """R23: a lost challenge costs a round, not the size."""
        line = Line(1400, loses=2)
        line.run()
        self.assertEqual(line.pmtu.value, 1396)

    def test_bounded(self) -> None:
        """A path that carries nothing large is asked few times, and again after a while."""
        line = Line(NARROW_MTU)
        line.run()
        self.assertLess(sum(line.sent), MTU_ATTEMPTS * 9000)
        self.assertLess(line.now, 2.0)
        line.sent.clear()
        line.run()
        self.assertEqual(line.sent, [])
        line.now += MTU_INTERVAL
        line.carries = 1500
        line.run()
        self.assertEqual(line.pmtu.value, 1416)

    def test_black_hole(self) -> None:
        """R23: a size that passes no more is noticed, and what still passes is found."""
        line = Line(1500)
        line.run()
        line.carries = 1350
        line.now += MTU_VERIFY
        line.pmtu.used = line.now
        line.pmtu.verify(line.now)
        began = line.now
        line.settle()
        self.assertEqual(line.pmtu.value, 1336)
        self.assertLess(line.now, began + 2.0)

    def test_verified(self) -> None:
        """A size that still passes stays, after one challenge, where something relies on it."""
        line = Line(1500)
        line.run()
        line.sent.clear()
        for used in (line.now - 1.0, line.now + 0.1):
            line.pmtu.used = used
            line.pmtu.verify(line.now + 0.1)
            self.assertIsNone(line.pmtu.due)
        line.now += MTU_VERIFY
        line.pmtu.verify(line.now)
        line.settle()
        self.assertEqual((line.pmtu.value, line.sent), (1416, [1416]))

    def test_refused(self) -> None:
        """R27: what the system or a relay refuses counts at once, and the rest is searched."""
        line = Line(1500)
        line.run()
        line.carries = 1390
        line.pmtu.refused(1416, 1390, line.now)
        self.assertEqual(line.pmtu.value, 1390)
        line.settle()
        self.assertEqual(line.pmtu.value, 1390)

    def test_refused_challenge(self) -> None:
        """A challenge that is refused says nothing of the size that is known to pass."""
        line = Line(1300)
        line.run()
        line.pmtu.refused(1416, 0, line.now)
        self.assertEqual(line.pmtu.value, INNER_MTU)
        self.assertIsNone(line.pmtu.due)

    def test_lying_relay(self) -> None:
        """R27: a relay that says absurd things costs no more than splitting."""
        line = Line(1500)
        line.run()
        for fits in (0, 3, 65535):
            line.pmtu.refused(1416, fits, line.now)
            self.assertGreaterEqual(line.pmtu.value, NARROW_MTU)
            line.settle()
            self.assertEqual(line.pmtu.value, 1416)

    def test_moved(self) -> None:
        """After a handover nothing is known, and a search may begin at once."""
        line = Line(1500)
        line.run()
        line.pmtu.forget()
        self.assertEqual(line.pmtu.value, NARROW_MTU)
        line.run()
        self.assertEqual(line.pmtu.value, 1416)
