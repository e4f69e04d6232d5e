"""Cutting and joining of packets: neither invents nor loses a bit."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.checksums import checksum, pseudo_sum
from ntmobile.wire.coalescing import FLOWS, Coalescer
from ntmobile.wire.offload import (
    CHECKSUM_AT,
    PARTIAL,
    VIRTIO,
    GsoKind,
    Offload,
    complete,
    pack_virtio,
    parse_virtio,
    transport,
)
from ntmobile.wire.packet import TCP, UDP
from ntmobile.wire.segmentation import Segmentation
from tests.segments import ACK, CWR, ECE, FIN, PSH, SYN, Whole


@st.composite
def wholes(draw: st.DrawFn) -> Whole:
    """Whatever a kernel may hand over to be cut."""
    protocol = draw(st.sampled_from((TCP, UDP)))
    size = draw(st.integers(1, 1400))
    most = min(64000, size * (64 if protocol == UDP else 100))
    length = draw(st.integers(1, most))
    return Whole(
        draw(st.sampled_from((4, 6))),
        protocol,
        Random(length).randbytes(length),
        size,
        ACK | draw(st.sampled_from((0, PSH, FIN, PSH | FIN, ECE, CWR, CWR | PSH))),
        draw(st.integers(0, 2**32 - 1)),
        bytes(draw(st.sampled_from((0, 12, 20, 40)))),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 65535)),
    )


def cut(whole: Whole, size: int = 65535) -> list[bytes]:
    """The pieces."""
    if whole.protocol == UDP and len(whole.payload) <= whole.size:
        return [whole.packet()]
    segmentation = Segmentation(whole.packet(), whole.offload, size)
    pieces = []
    for number in range(segmentation.count):
        room = bytearray(segmentation.length + 7)
        length = segmentation.write(number, room, 7)
        pieces.append(bytes(room[7 : 7 + length]))
    return pieces


def join(pieces: list[bytes], partial: bool = True) -> list[tuple[bytes, Offload | None]]:
    """The packets that a system gets of pieces that came together."""
    coalescer = Coalescer()
    for piece in pieces:
        coalescer.add(memoryview(piece), partial)
    return [(b"".join(parts), offload) for parts, offload in coalescer.drain()]


def sound(packet: bytes) -> bool:
    """Whether lengths and checksums of a packet are right, in the plain way of the RFCs."""
    start, protocol, _ = transport(packet)
    if packet[0] >> 4 == 4:
        if checksum(packet[:start]) or packet[2] << 8 | packet[3] != len(packet):
            return False
        source, destination = packet[12:16], packet[16:20]
    else:
        if (packet[4] << 8 | packet[5]) + 40 != len(packet):
            return False
        source, destination = packet[8:24], packet[24:40]
    inside = packet[start:]
    if protocol == UDP and inside[4] << 8 | inside[5] != len(inside):
        return False
    return checksum(inside, pseudo_sum(source, destination, protocol, len(inside))) == 0


class CuttingTests(SynchronousTestCase):
    @given(wholes())
    def test_identity(self, whole: Whole) -> None:
        """Cutting and joining gives what the kernel handed over, to the bit."""
        self.assertEqual(join(cut(whole)), [(whole.packet(), whole.offload)])

    @given(wholes())
    def test_checksums(self, whole: Whole) -> None:
        """Every piece has right lengths, and a right checksum when it is completed."""
        pieces = cut(whole)
        for piece in pieces:
            self.assertTrue(sound(complete(piece)))
        carried = b"".join(piece[sum(transport(piece)[::2]) :] for piece in pieces)
        self.assertEqual(carried, whole.payload)

    def test_flags(self) -> None:
        """PSH and FIN are the last piece's, CWR the first one's; ECE is everyone's."""
        whole = Whole(payload=bytes(2500), flags=ACK | PSH | FIN | CWR | ECE)
        flags = [piece[40 + 13] for piece in cut(whole)]
        self.assertEqual(flags, [ACK | CWR | ECE, ACK | ECE, ACK | PSH | FIN | ECE])

    def test_numbers(self) -> None:
        """Sequence numbers go on, round their end; so do the identifications of IPv4."""
        whole = Whole(4, payload=bytes(2500), sequence=2**32 - 1500, identification=65534)
        pieces = cut(whole)
        self.assertEqual(
            [piece[24:28] for piece in pieces],
            [number.to_bytes(4, "big") for number in (2**32 - 1500, 2**32 - 500, 500)],
        )
        self.assertEqual([piece[4:6] for piece in pieces], [b"\xff\xfe", b"\xff\xff", b"\0\0"])

    def test_smaller_path(self) -> None:
        """TCP is cut to what a path carries, whatever the kernel thought of it."""
        whole = Whole(payload=bytes(5000), size=1300)
        pieces = cut(whole, 800)
        self.assertEqual([len(piece) for piece in pieces], [800] * 6 + [60 + 5000 - 6 * 740])
        alone = Whole(payload=bytes(1300), size=1300)
        self.assertEqual([len(piece) for piece in cut(alone, 800)], [800, 60 + 560])

    def test_datagrams(self) -> None:
        """Datagrams stay what they are, even where they are too large."""
        whole = Whole(protocol=UDP, payload=bytes(2500), size=1000)
        self.assertEqual([len(piece) for piece in cut(whole, 500)], [1048, 1048, 548])

    def test_not_to_be_cut(self) -> None:
        """What is no TCP or UDP, has a checksum, or leaves no room is not cut."""
        whole = Whole(payload=bytes(2500))
        odd = bytearray(whole.packet())
        odd[6] = 44  # a fragment header
        for packet, offload, size in (
            (whole.packet(), evolve(whole.offload, partial=False), 1400),
            (bytes(odd), whole.offload, 1400),
            (whole.packet(), whole.offload, 60),
            (whole.packet(), Offload(GsoKind.UDP, 1000, True), 1400),
            (Whole(protocol=UDP, payload=bytes(9)).packet(), PARTIAL, 1400),
            (Whole().packet(), PARTIAL, 1400),
            (b"", whole.offload, 1400),
            (whole.packet()[:50], whole.offload, 1400),
        ):
            self.assertRaises(MalformedMessage, Segmentation, packet, offload, size)


