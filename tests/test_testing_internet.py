"""The virtual internet as a whole: time, partitions, captures, attackers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.testing import (
    Datagram,
    Echo,
    Event,
    Mailbox,
    NatKind,
    Recorder,
    Spoofer,
    VirtualInternet,
    flip,
    tamper,
)


class TimeTests(SynchronousTestCase):
    """How tests let time pass."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.host = self.internet.host("host", "203.0.113.1")

    def test_run_until(self) -> None:
        """Time stops at the event that fulfils the predicate."""
        done: list[int] = []
        self.host.reactor.callLater(2.5, done.append, 1)
        self.host.reactor.callLater(9, done.append, 2)
        self.assertEqual(self.internet.run_until(lambda: bool(done)), 2.5)
        self.assertEqual((self.internet.clock.seconds(), done), (2.5, [1]))

    def test_run_until_in_vain(self) -> None:
        """What does not happen in time is an ``AssertionError``."""
        self.assertRaises(AssertionError, self.internet.run_until, lambda: False, 5)
        self.assertEqual(self.internet.clock.seconds(), 5)

    def test_endless_instant(self) -> None:
        """Events without end at one instant are an ``AssertionError``, not a hang."""

        def again() -> None:
            self.host.reactor.callLater(0, again)

        again()
        self.assertRaises(AssertionError, self.internet.advance, 1)

    def test_result(self) -> None:
        """Deferreds and coroutines are run to their end."""
        reactor = self.host.reactor

        async def work() -> int:
            waiting: Deferred[int] = Deferred()
            reactor.callLater(3, waiting.callback, 20)
            return await waiting + 1

        self.assertEqual(self.internet.result(work()), 21)
        self.assertEqual(self.internet.clock.seconds(), 3)

    def test_result_that_fails(self) -> None:
        """A failure is raised."""
        failing: Deferred[None] = Deferred()
        self.host.reactor.callLater(1, failing.errback, ZeroDivisionError())
        self.assertRaises(ZeroDivisionError, self.internet.result, failing)


