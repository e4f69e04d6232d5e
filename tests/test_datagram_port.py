"""The datagram transport, on real sockets of the loopback, in every way this system has."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_calls import BATCH, BATCH_BYTES
from ntmobile.protocols.datagram_port import BUFFER, DatagramPort, enlarge_buffers
from ntmobile.protocols.datagram_sending import RUN_BYTES, RUN_SEGMENTS
from ntmobile.protocols.datagram_support import PLAIN, DatagramSupport, Receive, datagram_support
from tests.datagram_ports import HOSTS, Kept, Watched, bound, gather, supports


def numbered(count: int, size: int = 100) -> list[bytes]:
    """Datagrams of one size, each another."""
    return [number.to_bytes(2, "big") + bytes(size - 2) for number in range(count)]


def onward_to(port: DatagramPort, remote: Address) -> Callable[[memoryview, int, Address], None]:
    """Queue at a port what comes."""
    return lambda data, size, source: port.queue(data, size, remote)


def stopping(port: DatagramPort) -> Callable[[memoryview, int, Address], None]:
    """Stop a port when something comes."""
    return lambda data, size, source: port.stopListening()


class PortCase(SynchronousTestCase):
    """Two ports and what they got."""

    def port(
        self, host: str, kept: Kept, support: DatagramSupport | None = None
    ) -> tuple[DatagramPort, Address]:
        """A port on the loopback, and its address."""
        port = DatagramPort(bound(host), kept, Watched(), support)
        port.startListening()
        self.addCleanup(port.stopListening)
        return port, (host, port.getHost().port)

    def ways(self) -> Iterator[tuple[DatagramPort, Address, DatagramPort, Address, Kept]]:
        """A sending port, its address, a receiving port, its address, and what it got."""
        for host in HOSTS:
            for support in supports():
                try:
                    near, source = self.port(host, Kept(), support)
                except SkipTest:
                    continue
                kept = Kept()
                far, remote = self.port(host, kept, support)
                yield near, source, far, remote, kept


class TransferTests(PortCase):
    """What is sent arrives, whatever the calls."""

    def test_single_datagrams(self) -> None:
        """Datagrams of any size arrive in order, with their sender's address."""
        sizes = (1, 20, 1200, 9000, 65000)
        for near, source, far, remote, kept in self.ways():
            for size in sizes:
                self.assertTrue(near.send(bytes([size % 251]) * size, remote))
            gather(far, kept, len(sizes))
            self.assertEqual([bytes([size % 251]) * size for size in sizes], kept.datagrams)
            self.assertEqual({source}, {where for _, _, where in kept.runs})
            self.assertEqual((len(sizes), len(sizes)), (near.sent, far.received))

    def test_runs(self) -> None:
        """A run arrives whole or cut, but as the same datagrams; the last may be shorter."""
        for size, last in ((100, 100), (1200, 7), (1400, 1399), (30, 29)):
            sent = [*numbered(49, size), bytes(last)]
            for near, _, far, remote, kept in self.ways():
                self.assertEqual(0, near.send_run(b"".join(sent), size, remote))
                gather(far, kept, 50)
                self.assertEqual(sent, kept.datagrams)
                self.assertEqual((50, 50), (near.sent, far.received))

    def test_long_runs(self) -> None:
        """A run longer than the system takes is sent as several."""
        for size in (20, 1200, 9000):
            sent = numbered(150, size)
            for near, _, far, remote, kept in self.ways():
                near.send_run(memoryview(bytearray(b"".join(sent))), size, remote)
                gather(far, kept, 150)
                self.assertEqual(sent, kept.datagrams)

    def test_runs_take_few_calls(self) -> None:
        """Where the system cuts runs, 64 datagrams are one call."""
        if not datagram_support().segments:
            raise SkipTest("this system does not cut runs")
        near, _ = self.port("127.0.0.1", Kept())
        kept = Kept()
        far, remote = self.port("127.0.0.1", kept)
        near.send_run(bytes(64 * 1000), 1000, remote)
        self.assertEqual(1, near.counts()["runs sent"])
        if datagram_support().receive.runs:
            gather(far, kept)
            self.assertEqual([(64000, 1000)], [(len(data), size) for data, size, _ in kept.runs])

    def test_empty_run(self) -> None:
        """An empty datagram is a datagram; nothing breaks."""
        for near, _, far, remote, kept in self.ways():
            near.send(b"", remote)
            near.send(b"x", remote)
            gather(far, kept, 2)
            self.assertEqual([b"", b"x"], [data for data, _, _ in kept.runs])

    def test_ancillary(self) -> None:
        """Control data goes with a datagram and with a run: here the source address to use."""
        for support in supports():
            near, _ = self.port("0.0.0.0", Kept(), support)
            kept = Kept()
            far, remote = self.port("127.0.0.1", kept, support)
            pktinfo = socket.inet_aton("127.0.0.2")
            through = ((socket.IPPROTO_IP, 8, bytes(4) + pktinfo + bytes(4)),)
            near.send(b"one", remote, through)
            near.send_run(bytes(250), 100, remote, through)
            gather(far, kept, 4)
            self.assertEqual({"127.0.0.2"}, {source[0] for _, _, source in kept.runs})


