"""Runs through a tunnel: what 64 KiB of an application become on the way, and what may go wrong."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Transmit, TransmitRun
from ntmobile.machines.tunnel.constants import INNER_MTU, MTU_VERIFY, SEALED
from ntmobile.machines.tunnel.events import Deliver, DeliverRun
from ntmobile.wire.coalescing import Coalescer
from ntmobile.wire.headers import Flag
from ntmobile.wire.offload import GsoKind, Offload, complete
from ntmobile.wire.packet import TCP, UDP
from tests.segments import ACK, PSH, Whole
from tests.tunnels import Internet, Node


class RunCase(SynchronousTestCase):
    """Two devices with a tunnel over a path that carries whole packets."""

    def setUp(self) -> None:
        self.net = Internet()
        self.a, self.b = self.net.pair()
        self.a.send(b"first")
        self.net.run(2.0)
        self.b.received.clear()

    def whole(self, payload: bytes, version: int = 6, **fields: int) -> Whole:
        """A packet of an application of a's for one of b's."""
        return Whole.between(self.a.certificate, self.b.certificate, version, payload, **fields)

    def send(self, whole: Whole) -> list[Transmit | TransmitRun]:
        """What a's tunnel sends of it."""
        self.a.open.send(whole.packet(), self.net.now, whole.offload)
        sent = self.a.open.effects()
        return [one for one in sent if isinstance(one, Transmit | TransmitRun)]

    def receive(self, data: bytes | bytearray, segment: int) -> list[tuple[bytes, bool]]:
        """Packets that b's tunnel delivers of datagrams that come together; whether partial.

        What is of another index it leaves to others, and is given the rest again, as always.
        """
        source = self.b.open.active
        assert source is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self.b.open.run_received(rest, segment, source.remote, self.net.now) :]
        found: list[tuple[bytes, bool]] = []
        for effect in self.b.open.effects():
            if isinstance(effect, Deliver):
                found.append((bytes(effect.packet), effect.partial))
            elif isinstance(effect, DeliverRun):
                found += [(bytes(packet), effect.partial) for packet in effect.packets]
        return found

    def joined(self, packets: list[tuple[bytes, bool]]) -> list[tuple[bytes, Offload | None]]:
        """What b's system gets of them."""
        coalescer = Coalescer()
        for packet, partial in packets:
            coalescer.add(memoryview(packet), partial)
        return [(b"".join(parts), offload) for parts, offload in coalescer.drain()]

    def run_of(self, whole: Whole) -> TransmitRun:
        """The one run that a packet becomes."""
        (run,) = self.send(whole)
        assert isinstance(run, TransmitRun)
        return run


class WholeRunTests(RunCase):
    """Nothing goes wrong."""

    def test_round_trip(self) -> None:
        """TCP and UDP, by both families, arrive as the application's system sent them."""
        for version in (4, 6):
            for protocol, size in ((TCP, 1200), (UDP, 1000)):
                payload = Random(1).randbytes(40 * size + 7)
                whole = self.whole(payload, version, protocol=protocol, size=size)
                run = self.run_of(whole)
                received = self.receive(run.data, run.segment)
                self.assertEqual(self.joined(received), [(whole.packet(), whole.offload)])

    def test_fits_the_path(self) -> None:
        """R23: TCP is cut to what the path carries, however large the system's segments are."""
        run = self.run_of(self.whole(bytes(30000), size=8000))
        self.assertEqual(run.segment, INNER_MTU + SEALED)
        carried = b"".join(packet[60:] for packet, _ in self.receive(run.data, run.segment))
        self.assertEqual(carried, bytes(30000))

    def test_alone(self) -> None:
        """A single packet keeps its partial checksum, under the flag that says so."""
        whole = self.whole(b"data", size=1000)
        (sent,) = self.send(whole)
        assert isinstance(sent, Transmit)
        self.assertTrue(sent.datagram[1] & Flag.PARTIAL)
        self.assertEqual(self.receive(sent.datagram, len(sent.datagram)), [(whole.packet(), True)])

    def test_large_datagrams(self) -> None:
        """R23: datagrams of an application that are larger than the path arrive all the same."""
        whole = self.whole(bytes(6000), protocol=UDP, size=1300)
        sent = self.send(whole)
        received = []
        for each in sent:
            assert isinstance(each, Transmit)
            received += self.receive(each.datagram, len(each.datagram))
        self.assertEqual(self.joined(received), [(whole.packet(), whole.offload)])

    def test_waiting(self) -> None:
        """What is sent before there is a tunnel arrives when there is one, cut then."""
        net = Internet()
        a, b = net.pair()
        whole = Whole.between(a.certificate, b.certificate, 6, bytes(5000), size=1200)
        a.begin().send(memoryview(bytearray(whole.packet())), net.now, whole.offload)
        a.run()
        net.run(1.0)
        self.assertEqual(b"".join(data[20:] for data in b.payloads()), bytes(5000))

    def test_counted(self) -> None:
        """Inner bytes are counted at both ends, and the path's MTU is verified while it is used."""
        before = self.b.open.received_bytes
        run = self.run_of(self.whole(bytes(30000), size=1200))
        self.receive(run.data, run.segment)
        self.assertEqual(self.b.open.received_bytes - before, 30000 + 25 * 60)
        due = self.a.open.next_timer()
        assert due is not None
        self.assertLessEqual(due, self.net.now + MTU_VERIFY)


