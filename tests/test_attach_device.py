"""The reading and writing of a TUN descriptor, on socket pairs that keep packets apart."""

from __future__ import annotations

import os
import socket
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ntmobile.errors import NTMobileError
from ntmobile.plugins.tun_device import BURST, TunDevice
from ntmobile.wire.offload import Offload


@implementer(IReactorFDSet)
@define
class Readers:
    """The part of a reactor that a device uses."""

    readers: list[IReadDescriptor] = field(factory=list)

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        self.readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        raise AssertionError("a TUN device is only read through the reactor")

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        raise AssertionError("a TUN device is only read through the reactor")

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        raise AssertionError("a TUN device is only read through the reactor")

    def getReaders(self) -> list[IReadDescriptor]:
        return self.readers

    def getWriters(self) -> list[IWriteDescriptor]:
        return []


class DeviceTests(SynchronousTestCase):
    """A device between the reactor and the kernel's end of it."""

    def setUp(self) -> None:
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.kernel.close)
        self.kernel.setblocking(False)
        self.reactor = Readers()
        self.received: list[bytes] = []
        self.losses: list[NTMobileError] = []
        self.device = TunDevice(self.reactor, ours.detach(), self.receive, self.losses.append)
        self.addCleanup(self.device.close)

    def receive(self, packet: memoryview, offload: Offload | None) -> None:
        """Take a packet as the client does."""
        if bytes(packet) == b"bad":
            raise ValueError("no packet at all")
        self.received.append(bytes(packet))

    def test_interface(self) -> None:
        """It is a reader of the reactor."""
        verifyObject(IReadDescriptor, self.device)
        self.assertEqual([self.device], self.reactor.readers)

    def test_packets(self) -> None:
        """Packets go both ways, one by one, and are counted."""
        self.kernel.send(b"one")
        self.kernel.send(b"two")
        self.device.doRead()
        self.device.send(b"three")
        self.assertEqual([b"one", b"two"], self.received)
        self.assertEqual(b"three", self.kernel.recv(100))
        self.assertEqual(2, self.device.traffic.from_applications)
        self.assertEqual(1, self.device.traffic.to_applications)

    def test_bounded(self) -> None:
        """One wake-up passes on so many packets at most, so that others have their turn."""
        for _ in range(BURST + 3):
            self.kernel.send(b"packet")
        self.device.doRead()
        self.assertEqual(BURST, len(self.received))
        self.device.doRead()
        self.assertEqual(BURST + 3, len(self.received))

    def test_full_queue(self) -> None:
        """What a full queue does not take is dropped and counted, at once."""
        for _ in range(10_000):
            self.device.send(bytes(1000))
        traffic = self.device.traffic
        self.assertGreater(traffic.dropped, 0)
        self.assertEqual(10_000, traffic.dropped + traffic.to_applications)
        self.assertEqual([], self.losses)

    def test_error_of_ours(self) -> None:
        """A packet over which the client stumbles is logged and counted; the next ones come."""
        for packet in (b"one", b"bad", b"two"):
            self.kernel.send(packet)
        self.device.doRead()
        self.assertEqual([b"one", b"two"], self.received)
        self.assertEqual(1, self.device.traffic.dropped)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_loss(self) -> None:
        """A device that goes away by itself is told once, and closed."""
        self.kernel.close()
        self.device.doRead()
        self.device.doRead()
        self.device.send(b"late")
        [loss] = self.losses
        self.assertIn("TUN device", str(loss))
        self.assertEqual([], self.reactor.readers)

    def test_close(self) -> None:
        """Closing gives the descriptor up and tells nobody; doing it again does nothing."""
        descriptor = self.device.fileno()
        self.device.close()
        self.device.close()
        self.assertEqual(([], []), (self.reactor.readers, self.losses))
        with self.assertRaises(OSError):
            os.fstat(descriptor)

    def test_close_while_reading(self) -> None:
        """The client may close in the midst of a burst."""

        def close(packet: memoryview, offload: Offload | None) -> Any:
            self.received.append(bytes(packet))
            self.device.close()

        self.patch(self, "receive", close)
        self.device._receive = close
        self.kernel.send(b"one")
        self.kernel.send(b"two")
        self.device.doRead()
        self.assertEqual(([b"one"], []), (self.received, self.losses))
