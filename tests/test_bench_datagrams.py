"""The generators and receivers of benchmarks, over loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ntmobile
from ntmobile.bench import legs, turn
from ntmobile.bench.datagrams import Burst, Sink, udp_socket
from ntmobile.bench.floor import Loopback, opened, seal
from ntmobile.bench.generator import Loop, Pair
from ntmobile.wire.headers import Header, Kind

SIZE = 1200


class LoopbackCase(SynchronousTestCase):
    """A sender that is connected to a receiver."""

    def setUp(self) -> None:
        """Both."""
        self.receiver, self.sender = udp_socket("127.0.0.1"), udp_socket("127.0.0.1")
        self.addCleanup(self.receiver.close)
        self.addCleanup(self.sender.close)
        self.sender.connect(self.receiver.getsockname())


class BurstTests(LoopbackCase):
    """Bursts and what counts them."""

    def receive(self, sink: Sink) -> None:
        """Take all that is there."""
        sink.adopt(self.receiver)
        while sink.receive(self.receiver.fileno()):
            pass

    def test_runs(self) -> None:
        """Each datagram of each run arrives and is counted."""
        sink = Sink(SIZE)
        sent = Burst(bytes(SIZE), 5, 3).send(self.sender.fileno())
        self.receive(sink)
        self.assertEqual((15, 15), (sent, sink.datagrams))

    def test_singly(self) -> None:
        """Without segments each message is a datagram."""
        sink = Sink(SIZE)
        Burst(b"x" * SIZE, 1, 7).send(self.sender.fileno())
        self.receive(sink)
        self.assertEqual((7, 7), (sink.datagrams, sink.receptions))

    def test_content(self) -> None:
        """A receiver without UDP_GRO gets each datagram of a run by itself, as it was given."""
        Burst(b"abc", 2, 1).send(self.sender.fileno())
        self.receiver.settimeout(5)
        self.assertEqual([b"abc", b"abc"], [self.receiver.recv(100) for _ in range(2)])

    def test_strange_datagram(self) -> None:
        """Something of another size is an error, not a count."""
        self.sender.send(b"hello")
        self.assertRaises(ValueError, self.receive, Sink(SIZE))

    def test_no_run(self) -> None:
        """More than a datagram can hold is refused."""
        self.assertRaises(ValueError, Burst, bytes(SIZE), 55, 1)


class LoopTests(LoopbackCase):
    """The closed loop."""

    def test_counts(self) -> None:
        """What is sent arrives: nothing is lost once what is under way is drained."""
        loop = Loop([Pair(self.sender, self.receiver, Burst(bytes(SIZE), 4, 1))], Sink(SIZE), 32)
        loop.run(0.05)
        loop.drain()
        self.assertGreater(loop.sink.datagrams, 32)
        self.assertEqual(0, loop.lost)

    def test_loss(self) -> None:
        """Where nothing arrives all is lost, and nothing is counted."""
        self.sender.connect(("127.0.0.1", 9))
        loop = Loop([Pair(self.sender, self.receiver, Burst(bytes(SIZE), 4, 1))], Sink(SIZE), 32)
        loop.run(0.05)
        loop.drain()
        self.assertEqual(0, loop.sink.datagrams)
        self.assertEqual(loop.sent, loop.lost)


class FloorTests(SynchronousTestCase):
    """The smallest costs."""

    def test_all(self) -> None:
        """Cipher and calls take some time, and all datagrams arrive."""
        times = [seal(10), opened(10), *Loopback(10).times(50), *Loopback(1, 8).times(50)]
        self.assertTrue(all(each > 0 for each in times), times)


class LegTests(SynchronousTestCase):
    """Tunnels without devices."""

    def test_datagram(self) -> None:
        """A datagram has its size and the header that a relay looks at."""
        datagram = legs.datagram(3, SIZE)
        header = Header.parse(datagram)
        self.assertEqual(SIZE, len(datagram))
        self.assertEqual((Kind.TUNNEL_DATA, legs.index(3)), (header.kind, header.index))

    def test_distinct(self) -> None:
        """Tunnels and sides differ in identifier and key."""
        self.assertNotEqual(legs.index(1), legs.index(2))
        self.assertEqual(4, len({*legs.keys(1), *legs.keys(2)}))


class TurnTests(SynchronousTestCase):
    """The TURN client, with a server that answers what it is told."""

    def serve(self, *answers: tuple[int, bytes]) -> socket.socket:
        """A client's socket, connected to a server that gives these answers in turn."""
        server = udp_socket("127.0.0.1")
        server.settimeout(5)

        def answer() -> None:
            with server:
                for kind, attributes in answers:
                    request, client = server.recvfrom(2048)
                    head = kind.to_bytes(2, "big") + len(attributes).to_bytes(2, "big")
                    server.sendto(head + request[4:20] + attributes, client)

        thread = threading.Thread(target=answer)
        thread.start()
        self.addCleanup(thread.join)
        client = udp_socket("127.0.0.1")
        self.addCleanup(client.close)
        client.connect(server.getsockname())
        return client

    def test_allocates(self) -> None:
        """The relayed address is read from its XORed form (RFC 8489, section 14.2)."""
        address = bytes.fromhex("0016 0008 0001 a147 e112a643".replace(" ", ""))
        client = self.serve((0x0103, address))
        self.assertEqual(("192.0.2.1", 32853), turn.allocate(client))

    def test_refused(self) -> None:
        """An error is an error with the server's words."""
        client = self.serve((0x0113, bytes.fromhex("0009000800000425") + b"Busy"))
        problem = self.assertRaises(turn.TurnError, turn.allocate, client)
        self.assertIn("437 Busy", str(problem))

    def test_channel_data(self) -> None:
        """Channel data is four bytes longer than its payload."""
        self.assertEqual(b"\x40\x00\x00\x03abc", turn.channel_data(b"abc"))


class FlowTests(SynchronousTestCase):
    """The TCP flow of ours."""

    def test_counts(self) -> None:
        """What was sent is counted at the receiver, in real processes."""
        home = str(Path(ntmobile.__file__).resolve().parent.parent)
        argv = [sys.executable, "-m", "ntmobile.bench.flow"]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        with subprocess.Popen(
            [*argv, "receive", "127.0.0.1", port], stdout=subprocess.PIPE, cwd=home, text=True
        ) as receiver:
            assert receiver.stdout is not None
            self.assertEqual("ready\n", receiver.stdout.readline())
            words = [*argv, "send", "127.0.0.1", port, "--seconds", "0.1"]
            subprocess.run(words, cwd=home, check=True, timeout=30)
            line = receiver.stdout.readline()
        self.assertRegex(line, r'\{"bytes": [1-9]\d{6,}, "seconds": ')