class JoiningTests(SynchronousTestCase):
    @given(wholes(), st.randoms(use_true_random=False))
    def test_any_order(self, whole: Whole, random: Random) -> None:
        """Loss, reordering and duplication: what a system gets is cut again into what came."""
        pieces = [piece for piece in cut(whole) if random.random() < 0.9]
        pieces += [piece for piece in pieces if random.random() < 0.1]
        for _ in range(random.randrange(3)):
            at = random.randrange(len(pieces) + 1)
            pieces[at : at + 2] = reversed(pieces[at : at + 2])
        again = []
        for packet, offload in join(pieces):
            if offload is None or offload.kind is GsoKind.NONE:
                again.append(packet)
                continue
            segmentation = Segmentation(packet, offload, 65535)
            for number in range(segmentation.count):
                room = bytearray(segmentation.length)
                again.append(bytes(room[: segmentation.write(number, room, 0)]))
        self.assertEqual(again, pieces)

    def test_flows(self) -> None:
        """Flows that come mixed are joined each for itself."""
        first, second = Whole(payload=bytes(3000)), Whole(payload=bytes(3000), ports=(5, 6))
        mixed = [piece for pair in zip(cut(first), cut(second), strict=True) for piece in pair]
        self.assertEqual(
            join(mixed), [(whole.packet(), whole.offload) for whole in (first, second)]
        )

    def test_many_flows(self) -> None:
        """More flows than are kept open lose nothing."""
        flows = [Whole(payload=bytes(1500), ports=(7, port)) for port in range(2 * FLOWS)]
        pieces = [piece for number in (0, 1) for flow in flows for piece in [cut(flow)[number]]]
        joined = join(pieces)
        self.assertEqual(sum(len(packet) - 60 for packet, _ in joined), 2 * FLOWS * 1500)

    def test_different(self) -> None:
        """What differs in any field of its header is not joined."""
        whole = Whole(4, payload=bytes(2000), traffic_class=2, options=bytes(12))
        first, second = cut(whole)
        for at in (*range(2), 6, 7, 8, *range(20, 28), *range(28, 34), 34, 35, 38, 39, 40, 51):
            changed = bytearray(second)
            changed[at] ^= 0x10
            self.assertEqual(len(join([first, bytes(changed)])), 2, at)

    def test_alone(self) -> None:
        """SYN, RST, empty acknowledgements and packets with whole checksums pass as they are."""
        data = cut(Whole(payload=bytes(2000)))
        for flags, payload in ((SYN, b"x"), (ACK | 4, b"x"), (ACK | 0x20, b"x"), (ACK, b"")):
            odd = Whole(payload=payload, flags=flags).packet()
            self.assertEqual([odd, odd], [packet for packet, _ in join([odd, odd])])
        self.assertEqual([(data[0], None), (data[1], None)], join(data, partial=False))
        self.assertEqual([(b"\0", PARTIAL)], join([b"\0"]))

    def test_order_in_a_flow(self) -> None:
        """What cannot be joined comes after what came before it."""
        data = cut(Whole(payload=bytes(2000)))
        end = Whole(sequence=2001, flags=ACK | 4).packet()
        packets = [packet for packet, _ in join([*data, end])]
        self.assertEqual(packets, [Whole(payload=bytes(2000)).packet(), end])

    def test_end_of_something_else(self) -> None:
        """A packet with PSH that does not go on here leaves no trace in what it does not join."""
        first, second = cut(Whole(payload=bytes(2000)))
        stranger = Whole(payload=b"x", sequence=99, flags=ACK | PSH).packet()
        packets = [packet for packet, _ in join([first, second, stranger])]
        self.assertEqual(packets, [Whole(payload=bytes(2000)).packet(), stranger])

    def test_limits(self) -> None:
        """No packet is larger than a packet may be, nor stands for more datagrams than allowed."""
        for whole in (
            Whole(payload=bytes(64000), size=1000),
            Whole(protocol=UDP, payload=bytes(6400), size=100),
        ):
            pieces = cut(whole)
            following = cut(evolve(whole, sequence=64001))
            for (packet, _), _ in pairwise(join(pieces + following)):
                self.assertLessEqual(len(packet), 65535)


class HeaderTests(SynchronousTestCase):
    @given(wholes())
    def test_virtio(self, whole: Whole) -> None:
        """The kernel's header says what is left to be done, and reads back."""
        header = pack_virtio(whole.offload, whole.packet())
        self.assertEqual(parse_virtio(header), whole.offload)
        start, protocol, length = transport(whole.packet())
        flags, kind, top, _, at, behind = VIRTIO.unpack(header)
        self.assertEqual((flags, at, behind), (1, start, CHECKSUM_AT[protocol]))
        self.assertEqual(top, start + length if kind else 0)

    def test_nothing_left(self) -> None:
        """A packet that is complete has ten zeros before it."""
        packet = Whole(payload=b"x").packet()
        self.assertEqual(pack_virtio(None, packet), bytes(10))
        self.assertIsNone(parse_virtio(bytes(10)))
        self.assertEqual(pack_virtio(PARTIAL, b"\x45"), bytes(10))

    def test_unknown(self) -> None:
        """A way of cutting that was never offered is refused."""
        self.assertRaises(MalformedMessage, parse_virtio, VIRTIO.pack(1, 3, 0, 0, 0, 0))
