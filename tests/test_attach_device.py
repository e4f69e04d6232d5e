"""The reading and writing of a TUN descriptor, on socket pairs that keep packets apart."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ntmobile.errors import MalformedMessage, NTMobileError
from ntmobile.plugins import tun_device
from ntmobile.plugins.tun_device import BURST, BURST_BYTES, TunDevice
from ntmobile.wire.offload import (
    PARTIAL,
    VIRTIO,
    VIRTIO_SIZE,
    GsoKind,
    Offload,
    complete,
    pack_virtio,
    parse_virtio,
)
from ntmobile.wire.packet import UDP, Buffer
from tests.segments import Whole


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

    def receive(self, packet: Buffer, offload: Offload | None) -> None:
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

        def close(packet: Buffer, offload: Offload | None) -> Any:
            self.received.append(bytes(packet))
            self.device.close()

        self.patch(self, "receive", close)
        self.device._receive = close
        self.kernel.send(b"one")
        self.kernel.send(b"two")
        self.device.doRead()
        self.assertEqual(([b"one"], []), (self.received, self.losses))


class OffloadTests(SynchronousTestCase):
    """A device that leaves cutting and checksums to us, and takes what is joined."""

    def device(self, offered: int | None) -> TunDevice:
        """A device that offers this much."""
        self.patch(tun_device, "offload_tun", lambda descriptor, header: offered)
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.kernel.close)
        self.kernel.setblocking(False)
        self.received: list[tuple[bytes, Offload | None]] = []
        device = TunDevice(Readers(), ours.detach(), self.receive, self.fail)
        self.addCleanup(device.close)
        return device

    def receive(self, packet: Buffer, offload: Offload | None) -> None:
        """Take a packet as the client does."""
        self.received.append((bytes(packet), offload))

    def taken(self) -> list[tuple[bytes, Offload | None]]:
        """What the kernel has been given."""
        given: list[tuple[bytes, Offload | None]] = []
        while True:
            try:
                data = self.kernel.recv(70000)
            except BlockingIOError:
                return given
            given.append((data[VIRTIO_SIZE:], parse_virtio(data)))

    def test_read(self) -> None:
        """Packets come with what is left to be done with them."""
        device = self.device(0x6F)
        self.assertTrue(device.offload)
        large = Whole(payload=bytes(30000))
        done = complete(Whole(4, payload=b"x").packet())
        for packet, offload in ((large.packet(), large.offload), (done, None)):
            self.kernel.send(pack_virtio(offload, packet) + packet)
        device.doRead()
        self.assertEqual(self.received, [(large.packet(), large.offload), (done, None)])

    def test_written(self) -> None:
        """Parts become one packet, with what is left to be done before it."""
        device = self.device(0x6F)
        whole = Whole(protocol=UDP, payload=bytes(2500))
        packet = whole.packet()
        device.send_parts([packet[:48], packet[48:1000], packet[1000:]], whole.offload)
        device.send(packet)
        self.assertEqual(self.taken(), [(packet, whole.offload), (packet, None)])
        self.assertEqual(device.traffic.to_applications, 2)

    def test_no_joined_datagrams(self) -> None:
        """A device before Linux 6.2 gets joined datagrams one by one, and joined TCP as it is."""
        device = self.device(0x0F)
        whole = Whole(4, UDP, bytes(range(250)) * 10, identification=65535)
        packet = whole.packet()
        device.send_parts([packet[:28], packet[28:]], whole.offload)
        pieces = self.taken()
        self.assertEqual([offload for _, offload in pieces], [PARTIAL] * 3)
        self.assertEqual(b"".join(piece[28:] for piece, _ in pieces), whole.payload)
        stream = Whole(payload=bytes(2500))
        device.send(stream.packet(), stream.offload)
        self.assertEqual(self.taken(), [(stream.packet(), stream.offload)])

    def test_never_offered(self) -> None:
        """A packet to be cut in a way that was never offered is counted; the next ones come."""
        device = self.device(0x6F)
        packet = Whole(payload=bytes(3000)).packet()
        self.kernel.send(VIRTIO.pack(1, 3, 60, 1000, 40, 16) + packet)
        self.kernel.send(VIRTIO.pack(1, GsoKind.TCP6, 60, 1000, 90, 16) + packet)
        self.kernel.send(bytes(VIRTIO_SIZE) + b"next")
        device.doRead()
        self.assertEqual(([(b"next", None)], 2), (self.received, device.traffic.dropped))
        self.assertEqual(2, len(self.flushLoggedErrors(MalformedMessage)))

    def test_bounded_by_bytes(self) -> None:
        """Large packets use up a wake-up sooner than small ones."""
        device = self.device(0x6F)
        whole = Whole(payload=bytes(60000))
        packet = pack_virtio(whole.offload, whole.packet()) + whole.packet()
        self.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent <= 2 * BURST_BYTES // len(packet):
                self.kernel.send(packet)
                sent += 1
        device.doRead()
        self.assertEqual(len(self.received), min(sent, -(-BURST_BYTES // len(packet))))

    def test_none(self) -> None:
        """A device without offload gets and gives plain packets."""
        device = self.device(None)
        self.assertFalse(device.offload)
        packet = complete(Whole(payload=b"x").packet())
        self.kernel.send(packet)
        device.doRead()
        device.send(packet)
        self.assertEqual(([(packet, None)], packet), (self.received, self.kernel.recv(9000)))
