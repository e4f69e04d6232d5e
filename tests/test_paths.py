"""Which path carries the traffic."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.paths import Path, PathSet

DIRECTION = bytes(8)


class FollowingTests(SynchronousTestCase):
    """The side that does not control follows the other."""

    def setUp(self) -> None:
        self.paths = PathSet(controlling=False)
        self.direct = self.paths.add(Path(DIRECTION, ("203.0.113.7", 4000), limited=True))
        self.relay = self.paths.add(Path(DIRECTION, ("192.0.2.21", 4331), relay="rs1"))
        self.paths.begin_on(self.direct, 0.0)
        for path in (self.direct, self.relay):
            path.ensure(0.0)

    def prove(self, path: Path, now: float) -> None:
        """Have a challenge come back on a path, and choose."""
        path.probed(b"token", now - 0.001)
        self.assertTrue(path.echoed(b"token", now))
        self.paths.choose(now)

    def test_returns(self) -> None:
        """Another path that proves itself first does not keep it from the correspondent's own."""
        self.prove(self.relay, 0.002)
        self.assertIs(self.paths.active, self.relay)
        self.prove(self.direct, 0.003)
        self.assertIs(self.paths.active, self.direct)

    def test_newer_word(self) -> None:
        """It does not return where the correspondent sends on the other path meanwhile."""
        self.prove(self.relay, 0.002)
        other = self.paths.add(Path(DIRECTION, ("198.51.100.7", 4000)))
        self.prove(other, 0.003)
        self.paths.nominate(other, 0.004)
        self.paths.choose(0.004)
        self.assertIs(self.paths.active, other)
        self.prove(self.direct, 0.005)
        self.assertIs(self.paths.active, other)

    def test_gave_up(self) -> None:
        """It does not return to a path that failed and is found to work long after."""
        self.prove(self.relay, 0.002)
        self.direct.fail(4.0)
        self.paths.choose(4.0)
        self.direct.begin(34.0)
        self.prove(self.direct, 34.001)
        self.assertIs(self.paths.active, self.relay)

    def test_came_over(self) -> None:
        """It does not return where the correspondent has come to the other path too."""
        self.prove(self.relay, 0.002)
        self.paths.nominate(self.relay, 0.003)
        self.prove(self.direct, 0.004)
        self.assertIs(self.paths.active, self.relay)