class DisturbedRunTests(RunCase):
    """A run that something happened to."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32))
    def test_any(self, seed: int) -> None:
        """Loss, reordering, duplication, forgery and strangers inside a run: each datagram counts.

        What is delivered is what was sent, each once, whatever else lies in the run.
        """
        random = Random(seed)
        whole = self.whole(random.randbytes(20000), size=1200)
        run = self.run_of(whole)
        pieces = [
            bytes(run.data[at : at + run.segment]) for at in range(0, len(run.data), run.segment)
        ]
        opened = [packet for packet, _ in self._opened(run)]
        plain = dict(zip(pieces, opened, strict=True))
        disturbed = [piece for piece in pieces if random.random() < 0.9]
        disturbed += [piece for piece in disturbed if random.random() < 0.1]
        random.shuffle(disturbed) if random.random() < 0.3 else None
        lying = []
        for piece in disturbed:
            if random.random() < 0.1:
                forged = bytearray(piece)
                forged[random.randrange(len(forged))] ^= 1 << random.randrange(8)
                lying.append(bytes(forged))
            lying.append(piece)
        short = [piece for piece in lying if len(piece) < run.segment][:1]
        full = [piece for piece in lying if len(piece) == run.segment]
        self._again()
        received = [packet for packet, _ in self.receive(b"".join(full + short), run.segment)]
        expected = list(dict.fromkeys(plain[each] for each in full + short if each in plain))
        self.assertEqual(received, expected)

    def _opened(self, run: TransmitRun) -> list[tuple[bytes, bool]]:
        """What is in a run, found out without b's knowing: by a window that forgets."""
        opened = self.receive(run.data, run.segment)
        self._again()
        return opened

    def _again(self) -> None:
        """Have b's replay window forget, so that the same datagrams may come again."""
        session = self.b.open._sessions.current
        assert session is not None and session.ring.current is not None
        session.ring.current.window = type(session.ring.current.window)()

    def test_replayed(self) -> None:
        """R21: a run that comes again delivers nothing."""
        run = self.run_of(self.whole(bytes(20000), size=1200))
        self.assertTrue(self.receive(run.data, run.segment))
        self.assertEqual(self.receive(run.data, run.segment), [])

    def test_foreign_addresses(self) -> None:
        """R22: packets inside a run that are not between the certified addresses are dropped."""
        other = Whole.between(self.b.certificate, self.b.certificate, 6, bytes(3000), size=1000)
        mixed = Whole.between(self.a.certificate, self.b.certificate, 6, bytes(3000), size=1000)
        for whole, count in ((other, 0), (mixed, 3)):
            run = self.run_of(whole)
            self.assertEqual(len(self.receive(run.data, run.segment)), count)
        self.assertEqual(self.b.open.drops["inner address"], 3)

    def test_garbage(self) -> None:
        """Random bytes, headers cut short, zero lengths: counted, and nothing else happens."""
        random = Random(5)
        index = next(iter(self.b.open.identifiers))
        for size in (0, 1, 19, 20, 35, 36, 500, 3000):
            for segment in (1, 20, 36, 37, 1000):
                junk = bytearray(random.randbytes(size))
                junk[0:1] = b"\x12"
                junk[4:12] = index
                self.assertEqual(self.receive(bytes(junk), segment), [])

    def test_cannot_be_cut(self) -> None:
        """Segments that cannot be cut are dropped and counted."""
        odd = bytearray(self.whole(bytes(5000)).packet())
        odd[6] = 50  # ESP, which no system hands over so
        self.a.open.send(bytes(odd), self.net.now, Offload(GsoKind.TCP6, 1000, True))
        self.assertEqual(self.a.open.drops["segments that cannot be cut"], 1)


class RekeyingTests(RunCase):
    """Keys change under runs (R19, R20)."""

    def test_rekeyed(self) -> None:
        """Runs go on through new keys, from both sides."""
        payload = bytes(20000)
        for _ in range(20):
            for node in (self.a, self.b):
                self._stream(node, payload)
            self.net.run(15.0)
        for node in (self.a, self.b):
            carried = sum(len(data) - 20 for data in node.payloads())
            self.assertEqual(carried, 20 * len(payload))
            session = node.open._sessions.current
            assert session is not None and session.ring.current is not None
            self.assertGreaterEqual(session.ring.current.number, 2)

    def _stream(self, node: Node, payload: bytes) -> None:
        whole = Whole.between(
            node.certificate, node.other.certificate, 6, payload, flags=ACK | PSH, size=1200
        )
        node.open.send(whole.packet(), self.net.now, whole.offload)
        node.run()

    def test_completed(self) -> None:
        """Without offload at the receiver the checksum is completed, and right."""
        whole = self.whole(b"data")
        self.assertNotEqual(complete(whole.packet()), whole.packet())
