"""Streams in the virtual internet."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IListeningPort,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.testing import NonStreamingProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ntmobile.testing import Link, NatKind, VirtualInternet
from tests.stream_cases import Attempts, HalfKeeper, Keeper, Keepers, StreamTestCase


class StreamTests(StreamTestCase):
    """Bytes across a stream."""

    def test_interfaces(self) -> None:
        """Port, connector and transport provide Twisted's interfaces."""
        client, _ = self.connect()
        connector = self.client_host.reactor.connectTCP("203.0.113.1", 4330, Attempts())
        for interface, thing in (
            (IListeningPort, self.port),
            (IConnector, connector),
            (ITCPTransport, client.transport),
            (IConsumer, client.transport),
            (IPushProducer, client.transport),
        ):
            self.assertTrue(verifyObject(interface, thing))

    def test_both_ways(self) -> None:
        """Bytes arrive in order, on both sides, and addresses are as seen there."""
        client, server = self.connect()
        client.transport.write(b"a")
        client.transport.writeSequence([b"b", b"c"])
        server.transport.write(b"answer")
        self.internet.advance(1)
        self.assertEqual((server.data, client.data), (b"abc", b"answer"))
        self.assertEqual(client.transport.getHost(), server.transport.getPeer())
        self.assertEqual(client.transport.getPeer(), server.transport.getHost())
        self.assertEqual(self.client_host.timers.getDelayedCalls(), [])

    def test_much(self) -> None:
        """More than a window arrives whole."""
        client, server = self.connect()
        data = self.client_host.entropy(3_000_000)
        client.transport.write(data)
        self.internet.run_until(lambda: len(server.data) >= len(data))
        self.assertEqual(server.data, data)

    def test_close(self) -> None:
        """Closing sends everything first, and both sides hear of a clean end."""
        client, server = self.connect()
        client.transport.write(bytes(2_000_000))
        client.transport.loseConnection()
        self.assertIsNone(client.reason)
        client.transport.write(b"too late")
        self.internet.advance(1)
        self.assertEqual(len(server.data), 2_000_000)
        for side in (client, server):
            assert side.reason is not None
            side.reason.trap(ConnectionDone)
        self.assertEqual(self.internet.clock.calls, [])

    def test_both_close(self) -> None:
        """Both sides may close at once, and nothing lingers."""
        client, server = self.connect()
        client.transport.loseConnection()
        server.transport.loseConnection()
        self.internet.advance(1)
        for side in (client, server):
            assert side.reason is not None
            side.reason.trap(ConnectionDone)
        self.assertEqual(self.internet.clock.calls, [])

    def test_abort(self) -> None:
        """An aborted connection is lost, not done, on the other side."""
        client, server = self.connect()
        client.transport.abortConnection()
        self.internet.advance(1)
        assert client.reason is not None and server.reason is not None
        client.reason.trap(ConnectionAborted)
        server.reason.trap(ConnectionLost)

    def test_half_close(self) -> None:
        """Protocols that know half-closed connections go on the other way."""
        self.factory.kind = HalfKeeper
        client, server = self.connect(kind=HalfKeeper)
        assert isinstance(client, HalfKeeper) and isinstance(server, HalfKeeper)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        client.transport.write(b"no more")
        self.internet.advance(1)
        self.assertEqual((client.halves, server.halves), (["write"], ["read"]))
        server.transport.write(b"answer")
        server.transport.loseConnection()
        self.internet.advance(1)
        self.assertEqual((server.data, client.data), (b"question", b"answer"))
        self.assertIsNotNone(client.reason)

    def test_writing_to_one_that_closed(self) -> None:
        """Bytes for an end that was closed bring a reset."""
        client, server = self.connect()
        client.transport.loseConnection()
        server.transport.write(b"crossing")
        self.internet.advance(5)
        self.assertIsNotNone(server.reason)
        self.assertEqual(self.internet.clock.calls, [])

    def test_after_the_end(self) -> None:
        """What is done with a connection that is over has no effect."""
        client, server = self.connect()
        transport = client.transport
        transport.stopProducing()
        transport.loseConnection()
        self.internet.advance(1)
        # Any: Twisted does not declare what its own producer for tests provides.
        producer: Any = NonStreamingProducer(transport)
        transport.registerProducer(producer, False)
        self.assertTrue(producer.stopped)
        for call in (
            transport.loseConnection,
            transport.abortConnection,
            transport.loseWriteConnection,
            transport.resumeProducing,
        ):
            call()
        transport.write(b"x")
        self.internet.advance(1)
        self.assertEqual((server.data, self.internet.clock.calls), (b"", []))

    def test_socket_options(self) -> None:
        """Options are remembered."""
        client, _ = self.connect()
        client.transport.setTcpNoDelay(True)
        client.transport.setTcpKeepAlive(True)
        self.assertTrue(client.transport.getTcpNoDelay() and client.transport.getTcpKeepAlive())

    def test_half_close_by_both(self) -> None:
        """A connection whose halves are both closed is over, on both sides."""
        self.factory.kind = HalfKeeper
        client, server = self.connect(kind=HalfKeeper)
        client.transport.loseWriteConnection()
        server.transport.loseWriteConnection()
        self.internet.advance(1)
        self.assertIsNotNone(client.reason)
        self.assertIsNotNone(server.reason)
        self.assertEqual(self.internet.clock.calls, [])

    def test_wrong_type(self) -> None:
        """Only bytes can be written."""
        client, _ = self.connect()
        self.assertRaises(TypeError, client.transport.write, "text")

    def test_failing_protocol(self) -> None:
        """A protocol that raises is logged and its connection closed, as Twisted does."""

        class Failing(Keeper):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        self.factory.kind = Failing
        client, server = self.connect()
        client.transport.write(b"x")
        self.internet.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(client.reason)
        assert server.reason is not None
        server.reason.trap(ZeroDivisionError)

    def test_port_taken(self) -> None:
        """A TCP port is taken once, and a UDP port of the number is another matter."""
        listen = self.server_host.reactor.listenTCP
        self.assertRaises(CannotListenError, listen, 4330, Keepers())
        self.port.stopListening()
        listen(4330, Keepers())

    def test_connections_outlive_their_port(self) -> None:
        """A connection goes on when its port stops listening."""
        client, server = self.connect()
        self.port.stopListening()
        client.transport.write(b"still here")
        self.internet.advance(1)
        self.assertEqual(server.data, b"still here")