class TroubleTests(SynchronousTestCase):
    """Partitions and blackouts."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.SYMMETRIC)
        self.phone = Mailbox.at(self.home.host("phone"))
        self.one = Echo.at(self.internet.host("one", "203.0.113.1"), 1)
        self.two = Echo.at(self.internet.host("two", "203.0.113.2"), 1)

    def reachable(self) -> tuple[bool, bool]:
        """Which servers answer the phone."""
        self.phone.datagrams.clear()
        for server in (self.one, self.two):
            self.phone.send(b"?", server.address)
        self.internet.advance(1)
        return self.one.address in self.phone.sources, self.two.address in self.phone.sources

    def test_partition(self) -> None:
        """A partition of a network and a host stops all between them, and nothing else."""
        self.assertEqual(self.reachable(), (True, True))
        self.internet.partition(self.home, self.one.port.host)
        self.assertEqual(self.reachable(), (False, True))
        self.internet.partition(self.two.port.host, self.phone.port.host)
        self.assertEqual(self.reachable(), (False, False))
        self.internet.heal(self.one.port.host, self.home)
        self.assertEqual(self.reachable(), (True, False))
        self.internet.heal()
        self.assertEqual(self.reachable(), (True, True))

    def test_partition_stops_what_is_on_its_way(self) -> None:
        """What was sent before the partition is lost too."""
        self.phone.port.host.link.delay = 0.1
        self.phone.send(b"?", self.one.address)
        self.internet.partition(self.home, self.one.port.host)
        self.internet.advance(1)
        self.assertEqual(self.one.payloads, [])

    def test_blackout(self) -> None:
        """A host or network is cut off for some time."""
        for party in (self.phone.port.host, self.home):
            self.internet.blackout(party, 5)
            self.assertEqual(self.reachable(), (False, False))
            self.internet.advance(5)
            self.assertEqual(self.reachable(), (True, True))

    def test_blackouts_overlap(self) -> None:
        """Of two blackouts at once the longer counts."""
        self.internet.blackout(self.home, 10)
        self.internet.blackout(self.home, 2)
        self.internet.advance(5)
        self.assertEqual(self.reachable(), (False, False))
        self.internet.advance(5)
        self.assertEqual(self.reachable(), (True, True))


class CaptureTests(SynchronousTestCase):
    """What the internet remembers."""

    def test_captures(self) -> None:
        """Each sending, arrival and loss is recorded with time, place and datagram."""
        internet = VirtualInternet(seed=1)
        sender = Mailbox.at(internet.host("sender", "203.0.113.1"), 1)
        receiver = Mailbox.at(internet.host("receiver", "203.0.113.2"), 2)
        sender.port.host.link.delay = 0.5
        sender.send(b"x", receiver.address)
        internet.advance(1)
        datagram = Datagram(sender.address, receiver.address, b"x")
        self.assertEqual(
            [(one.time, one.event, one.place, one.datagram) for one in internet.captured],
            [
                (0, Event.SENT, "sender", datagram),
                (0.5, Event.DELIVERED, "receiver", datagram),
            ],
        )
        self.assertEqual(len(list(internet.captures(place="receiver"))), 1)
        self.assertEqual(list(internet.captures(protocol="tcp")), [])


class AttackerTests(SynchronousTestCase):
    """Attackers on the path and off it."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.SYMMETRIC)
        self.phone = Mailbox.at(self.home.host("phone"))
        self.server = Mailbox.at(self.internet.host("server", "203.0.113.1"), 1)

    def ask(self, payload: bytes) -> None:
        """Send to the server, and wait a second."""
        self.phone.send(payload, self.server.address)
        self.internet.advance(1)

    def test_recorder(self) -> None:
        """A recorder hears what passes, and sends it again, also from elsewhere."""
        recorder = Recorder(self.internet.backbone)
        self.ask(b"captured")
        (heard,) = recorder.heard
        recorder.replay(heard)
        recorder.replay(heard, ("203.0.113.66", 66))
        recorder.remove()
        self.internet.advance(1)
        self.assertEqual(self.server.payloads, [b"captured"] * 3)
        self.assertEqual(self.server.sources[1:], [heard.source, ("203.0.113.66", 66)])
        self.ask(b"unheard")
        self.assertNotIn(b"unheard", [one.payload for one in recorder.heard])

    def test_tamper(self) -> None:
        """A tamperer changes or swallows what it chooses."""
        stop = tamper(self.home, lambda datagram: flip(datagram, 8))
        self.ask(b"ab")
        stop()
        stop()
        stop = tamper(
            self.home, lambda datagram: None, lambda datagram: b"secret" in datagram.payload
        )
        self.ask(b"secret")
        self.ask(b"open")
        self.assertEqual(self.server.payloads, [b"ac", b"open"])

    def test_tap_on_a_host(self) -> None:
        """A tap at a host sees both ways, and may multiply."""
        seen: list[bytes] = []

        def twice(datagram: Datagram) -> list[Datagram]:
            seen.append(datagram.payload)
            return [datagram, datagram.carrying(b"and " + datagram.payload)]

        stop = self.server.port.host.tap(twice)
        self.ask(b"x")
        self.server.send(b"y", self.server.sources[0])
        self.internet.advance(1)
        self.assertEqual(self.server.payloads, [b"x", b"and x"])
        self.assertEqual(self.phone.payloads, [b"y", b"and y"])
        stop()
        self.ask(b"z")
        self.assertEqual(seen, [b"x", b"y"])

    def test_spoofer(self) -> None:
        """An off-path spoofer sends with any source, and gets no answers to it."""
        evil = self.internet.host("evil", "203.0.113.66")
        ears = Mailbox.at(evil, 1)
        Spoofer(evil).send(b"forged", ("203.0.113.77", 7), self.server.address)
        self.internet.advance(1)
        self.assertEqual(self.server.datagrams, [(b"forged", ("203.0.113.77", 7))])
        self.server.send(b"answer", ("203.0.113.77", 7))
        self.internet.advance(1)
        self.assertEqual(ears.payloads, [])

    def test_spoofer_through_nat(self) -> None:
        """A spoofer reaches into a NAT only as one whom the mapping admits."""
        self.ask(b"open the mapping")
        spoofer = Spoofer(self.internet.host("evil", "203.0.113.66"))
        outside = self.server.sources[0]
        spoofer.send(b"as a stranger", ("203.0.113.77", 7), outside)
        spoofer.send(b"as the server", self.server.address, outside)
        self.internet.advance(1)
        self.assertEqual(self.phone.payloads, [b"as the server"])
