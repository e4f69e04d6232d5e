"""What is found of this system's calls, the port on other reactors, and the watch over losses."""

from __future__ import annotations

import errno
from collections import Counter
from typing import cast
from unittest.mock import patch

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ntmobile.machines.effects import Address
from ntmobile.protocols import datagram_support as support
from ntmobile.protocols.datagram_adapter import AdaptedPort, listen
from ntmobile.protocols.datagram_addresses import CAPACITY, Addresses
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.datagram_support import PLAIN, Receive, datagram_support
from ntmobile.protocols.datagram_watch import INTERVAL, DatagramWatch
from ntmobile.testing import VirtualInternet
from tests.datagram_ports import Kept, Watched, bound


class SupportTests(SynchronousTestCase):
    """The test at the start."""

    def found(self) -> support.DatagramSupport:
        """What a fresh test finds."""
        return datagram_support.__wrapped__()

    def test_repeatable(self) -> None:
        """It finds the same each time, and says it in words."""
        self.assertEqual(datagram_support(), self.found())
        self.assertIn(datagram_support().receive.value, str(datagram_support()))

    def test_without_recvmmsg(self) -> None:
        """Without it, messages are received one by one, as runs if the system has them."""
        with patch.object(support, "has_recvmmsg", lambda: False):
            self.assertIn(self.found().receive, (Receive.MESSAGE, Receive.PLAIN))

    def test_without_runs(self) -> None:
        """A system without the options sends and receives datagram by datagram."""
        with patch.object(support, "_offers", lambda sock, option, value: False):
            found = self.found()
            self.assertIn(found.receive, (Receive.BATCH_OF_ONES, Receive.PLAIN))
            self.assertFalse(found.segments)
            with patch.object(support, "has_recvmmsg", lambda: False):
                self.assertEqual(PLAIN, self.found())

    def test_without_loopback(self) -> None:
        """Where nothing can be sent, what the kernel accepts decides."""

        def down(*_: object) -> support.DatagramSupport:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

        with patch.object(support, "_tried", down):
            self.assertEqual(datagram_support(), self.found())


class AddressTests(SynchronousTestCase):
    """Addresses as the kernel writes them."""

    def test_memory_is_bounded(self) -> None:
        """R8: a flood from very many addresses is not remembered for ever."""
        addresses = Addresses(bound("127.0.0.1").family)
        for number in range(CAPACITY + 10):
            name = bytes(2) + b"\x10\xe1" + number.to_bytes(4, "big") + bytes(8)
            self.assertEqual(4321, addresses.learn(name)[1])
        self.assertLessEqual(len(addresses.known), CAPACITY)


class Refusing:
    """A transport of Twisted that takes 100 bytes."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Address]] = []

    def write(self, packet: bytes, addr: Address) -> None:
        """Take or refuse it."""
        if len(packet) > 100:
            raise MessageLengthError("too long")
        if addr[1] == 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.sent.append((packet, addr))


class AdaptedPortTests(SynchronousTestCase):
    """The same seam on other reactors."""

    def test_in_the_virtual_internet(self) -> None:
        """On a reactor without sockets a port is the reactor's own."""
        internet = VirtualInternet(seed=1)
        kept = [Kept(), Kept()]
        ports = []
        for number in (1, 2):
            host = internet.host(f"host{number}", f"203.0.113.{number}")
            ports.append(
                listen(host.reactor, ("0.0.0.0", 1000), kept[number - 1], lambda _: bound("::1"))
            )
        ports[0][0].send_run(bytes(250), 100, ("203.0.113.2", 1000))
        internet.advance(1.0)
        self.assertEqual([100, 100, 50], [len(datagram) for datagram in kept[1].datagrams])
        self.assertEqual(3, kept[1].batches)
        ports[0][1].stopListening()
        self.assertTrue(ports[0][0].send(b"x", ("203.0.113.2", 1000)))

    def test_on_a_reactor_with_sockets(self) -> None:
        """Where there are sockets it is a :class:`DatagramPort`."""
        watched = Watched()
        transport, port = listen(watched, ("127.0.0.1", 0), Kept(), lambda at: bound(at[0]))
        self.assertIs(transport, port)
        self.assertIsInstance(port, DatagramPort)
        self.assertEqual([port], watched.readers)
        port.stopListening()

    def test_refusals(self) -> None:
        """What does not fit is told, other failures are counted."""
        port, transport = AdaptedPort(Kept()), Refusing()
        port.makeConnection(cast(IUDPTransport, transport))
        self.assertFalse(port.send(bytes(101), ("203.0.113.2", 1)))
        self.assertTrue(port.send(bytes(10), ("203.0.113.2", 0)))
        port.queue(bytes(250), 101, ("203.0.113.2", 1))
        self.assertEqual([101, 101], [len(one.datagram) for one in port.flush()])
        self.assertEqual([48], [len(packet) for packet, _ in transport.sent])
        self.assertEqual(
            Counter({"sending: Message too long": 3, "sending: Invalid argument": 1}), port.dropped
        )


class WatchTests(SynchronousTestCase):
    """The log hears of losses."""

    def test_each_loss_once(self) -> None:
        """What was lost since the last look is told once, and then no more."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def hear(event: LogEvent) -> None:
            if event.get("log_namespace") == "ntmobile.protocols.datagram_watch":
                lines.append(str(event["log_format"]))

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        clock = Clock()
        port = DatagramPort(bound("127.0.0.1"), Kept(), Watched(), PLAIN)
        port.startListening()
        self.addCleanup(port.stopListening)
        watch = DatagramWatch(clock, [port])
        watch.start()
        self.assertEqual([], lines)
        port.send(bytes(70000), ("127.0.0.1", 9))
        clock.advance(INTERVAL)
        clock.advance(INTERVAL)
        self.assertEqual(["datagrams lost: {reasons}"], lines)
        watch.stop()
        watch.stop()
        self.assertEqual([], clock.getDelayedCalls())
