from __future__ import annotations

import shutil
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutput
from twisted.names import client, dns, error
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from ntmobile.errors import NTMobileError, UnknownName, Unreachable, UntrustedIdentity
from ntmobile.protocols.naming_transports import NamingPorts
from ntmobile.protocols.resolving import (
    PATIENCE,
    TTL,
    UNDER_WAY_LIMIT,
    Addresses,
    NameResolver,
    adopt,
)
from ntmobile.wire.dns_records import reverse_address
from tests.test_naming import parsed, query

LAPTOP = "laptop.bob.dc2.ntm.example"
SHOWN: Addresses = (IPv6Address("fd12::30"), IPv4Address("198.18.5.5"))


class Agent:
    """Stands for the client: knows Bob's laptop, and what tests tell it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, Addresses | Exception | Deferred[Addresses]] = {LAPTOP: SHOWN}

    async def resolve(self, name: str) -> Addresses:
        self.asked.append(name)
        found = self.known.get(name, UnknownName(f"nobody is called {name}"))
        if isinstance(found, Exception):
            raise found
        return await found if isinstance(found, Deferred) else found

    def belongs(self, name: str) -> bool:
        return name.endswith(".ntm.example")

    def reverse(self, address: IPv4Address | IPv6Address) -> str | None:
        return LAPTOP if address in SHOWN else None


class NameResolverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = Agent()
        self.resolver = NameResolver(
            self.clock, self.agent.resolve, self.agent.belongs, self.agent.reverse
        )

    def start(self, name: str, kind: int, edns: int | None = None) -> Deferred[bytes | None]:
        response = self.resolver.datagram(query(name, kind, edns), "127.0.0.1")
        return response if isinstance(response, Deferred) else succeed(response)

    def ask(self, name: str, kind: int) -> Any:
        return parsed(self.successResultOf(self.start(name, kind)))

    def remark(self, name: str, kind: int) -> str:
        """The text of the extended error that comes along."""
        message = dns.Message()
        data = self.successResultOf(self.start(name, kind, 1232))
        assert data is not None
        message.fromStr(data)
        (opt,) = message.additional
        header = dns._OPTHeader.fromRRHeader(opt)
        (option,) = header.options
        self.assertEqual(option.code, 15)
        text: bytes = option.data[2:]
        return text.decode()

    def test_addresses(self) -> None:
        """R24: a name gives the addresses that this client shows, each in its type, briefly."""
        for kind, payload in (
            (dns.A, dns.Record_A("198.18.5.5", TTL)),
            (dns.AAAA, dns.Record_AAAA("fd12::30", TTL)),
        ):
            message = self.ask(LAPTOP, kind)
            self.assertEqual((message.rCode, message.auth, message.recAv), (0, 1, 1))
            self.assertEqual([record.payload for record in message.answers], [payload])
            self.assertEqual(message.answers[0].ttl, TTL)

    def test_case(self) -> None:
        """Names are asked for in lower case, and answered in the case they came."""
        name = LAPTOP.upper()
        message = self.ask(name, dns.A)
        self.assertEqual(self.agent.asked, [LAPTOP])
        self.assertEqual(message.answers[0].name.name, name.encode())

    def test_one_family(self) -> None:
        """Where a correspondent has no address of a family, that is NODATA, not an error."""
        self.agent.known[LAPTOP] = (SHOWN[0], None)
        message = self.ask(LAPTOP, dns.A)
        self.assertEqual((message.rCode, message.answers), (0, []))

    def test_unknown(self) -> None:
        """A name that nobody has is NXDOMAIN, with the reason for who asks with EDNS."""
        self.assertEqual(self.ask("x.y.dc2.ntm.example", dns.A).rCode, 3)
        self.assertIn("nobody is called", self.remark("x.y.dc2.ntm.example", dns.A))

    def test_unreachable(self) -> None:
        """A correspondent that cannot be reached is SERVFAIL, with the reason."""
        for problem in (Unreachable("it is off"), UntrustedIdentity("new"), NTMobileError("odd")):
            self.agent.known[LAPTOP] = problem
            self.assertEqual(self.ask(LAPTOP, dns.AAAA).rCode, 2)
            self.assertEqual(self.remark(LAPTOP, dns.AAAA), str(problem))

    def test_long_reasons(self) -> None:
        """A long reason is cut, and the response stays within its limit."""
        self.agent.known[LAPTOP] = Unreachable("é" * 2000)
        response = self.successResultOf(self.start(LAPTOP, dns.A, 512))
        assert response is not None
        self.assertLessEqual(len(response), 512)

    def test_own_failure(self) -> None:
        """An error of ours is SERVFAIL, and the log has it."""
        self.agent.known[LAPTOP] = RuntimeError("a bug")
        self.assertEqual(self.ask(LAPTOP, dns.A).rCode, 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_outside(self) -> None:
        """Other names are refused without asking anybody, with the reason."""
        for name in ("example.org", "ntm.example", "", "1.2.3.in-addr.arpa", "localhost"):
            self.assertEqual(self.ask(name, dns.A).rCode, 5)
        self.assertIn("only the virtual network", self.remark("example.org", dns.AAAA))
        self.assertEqual(self.agent.asked, [])

    def test_other_types(self) -> None:
        """Other types of a name of ours are NODATA and bring up no tunnel; meta types refused."""
        for kind in (dns.MX, dns.TXT, dns.SRV, 65, dns.CNAME):
            message = self.ask(LAPTOP, kind)
            self.assertEqual((message.rCode, message.answers), (0, []))
        self.assertEqual(self.ask(LAPTOP, dns.ALL_RECORDS).answers[0].type, dns.HINFO)
        for kind in (dns.AXFR, dns.IXFR, 41):
            self.assertEqual(self.ask(LAPTOP, kind).rCode, 5)
        self.assertEqual(self.agent.asked, [])

    def test_reverse(self) -> None:
        """A virtual address has its correspondent's name; any other is nobody's."""
        for address in SHOWN:
            assert address is not None
            message = self.ask(address.reverse_pointer, dns.PTR)
            self.assertEqual(message.answers[0].payload, dns.Record_PTR(LAPTOP, TTL))
            self.assertEqual(self.ask(address.reverse_pointer, dns.A).answers, [])
        for address in (IPv4Address("192.0.2.1"), IPv6Address("::1")):
            self.assertEqual(self.ask(address.reverse_pointer, dns.PTR).rCode, 3)

    def test_asked_once(self) -> None:
        """A and AAAA asked at once, and asked again meanwhile, bring up one tunnel."""
        slow: Deferred[Addresses] = Deferred()
        self.agent.known[LAPTOP] = slow
        waiting = [self.start(LAPTOP, kind) for kind in (dns.A, dns.AAAA, dns.A, dns.AAAA)]
        self.clock.advance(6)
        for each in waiting:
            self.assertNoResult(each)
        slow.callback(SHOWN)
        kinds = [parsed(self.successResultOf(each)).answers[0].type for each in waiting]
        self.assertEqual(kinds, [dns.A, dns.AAAA] * 2)
        self.assertEqual(self.agent.asked, [LAPTOP])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_endless(self) -> None:
        """A name that takes too long is SERVFAIL and can be asked for again."""
        self.agent.known[LAPTOP] = Deferred()
        waiting = self.start(LAPTOP, dns.A)
        self.clock.advance(PATIENCE)
        self.assertEqual(parsed(self.successResultOf(waiting)).rCode, 2)
        self.agent.known[LAPTOP] = SHOWN
        self.assertEqual(self.ask(LAPTOP, dns.A).rCode, 0)

    def test_bounded(self) -> None:
        """Only so many names are resolved at once."""
        for number in range(UNDER_WAY_LIMIT):
            name = f"d{number}.bob.dc2.ntm.example"
            self.agent.known[name] = Deferred()
            self.start(name, dns.A)
        self.assertEqual(self.ask(LAPTOP, dns.A).rCode, 2)
        self.assertEqual(len(self.agent.asked), UNDER_WAY_LIMIT)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.ask(LAPTOP, dns.A).rCode, 0)

    def test_malformed(self) -> None:
        """What is no query gets FORMERR or NOTIMP or nothing."""
        whole = query(LAPTOP, dns.A)
        self.assertEqual(parsed(self.resolver.datagram(whole[:-1], "::1")).rCode, 1)
        self.assertEqual(parsed(self.resolver.stream(b"\0\0\x20" + whole[3:], "::1")).rCode, 4)
        self.assertIsNone(self.resolver.datagram(b"", "::1"))
        self.assertIsNone(self.resolver.stream(whole[:2] + b"\x80" + whole[3:], "::1"))

    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """A query with any bytes changed never raises."""
        whole = bytearray(query(LAPTOP, dns.AAAA, 1232))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        self.resolver.datagram(bytes(whole), "127.0.0.1")


class ReverseAddressTests(SynchronousTestCase):
    @given(st.ip_addresses())
    def test_inverse(self, address: IPv4Address | IPv6Address) -> None:
        """It undoes ``reverse_pointer`` for every address."""
        self.assertEqual(reverse_address(address.reverse_pointer), address)

    def test_others(self) -> None:
        """Other names, partial, out of range or with odd digits, are no addresses."""
        nibbles = "0." * 31
        for name in (
            "",
            "in-addr.arpa",
            "1.2.3.in-addr.arpa",
            "256.2.3.4.in-addr.arpa",
            "01.2.3.4.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "1.ip6.arpa",
            f"{nibbles}g.ip6.arpa",
            f"{nibbles}00.ip6.arpa",
            f"{nibbles}_.ip6.arpa",
            f"{nibbles}0.ip6.arpa.example",
            "1.2.3.4.in-addr.arpa.example",
        ):
            self.assertIsNone(reverse_address(name))


class AdoptionTests(TestCase):
    """On real sockets, as the helper in the namespace hands them over."""

    def setUp(self) -> None:
        self.agent = Agent()
        resolver = NameResolver(
            IReactorTime(reactor), self.agent.resolve, self.agent.belongs, self.agent.reverse
        )
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind(("127.0.0.1", 0))
            self.port: int = stream.getsockname()[1]
            datagram.bind(("127.0.0.1", self.port))
            stream.listen(16)
            for each in (stream, datagram):
                each.setblocking(False)
            self.ports: NamingPorts = adopt(reactor, resolver, datagram.fileno(), stream.fileno())
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ports.stop()))

    async def test_udp_and_tcp(self) -> None:
        """Both transports answer; a name outside is refused."""
        resolver = client.Resolver(servers=[("127.0.0.1", self.port)], timeout=(5,))
        answers, _, _ = await resolver.lookupAddress(LAPTOP)
        self.assertEqual(answers[0].payload, dns.Record_A("198.18.5.5", TTL))
        message = await resolver.queryTCP([dns.Query(LAPTOP, dns.AAAA)])
        self.assertEqual(message.answers[0].payload, dns.Record_AAAA("fd12::30", TTL))
        await self.assertFailure(resolver.lookupAddress("example.org"), error.DNSQueryRefusedError)

    async def test_dig(self) -> None:
        """A person who asks with dig sees why a name is refused."""
        dig = shutil.which("dig")
        if dig is None:
            raise SkipTest("needs dig (Debian: dnsutils)")
        words = ("@127.0.0.1", "-p", str(self.port), "+tries=1", "www.example.org", "A")
        output = (await getProcessOutput(dig, words)).decode()
        self.assertIn("REFUSED", output)
        self.assertIn("only the virtual network is reachable here", output)
