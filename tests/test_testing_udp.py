"""UDP in the virtual internet."""

from __future__ import annotations

from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.testing import Address, Echo, Event, Mailbox, VirtualInternet


class UDPPortTests(SynchronousTestCase):
    """What ``listenUDP`` gives."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.a = self.internet.host("a", "203.0.113.1", "2001:db8::1")
        self.b = self.internet.host("b", "203.0.113.2", "2001:db8::2")

    def test_interfaces(self) -> None:
        """A port provides Twisted's interfaces."""
        port = Mailbox.at(self.a).port
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertTrue(verifyObject(IUDPTransport, port))

    def test_echo(self) -> None:
        """A datagram and its answer arrive, from the addresses they were sent from."""
        for interface, one, two in (
            ("", "203.0.113.1", "203.0.113.2"),
            ("::", "2001:db8::1", "2001:db8::2"),
        ):
            server = Echo.at(self.b, 4330, interface)
            client = Mailbox.at(self.a, 5000, interface)
            client.send(b"hello", (two, 4330))
            self.internet.advance(0)
            self.assertEqual(server.datagrams, [(b"hello", (one, 5000))])
            self.assertEqual(client.datagrams, [(b"hello", (two, 4330))])
            client.port.stopListening()

    def test_nothing_arrives_before_time_passes(self) -> None:
        """A write never reaches the other side within the call."""
        server, client = Mailbox.at(self.b, 4330), Mailbox.at(self.a)
        client.send(b"x", server.address)
        self.assertEqual(server.payloads, [])

    def test_port_taken(self) -> None:
        """A port that is in use, exactly or by a wildcard, is ``CannotListenError``."""
        Mailbox.at(self.a, 4330)
        for interface in ("", "203.0.113.1", "127.0.0.1"):
            self.assertRaises(CannotListenError, Mailbox.at, self.a, 4330, interface)
        Mailbox.at(self.a, 4330, "::")
        Mailbox.at(self.b, 4330)

    def test_port_free_again(self) -> None:
        """A port that stopped listening can be taken again, and receives nothing more."""
        first = Mailbox.at(self.b, 4330)
        client = Mailbox.at(self.a)
        client.send(b"late", first.address)
        first.port.stopListening()
        second = Mailbox.at(self.b, 4330)
        self.internet.advance(1)
        self.assertEqual((first.payloads, second.payloads), ([], [b"late"]))
        self.assertRaises(OSError, first.send, b"x", client.address)

    def test_foreign_interface(self) -> None:
        """An address of somebody else cannot be listened on."""
        self.assertRaises(CannotListenError, Mailbox.at, self.a, 1, "203.0.113.2")
        self.assertRaises(InvalidAddressError, Mailbox.at, self.a, 1, "localhost")

    def test_two_addresses_one_port(self) -> None:
        """Specific addresses of one host share a port number and are told apart."""
        self.a.set_addresses("203.0.113.1", "203.0.113.7")
        one, two = Mailbox.at(self.a, 53, "203.0.113.1"), Mailbox.at(self.a, 53, "203.0.113.7")
        client = Mailbox.at(self.b)
        client.send(b"one", ("203.0.113.1", 53))
        client.send(b"two", ("203.0.113.7", 53))
        self.internet.advance(1)
        self.assertEqual((one.payloads, two.payloads), ([b"one"], [b"two"]))

    def test_answer_comes_from_the_bound_address(self) -> None:
        """A socket that is bound to an address sends from it."""
        self.a.set_addresses("203.0.113.1", "203.0.113.7")
        server = Mailbox.at(self.b)
        Mailbox.at(self.a, 53, "203.0.113.7").send(b"x", server.address)
        self.internet.advance(1)
        self.assertEqual(server.sources, [("203.0.113.7", 53)])

    def test_wrong_family_or_name(self) -> None:
        """Names and addresses of the other family are refused on writing."""
        four, six = Mailbox.at(self.a), Mailbox.at(self.a, 0, "::")
        self.assertRaises(InvalidAddressError, four.send, b"", ("2001:db8::2", 1))
        self.assertRaises(InvalidAddressError, six.send, b"", ("203.0.113.2", 1))
        self.assertRaises(InvalidAddressError, four.send, b"", ("b.example", 1))

    def test_loopback(self) -> None:
        """A host reaches itself by loopback and by its own addresses, not another's loopback."""
        server = Mailbox.at(self.a, 4330)
        Mailbox.at(self.b, 4330)
        client = Mailbox.at(self.a, 5000)
        client.send(b"1", ("127.0.0.1", 4330))
        client.send(b"2", ("203.0.113.1", 4330))
        self.internet.advance(1)
        expected: list[tuple[bytes, Address]] = [
            (b"1", ("127.0.0.1", 5000)),
            (b"2", ("203.0.113.1", 5000)),
        ]
        self.assertEqual(server.datagrams, expected)

    def test_unreachable_family(self) -> None:
        """Without an address of the family, writing is an ``OSError``, as on a real system."""
        four = self.internet.host("four", "203.0.113.4")
        six = Mailbox.at(four, 0, "::")
        self.assertRaises(OSError, six.send, b"x", ("2001:db8::1", 1))

    def test_connected(self) -> None:
        """A connected port hears its peer alone, and hears that nobody listens there."""
        client, stranger = Mailbox.at(self.a, 5000), Mailbox.at(self.b, 7)
        client.port.connect("203.0.113.2", 4330)
        client.port.write(b"x")
        stranger.send(b"psst", client.address)
        self.internet.advance(1)
        self.assertEqual((client.payloads, client.refusals), ([], 1))
        Mailbox.at(self.b, 4330).send(b"hello", client.address)
        self.internet.advance(1)
        self.assertEqual(client.payloads, [b"hello"])
        self.assertRaises(RuntimeError, client.port.connect, "203.0.113.2", 1)
        self.assertRaises(ValueError, client.port.write, b"x", ("203.0.113.2", 1))

    def test_unconnected_hears_no_refusal(self) -> None:
        """A port that is not connected does not hear refusals."""
        client = Mailbox.at(self.a)
        client.send(b"x", ("203.0.113.2", 4330))
        self.internet.advance(1)
        self.assertEqual(client.refusals, 0)
        dropped = list(self.internet.captures(Event.DROPPED, "b"))
        self.assertEqual([one.reason for one in dropped], ["port closed"])

    def test_too_long(self) -> None:
        """A datagram beyond the MTU of the host's link is ``MessageLengthError``."""
        client = Mailbox.at(self.a)
        self.a.link.mtu = 1280
        client.send(bytes(1252), ("203.0.113.2", 1))
        self.assertRaises(MessageLengthError, client.send, bytes(1253), ("203.0.113.2", 1))

    def test_long_datagrams_are_cut(self) -> None:
        """What does not fit ``maxPacketSize`` of the receiver is cut off."""
        mailbox = Mailbox()
        self.b.reactor.listenUDP(1, mailbox, "", 4)
        Mailbox.at(self.a).send(b"123456", ("203.0.113.2", 1))
        self.internet.advance(1)
        self.assertEqual(mailbox.payloads, [b"1234"])

    def test_failing_protocol_is_logged(self) -> None:
        """What a protocol raises is logged, and the socket goes on."""

        class Failing(Mailbox):
            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                super().datagramReceived(datagram, addr)
                raise ZeroDivisionError

        server = Failing.at(self.b, 4330)
        client = Mailbox.at(self.a)
        client.send(b"1", server.address)
        client.send(b"2", server.address)
        self.internet.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(server.payloads, [b"1", b"2"])