class QueueTests(PortCase):
    """What a relay queues during a batch."""

    def test_order_of_each_correspondent(self) -> None:
        """Each correspondent gets its datagrams in order, sizes mixed, others in between."""
        mixed = [*numbered(5, 200), bytes(50), *numbered(3, 200), *numbered(70, 40), bytes(300)]
        for near, _, far, remote, kept in self.ways():
            other = Kept()
            second, elsewhere = self.port(remote[0], other, PLAIN)
            for part in mixed:
                near.queue(part, len(part), remote)
                near.queue(part, len(part), elsewhere)
            self.assertEqual([], near.flush())
            gather(far, kept, len(mixed))
            gather(second, other, len(mixed))
            self.assertEqual((mixed, mixed), (kept.datagrams, other.datagrams))

    def test_joining(self) -> None:
        """Datagrams of one size for one correspondent become one run; so do runs of that size."""
        if not datagram_support().segments:
            raise SkipTest("this system does not cut runs")
        near, _ = self.port("127.0.0.1", Kept())
        _, remote = self.port("127.0.0.1", Kept())
        for part in (bytes(500), bytes(1500), bytes(500), bytes(1400)):
            near.queue(part, 500, remote)
        near.queue(bytes(500), 500, remote)  # after a shorter one: another run
        near.flush()
        self.assertEqual((9, 1), (near.sent, near.runs))
        self.assertFalse(near.waiting)

    def test_bounds(self) -> None:
        """No run grows beyond what one call takes, in datagrams or bytes."""
        for near, _, far, remote, kept in self.ways():
            for size in (100, 5000):
                kept.runs.clear()
                for part in numbered(130, size):
                    near.queue(part, size, remote)
                    if size == 5000 and len(near._waiting[-1].pieces) == 1:
                        near.flush()  # no more than the receiver's buffer holds
                near.flush()
                gather(far, kept, 130)
                self.assertEqual(numbered(130, size), kept.datagrams)
                for data, segment, _ in kept.runs:
                    self.assertLessEqual(len(data), max(RUN_BYTES.values()))
                    self.assertLessEqual(len(data), segment * RUN_SEGMENTS)

    def test_longer_than_a_run(self) -> None:
        """A queued run may be longer than one call takes; an empty one is an empty datagram."""
        for near, _, far, remote, kept in self.ways():
            sent = numbered(2 * RUN_SEGMENTS + 1, 30)
            near.queue(b"".join(sent), 30, remote)
            near.queue(b"", 0, remote)
            near.flush()
            gather(far, kept, len(sent) + 1)
            self.assertEqual([*sent, b""], kept.datagrams)

    def test_forwarding_in_place(self) -> None:
        """What is queued from received memory is sent before that memory is used again."""
        for host in HOSTS:
            for support in supports():
                try:
                    sink = bound(host)
                except SkipTest:
                    continue
                self.addCleanup(sink.close)
                middle, remote = self.port(host, Kept(), support)
                target = (host, sink.getsockname()[1])
                middle._receiver = onward = Kept(onward_to(middle, target))
                near, _ = self.port(host, Kept(), support)
                sent = numbered(3 * BATCH, 64)
                for part in sent:
                    near.send(part, remote)
                gather(middle, onward, 3 * BATCH)
                self.assertEqual(sent, [sink.recv(100) for _ in sent])


