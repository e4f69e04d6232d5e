"""What a device says of its packets, and packets on whose checksum others rely."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.coalescing import Coalescer
from ntmobile.wire.offload import (
    PARTIAL,
    VIRTIO,
    GsoKind,
    Offload,
    complete,
    open_virtio,
    pack_virtio,
    transport,
)
from ntmobile.wire.packet import TCP, UDP, parse
from ntmobile.wire.segmentation import Segmentation
from tests.packets import V4_A, V4_B, ipv4, mangled, packets, plain_sum
from tests.segments import ACK, PSH, Whole

#: An IPv6 header of destination options: four bytes of padding.
OPTIONS = b"\0\1\4\0\0\0\0"


def extended(whole: Whole, number: int = 60, body: bytes = OPTIONS) -> bytes:
    """An IPv6 packet with one extension header, which its checksum does not cover."""
    packet = whole.packet()
    length = len(packet) - 40 + 1 + len(body)
    head = packet[:4] + struct.pack("!HB", length, number) + packet[7:40]
    return head + packet[6:7] + body + packet[40:]


def right(packet: bytes, start: int, protocol: int) -> bool:
    """Whether a checksum is right, in the plain way of the RFCs."""
    inside = packet[start:]
    if packet[0] >> 4 == 4:
        pseudo = packet[12:20] + struct.pack("!BBH", 0, protocol, len(inside))
    else:
        pseudo = packet[8:40] + struct.pack("!IxxxB", len(inside), protocol)
    return plain_sum(pseudo + inside) == 0


class DeviceHeaderTests(SynchronousTestCase):
    def opened(self, packet: bytes, *fields: int) -> tuple[bytes, Offload | None]:
        """What is made of a packet after a header of these fields."""
        found, offload = open_virtio(memoryview(VIRTIO.pack(*fields) + packet))
        return bytes(found), offload

    def test_as_written(self) -> None:
        """What we write before a packet is read as what was meant."""
        for version, protocol in ((4, TCP), (4, UDP), (6, TCP), (6, UDP)):
            for size in (1000, 5000):
                whole = Whole(version, protocol, bytes(3000), size)
                packet = whole.packet()
                header = pack_virtio(whole.offload, packet)
                found, offload = open_virtio(memoryview(header + packet))
                self.assertEqual((bytes(found), offload), (packet, whole.offload))

    def test_complete(self) -> None:
        """A packet of which nothing is left to be done stays as it is."""
        packet = complete(Whole(payload=b"x").packet())
        self.assertEqual(self.opened(packet, *[0] * 6), (packet, None))
        # The checksum was seen to be right (VIRTIO_NET_HDR_F_DATA_VALID).
        self.assertEqual(self.opened(packet, 2, *[0] * 5), (packet, None))

    def test_further_in(self) -> None:
        """The checksum of a packet inside another, as in a VXLAN, is completed at once."""
        inner = Whole(4, payload=b"hello", options=bytes(12)).packet()
        outer = ipv4(V4_A, V4_B, UDP, struct.pack("!HHHH", 4789, 4789, 8 + 22 + len(inner), 0))
        packet = outer + bytes(22) + inner
        begin = len(packet) - len(inner)
        found, offload = self.opened(packet, 1, 0, 0, 0, begin + 20, 16)
        self.assertIsNone(offload)
        self.assertEqual(found[:begin], packet[:begin])
        self.assertTrue(right(found[begin:], 20, TCP))
        self.assertEqual(found[begin:], complete(inner))

    def test_never_offered(self) -> None:
        """Cutting further in, cutting in another way, or a checksum outside is refused."""
        packet = Whole(4, payload=bytes(3000)).packet()
        for fields in (
            (1, GsoKind.TCP4, 100, 1000, 60, 16),
            (1, 3, 40, 1000, 20, 6),
            (1, 0, 0, 0, 5000, 16),
            (1, 0, 0, 0, len(packet) - 17, 16),
        ):
            self.assertRaises(MalformedMessage, self.opened, packet, *fields)

    @given(st.binary(max_size=120), st.binary(min_size=10, max_size=10))
    def test_nonsense(self, packet: bytes, header: bytes) -> None:
        """Nonsense is a malformed message or something to go on with, and nothing else."""
        with contextlib.suppress(MalformedMessage):
            open_virtio(memoryview(header + packet))


class ExtensionTests(SynchronousTestCase):
    def test_cut_and_joined(self) -> None:
        """TCP behind IPv6 options is cut, complete, and joined like any other."""
        whole = Whole(payload=bytes(range(250)) * 10, flags=ACK | PSH)
        packet = extended(whole)
        self.assertEqual(transport(packet), (48, TCP, 20))
        header = pack_virtio(whole.offload, packet)
        self.assertEqual(VIRTIO.unpack(header), (1, GsoKind.TCP6, 68, 1000, 48, 16))
        found, offload = open_virtio(memoryview(header + packet))
        assert offload is not None
        segmentation, coalescer = Segmentation(found, offload, 1416), Coalescer()
        for number in range(segmentation.count):
            room = bytearray(segmentation.length)
            piece = bytes(room[: segmentation.write(number, room, 0)])
            self.assertTrue(right_behind(complete(piece)))
            self.assertEqual(parse(piece).offset, 48)
            coalescer.add(memoryview(piece), True)
        [(parts, joined)] = coalescer.drain()
        self.assertEqual((b"".join(parts), joined), (packet, whole.offload))

    def test_left_alone(self) -> None:
        """Behind a fragment header, a source route, or what is cut off, there is nothing for us."""
        whole = Whole(payload=bytes(100))
        for packet in (
            extended(whole, 44, bytes(7)),
            extended(whole, 43, b"\0\x02\x01" + bytes(4)),
            extended(whole)[:44],
            extended(whole, 51, b"\x04" + bytes(6)),
        ):
            self.assertEqual(transport(packet), (0, 0, 0))
            self.assertEqual(complete(packet), packet)
            self.assertEqual(pack_virtio(PARTIAL, packet), bytes(VIRTIO.size))


def right_behind(packet: bytes) -> bool:
    """Whether the checksum behind an extension header of eight bytes is right."""
    length = struct.pack("!H", len(packet) - 48)
    return right(packet[:4] + length + packet[40:41] + packet[7:40] + packet[48:], 40, TCP)


class CompletingTests(SynchronousTestCase):
    @given(st.sampled_from((4, 6)), st.sampled_from((TCP, UDP)), st.binary(max_size=50))
    def test_right(self, version: int, protocol: int, payload: bytes) -> None:
        """A completed checksum is right, and that of UDP never says that there is none."""
        done = complete(Whole(version, protocol, payload).packet())
        self.assertTrue(right(done, 20 if version == 4 else 40, protocol))
        if protocol == UDP:
            at = 26 if version == 4 else 46
            self.assertNotEqual(done[at : at + 2], bytes(2))

    def test_sum_of_zero(self) -> None:
        """A sum that comes to 0 is written as 65535, since 0 would say that there is none."""
        bare = complete(Whole(protocol=UDP, payload=bytes(2)).packet())
        done = complete(Whole(protocol=UDP, payload=bare[46:48]).packet())
        self.assertEqual(done[46:48], b"\xff\xff")
        self.assertTrue(right(done, 40, UDP))

    @given(packets() | mangled())
    def test_any_packet(self, packet: bytes) -> None:
        """Whatever comes is completed or left alone, and neither lengthened nor cut."""
        self.assertEqual(len(complete(packet)), len(packet))
        coalescer = Coalescer()
        if packet:
            coalescer.add(memoryview(packet), True)
            self.assertEqual([b"".join(parts) for parts, _ in coalescer.drain()], [packet])
