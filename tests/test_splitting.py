"""Packets in two halves (R23)."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.splitting import WAITING, Joining, halves


class SplittingTests(SynchronousTestCase):
    """R23: what was split is joined, whatever the order."""

    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.randoms())
    def test_any_order(self, packets: list[bytes], random: Random) -> None:
        """R23: halves of many packets, shuffled, give all the packets."""
        pieces = []
        for number, packet in enumerate(packets):
            first, second = halves(packet)
            pieces += [(2 * number, first, True), (2 * number + 1, second, False)]
        random.shuffle(pieces)
        joining = Joining()
        joined = [joining.add(0, counter, half, first=first) for counter, half, first in pieces]
        self.assertEqual(sorted(packets), sorted(each for each in joined if each is not None))

    def test_halves_of_others(self) -> None:
        """R23: halves of different packets, or of different epochs, never join."""
        joining = Joining()
        self.assertIsNone(joining.add(0, 4, b"first", first=True))
        self.assertIsNone(joining.add(0, 7, b"second of another", first=False))
        self.assertIsNone(joining.add(1, 5, b"second of another epoch", first=False))
        self.assertEqual(b"firstsecond", joining.add(0, 5, b"second", first=False))

    def test_bounded(self) -> None:
        """Halves whose other half is lost cost bounded memory, oldest first."""
        joining = Joining()
        for number in range(3 * WAITING):
            joining.add(0, 2 * number, b"half", first=True)
        self.assertEqual(2 * WAITING, joining.lost)
        self.assertIsNone(joining.add(0, 1, b"late", first=False))
        last = 2 * (3 * WAITING - 1)
        self.assertEqual(b"halfhalf", joining.add(0, last + 1, b"half", first=False))
