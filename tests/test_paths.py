"""Which path carries the traffic."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.paths import Path, PathSet, PathState

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


class ControllingTests(SynchronousTestCase):
    """The side that chooses."""

    def setUp(self) -> None:
        self.paths = PathSet(controlling=True)
        self.relay = self.valid(Path(DIRECTION, ("192.0.2.21", 4331), relay="rs1"), 0.010)
        self.paths.begin_on(self.relay, 0.0)

    def valid(self, path: Path, rtt: float) -> Path:
        """Add a path that was proven."""
        path.rtt, path.heard = rtt, 0.0
        path.prove(0.0)
        return self.paths.add(path)

    def direct(self, rtt: float, number: int = 7) -> Path:
        return self.valid(Path(DIRECTION, (f"203.0.113.{number}", 4000)), rtt)

    def assertChosen(self, path: Path, now: float = 1.0) -> None:
        self.paths.choose(now)
        self.assertIs(path, self.paths.active)

    def test_direct_before_relay(self) -> None:
        """Design 5: direct takes over where it answers, even if it is slower."""
        self.assertChosen(self.direct(0.100))

    def test_hysteresis(self) -> None:
        """Of two of a kind the shorter takes over only if it is so by 20 % and by 10 ms."""
        first = self.direct(0.100)
        self.assertChosen(first)
        self.direct(0.085, 8)
        self.assertChosen(first)
        third = self.direct(0.075, 9)
        self.assertChosen(third)
        self.direct(0.066, 10)
        self.assertChosen(third)

    def test_no_return_at_once(self) -> None:
        """A path that worked and failed is not preferred to a working one for a while, then is."""
        direct = self.direct(0.010)
        self.assertChosen(direct)
        direct.fail(1.0)
        self.assertChosen(self.relay)
        direct.prove(1.1)
        self.assertChosen(self.relay, 1.2)
        later = self.paths.next_timer(1.2)
        assert later is not None
        self.assertGreater(later, 1.2)
        self.assertChosen(direct, later)

    def test_late_datagrams(self) -> None:
        """What was sent before the other side knew of a choice does not undo it."""
        direct = self.direct(0.010)
        self.assertChosen(direct)
        self.assertFalse(self.paths.nominate(self.relay, 1.1))
        self.assertIs(PathState.VALID, direct.state)
        self.assertTrue(self.paths.nominate(self.relay, 1.6), "it is told again")
        self.assertIs(PathState.VALID, direct.state)

    def test_a_reason_to_doubt(self) -> None:
        """R21: where the other side sends elsewhere, the first path to answer is right."""
        direct = self.direct(0.010)
        self.assertChosen(direct)
        stranger = self.paths.observe(DIRECTION, ("198.51.100.1", 9))
        stranger.received = 100
        self.paths.nominate(stranger, 5.0)
        self.assertEqual((PathState.PROBING, PathState.PROBING), (direct.state, stranger.state))
        self.assertChosen(direct, 5.0)
        stranger.probed(b"token", 5.0)
        self.assertTrue(stranger.echoed(b"token", 5.1))
        self.assertChosen(stranger, 5.1)


class PathTests(SynchronousTestCase):
    """What one path allows."""

    def test_amplification(self) -> None:
        """R21: three times the bytes that came, until it is proven."""
        path = Path(DIRECTION, ("198.51.100.1", 9), limited=True)
        self.assertFalse(path.affords(1))
        path.received, path.sent = 100, 200
        self.assertTrue(path.affords(100))
        self.assertFalse(path.affords(101))
        path.prove(0.0)
        self.assertTrue(path.affords(100_000))

    def test_five_probes(self) -> None:
        """R17: what never answered gets five probes, however often a series begins."""
        path = Path(DIRECTION, ("198.51.100.1", 9))
        sent = 0
        for now in range(10):
            path.begin(float(now))
            while path.due is not None and not path.exhausted():
                path.probed(b"%8d" % sent, float(now))
                sent += 1
            path.fail(float(now))
        self.assertEqual(5, sent)

    def test_an_echo_counts_on_its_own_path(self) -> None:
        """R21: a token proves the path it was sent on, once."""
        one, two = (Path(DIRECTION, ("198.51.100.1", port)) for port in (1, 2))
        one.begin(0.0)
        one.probed(b"tokentok", 0.0)
        self.assertFalse(two.echoed(b"tokentok", 0.1))
        self.assertTrue(one.echoed(b"tokentok", 0.1))
        self.assertFalse(one.echoed(b"tokentok", 0.2))