class Refusing:
    """A stand-in for ``sendmsg`` or ``sendto`` that fails as told, then works."""

    def __init__(self, *problems: int) -> None:
        self.problems = deque(problems)
        self.taken: list[int] = []

    def sendto(self, data: bytes, remote: Address) -> int:
        """Fail, or take."""
        return self.sendmsg((data,), (), 0, remote)

    def sendmsg(self, parts: tuple[bytes, ...], *_: object) -> int:
        """Fail, or take."""
        if self.problems and (problem := self.problems.popleft()):
            raise OSError(problem, "refused")
        self.taken.append(sum(map(len, parts)))
        return self.taken[-1]


class RefusalTests(PortCase):
    """A system that does not take what is sent."""

    def refusing(self, *problems: int) -> tuple[DatagramPort, Refusing]:
        """A port whose system refuses the first calls so."""
        port, _ = self.port("127.0.0.1", Kept(), DatagramSupport(Receive.PLAIN, segments=True))
        refusing = Refusing(*problems)
        self.patch(port, "_sendto", refusing.sendto)
        self.patch(port, "_sendmsg", refusing.sendmsg)
        return port, refusing

    def test_full(self) -> None:
        """A full socket drops, counts, and is no exception and no "too big"."""
        for problem in (errno.EAGAIN, errno.ENOBUFS):
            port, taken = self.refusing(problem, problem, problem)
            self.assertTrue(port.send(bytes(10), ("127.0.0.1", 9)))
            self.assertEqual(0, port.send_run(bytes(100), 10, ("127.0.0.1", 9)))
            port.queue(bytes(100), 10, ("127.0.0.1", 9))
            unsent = port.flush()
            self.assertEqual((10, False), (len(unsent), any(one.too_big for one in unsent)))
            self.assertEqual((0, 21), (port.sent, port.dropped["sending: refused"]))
            self.assertEqual([], taken.taken)

    def test_run_refused(self) -> None:
        """A run that is refused whole goes one by one."""
        for problem in (errno.EMSGSIZE, errno.EINVAL, errno.EIO):
            port, taken = self.refusing(problem)
            self.assertEqual(0, port.send_run(bytes(260), 100, ("127.0.0.1", 9)))
            self.assertEqual([100, 100, 60], taken.taken)

    def test_run_too_big(self) -> None:
        """R27: of a run whose datagrams are too big the last may fit; the others are not tried."""
        port, taken = self.refusing(errno.EMSGSIZE, errno.EMSGSIZE)
        self.assertEqual(3, port.send_run(bytes(360), 100, ("127.0.0.1", 9)))
        self.assertEqual([60], taken.taken)

    def test_queued_run_refused(self) -> None:
        """R27: of queued runs each datagram that does not fit is named."""
        port, taken = self.refusing(errno.EMSGSIZE, errno.EMSGSIZE)
        first, second = bytes(200), bytes(range(150))
        port.queue(first, 100, ("127.0.0.1", 9))
        port.queue(second, 100, ("127.0.0.1", 9))
        unsent = port.flush()
        self.assertEqual(
            [first[:100], first[100:], second[:100]], [bytes(one.datagram) for one in unsent]
        )
        self.assertTrue(all(one.too_big for one in unsent))
        self.assertEqual([50], taken.taken)

    def test_really_too_big(self) -> None:
        """What exceeds IP is too big."""
        for near, _, _, remote, _ in self.ways():
            self.assertFalse(near.send(bytes(65600), remote))
            self.assertEqual(2, near.send_run(bytes(3 * 65600), 2 * 65600, remote))

    def test_nobody_there(self) -> None:
        """An answer of ICMP that nobody is there harms neither sending nor reading."""
        for near, source, far, remote, kept in self.ways():
            gone = bound(remote[0])
            where = gone.getsockname()[:2]
            gone.close()
            for _ in range(3):
                self.assertTrue(near.send(b"x", where))
            near.doRead()
            far.send(b"y", source)
            near.send(b"z", remote)
            gather(far, kept)
            self.assertEqual([b"z"], kept.datagrams)


