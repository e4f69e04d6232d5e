"""The ``datagram`` attachment: UDP on virtual addresses inside the program."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile import plugins
from ntmobile.errors import (
    AlreadyExists,
    ConfigurationError,
    NotPermittedHere,
    Unreachable,
)
from ntmobile.interfaces import (
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.plugins.attach_datagram import DatagramAttachment, DatagramProvider
from ntmobile.testing import VirtualInternet
from ntmobile.wire.icmp import echo_request, parse_icmp
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer
from ntmobile.wire.udp import udp_packet

ALICE = VirtualAddresses("fd00::a", "198.18.0.10")
BOB = VirtualAddresses("fd00::b", "198.18.0.11")


class Kept(DatagramProtocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.refusals = 0
        self.stopped = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((datagram, addr))

    def connectionRefused(self) -> None:
        self.refusals += 1

    def stopProtocol(self) -> None:
        self.stopped = True


class DatagramTestCase(SynchronousTestCase):
    """Alice and Bob, whose attachments are joined by a perfect tunnel."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.reactor = self.internet.host("host", "203.0.113.1").reactor
        self.alice = DatagramAttachment(self.reactor, ALICE, self._to_bob)
        self.bob = DatagramAttachment(self.reactor, BOB, self._to_alice)

    def _to_bob(self, packet: Buffer, offload: Offload | None) -> None:
        self.bob.send(packet, offload)

    def _to_alice(self, packet: Buffer, offload: Offload | None) -> None:
        self.alice.send(packet, offload)


class SocketTests(DatagramTestCase):
    """Receivers and sockets."""

    def test_both_ways(self) -> None:
        """A datagram and its answer, in both families, also longer than the MTU."""
        heard: list[tuple[bytes, str, int]] = []
        answers: list[tuple[bytes, str, int]] = []
        bob = self.bob.listen(5000, lambda *datagram: heard.append(datagram))
        alice = self.alice.listen(0, lambda *datagram: answers.append(datagram))
        for ours, theirs in ((ALICE.ipv6, BOB.ipv6), (ALICE.ipv4, BOB.ipv4)):
            alice.send(bytes(9000), theirs, 5000)
            self.assertEqual(heard.pop(), (bytes(9000), ours, alice.port))
            bob.send(b"answer", ours, alice.port)
            self.assertEqual(answers.pop(), (b"answer", theirs, 5000))
        self.assertEqual(self.bob.traffic.to_applications, 2)
        self.assertEqual(self.alice.traffic.dropped, 0)

    def test_refused(self) -> None:
        """Who sends to a closed port hears it, if it wants to."""
        refused: list[tuple[str, int]] = []
        alice = self.alice.listen(0, lambda *_: None, lambda *about: refused.append(about))
        alice.send(b"x", BOB.ipv4, 9)
        self.alice.listen(0, lambda *_: None).send(b"x", BOB.ipv4, 9)
        self.assertEqual(refused, [(BOB.ipv4, 9)])

    def test_to_oneself(self) -> None:
        """A datagram to our own address comes back, in a later turn, and not through the tunnel."""
        heard: list[tuple[bytes, str, int]] = []
        alice = self.alice.listen(7, lambda *datagram: heard.append(datagram))
        alice.send(b"x", ALICE.ipv6, 7)
        self.assertEqual(heard, [])
        self.internet.advance(0)
        self.assertEqual(heard, [(b"x", ALICE.ipv6, 7)])
        self.assertEqual(self.alice.traffic.from_applications, 0)

    def test_failing_receiver(self) -> None:
        """What a receiver raises is logged, and the attachment goes on."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.bob.listen(7, fail, fail)
        alice = self.alice.listen(0, lambda *_: None, fail)
        alice.send(b"x", BOB.ipv6, 7)
        alice.send(b"x", BOB.ipv6, 8)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_closed_socket(self) -> None:
        """A closed socket sends and hears nothing, and its port is free."""
        alice = self.alice.listen(7, lambda *_: None)
        self.assertRaises(AlreadyExists, self.alice.listen, 7, lambda *_: None)
        alice.close()
        alice.close()
        self.assertRaises(Unreachable, alice.send, b"x", BOB.ipv6, 7)
        self.assertEqual(self.alice.listen(7, lambda *_: None).port, 7)

    def test_no_address(self) -> None:
        """A destination is a numeric address."""
        alice = self.alice.listen(7, lambda *_: None)
        self.assertRaises(InvalidAddressError, alice.send, b"x", "bob.example", 7)


class ProtocolTests(DatagramTestCase):
    """Twisted's datagram protocols on virtual addresses."""

    def test_protocol(self) -> None:
        """A protocol listens and writes as on ``reactor.listenUDP``."""
        alice, bob = Kept(), Kept()
        port = self.alice.listen_udp(0, alice)
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertTrue(verifyObject(IUDPTransport, port))
        self.bob.listen_udp(53, bob)
        port.write(b"x", (BOB.ipv6, 53))
        host = port.getHost()
        self.assertEqual(host.host, ALICE.ipv6)
        self.assertEqual(bob.heard, [(b"x", (ALICE.ipv6, host.port))])

    def test_port_taken(self) -> None:
        """A port in use is ``CannotListenError``."""
        self.alice.listen_udp(53, Kept())
        self.assertRaises(CannotListenError, self.alice.listen_udp, 53, Kept())
        self.assertRaises(CannotListenError, self.alice.listen_udp, 99999, Kept())

    def test_stop(self) -> None:
        """A port that stopped is free, and its protocol knows."""
        kept = Kept()
        port = self.alice.listen_udp(53, kept)
        self.successResultOf(port.stopListening())
        self.successResultOf(port.stopListening())
        self.assertTrue(kept.stopped)
        self.assertRaises(Unreachable, port.write, b"x", (BOB.ipv6, 53))
        self.alice.listen_udp(53, Kept())

    def test_connected(self) -> None:
        """A connected port hears its peer alone, and refusals."""
        alice = Kept()
        port = self.alice.listen_udp(5000, alice)
        self.assertRaises(ValueError, port.write, b"x")
        port.connect(BOB.ipv6, 53)
        port.write(b"x")
        self.assertEqual(alice.refusals, 1)
        self.bob.listen(53, lambda *_: None).send(b"peer", ALICE.ipv6, 5000)
        self.bob.listen(54, lambda *_: None).send(b"stranger", ALICE.ipv6, 5000)
        self.assertEqual(alice.heard, [(b"peer", (BOB.ipv6, 53))])
        self.assertRaises(RuntimeError, port.connect, BOB.ipv6, 53)
        self.assertRaises(ValueError, port.write, b"x", (BOB.ipv6, 54))

    def test_too_long(self) -> None:
        """A datagram that UDP cannot carry is ``MessageLengthError``."""
        port = self.alice.listen_udp(0, Kept())
        self.assertRaises(MessageLengthError, port.write, bytes(65536), (BOB.ipv6, 1))


