"""Links: what they do to datagrams."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.testing import Event, Link, Mailbox, VirtualInternet


class LinkTests(SynchronousTestCase):
    """A sender on a link that the test shapes, and a receiver."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=5)
        self.sender = Mailbox.at(self.internet.host("sender", "203.0.113.1"))
        self.receiver = Mailbox.at(self.internet.host("receiver", "203.0.113.2"))
        self.link = self.sender.port.host.link

    def send(self, count: int, interval: float = 0.0) -> list[int]:
        """Send numbers; give back what has arrived in the end."""
        for number in range(count):
            self.sender.send(b"%d" % number, self.receiver.address)
            self.internet.advance(interval)
        self.internet.advance(10)
        return [int(payload) for payload in self.receiver.payloads]

    def test_delay(self) -> None:
        """A datagram takes the delay of both hosts' links."""
        self.link.delay = 0.04
        self.receiver.port.host.link.delay = 0.01
        self.sender.send(b"x", self.receiver.address)
        took = self.internet.run_until(lambda: bool(self.receiver.payloads))
        self.assertAlmostEqual(took, 0.05)

    def test_jitter_keeps_order(self) -> None:
        """Jitter spreads arrivals and keeps their order."""
        self.link.jitter = 0.1
        self.assertEqual(self.send(50, 0.02), list(range(50)))
        times = {capture.time for capture in self.internet.captures(Event.DELIVERED, "receiver")}
        self.assertGreater(len(times), 10)

    def test_loss(self) -> None:
        """About the given share is lost, and the rest is in order."""
        self.link.loss = 0.3
        arrived = self.send(1000)
        self.assertEqual(arrived, sorted(arrived))
        self.assertTrue(600 < len(arrived) < 800, len(arrived))
        reasons = {capture.reason for capture in self.internet.captures(Event.DROPPED)}
        self.assertEqual(reasons, {"loss"})

    def test_duplicates(self) -> None:
        """About the given share arrives twice, in order."""
        self.link.duplicate = 0.3
        arrived = self.send(1000)
        self.assertEqual(set(arrived), set(range(1000)))
        self.assertTrue(1200 < len(arrived) < 1400, len(arrived))

    def test_reorder(self) -> None:
        """Some are overtaken, none is lost."""
        self.link.reorder = 0.2
        arrived = self.send(200, 0.001)
        self.assertNotEqual(arrived, sorted(arrived))
        self.assertEqual(sorted(arrived), list(range(200)))

    def test_same_seed_same_course(self) -> None:
        """The same seed gives the same losses, another seed others."""
        courses = []
        for seed in (1, 1, 2):
            self.internet = VirtualInternet(seed)
            link = Link(loss=0.5, jitter=0.1, reorder=0.2, duplicate=0.1)
            self.sender = Mailbox.at(self.internet.host("sender", "203.0.113.1", link=link))
            self.receiver = Mailbox.at(self.internet.host("receiver", "203.0.113.2"))
            courses.append(self.send(100, 0.01))
        self.assertEqual(courses[0], courses[1])
        self.assertNotEqual(courses[0], courses[2])

    def test_mtu_of_another_link(self) -> None:
        """What is too large for a link further on is lost there."""
        self.receiver.port.host.link.mtu = 1280
        self.sender.send(bytes(1252), self.receiver.address)
        self.sender.send(bytes(1253), self.receiver.address)
        self.internet.advance(1)
        self.assertEqual([len(payload) for payload in self.receiver.payloads], [1252])
        (dropped,) = self.internet.captures(Event.DROPPED)
        self.assertEqual(dropped.reason, "larger than the MTU of 1280")

    def test_down(self) -> None:
        """A link that is down carries nothing."""
        self.link.up = False
        self.assertEqual(self.send(3), [])

    def test_bounds(self) -> None:
        """Shares beyond 0 to 1 and negative times are refused, also later."""
        self.assertRaises(ValueError, Link, loss=1.5)
        self.assertRaises(ValueError, Link, delay=-1)
        self.assertRaises(ValueError, setattr, self.link, "duplicate", 2)
