"""Files and connections that a process may have open."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.servers.descriptors import RESERVE, connections, descriptors


class DescriptorTests(SynchronousTestCase):
    """With limits as a system may have them."""

    def limit(self, soft: int, hard: int) -> list[tuple[int, int]]:
        """Have these limits; what is made of them."""
        made: list[tuple[int, int]] = []
        self.patch(resource, "getrlimit", lambda kind: (soft, hard))
        self.patch(resource, "setrlimit", lambda kind, limits: made.append(limits))
        return made

    def test_raised(self) -> None:
        """As many as are wanted are allowed, where the hard limit does."""
        made = self.limit(1024, 524288)
        self.assertEqual(connections(2000, 2), 2000)
        self.assertEqual(made, [(4000 + RESERVE, 524288)])

    def test_enough(self) -> None:
        """Nothing is changed where there are enough."""
        made = self.limit(65536, 65536)
        self.assertEqual(connections(2000, 2), 2000)
        self.assertEqual(descriptors(65536), 65536)
        self.assertEqual(made, [])

    def test_hard(self) -> None:
        """There are fewer connections where the hard limit is low, so that files are left."""
        made = self.limit(1024, 1024)
        self.assertEqual(connections(2000, 2), (1024 - RESERVE) // 2)
        self.assertEqual(made, [])
        self.limit(16, 16)
        self.assertEqual(connections(2000, 2), 1)

    def test_unlimited(self) -> None:
        """No limit is no limit."""
        self.limit(1024, resource.RLIM_INFINITY)
        self.assertEqual(connections(9000, 2), 9000)

    def test_refused(self) -> None:
        """Where the system does not change it, what there was is what there is."""

        def refuse(kind: int, limits: tuple[int, int]) -> None:
            raise ValueError("not allowed to raise maximum limit")

        self.limit(1024, 524288)
        self.patch(resource, "setrlimit", refuse)
        self.assertEqual(descriptors(5000), 1024)