class TroubleTests(StreamTestCase):
    """Streams over networks that fail."""

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 1000), st.floats(0, 0.2), st.floats(0, 0.3), st.floats(0, 0.3))
    def test_loss(self, seed: int, loss: float, duplicate: float, reorder: float) -> None:
        """A link that loses, doubles and reorders makes a stream slow, never wrong."""
        internet = VirtualInternet(seed)
        link = Link(0.02, 0.01, loss=loss, duplicate=duplicate, reorder=reorder)
        server = internet.host("server", "203.0.113.1", link=link)
        client = internet.host("client", "203.0.113.2", link=link.copy())
        factory = Keepers()
        server.reactor.listenTCP(1, factory)
        endpoint = TCP4ClientEndpoint(client.reactor, "203.0.113.1", 1, timeout=200)
        protocol = internet.result(connectProtocol(endpoint, Keeper()), 200)
        data = client.entropy(300_000)
        protocol.transport.write(data)
        protocol.transport.loseConnection()
        internet.run_until(lambda: bool(factory.protocols and factory.protocols[0].reason), 400)
        self.assertEqual(factory.protocols[0].data, data)

    def test_delay(self) -> None:
        """A stream takes the links' time: a round trip to connect."""
        self.client_host.link.delay = 0.05
        start = self.internet.clock.seconds()
        client, server = self.connect()
        self.assertAlmostEqual(self.internet.clock.seconds() - start, 0.15)
        client.transport.write(b"x")
        took = self.internet.run_until(lambda: server.data == b"x")
        self.assertAlmostEqual(took, 0.05)

    def test_blackout_is_survived(self) -> None:
        """A stream goes on after some seconds of silence."""
        client, server = self.connect()
        self.internet.advance(500)
        self.internet.blackout(self.client_host, 20)
        client.transport.write(b"patience")
        took = self.internet.run_until(lambda: server.data == b"patience")
        self.assertGreaterEqual(took, 20)

    def test_partition_ends_it(self) -> None:
        """Silence that lasts ends a stream which has something to say."""
        client, server = self.connect()
        self.internet.partition(self.client_host, self.server_host)
        client.transport.write(b"anyone?")
        took = self.internet.run_until(lambda: client.reason is not None, 300)
        self.assertGreaterEqual(took, 60)
        assert client.reason is not None
        client.reason.trap(ConnectionLost)
        self.assertIsNone(server.reason)

    def test_move_ends_it(self) -> None:
        """A stream does not survive its host's change of address."""
        client, _ = self.connect()
        home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.SYMMETRIC)
        self.client_host.move(to=home)
        client.transport.write(b"x")
        self.internet.run_until(lambda: client.reason is not None, 300)

    def test_through_nat(self) -> None:
        """A stream crosses a NAT; the server sees the NAT's address."""
        home = self.internet.network("home", "192.168.1.0/24", nat=NatKind.SYMMETRIC)
        client, server = self.connect(home.host("phone"))
        server.transport.write(b"hello")
        self.internet.advance(1)
        self.assertEqual(client.data, b"hello")
        self.assertNotEqual(server.transport.getPeer(), client.transport.getHost())

    def test_crash(self) -> None:
        """A host that crashed and came back resets what it does not know."""
        client, server = self.connect()
        self.server_host.crash()
        client.transport.write(b"x")
        self.internet.advance(5)
        assert client.reason is not None
        client.reason.trap(ConnectionLost)
        self.assertIsNone(server.reason)


