from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import IPv4Address as TCPAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.names import client, dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import ConfigurationError, NotPermittedHere
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.zone import VirtualAddresses, Zone
from ntmobile.protocols.naming import SLIP, NameServer, listen
from ntmobile.protocols.naming_transports import (
    CONNECTIONS,
    CONNECTIONS_EACH,
    DATAGRAMS,
    IDLE,
    PIPELINED,
    DatagramNaming,
    NamingPorts,
    StreamNaming,
    StreamNamingFactory,
)

DOMAIN = "dc1.ntm.example"
FRIEND = "192.0.2.10"
STRANGER = "203.0.113.5"


class OnePhone:
    def virtual_addresses(self, name: str) -> VirtualAddresses | None:
        if name == f"phone.alice.{DOMAIN}":
            return IPv6Address("fd12::20"), IPv4Address("198.18.0.20")
        return None

    def has_below(self, name: str) -> bool:
        return name == f"alice.{DOMAIN}"


class Broken:
    def virtual_addresses(self, name: str) -> VirtualAddresses | None:
        raise RuntimeError("the coordinator is broken")

    def has_below(self, name: str) -> bool:
        raise RuntimeError("the coordinator is broken")


def zone(addresses: int = 1) -> Zone:
    return Zone(
        DOMAIN,
        OnePhone(),
        tuple(IPv4Address("192.0.2.1") + each for each in range(addresses)),
        networks=(ip_network("192.0.2.0/24"), ip_network("127.0.0.0/8")),
    )


def query(name: str, kind: int, edns: int | None = None, version: int = 0) -> bytes:
    message = dns._EDNSMessage(
        id=0x1234, recDes=True, ednsVersion=None if edns is None else version, maxSize=edns or 512
    )
    message.queries = [dns.Query(name, kind)]
    data: bytes = message.toStr()
    return data


def parsed(data: object) -> Any:
    assert isinstance(data, bytes)
    message = dns._EDNSMessage()
    message.fromStr(data)
    return message


class NameServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = NameServer(zone(), self.clock)

    def ask(self, name: str, kind: int, asker: str = FRIEND, edns: int | None = None) -> Any:
        return parsed(self.server.datagram(query(name, kind, edns), asker))

    def test_answer(self) -> None:
        """A device's address comes with AA and the asker's identifier and RD."""
        message = self.ask(f"phone.alice.{DOMAIN}", dns.AAAA)
        self.assertEqual((message.id, message.answer, message.auth), (0x1234, 1, 1))
        self.assertEqual((message.recDes, message.recAv, message.rCode), (1, 0, 0))
        self.assertEqual(message.answers[0].payload, dns.Record_AAAA("fd12::20", 60))
        self.assertIsNone(message.ednsVersion)

    def test_every_record(self) -> None:
        """Each type the zone has survives the way to the wire and back."""
        for name, kind, payload in (
            (DOMAIN, dns.NS, dns.Record_NS(f"ns.{DOMAIN}")),
            (f"_ntm._udp.{DOMAIN}", dns.SRV, dns.Record_SRV(0, 0, 4330, f"ns.{DOMAIN}")),
            (f"phone.alice.{DOMAIN}", dns.A, dns.Record_A("198.18.0.20")),
            (DOMAIN, dns.ALL_RECORDS, dns.Record_HINFO(b"RFC8482", b"")),
            (
                DOMAIN,
                dns.SOA,
                dns.Record_SOA(f"ns.{DOMAIN}", f"hostmaster.{DOMAIN}", 1, 3600, 600, 86400, 30),
            ),
        ):
            payload.ttl = None
            found = self.ask(name, kind).answers[0].payload
            found.ttl = None
            self.assertEqual(found, payload)

    def test_case_is_kept(self) -> None:
        """The question comes back in the case it was asked in, as 0x20 needs, and in the answer."""
        name = b"pHoNe.aLiCe.DC1.ntm.EXAMPLE"
        message = self.ask(name.decode(), dns.A)
        self.assertEqual(message.queries[0].name.name, name)
        self.assertEqual(message.answers[0].name.name, name)

    def test_negative(self) -> None:
        """NXDOMAIN and NODATA carry the SOA in the authority section."""
        for name, code in ((f"nobody.{DOMAIN}", 3), (f"alice.{DOMAIN}", 0)):
            message = self.ask(name, dns.A)
            self.assertEqual((message.rCode, message.auth, message.answers), (code, 1, []))
            self.assertEqual(message.authority[0].type, dns.SOA)

    def test_edns(self) -> None:
        """OPT is answered with OPT, version 0 and our size."""
        message = self.ask(DOMAIN, dns.SOA, edns=4096)
        self.assertEqual((message.ednsVersion, message.maxSize), (0, 1232))

    def test_badvers(self) -> None:
        """An unknown EDNS version gets BADVERS and the version we know."""
        message = parsed(self.server.datagram(query(DOMAIN, dns.SOA, 1232, version=1), FRIEND))
        self.assertEqual((message.rCode, message.ednsVersion), (16, 0))
        self.assertEqual(message.answers, [])

    def test_overflow(self) -> None:
        """What does not fit gets TC without records; EDNS's size is honoured; TCP has room."""
        self.server = NameServer(zone(addresses=60), self.clock)
        name = f"ns.{DOMAIN}"
        for edns, cut in ((None, True), (600, True), (1232, False), (4096, False)):
            data = self.server.datagram(query(name, dns.A, edns), FRIEND)
            assert data is not None
            self.assertLessEqual(len(data), edns or 512)
            message = parsed(data)
            self.assertEqual(bool(message.trunc), cut)
            self.assertEqual(len(message.answers), 0 if cut else 60)
        whole = parsed(self.server.stream(query(name, dns.A), FRIEND))
        self.assertEqual((whole.trunc, len(whole.answers)), (0, 60))

    def test_additional_records_are_left_out_silently(self) -> None:
        """Additional records that do not fit are no reason for TC (RFC 2181, section 9)."""
        self.server = NameServer(zone(addresses=60), self.clock)
        message = self.ask(DOMAIN, dns.NS)
        self.assertEqual((message.trunc, len(message.answers)), (0, 1))
        self.assertGreater(len(message.additional), 5)
        self.assertLess(len(message.additional), 60)

    def test_other_operations(self) -> None:
        """NOTIFY, UPDATE and the like get NOTIMP, nothing but a header."""
        for opcode in range(1, 16):
            data = bytearray(query(DOMAIN, dns.SOA))
            data[2] |= opcode << 3
            response = self.server.datagram(bytes(data), f"192.0.{opcode}.1")
            assert response is not None
            self.assertEqual(len(response), 12)
            message = parsed(response)
            self.assertEqual((message.rCode, message.opCode, message.answer), (4, opcode, 1))

    def test_malformed(self) -> None:
        """What cannot be read gets FORMERR; without a header, or being a response, nothing."""
        whole = query(DOMAIN, dns.SOA)
        for cut in range(12, len(whole)):
            self.clock.advance(1)
            self.assertEqual(parsed(self.server.datagram(whole[:cut], FRIEND)).rCode, 1)
        for data in (b"", whole[:11], whole[:2] + b"\x80\x00" + whole[4:], bytes(5000)):
            self.assertIsNone(self.server.datagram(data, FRIEND))
            self.assertIsNone(self.server.stream(data, FRIEND))
        self.assertEqual(self.server.counts["dropped"], 8)
        self.assertEqual(self.server.counts["malformed"], len(whole) - 12)

    def test_refused(self) -> None:
        """Transfers and other zones are refused, over TCP too, and counted."""
        for name, kind in ((DOMAIN, dns.AXFR), (DOMAIN, dns.IXFR), ("example.org", dns.A)):
            self.assertEqual(parsed(self.server.stream(query(name, kind), FRIEND)).rCode, 5)
        self.assertEqual(self.server.counts["refused"], 3)

    def test_broken_data(self) -> None:
        """When the coordinator's data fail, the asker hears SERVFAIL and the log has why."""
        broken = Zone(DOMAIN, Broken(), (), networks=(ip_network("192.0.2.0/24"),))
        self.server = NameServer(broken, self.clock)
        self.assertEqual(self.ask(f"phone.alice.{DOMAIN}", dns.A).rCode, 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @given(st.binary(max_size=100), st.booleans())
    def test_garbage(self, data: bytes, headed: bool) -> None:
        """R8: arbitrary bytes never raise, and what is not understood gets no more than it was."""
        if headed:
            data = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + data
        server = NameServer(zone(), self.clock)
        response = server.datagram(data, STRANGER)
        if response is not None and parsed(response).rCode != 3:
            self.assertLessEqual(len(response), max(len(data), 12))
        server.stream(data, STRANGER)

    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """A query with any bytes changed never raises."""
        whole = bytearray(query(f"phone.alice.{DOMAIN}", dns.AAAA, 1232))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        NameServer(zone(), self.clock).datagram(bytes(whole), FRIEND)


class ResponseRateTests(SynchronousTestCase):
    """R8: the DNS function is no amplifier."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = NameServer(zone(), self.clock, RateLimiter(rate=5.0, burst=5))

    def flood(self, count: int, asker: str = STRANGER, name: str = DOMAIN) -> list[bytes]:
        responses = [
            self.server.datagram(query(name.format(each), dns.SOA, 1232), asker)
            for each in range(count)
        ]
        return [response for response in responses if response is not None]

    def test_limited(self) -> None:
        """R8: beyond the rate most is dropped; the rest is TC, no longer than the question."""
        responses = self.flood(105)
        whole, slipped = responses[:5], responses[5:]
        self.assertTrue(all(not parsed(each).trunc for each in whole))
        self.assertEqual(len(slipped), 100 // SLIP)
        for each in slipped:
            message = parsed(each)
            self.assertEqual((message.trunc, message.answers, message.rCode), (1, [], 0))
            self.assertLessEqual(len(each), len(query(DOMAIN, dns.SOA, 1232)))
        self.assertEqual(self.server.counts["limited"], 100)
        self.clock.advance(1)
        self.assertEqual(len([each for each in self.flood(5) if not parsed(each).trunc]), 5)

    def test_random_names(self) -> None:
        """R8: names that do not exist count as one, however many there are."""
        responses = self.flood(100, name=f"x{{}}.{DOMAIN}")
        self.assertEqual(len([each for each in responses if not parsed(each).trunc]), 5)

    def test_neighbours(self) -> None:
        """R8: a network counts as one asker, another network is not touched."""
        for host in range(100):
            self.server.datagram(query(DOMAIN, dns.SOA), f"203.0.113.{host}")
        self.assertEqual(self.server.counts["limited"], 95)
        self.assertFalse(parsed(self.server.datagram(query(DOMAIN, dns.SOA), "203.0.114.1")).trunc)
        for host in range(100):
            self.server.datagram(query(DOMAIN, dns.SOA), f"2001:db8:0:{host:x}::1")
        self.assertEqual(self.server.counts["limited"], 190)

    def test_refusals(self) -> None:
        """R8: refusals and format errors are limited too."""
        self.flood(50, name="x{}.example.org")
        self.assertEqual(self.server.counts["limited"], 45)
        garbage = [self.server.datagram(query(DOMAIN, 1)[:-1], STRANGER) for _ in range(50)]
        self.assertEqual(len([each for each in garbage if each is not None]), 5)

    def test_tcp_is_not_limited(self) -> None:
        """Over TCP, where nobody can forge his address, everyone is answered."""
        self.flood(20)
        self.assertFalse(parsed(self.server.stream(query(DOMAIN, dns.SOA), STRANGER)).trunc)


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = NameServer(zone(), self.clock)
        self.factory = StreamNamingFactory(self.server.stream, self.clock)

    def connect(self, host: str = FRIEND) -> tuple[StreamNaming, StringTransport]:
        protocol = self.factory.buildProtocol(TCPAddress("TCP", host, 999))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def framed(self, data: bytes) -> bytes:
        return struct.pack("!H", len(data)) + data

    def test_several_questions_in_pieces(self) -> None:
        """Questions may come together and in any pieces; each is answered."""
        protocol, transport = self.connect()
        data = self.framed(query(DOMAIN, dns.SOA)) * 3
        for start in range(0, len(data), 7):
            protocol.dataReceived(data[start : start + 7])
        answers = transport.value()
        size = struct.unpack("!H", answers[:2])[0] + 2
        self.assertEqual(len(answers), 3 * size)
        self.assertEqual(parsed(answers[2:size]).rCode, 0)

    def test_idle(self) -> None:
        """A connection that asks nothing is closed, dribbled bytes or not."""
        protocol, transport = self.connect()
        for _ in range(int(IDLE)):
            protocol.dataReceived(b"\1")
            self.clock.advance(1.0)
        self.assertTrue(transport.disconnected)
        protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unanswerable(self) -> None:
        """What gets no answer, or announces too much, ends the connection."""
        for data in (self.framed(b"x"), b"\xff\xff", self.framed(b"")):
            protocol, transport = self.connect()
            protocol.dataReceived(data)
            self.assertTrue(transport.disconnecting)
            protocol.connectionLost()

    def test_many_connections(self) -> None:
        """One host gets so many connections; beyond the total the oldest gives way."""
        first, _ = self.connect()
        for _ in range(CONNECTIONS_EACH - 1):
            self.connect()
        self.assertIsNone(self.factory.buildProtocol(TCPAddress("TCP", FRIEND, 999)))
        for number in range(CONNECTIONS - CONNECTIONS_EACH):
            self.connect(f"203.0.{number // 200}.{number % 200}")
        aborted: list[StreamNaming] = []
        self.patch(StreamNaming, "abort", lambda connection: aborted.append(connection))
        self.connect("198.51.100.1")
        self.assertIn(first, aborted)

    def test_late_answers(self) -> None:
        """Answers may take their time; beyond a number of open questions no more is read."""
        waiting: list[Deferred[bytes | None]] = []

        def respond(data: bytes, host: str) -> Deferred[bytes | None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.factory.respond = respond
        protocol, transport = self.connect()
        protocol.dataReceived(self.framed(b"x" * 20) * (PIPELINED + 5))
        self.assertEqual(len(waiting), PIPELINED)
        self.assertEqual(transport.producerState, "paused")
        self.clock.advance(IDLE)
        self.assertFalse(transport.disconnected)
        waiting[3].callback(b"answer")
        self.assertEqual(transport.value(), self.framed(b"answer"))
        self.assertEqual(len(waiting), PIPELINED + 1)
        protocol.connectionLost()
        waiting[0].callback(b"too late")
        waiting[1].errback(RuntimeError("broken"))
        self.assertEqual(transport.value(), self.framed(b"answer"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_asker_that_does_not_read(self) -> None:
        """When the asker does not take its answers, no more questions are read."""
        protocol, transport = self.connect()
        assert transport.producer is not None
        transport.producer.pauseProducing()
        protocol.dataReceived(self.framed(query(DOMAIN, dns.SOA)))
        self.assertEqual(transport.value(), b"")
        transport.producer.resumeProducing()
        self.assertNotEqual(transport.value(), b"")


class _Datagrams:
    """A transport that remembers, and fails when told to."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, tuple[str, int]]] = []
        self.broken = False

    def write(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.broken:
            raise OSError("network is unreachable")
        self.written.append((data, addr))


class DatagramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting: list[Deferred[bytes | None]] = []
        self.protocol = DatagramNaming(self.respond)
        self.transport = _Datagrams()
        self.patch(self.protocol, "transport", self.transport)

    def respond(self, data: bytes, host: str) -> Deferred[bytes | None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def test_late_answers(self) -> None:
        """An answer that comes later goes to its asker; None and failures go nowhere."""
        for port in range(3):
            self.protocol.datagramReceived(b"?", (FRIEND, port))
        self.waiting[1].callback(b"yes")
        self.waiting[0].callback(None)
        self.waiting[2].errback(RuntimeError("broken"))
        self.assertEqual(self.transport.written, [(b"yes", (FRIEND, 1))])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_bounded(self) -> None:
        """Beyond a number of open questions datagrams are dropped."""
        for port in range(DATAGRAMS + 10):
            self.protocol.datagramReceived(b"?", (FRIEND, port))
        self.assertEqual(len(self.waiting), DATAGRAMS)

    def test_unreachable_asker(self) -> None:
        """An answer that cannot be sent harms nobody."""
        self.transport.broken = True
        self.protocol.datagramReceived(b"?", (FRIEND, 1))
        self.waiting[0].callback(b"yes")


class ListenTests(TestCase):
    """On real sockets."""

    async def start(self, server: NameServer) -> NamingPorts:
        ports = listen(reactor, server, "127.0.0.1", 0)
        self.addCleanup(lambda: Deferred.fromCoroutine(ports.stop()))
        return ports

    async def test_udp_then_tcp(self) -> None:
        """A resolver that gets TC over UDP has its answer over TCP at the same port."""
        ports = await self.start(NameServer(zone(addresses=60), Clock()))
        resolver = client.Resolver(servers=[("127.0.0.1", ports.port)], timeout=(5,))
        answers, _, _ = await resolver.lookupAddress(f"ns.{DOMAIN}")
        self.assertEqual(len(answers), 60)
        answers, _, _ = await resolver.lookupIPV6Address(f"phone.alice.{DOMAIN}")
        self.assertEqual(answers[0].payload, dns.Record_AAAA("fd12::20", 60))

    async def test_stop_ends_connections(self) -> None:
        """Stopping the ports ends the connections there are."""
        ports = listen(reactor, NameServer(zone(), Clock()), "127.0.0.1", 0)
        lost: Deferred[None] = Deferred()
        protocol = Int16StringReceiver()
        self.patch(protocol, "connectionLost", lambda reason=None: lost.callback(None))
        answered: Deferred[bytes] = Deferred()
        self.patch(protocol, "stringReceived", answered.callback)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", ports.port), protocol)
        protocol.sendString(query(DOMAIN, dns.SOA))
        self.assertEqual(parsed(await answered).rCode, 0)
        await ports.stop()
        await lost

    async def test_port_in_use(self) -> None:
        """A port that is taken, for either transport, is one clear error and leaves none open."""
        ports = await self.start(NameServer(zone(), Clock()))
        error = self.assertRaises(
            ConfigurationError,
            listen,
            reactor,
            NameServer(zone(), Clock()),
            "127.0.0.1",
            ports.port,
        )
        self.assertIn("another server has it", str(error))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            self.assertRaises(
                ConfigurationError, listen, reactor, NameServer(zone(), Clock()), "127.0.0.1", port
            )
        await deferLater(reactor, 0)  # closing takes a turn of the reactor
        again = listen(reactor, NameServer(zone(), Clock()), "127.0.0.1", port)
        await again.stop()

    def test_foreign_address(self) -> None:
        """An address of another machine is a configuration error that names it."""
        error = self.assertRaises(
            ConfigurationError, listen, reactor, NameServer(zone(), Clock()), "192.0.2.77", 5353
        )
        self.assertIn("192.0.2.77 port 5353", str(error))

    def test_forbidden_port(self) -> None:
        """A port that needs a right says so, and what to do."""

        class Forbidding:
            def listenTCP(self, port: int, factory: object, interface: str) -> None:
                raise CannotListenError(interface, port, PermissionError(13, "denied"))

        error = self.assertRaises(
            NotPermittedHere, listen, Forbidding(), NameServer(zone(), Clock()), "127.0.0.1", 53
        )
        self.assertIn("CAP_NET_BIND_SERVICE", str(error))