class AttachmentTests(DatagramTestCase):
    """What the client's agent sees of it."""

    def test_interfaces(self) -> None:
        """It provides what an attachment provides, and is found as a plugin."""
        provider = DatagramProvider()
        self.assertTrue(verifyObject(IPlugin, provider))
        self.assertTrue(verifyObject(IAttachmentProvider, provider))
        factory = provider.configure({}, self.reactor)
        self.assertTrue(verifyObject(IAttachmentFactory, factory))
        opened = factory.open(ALICE, Path(), lambda packet, offload: None, lambda problem: None)
        self.assertTrue(verifyObject(IAttachment, self.successResultOf(opened)))
        found = [one.name for one in getPlugins(IAttachmentProvider, plugins)]
        self.assertIn("datagram", found)

    def test_unknown_key(self) -> None:
        """Its section has no keys."""
        self.assertRaises(ConfigurationError, DatagramProvider().configure, {"mtu": 1}, None)

    def test_no_kernel_sockets(self) -> None:
        """It has no sockets of the kernel's, and says what has."""
        problem = self.assertRaises(
            NotPermittedHere, self.alice.socket, socket.AF_INET, socket.SOCK_STREAM
        )
        self.assertIn("netns", str(problem))

    def test_ping(self) -> None:
        """A kernel's ping is answered."""
        sent: list[Buffer] = []

        def send(packet: Buffer, offload: Offload | None) -> None:
            sent.append(packet)

        attachment = DatagramAttachment(self.reactor, ALICE, send)
        attachment.send(echo_request(b"\xc6\x12\x00\x0b", b"\xc6\x12\x00\x0a", 1, 2, b"payload"))
        self.assertTrue(parse_icmp(sent[0]).is_echo_reply)

    def test_readdress(self) -> None:
        """New addresses are used at once, and the sockets stay."""
        heard: list[str] = []
        self.bob.listen(7, lambda payload, source, port: heard.append(source))
        alice = self.alice.listen(7, lambda *_: None)
        self.alice.readdress(VirtualAddresses("fd00::aa", ALICE.ipv4))
        alice.send(b"x", BOB.ipv6, 7)
        self.assertEqual(heard, ["fd00::aa"])
        self.alice.add_route("10.0.0.0/8")
        self.alice.remove_route("10.0.0.0/8")

    def test_dropped(self) -> None:
        """What is not for us, damaged, or too late is counted."""
        self.alice.send(b"nonsense")
        self.alice.send(udp_packet(b"\xc6\x12\x00\x0b", b"\xc6\x12\x00\x0c", 1, 7, b"x"))
        self.assertEqual(self.alice.traffic.dropped, 2)
        socket = self.alice.listen(7, lambda *_: None)
        self.alice.shutdown()
        self.alice.send(udp_packet(b"\xc6\x12\x00\x0b", b"\xc6\x12\x00\x0a", 1, 7, b"x"))
        socket.send(b"x", BOB.ipv6, 7)
        self.assertEqual(self.alice.traffic.dropped, 4)
