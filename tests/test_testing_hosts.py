"""Hosts that move, sleep and crash."""

from __future__ import annotations

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.testing import Echo, Event, Link, Mailbox, NatKind, VirtualInternet


class MovingTests(SynchronousTestCase):
    """Changes of address."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.server = Echo.at(self.internet.host("server", "203.0.113.1"), 4330)
        self.home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.SYMMETRIC)
        self.cafe = self.internet.network("cafe", "10.0.0.0/24", nat=NatKind.FULL_CONE)
        self.phone = self.home.host("phone")
        self.socket = Mailbox.at(self.phone)

    def ask(self, payload: bytes) -> None:
        """Send to the server, and wait a second."""
        self.socket.send(payload, self.server.address)
        self.internet.advance(1)

    def test_move(self) -> None:
        """An unbound socket goes on after a move, from other addresses."""
        self.ask(b"home")
        self.phone.move(self.cafe)
        self.assertEqual(self.phone.addresses, ["10.0.0.1"])
        self.ask(b"cafe")
        self.assertEqual(self.socket.payloads, [b"home", b"cafe"])
        self.assertNotEqual(self.server.sources[0][0], self.server.sources[1][0])

    def test_bound_socket(self) -> None:
        """A socket bound to an address that left can send no more."""
        bound = Mailbox.at(self.phone, 0, "192.168.1.1")
        self.phone.move(self.cafe)
        self.assertRaises(OSError, bound.send, b"x", self.server.address)

    def test_in_flight(self) -> None:
        """What was on its way to a host that left is lost."""
        self.phone.link.delay = 0.1
        self.ask(b"x")
        self.socket.datagrams.clear()
        self.server.send(b"late", self.server.sources[0])
        self.internet.advance(0.05)
        self.phone.move(self.cafe)
        self.internet.advance(1)
        self.assertEqual(self.socket.payloads, [])

    def test_old_address_is_free(self) -> None:
        """The old address may go to another host, which gets the old host's datagrams."""
        self.ask(b"x")
        self.phone.move(self.cafe)
        heir = Mailbox.at(self.home.host("heir"), self.socket.address[1])
        self.assertEqual(heir.port.host.addresses, ["192.168.1.1"])
        self.server.send(b"for the phone", self.server.sources[0])
        self.internet.advance(1)
        self.assertEqual(heir.payloads, [b"for the phone"])

    def test_make_before_break(self) -> None:
        """A host may be in two networks; the newest is preferred, bound sockets keep theirs."""
        old = Mailbox.at(self.phone, 0, "192.168.1.1")
        self.phone.attach(self.cafe)
        self.ask(b"new")
        old.send(b"old", self.server.address)
        self.internet.advance(1)
        self.assertEqual((old.payloads, self.socket.payloads), ([b"old"], [b"new"]))
        self.assertEqual(self.phone.network, self.cafe)
        self.phone.detach(self.cafe)
        self.ask(b"back")
        self.assertEqual(self.server.sources[2][0], self.server.sources[1][0])

    def test_neighbour_first(self) -> None:
        """A neighbour is reached by the interface it is on, not by the preferred one."""
        friend = Mailbox.at(self.home.host("friend"))
        self.phone.attach(self.cafe)
        self.socket.send(b"x", friend.address)
        self.internet.advance(1)
        self.assertEqual(friend.sources[0][0], "192.168.1.1")

    def test_set_addresses(self) -> None:
        """A new lease on the same network."""
        self.phone.set_addresses("192.168.1.50")
        self.assertEqual(self.phone.addresses, ["192.168.1.50"])
        self.phone.set_addresses()
        self.assertEqual(self.phone.addresses, ["192.168.1.1"])
        self.ask(b"x")
        self.assertEqual(self.socket.payloads, [b"x"])

    def test_watch(self) -> None:
        """Changes are told, one turn later, until the watcher has enough."""
        seen: list[list[str]] = []
        stop = self.phone.watch(lambda: seen.append(self.phone.addresses))
        self.phone.move(self.cafe)
        self.assertEqual(seen, [])
        self.internet.advance(0)
        self.phone.detach(self.cafe)
        self.internet.advance(0)
        self.assertEqual(seen, [["10.0.0.1"], []])
        stop()
        self.phone.attach(self.home)
        self.internet.advance(1)
        self.assertEqual(len(seen), 2)

    def test_nowhere(self) -> None:
        """A host in no network has no addresses, no way out, and still its loopback."""
        self.phone.detach(self.home)
        self.assertRaises(LookupError, self.phone.address)
        self.assertRaises(OSError, self.socket.send, b"x", self.server.address)
        self.socket.send(b"self", ("127.0.0.1", self.socket.port.getHost().port))
        self.internet.advance(1)
        self.assertEqual(self.socket.payloads, [b"self"])


class LifeTests(SynchronousTestCase):
    """Suspension and crashes."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.host = self.internet.host("host", "203.0.113.1")
        self.peer = Mailbox.at(self.internet.host("peer", "203.0.113.2"))
        self.socket = Mailbox.at(self.host, 4330)

    def test_suspend(self) -> None:
        """A suspended host reads nothing and calls nothing; after that it reads what came."""
        called: list[float] = []
        self.host.reactor.callLater(1, lambda: called.append(self.internet.clock.seconds()))
        self.host.suspend()
        self.host.suspend()
        for number in range(300):
            self.peer.send(b"%d" % number, self.socket.address)
        self.internet.advance(10)
        self.assertEqual((self.socket.payloads, called), ([], []))
        self.host.resume()
        self.internet.advance(1)
        self.assertEqual(called, [10])
        self.assertEqual(self.socket.payloads, [b"%d" % number for number in range(256)])
        self.assertEqual(len(list(self.internet.captures(Event.DROPPED))), 300 - 256)

    def test_crash(self) -> None:
        """A crash frees the ports and forgets the timers; then the host can start again."""
        called: list[int] = []
        self.host.reactor.callLater(1, called.append, 1)
        self.assertRaises(CannotListenError, Mailbox.at, self.host, 4330)
        self.host.crash()
        self.peer.send(b"anyone?", self.socket.address)
        self.internet.advance(2)
        self.assertEqual((called, self.socket.payloads), ([], []))
        again = Mailbox.at(self.host, 4330)
        self.peer.send(b"hello", again.address)
        self.internet.advance(1)
        self.assertEqual(again.payloads, [b"hello"])

    def test_socket_of_a_crashed_program(self) -> None:
        """The crashed program's sockets are dead, also beside those of its successor."""
        self.host.crash()
        again = Mailbox.at(self.host, 4330)
        self.assertRaises(OSError, self.socket.send, b"x", self.peer.address)
        self.socket.port.stopListening()
        self.peer.send(b"hello", again.address)
        self.internet.advance(1)
        self.assertEqual(again.payloads, [b"hello"])

    def test_entropy(self) -> None:
        """A host's entropy depends on seed and name alone."""

        def entropy(seed: int, name: str) -> bytes:
            return VirtualInternet(seed).host(name).entropy(16)

        self.assertEqual(entropy(1, "a"), entropy(1, "a"))
        self.assertEqual(len({entropy(1, "a"), entropy(2, "a"), entropy(1, "b")}), 3)

    def test_link_of_its_own(self) -> None:
        """Each host has a copy of its network's link."""
        home = self.internet.network("home", "192.168.1.0/24", link=Link(delay=0.5))
        one, two = home.host("one"), home.host("two")
        one.link.delay = 0
        self.assertEqual((two.link.delay, home.link.delay), (0.5, 0.5))