class ReadingTests(PortCase):
    """Reading, when things go wrong or there is much."""

    def test_failing_receiver(self) -> None:
        """An exception of the receiver is logged, and the rest of the batch handed over."""

        def fail(data: memoryview, size: int, source: Address) -> None:
            if data[0] == 1:
                raise ZeroDivisionError

        for host in HOSTS:
            for support in supports():
                kept = Kept(fail)
                try:
                    far, remote = self.port(host, kept, support)
                except SkipTest:
                    continue
                near, _ = self.port(host, Kept())
                for part in (b"\x01", b"\x02"):
                    near.send(part, remote)
                gather(far, kept, 2)
                self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_bounded(self) -> None:
        """One wake-up reads a bounded number of messages and, once it knows them, of bytes."""
        for near, _, far, remote, kept in self.ways():
            near.flush()
            for part in numbered(2 * BATCH, 10):
                near.send(part, remote)
            far.doRead()
            self.assertLessEqual(len(kept.runs), BATCH)
            gather(far, kept, 2 * BATCH)
            for _ in range(20):
                near.send(bytes(60000), remote)
            far.doRead()
            kept.runs.clear()
            far.doRead()
            self.assertLessEqual(sum(len(data) for data, _, _ in kept.runs), BATCH_BYTES)

    def test_kernel_drops(self) -> None:
        """What the system dropped because nobody read is counted, also after the end."""
        near, _ = self.port("127.0.0.1", Kept())
        far, remote = self.port("127.0.0.1", Kept())
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for part in numbered(100, 1000):
            near.send(part, remote)
        lost = far.kernel_drops
        if not lost:
            raise SkipTest("this system does not count drops")
        self.assertEqual(lost, far.counts()["not read in time"])
        far.stopListening()
        self.assertEqual(lost, far.counts()["not read in time"])


class PortTests(PortCase):
    """The port as a member of Twisted's family."""

    def test_interfaces(self) -> None:
        """It is a read descriptor and a listening port."""
        port, (host, _) = self.port("127.0.0.1", Kept())
        verifyObject(IReadDescriptor, port)
        verifyObject(IListeningPort, port)
        self.assertEqual((host, "UDP"), (port.getHost().host, port.getHost().type))
        self.assertIn("Kept", port.logPrefix())

    def test_ipv6_address(self) -> None:
        """An IPv6 port says so."""
        port, (host, number) = self.port("::1", Kept())
        self.assertEqual((host, number), (port.getHost().host, port.getHost().port))

    def test_stop(self) -> None:
        """After the end nothing is watched, nothing is sent, and nothing raises."""
        port, _ = self.port("127.0.0.1", Kept())
        port.stopListening()
        port.stopListening()
        self.assertEqual(-1, port.fileno())
        self.assertTrue(port.send(b"x", ("127.0.0.1", 9)))
        port.doRead()
        self.assertEqual(0, port.sent)

    def test_stopped_by_its_receiver(self) -> None:
        """A receiver may stop the port."""
        for support in supports():
            kept = Kept()
            far, remote = self.port("127.0.0.1", kept, support)
            near, _ = self.port("127.0.0.1", Kept())
            kept._then = stopping(far)
            near.send(b"x", remote)
            gather(far, kept)
            self.assertEqual(-1, far.fileno())

    def test_buffers(self) -> None:
        """The system's buffers are enlarged as far as it allows."""
        with bound("127.0.0.1") as sock:
            before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            enlarge_buffers(sock)
            after = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.assertGreaterEqual(after, before)
        self.assertLessEqual(after, 2 * BUFFER)

    def test_support_is_named(self) -> None:
        """The port says how it receives and sends."""
        port, _ = self.port("127.0.0.1", Kept(), PLAIN)
        self.assertEqual("receives by recvfrom, sends by sendto", port.kind)
        self.assertIn(port.kind, repr(port))


class ReactorTests(TestCase):
    """On the real reactor."""

    async def test_echo(self) -> None:
        """A port that answers is heard."""
        heard: Deferred[None] = Deferred()
        reading = IReactorFDSet(reactor)
        sock = bound("127.0.0.1")
        server = DatagramPort(
            sock, Kept(lambda data, size, source: server.queue(data, size, source)), reading
        )
        kept = Kept(lambda data, size, source: heard.callback(None))
        client = DatagramPort(bound("127.0.0.1"), kept, reading)
        for port in (server, client):
            port.startListening()
            self.addCleanup(port.stopListening)
        client.send(b"hello", ("127.0.0.1", server.getHost().port))
        await heard.addTimeout(5, reactor)
        self.assertEqual([b"hello"], kept.datagrams)