class FlowTests(StreamTestCase):
    """Back pressure."""

    def test_reader_that_pauses(self) -> None:
        """One who stops reading makes the writer wait, and gets all when it reads again."""
        client, server = self.connect()
        server.transport.pauseProducing()
        data = self.client_host.entropy(4_000_000)
        client.transport.write(data)
        self.internet.advance(120)
        self.assertEqual(server.data, b"")
        self.assertGreater(len(client.transport.socket.unsent), 1_000_000)
        self.assertIsNone(client.reason)
        server.transport.resumeProducing()
        self.internet.run_until(lambda: len(server.data) == len(data))
        self.assertEqual(server.data, data)

    def test_streaming_producer(self) -> None:
        """A streaming producer is paused while the buffer is full, and resumed after."""

        @implementer(IPushProducer)
        class Producer:
            calls: list[str] = []

            def pauseProducing(self) -> None:
                self.calls.append("pause")

            def resumeProducing(self) -> None:
                self.calls.append("resume")

            def stopProducing(self) -> None:
                self.calls.append("stop")

        client, _ = self.connect()
        producer = Producer()
        client.transport.registerProducer(producer, True)
        self.assertRaises(RuntimeError, client.transport.registerProducer, producer, True)
        client.transport.write(bytes(2_000_000))
        self.assertEqual(producer.calls, ["pause"])
        self.internet.advance(1)
        self.assertEqual(producer.calls, ["pause", "resume"])
        client.transport.abortConnection()
        self.internet.advance(1)
        self.assertEqual(producer.calls, ["pause", "resume", "stop"])

    def test_pull_producer(self) -> None:
        """A pull producer is asked again and again, and closing waits for it."""
        client, server = self.connect()
        # Any: Twisted does not declare what its own producer for tests provides.
        producer: Any = NonStreamingProducer(client.transport)
        client.transport.registerProducer(producer, False)
        client.transport.loseConnection()
        self.internet.advance(1)
        self.assertEqual(server.data, b"".join(b"%d" % count for count in range(10)))
        self.assertIsNotNone(server.reason)
