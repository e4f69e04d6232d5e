"""Joining many flows at once, judged by a kernel's cutting as the documents of the RFCs word it."""

from __future__ import annotations

import struct
from collections import defaultdict
from random import Random

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.wire.coalescing import Coalescer
from ntmobile.wire.offload import GsoKind, Offload, complete
from ntmobile.wire.packet import TCP, UDP
from ntmobile.wire.segmentation import Segmentation
from tests.packets import ipv6, plain_sum
from tests.segments import ACK, CWR, ECE, FIN, PSH, Whole

#: What writev(2) takes, with the header before the packet.
IOV_MAX = 1024


def kernel_cut(packet: bytes, offload: Offload | None) -> list[bytes]:
    """The packets on the wire that a kernel makes of one, written anew and slowly."""
    if offload is None:
        return [packet]
    version, start = packet[0] >> 4, 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9 if version == 4 else 6]
    top = start + (packet[start + 12] // 16 * 4 if protocol == TCP else 8)
    payload, step = packet[top:], offload.size if offload.kind else max(1, len(packet) - top)
    pieces = [payload[at : at + step] for at in range(0, len(payload), step)] or [b""]
    made = []
    for number, piece in enumerate(pieces):
        head = bytearray(packet[:top])
        inside = len(piece) + top - start
        if version == 4:
            name = (struct.unpack_from("!H", head, 4)[0] + number) % 65536
            struct.pack_into("!HH", head, 2, top + len(piece), name)
            head[10:12] = bytes(2)
            struct.pack_into("!H", head, 10, plain_sum(bytes(head[:20])))
            pseudo = bytes(head[12:20]) + struct.pack("!BBH", 0, protocol, inside)
        else:
            struct.pack_into("!H", head, 4, inside)
            pseudo = bytes(head[8:40]) + struct.pack("!IxxxB", inside, protocol)
        if protocol == TCP:
            sequence = struct.unpack_from("!I", head, start + 4)[0] + number * step
            struct.pack_into("!I", head, start + 4, sequence % 2**32)
            if number:
                head[start + 13] &= ~CWR
            if number < len(pieces) - 1:
                head[start + 13] &= ~(FIN | PSH)
        else:
            struct.pack_into("!H", head, start + 4, inside)
        at = start + (16 if protocol == TCP else 6)
        head[at : at + 2] = bytes(2)
        whole = plain_sum(pseudo + bytes(head[start:]) + piece) or 0xFFFF
        struct.pack_into("!H", head, at, whole)
        made.append(bytes(head) + piece)
    return made


def pieces_of(whole: Whole) -> list[bytes]:
    """A packet as it goes through a tunnel."""
    if not whole.offload.kind:
        return [whole.packet()]
    segmentation = Segmentation(whole.packet(), whole.offload, 65535)
    made = []
    for number in range(segmentation.count):
        room = bytearray(segmentation.length)
        made.append(bytes(room[: segmentation.write(number, room, 0)]))
    return made


def flow_of(packet: bytes) -> bytes:
    """What names a flow."""
    return packet[6:7] + packet[8:44] if packet[0] >> 4 == 6 else packet[9:10] + packet[12:24]


@st.composite
def flows(draw: st.DrawFn) -> list[Whole]:
    """What a kernel hands over of several flows, each going on where it was."""
    wholes = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from((1, 100, 536, 1001, 1348)))
        whole = Whole(
            draw(st.sampled_from((4, 6))),
            draw(st.sampled_from((TCP, TCP, UDP))),
            size=size,
            sequence=draw(st.sampled_from((1, 2**32 - 2000))),
            options=bytes(draw(st.sampled_from((0, 12)))),
            traffic_class=draw(st.integers(0, 3)),
            identification=draw(st.sampled_from((0, 65530))),
            ports=(5000, 6000 + number),
        )
        for _ in range(draw(st.integers(1, 3))):
            length = size * draw(st.integers(0, 12))
            length += draw(st.just(0) | st.integers(0, size - 1))
            flags = ACK | draw(st.sampled_from((0, 0, PSH, FIN | PSH, ECE, CWR, CWR | ECE | PSH)))
            payload = Random(length).randbytes(length)
            whole = evolve(whole, payload=payload, flags=flags)
            wholes.append(whole)
            count = max(1, -(-length // size))
            whole = evolve(
                whole,
                sequence=(whole.sequence + length) % 2**32,
                identification=(whole.identification + count) % 65536,
            )
    return wholes


def carried(wholes: list[Whole], random: Random) -> list[bytes]:
    """Their pieces as a bad network brings them: mixed, some lost, twice, or too early."""
    waiting = defaultdict(list)
    for whole in wholes:
        waiting[whole.ports].extend(pieces_of(whole))
    came = []
    while waiting:
        ports = random.choice(list(waiting))
        count = random.choice((1, 2, 8))
        came += waiting[ports][:count]
        del waiting[ports][:count]
        if not waiting[ports]:
            del waiting[ports]
    bad = random.choice((0, 0.02, 0.2))
    came = [piece for piece in came for _ in range(random.choices((1, 0, 2), (1, bad, bad))[0])]
    for at in range(len(came) - 1):
        if random.random() < bad:
            came[at], came[at + 1] = came[at + 1], came[at]
    return came


class CuttingTests(SynchronousTestCase):
    @given(flows())
    def test_as_a_kernel(self, wholes: list[Whole]) -> None:
        """Pieces, once complete, are to the bit what a kernel would have put on the wire."""
        for whole in wholes:
            completed = [complete(piece) for piece in pieces_of(whole)]
            self.assertEqual(completed, kernel_cut(whole.packet(), whole.offload))

    @given(flows(), st.integers(0, 40), st.integers(0, 16))
    def test_run(self, wholes: list[Whole], before: int, after: int) -> None:
        """A run of pieces holds what they are one by one, and nothing around them is touched."""
        for whole in wholes:
            if not whole.offload.kind:
                continue
            pieces = pieces_of(whole)
            segmentation = Segmentation(whole.packet(), whole.offload, 65535)
            run = bytearray(b"." * sum(before + len(piece) + after for piece in pieces))
            segmentation.write_run(memoryview(run), before, after)
            expected = b"".join(b"." * before + piece + b"." * after for piece in pieces)
            self.assertEqual(bytes(run), expected)

    def test_header_checksum_of_zero(self) -> None:
        """Where the checksum of an IPv4 header comes to 0, cutting and joining agree on that."""
        whole = Whole(4, payload=bytes(3000))
        # The checksum falls by one where the identification rises by one.
        checksum = int.from_bytes(pieces_of(whole)[1][10:12], "big")
        whole = evolve(whole, identification=checksum)
        pieces = pieces_of(whole)
        self.assertEqual(pieces[1][10:12], bytes(2))
        segmentation = Segmentation(whole.packet(), whole.offload, 65535)
        run = memoryview(bytearray(sum(map(len, pieces))))
        segmentation.write_run(run, 0, 0)
        self.assertEqual(bytes(run), b"".join(pieces))
        coalescer = Coalescer()
        for piece in pieces:
            coalescer.add(memoryview(piece), True)
        [(parts, offload)] = coalescer.drain()
        self.assertEqual((b"".join(parts), offload), (whole.packet(), whole.offload))


class JoiningTests(SynchronousTestCase):
    @given(flows(), st.randoms(use_true_random=False))
    def test_nothing_invented(self, wholes: list[Whole], random: Random) -> None:
        """Of every flow a kernel gets the packets that came, all of them, once, in their order."""
        came, got = carried(wholes, random), []
        coalescer = Coalescer()
        for piece in came:
            coalescer.add(memoryview(piece), True)
            if random.random() < 0.05:
                got += coalescer.drain()
        got += coalescer.drain()
        sent, seen = defaultdict(list), defaultdict(list)
        for piece in came:
            sent[flow_of(piece)].append(complete(piece))
        for parts, offload in got:
            for packet in kernel_cut(b"".join(parts), offload):
                seen[flow_of(packet)].append(packet)
        self.assertEqual(seen, sent)
        self.assertEqual([], coalescer.drain())

    @given(flows(), st.randoms(use_true_random=False))
    def test_joined_as_far_as_possible(self, wholes: list[Whole], random: Random) -> None:
        """Where nothing is lost nor moved, a system gets as many packets as were handed over."""
        pieces = [piece for whole in wholes for piece in pieces_of(whole)]
        coalescer = Coalescer()
        for piece in pieces:
            coalescer.add(memoryview(piece), True)
        self.assertLessEqual(len(coalescer.drain()), len(wholes))

    def test_lost_before_the_end(self) -> None:
        """An end that comes too early is not taken for the end of what came before it."""
        for flags in (FIN, PSH, FIN | PSH):
            first, second, _, last = pieces_of(Whole(payload=bytes(4000), flags=ACK | flags))
            coalescer = Coalescer()
            for piece in (first, second, last):
                coalescer.add(memoryview(piece), True)
            [(joined, offload), (alone, _)] = coalescer.drain()
            self.assertEqual((joined[0][53], offload and offload.kind), (ACK, GsoKind.TCP6))
            self.assertEqual(b"".join(alone), last)

    def test_after_the_end(self) -> None:
        """PSH ends a packet even where data goes on behind it, so that it stays where it was."""
        first = Whole(payload=bytes(2000), flags=ACK | PSH)
        second = evolve(first, sequence=2001)
        coalescer = Coalescer()
        for piece in pieces_of(first) + pieces_of(second):
            coalescer.add(memoryview(piece), True)
        joined = [b"".join(parts) for parts, _ in coalescer.drain()]
        self.assertEqual(joined, [first.packet(), second.packet()])

    def test_parts(self) -> None:
        """A joined packet has no more parts than one system call takes."""
        coalescer = Coalescer()
        payload = Random(1).randbytes(3 * IOV_MAX)
        for piece in pieces_of(Whole(payload=payload, size=1)):
            coalescer.add(memoryview(piece), True)
        joined = coalescer.drain()
        self.assertEqual(b"".join(b"".join(parts[1:]) for parts, _ in joined), payload)
        self.assertLess(max(len(parts) for parts, _ in joined), IOV_MAX)
        self.assertLess(len(joined), 5)

    def test_last_of_another_length(self) -> None:
        """A last packet that is longer than it says, or whose checksums are wrong, stays alone."""
        for version, protocol in ((4, TCP), (4, UDP), (6, TCP), (6, UDP)):
            *before, last = pieces_of(Whole(version, protocol, bytes(2500)))
            start = 20 if version == 4 else 40
            at = start + (16 if protocol == TCP else 6)
            changed = [last + b"padding", last[:at] + b"\0\0" + last[at + 2 :]]
            if version == 4:
                changed.append(last[:10] + b"\0\0" + last[12:])
            for odd in changed:
                coalescer = Coalescer()
                for piece in (*before, odd):
                    coalescer.add(memoryview(piece), True)
                [_, (alone, _)] = coalescer.drain()
                self.assertEqual(b"".join(alone), odd)

    def test_not_overtaken(self) -> None:
        """A packet whose flow cannot be told, such as a fragment, overtakes nothing."""
        first, second = pieces_of(Whole(protocol=UDP, payload=bytes(2000)))
        ends = first[8:24], first[24:40]
        fragment = ipv6(*ends, UDP, bytes(100), ((44, b"\0\0\x01" + bytes(4)),))
        other = Whole(4, payload=bytes(500))
        odd = bytearray(other.packet())
        odd[6] = 0x20  # more fragments
        for last in (fragment, bytes(odd)):
            coalescer = Coalescer()
            for piece, partial in ((first, True), (second, True), (last, False)):
                coalescer.add(memoryview(piece), partial)
            [(joined, _), (alone, offload)] = coalescer.drain()
            self.assertEqual(len(b"".join(joined)), 2048)
            self.assertEqual((b"".join(alone), offload), (last, None))
