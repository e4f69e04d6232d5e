"""Runs at a relay: every header counts, and a run is treated as its datagrams one by one."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.runs import common_index, parts
from ntmobile.machines.relay.server import RelayServer
from ntmobile.protocols.datagram_sending import Ancillary, Buffer, Unsent
from ntmobile.protocols.relaying import Relaying
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.coordination import RelayReport
from tests.relay_clients import CAFE, HOME, INDEX, SIX, STRANGER, Leg, data, direction, relay

#: Tunnels: both legs bound; the same with IPv6; one leg bound; directed only; none.
HALF, IDLE, NONE = b"tunnel-3", b"tunnel-4", b"tunnel-x"
INDEXES = (INDEX, b"tunnel-2", HALF, IDLE, NONE)


class Recorder:
    """A transport that keeps what is sent to each address, in order."""

    kind = "a list"
    kernel_drops = 0

    def __init__(self) -> None:
        self.sent = 0
        self.calls = 0
        self.dropped: Counter[str] = Counter()
        self.by_remote: defaultdict[Address, list[bytes]] = defaultdict(list)

    def send(self, datagram: Buffer, remote: Address, ancillary: Ancillary = ()) -> bool:
        """Keep it."""
        self.by_remote[remote].append(bytes(datagram))
        return True

    def send_run(
        self, data: Buffer, segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> int:
        """Keep them."""
        self.queue(data, segment, remote)
        return 0

    def queue(self, data: Buffer, segment: int, remote: Address) -> None:
        """Keep them."""
        self.calls += 1
        for at in range(0, len(data), segment):
            self.send(data[at : at + segment], remote)

    def flush(self) -> list[Unsent]:
        """All is sent."""
        return []


def relaying(limits: RelayLimits | None = None) -> tuple[Relaying, Recorder]:
    """An RS with tunnels in each state, and what it sends."""
    server: RelayServer = relay(limits)
    for index in INDEXES[1:-1]:
        server.direct(direction(index), 0.0)
    for index, legs in ((INDEX, (HOME, CAFE)), (INDEXES[1], (HOME, SIX)), (HALF, (HOME,))):
        for side, address in enumerate(legs):
            Leg(side, address, index).bind(server)
    made, recorder = Relaying(server, Clock()), Recorder()
    for ipv6 in (False, True):
        made.attach(recorder, ipv6=ipv6)
    return made, recorder


def outcome(
    batch: list[tuple[bytes, int]], source: Address
) -> tuple[dict[Address, list[bytes]], dict[str, int], list[RelayReport], list[bytes]]:
    """What an RS sends, counts, reports and holds after these runs."""
    made, recorder = relaying()
    for run, segment in batch:
        made.run_received(memoryview(run), segment, source)
    made.batch_ended()
    held = [tunnel.held.datagram for tunnel in made.server._tunnels.values() if tunnel.held]
    return recorder.by_remote, made.server.tally.counts(), made.server.reports(1.0), held


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[bytes], int]:
    """Datagrams of one size, the last perhaps shorter, whose headers say anything."""
    segment = draw(st.sampled_from((1, 11, 12, 19, 20, 21, 33, 112, 130)))
    header = st.tuples(
        st.sampled_from((0x10, 0x11, 0x12, 0x12, 0x12, 0x13, 0x30, 0x33, 0x00, 0xFF)),
        st.sampled_from((*INDEXES, INDEX, INDEX, b"tunnel-1"[:-1] + b"\x00")),
        st.integers(0, 3),
    )
    # Repetitions, so that there are parts of more than one datagram.
    said = draw(st.lists(st.tuples(header, st.integers(1, 30)), min_size=1, max_size=6))
    datagrams = [
        (bytes([kind, 0, 0, 0]) + index + bytes([counter]) * 160)[:segment]
        for (kind, index, counter), times in said
        for _ in range(times)
    ]
    datagrams[-1] = datagrams[-1][: draw(st.integers(1, segment))]
    return datagrams, segment


class RunTests(SynchronousTestCase):
    """Whole and mixed runs at the RS."""

    @settings(deadline=None, max_examples=400)
    @given(st.lists(runs(), min_size=1, max_size=3), st.sampled_from((HOME, CAFE, SIX, STRANGER)))
    def test_same_as_one_by_one(
        self, batch: list[tuple[list[bytes], int]], source: Address
    ) -> None:
        """R25: tunnels, kinds and sizes mixed within a run, forged headers among them, are sent,
        answered, held, counted and reported as if each datagram had come alone."""
        joined = [(b"".join(datagrams), segment) for datagrams, segment in batch]
        alone = [(datagram, len(datagram)) for datagrams, _ in batch for datagram in datagrams]
        self.assertEqual(outcome(alone, source), outcome(joined, source))

    def test_whole(self) -> None:
        """A run of one tunnel is passed on whole, its shorter last datagram with it."""
        made, recorder = relaying()
        run = b"".join([data(1, 200)] * 30 + [data(2, 50)])
        made.run_received(memoryview(run), 200, HOME)
        self.assertEqual(1, recorder.calls)
        self.assertEqual([*[data(1, 200)] * 30, data(2, 50)], recorder.by_remote[CAFE])
        self.assertEqual(31, made.server.tally.forwarded)

    def test_forged_inside(self) -> None:
        """A foreign datagram inside a run goes nowhere, and what surrounds it passes in two."""
        made, recorder = relaying()
        run = [*[data(1, 200)] * 10, data(2, 200, NONE), *[data(3, 200)] * 10]
        made.run_received(memoryview(b"".join(run)), 200, HOME)
        self.assertEqual(2, recorder.calls)
        self.assertEqual(run[:10] + run[11:], recorder.by_remote[CAFE])
        self.assertEqual([Kind.RELAY_UNKNOWN], [sent[0] for sent in recorder.by_remote[HOME]])

    def test_over_the_rate(self) -> None:
        """A run that exceeds the rate is dropped whole, without a look at each datagram."""
        made, recorder = relaying(RelayLimits(rate=1000))
        run = memoryview(data(1, 1000) * 60)
        for _ in range(4):
            made.run_received(run, 1000, HOME)
        self.assertEqual(120, len(recorder.by_remote[CAFE]))
        self.assertEqual((120, 120), (made.server.tally.forwarded, made.server.tally.limited))
        self.assertEqual({CAFE}, set(recorder.by_remote))


class HeaderTests(SynchronousTestCase):
    """Which headers are alike."""

    def test_every_header_byte_counts(self) -> None:
        """One byte of kind or index that differs in one datagram makes a run mixed."""
        for count in (2, 20, 21, 40):
            run = bytearray(data(1, 40) * count)
            self.assertEqual(INDEX, common_index(memoryview(run), 40))
            for at in (0, *range(4, 12)):
                for number in range(count):
                    run[number * 40 + at] ^= 1
                    self.assertIsNone(common_index(memoryview(run), 40))
                    run[number * 40 + at] ^= 1

    def test_other_bytes_do_not(self) -> None:
        """Flags and counters differ in any run."""
        for count in (20, 40):
            run = b"".join(data(number, 40) for number in range(count))
            self.assertEqual(INDEX, common_index(memoryview(run), 40))

    def test_last_without_header(self) -> None:
        """A last datagram too short for a header is no part of a run."""
        run = data(1, 40) * 3 + data(1, 40)[:19]
        self.assertIsNone(common_index(memoryview(run), 40))
        found = [(index, len(part)) for index, part in parts(memoryview(run), 40)]
        self.assertEqual([(INDEX, 120), (None, 19)], found)

    def test_requests_are_no_run(self) -> None:
        """Relay requests and unknown kinds are left to the machine."""
        self.assertIsNone(common_index(memoryview(data(kind=0x30) * 3), 100))
