from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import ConfigurationError, InvalidName, QuotaExceeded, UnknownName, Unreachable
from ntmobile.interfaces import Coordinator
from ntmobile.plugins.lookup_dns import UNDER_WAY_LIMIT, DnsLookup, SystemNameservers, dnsLookup
from ntmobile.protocols import naming_client
from tests.naming_script import (
    NODATA,
    NXDOMAIN,
    SERVFAIL,
    SILENT,
    Saying,
    ScriptedServer,
    rr,
)

DOMAIN = "dc1.ntm.example"
NS = f"ns.{DOMAIN}"
TCP = f"_ntm._tcp.{DOMAIN}"
UDP = f"_ntm._udp.{DOMAIN}"


class Shifted:
    """The real reactor, whose clock a test may put forward."""

    offset = 0.0

    def seconds(self) -> float:
        return IReactorTime(reactor).seconds() + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class LookupCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.clock = Shifted()
        self.server = self.serve()
        self.lookup = self.looking(self.server)

    def serve(self, **kinds: Any) -> ScriptedServer:
        server = ScriptedServer(**kinds)
        server.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def looking(self, *servers: ScriptedServer, timeout: float = 3.0) -> DnsLookup:
        return DnsLookup(self.clock, lambda: [server.address for server in servers], timeout)

    def usual(self, server: ScriptedServer | None = None, ttl: int = 300) -> None:
        """The records that a coordinator has."""
        say = (server or self.server).say
        say(DOMAIN, dns.Record_NS(NS), ttl=ttl)
        say(TCP, dns.Record_SRV(0, 0, 4440, NS), ttl=ttl)
        say(UDP, dns.Record_SRV(0, 0, 4441, NS), ttl=ttl)
        say(NS, dns.Record_A("192.0.2.1"), ttl=ttl)
        say(NS, dns.Record_AAAA("2001:db8::1"), ttl=ttl)

    async def fails(self, error: type[Exception], domain: str = DOMAIN) -> str:
        finding: Deferred[Any] = self.lookup.find(domain)
        return str(await self.assertFailure(finding, error))


class FindTests(LookupCase):
    async def test_found(self) -> None:
        """NS says that there is a coordinator, SRV which ports, A and AAAA where."""
        self.usual()
        found = await self.lookup.find(DOMAIN)
        servers = (("2001:db8::1", 4440), ("192.0.2.1", 4440))
        self.assertEqual(found, Coordinator(DOMAIN, servers, udp_port=4441, tcp_port=4440))

    async def test_without_srv(self) -> None:
        """Without SRV the hosts that NS names are asked at port 4330, for UDP as well."""
        self.usual()
        del self.server.script[TCP, dns.SRV], self.server.script[UDP, dns.SRV]
        self.server.script[NS, dns.AAAA] = NODATA
        found = await self.lookup.find(DOMAIN)
        self.assertEqual(found, Coordinator(DOMAIN, (("192.0.2.1", 4330),), 4330, 4330))

    async def test_several_hosts(self) -> None:
        """SRV hosts come by priority, each with its port; one without addresses is passed over."""
        self.usual()
        self.server.say(
            TCP,
            dns.Record_SRV(20, 0, 20, "b.example.org"),
            dns.Record_SRV(10, 0, 10, "a.example.org"),
            dns.Record_SRV(5, 0, 5, "gone.example.org"),
        )
        self.server.say("a.example.org", dns.Record_A("192.0.2.10"), dns.Record_A("192.0.2.11"))
        self.server.say("b.example.org", dns.Record_AAAA("2001:db8::20"))
        found = await self.lookup.find(DOMAIN)
        self.assertEqual(
            found.servers, (("192.0.2.10", 10), ("192.0.2.11", 10), ("2001:db8::20", 20))
        )
        self.assertEqual((found.tcp_port, found.udp_port), (10, 10))

    async def test_alias_of_a_host(self) -> None:
        """A host may be an alias whose addresses are in the same answer."""
        self.usual()
        self.server.script[NS, dns.A] = Saying(
            [
                rr(NS, dns.Record_CNAME("real.example.org")),
                rr("real.example.org", dns.Record_A("192.0.2.9")),
            ]
        )
        self.server.script[NS, dns.AAAA] = NODATA
        self.assertEqual((await self.lookup.find(DOMAIN)).servers, (("192.0.2.9", 4440),))

    async def test_truncated(self) -> None:
        """What does not fit into a datagram is fetched over TCP."""
        self.usual()
        self.server.over_tcp[NS, dns.A] = self.server.script[NS, dns.A]
        self.server.script[NS, dns.A] = Saying(truncated=True)
        self.assertIn(("192.0.2.1", 4440), (await self.lookup.find(DOMAIN)).servers)

    async def test_next_name_server(self) -> None:
        """A server that fails is passed over at once."""
        self.usual()
        broken = self.serve(otherwise=SERVFAIL)
        self.lookup = self.looking(broken, self.server)
        self.assertEqual((await self.lookup.find(DOMAIN)).tcp_port, 4440)

    async def test_silent_name_server(self) -> None:
        """A server that says nothing is passed over after a while."""
        self.usual()
        silent = self.serve(otherwise=SILENT)
        self.patch_wait(0.1)
        self.lookup = self.looking(silent, self.server)
        self.assertEqual((await self.lookup.find(DOMAIN)).tcp_port, 4440)

    async def test_lost_datagram(self) -> None:
        """A question that was lost is asked again."""
        self.usual()
        whole = self.server.script[DOMAIN, dns.NS]
        self.patch_wait(0.1)

        def lose_first(response: bytes) -> bytes:
            self.server.script[DOMAIN, dns.NS] = whole
            return b""

        self.server.script[DOMAIN, dns.NS] = Saying(whole.answers, raw=lose_first)
        self.assertEqual((await self.lookup.find(DOMAIN)).tcp_port, 4440)
        self.assertEqual(self.server.asked[DOMAIN, dns.NS], 2)

    async def test_udp_service_is_no_condition(self) -> None:
        """When only the question for UDP is not answered, its port is taken to be that for TCP."""
        self.usual()
        self.server.script[UDP, dns.SRV] = SERVFAIL
        self.assertEqual((await self.lookup.find(DOMAIN)).udp_port, 4440)

    def patch_wait(self, seconds: float) -> None:
        self.patch(naming_client, "FIRST_WAIT", seconds)


class UnknownTests(LookupCase):
    async def test_no_domain(self) -> None:
        """NXDOMAIN is an unknown name; the text has question, answer, who said so, what to do."""
        text = await self.fails(UnknownName)
        self.assertIn(f"no coordinator of {DOMAIN}", text)
        host, port = self.server.address
        self.assertIn(f"{host}:{port} answers NXDOMAIN to {DOMAIN} NS", text)
        self.assertIn("delegation", text)

    async def test_no_name_server(self) -> None:
        """A name without NS is no coordinator's domain."""
        self.server.script[DOMAIN, dns.NS] = NODATA
        self.assertIn("no such record to dc1.ntm.example NS", await self.fails(UnknownName))

    async def test_alias(self) -> None:
        """A domain that is an alias is no coordinator's, whatever stands at its target."""
        self.server.script[DOMAIN, dns.NS] = Saying(
            [rr(DOMAIN, dns.Record_CNAME("evil.example")), rr("evil.example", dns.Record_NS(NS))]
        )
        self.assertIn("alias", await self.fails(UnknownName))

    async def test_service_not_offered(self) -> None:
        """An SRV target of "." says that there is no service (RFC 2782)."""
        self.usual()
        self.server.say(TCP, dns.Record_SRV(0, 0, 0, b""))
        self.assertIn("offers no service", await self.fails(UnknownName))

    async def test_invalid(self) -> None:
        """What is no domain is not asked for."""
        for domain in ("", "a..b", "Dc1.example", "x" * 80, "a.7", "..", "é.example"):
            await self.fails(InvalidName, domain)
        self.assertEqual(self.server.asked, {})


class UnreachableTests(LookupCase):
    async def test_failing(self) -> None:
        """When every server fails, the text lists each with what it said."""
        self.server.otherwise = SERVFAIL
        other = self.serve(otherwise=Saying(rcode=5))
        self.lookup = self.looking(self.server, other)
        text = await self.fails(Unreachable)
        self.assertIn(f"{self.server.address[1]}: SERVFAIL", text)
        self.assertIn(f"{other.address[1]}: REFUSED", text)
        self.assertIn("DNS question", text)

    async def test_silent(self) -> None:
        """When nobody answers, the lookup ends in its time and says so."""
        self.server.otherwise = SILENT
        self.lookup = self.looking(self.server, timeout=0.5)
        start = self.clock.seconds()
        self.assertIn("no answer", await self.fails(Unreachable))
        self.assertLess(self.clock.seconds() - start, 3.0)

    async def test_nobody_listens(self) -> None:
        """A closed port is told at once, without waiting."""
        await self.server.stop()
        self.lookup = self.looking(self.server, timeout=30.0)
        self.assertIn("no DNS server there", await self.fails(Unreachable))

    async def test_no_route(self) -> None:
        """A server that this machine has no way to is told as such, and the next one asked."""
        self.usual()
        nowhere = self.serve()
        nowhere.address = ("255.255.255.255", 53)
        self.lookup = self.looking(nowhere, timeout=30.0)
        text = await self.fails(Unreachable)
        self.assertRegex(text, r"\(255.255.255.255:53: [A-Z]")
        self.assertNotIn("no answer", text)
        self.lookup = self.looking(nowhere, self.server)
        await self.lookup.find(DOMAIN)

    async def test_nothing_over_tcp(self) -> None:
        """A server that asks for TCP and then closes without an answer is told of."""
        self.usual()
        self.server.script[DOMAIN, dns.NS] = Saying(truncated=True)
        self.server.over_tcp[DOMAIN, dns.NS] = SILENT
        self.assertIn("closed the connection", await self.fails(Unreachable))

    async def test_no_address(self) -> None:
        """A host without any address is told with both questions."""
        self.usual()
        self.server.script[NS, dns.A] = NODATA
        self.server.script[NS, dns.AAAA] = NXDOMAIN
        text = await self.fails(Unreachable)
        self.assertIn(f"{NS} has no address", text)
        self.assertIn(f"NXDOMAIN to {NS} AAAA", text)

    async def test_no_name_servers(self) -> None:
        """Without any name server to ask the text says which key to set."""
        self.lookup = DnsLookup(self.clock, list, 1.0)
        self.assertIn("lookup.nameservers", await self.fails(Unreachable))


class LieTests(LookupCase):
    """R14: what the DNS says is a hint; lies cost little and lead nowhere."""

    async def test_impossible_addresses(self) -> None:
        """R14: loopback, multicast, link-local and such are no coordinator's addresses."""
        self.usual()
        lies = ("127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "169.254.1.1")
        lies6 = ("::1", "::", "ff02::1", "fe80::1", "::ffff:127.0.0.1", "::127.0.0.1")
        for lie, lie6 in zip(lies, lies6, strict=True):
            self.lookup = self.looking(self.server)
            self.server.say(NS, dns.Record_A(lie))
            self.server.say(NS, dns.Record_AAAA(lie6))
            text = await self.fails(Unreachable)
            self.assertIn("no coordinator can be", text)
            self.assertIn(lie, text)

    async def test_private_addresses(self) -> None:
        """Private networks have coordinators too."""
        self.usual()
        self.server.say(NS, dns.Record_A("10.0.0.1"), dns.Record_A("127.0.0.1"))
        self.server.say(NS, dns.Record_AAAA("fd00::1"))
        found = await self.lookup.find(DOMAIN)
        self.assertEqual(found.servers, (("fd00::1", 4440), ("10.0.0.1", 4440)))

    async def test_alias_loop(self) -> None:
        """R14: aliases that lead in a circle, or too far, end."""
        self.usual()
        chain = [rr(f"h{n}.x.example", dns.Record_CNAME(f"h{n + 1}.x.example")) for n in range(50)]
        end = rr("h50.x.example", dns.Record_A("192.0.2.1"))
        start = rr(NS, dns.Record_CNAME("h0.x.example"))
        self.server.script[NS, dns.A] = Saying([start, *chain, end])
        self.server.script[NS, dns.AAAA] = Saying(
            [rr(NS, dns.Record_CNAME("l.example")), rr("l.example", dns.Record_CNAME(NS))]
        )
        self.assertIn("has no address", await self.fails(Unreachable))

    async def test_answers_to_other_questions(self) -> None:
        """R14: records at other names than the one asked for, and additional ones, do not count."""
        self.usual()
        self.server.script[DOMAIN, dns.NS] = Saying(
            [rr("dc2.ntm.example", dns.Record_NS(NS)), rr("ntm.example", dns.Record_NS(NS))]
        )
        await self.fails(UnknownName)

    async def test_absurd_counts(self) -> None:
        """R14: very many records make the answer malformed; many are cut to a few."""
        self.usual()
        many = [dns.Record_A(f"192.0.{n // 200}.{n % 200 + 1}") for n in range(100)]
        self.server.say(NS, *many)
        self.server.script[NS, dns.AAAA] = NODATA
        found = await self.lookup.find(DOMAIN)
        self.assertEqual(len(found.servers), 4)
        self.server.say("dc2.ntm.example", *[dns.Record_NS(f"n{n}.example") for n in range(200)])
        self.lookup = self.looking(self.server, timeout=0.5)
        await self.fails(Unreachable, "dc2.ntm.example")

    async def test_many_hosts(self) -> None:
        """R14: of many SRV targets only the first few are asked for."""
        self.usual()
        self.server.say(TCP, *[dns.Record_SRV(n, 0, 1, f"h{n}.example") for n in range(60)])
        await self.fails(Unreachable)
        self.assertLessEqual(sum(self.server.asked.values()), 3 + 2 * 4)

    async def test_odd_targets(self) -> None:
        """R14: targets that are no host names, and port 0, are passed over."""
        self.usual()
        self.server.say(
            TCP,
            dns.Record_SRV(0, 0, 1, b"192.0.2.1"),
            dns.Record_SRV(0, 0, 0, NS),
            dns.Record_SRV(0, 0, 1, b"\xff\xfe.example"),
            dns.Record_SRV(0, 0, 1, b"localhost"),
            dns.Record_SRV(1, 0, 77, NS),
        )
        found = await self.lookup.find(DOMAIN)
        self.assertEqual({port for _, port in found.servers}, {77})

    async def test_forged(self) -> None:
        """R14: a reply of another number, to another question or malformed is not taken."""
        self.usual()
        whole = self.server.script[DOMAIN, dns.NS].answers
        for forge in (
            lambda reply: struct.pack("!H", reply[0] << 8 ^ 0xFFFF) + reply[2:],
            lambda reply: reply.replace(b"\x03dc1", b"\x03dc2", 1),
            lambda reply: reply[:6] + b"\xff\xff" + reply[8:],
            lambda reply: reply[:-3],
            lambda reply: reply[:2] + b"\x01\x00" + reply[4:],
            lambda reply: b"",
        ):
            self.server.script[DOMAIN, dns.NS] = Saying(whole, raw=forge)
            self.lookup = self.looking(self.server, timeout=0.2)
            self.assertIn("no answer", await self.fails(Unreachable))

    async def test_malformed_over_tcp(self) -> None:
        """R14: a malformed reply over TCP is told as such."""
        self.server.script[DOMAIN, dns.NS] = Saying(truncated=True)
        for spoil in (lambda reply: reply + bytes(40000), lambda reply: reply[:9]):
            self.server.over_tcp[DOMAIN, dns.NS] = Saying(raw=spoil)
            self.lookup = self.looking(self.server)
            self.assertIn("malformed", await self.fails(Unreachable))


class RememberingTests(LookupCase):
    def total(self) -> int:
        return sum(self.server.asked.values())

    async def test_by_ttl(self) -> None:
        """A finding is remembered for the shortest time to live among its records."""
        self.usual(ttl=300)
        self.server.say(NS, dns.Record_A("192.0.2.1"), ttl=100)
        await self.lookup.find(DOMAIN)
        asked = self.total()
        self.clock.offset = 99.0
        await self.lookup.find(DOMAIN)
        self.assertEqual(self.total(), asked)
        self.clock.offset = 101.0
        await self.lookup.find(DOMAIN)
        self.assertEqual(self.total(), 2 * asked)

    async def test_limits_of_ttl(self) -> None:
        """Times to live of nothing, or of years, are brought within bounds."""
        for ttl, kept, gone in ((0, 4.0, 6.0), (1 << 30, 3500.0, 3700.0)):
            self.usual(ttl=ttl)
            self.lookup = self.looking(self.server)
            self.clock.offset = 0.0
            await self.lookup.find(DOMAIN)
            asked = self.total()
            self.clock.offset = kept
            await self.lookup.find(DOMAIN)
            self.assertEqual(self.total(), asked)
            self.clock.offset = gone
            await self.lookup.find(DOMAIN)
            self.assertGreater(self.total(), asked)

    async def test_negative(self) -> None:
        """That there is none is remembered as long as the SOA says, within bounds."""
        for ttl, kept, gone in ((60, 59.0, 61.0), (1 << 30, 299.0, 301.0), (0, 4.0, 6.0)):
            soa = dns.Record_SOA("ns.example", "root.example", minimum=ttl)
            self.server.otherwise = Saying(rcode=3, authority=[rr("example", soa, ttl)])
            self.lookup = self.looking(self.server)
            self.clock.offset = 0.0
            first = await self.fails(UnknownName)
            asked = self.total()
            self.clock.offset = kept
            self.assertEqual(await self.fails(UnknownName), first)
            self.assertEqual(self.total(), asked)
            self.clock.offset = gone
            await self.fails(UnknownName)
            self.assertGreater(self.total(), asked)

    async def test_failure(self) -> None:
        """That nobody answered is remembered just long enough to stop a herd."""
        self.server.otherwise = SERVFAIL
        await self.fails(Unreachable)
        asked = self.total()
        await self.fails(Unreachable)
        self.assertEqual(self.total(), asked)
        self.usual()
        self.clock.offset = 2.5
        await self.lookup.find(DOMAIN)

    async def test_asked_once_for_all(self) -> None:
        """Lookups of one domain at the same time ask once; each caller hears for himself."""
        self.usual()
        finding = [self.lookup.find(DOMAIN) for _ in range(20)]
        finding[3].cancel()
        await self.assertFailure(finding.pop(3), CancelledError)
        found = [await each for each in finding]
        self.assertEqual(len(set(map(id, found))), 1)
        self.assertEqual(self.server.asked[DOMAIN, dns.NS], 1)

    async def test_bounded(self) -> None:
        """Only so many domains are looked up at once; those beyond hear so at once."""
        self.usual()
        finding = [self.lookup.find(f"x{n}.ntm.example") for n in range(UNDER_WAY_LIMIT)]
        await self.fails(QuotaExceeded)
        for each in finding:
            await self.assertFailure(each, UnknownName)
        await self.lookup.find(DOMAIN)

    async def test_own_error(self) -> None:
        """An error of our own ends the lookup for its callers, and is logged."""

        def broken() -> list[tuple[str, int]]:
            raise RuntimeError("no list")

        self.lookup = DnsLookup(self.clock, broken)
        self.assertIn("failed", await self.fails(Exception))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class ConfigurationTests(SynchronousTestCase):
    def test_unknown_key(self) -> None:
        """A key that the plugin does not know is named exactly."""
        error = self.assertRaises(
            ConfigurationError, dnsLookup.configure, {"nameserver": []}, reactor
        )
        self.assertIn("unknown key lookup.nameserver;", str(error))

    def test_wrong_values(self) -> None:
        """Wrong values are named with their key."""
        for key, value in (
            ("nameservers", "192.0.2.1"),
            ("nameservers", []),
            ("nameservers", ["dns.example"]),
            ("timeout", 0),
            ("timeout", True),
            ("timeout", "5"),
            ("timeout", float("nan")),
        ):
            error = self.assertRaises(
                ConfigurationError, dnsLookup.configure, {key: value}, reactor
            )
            self.assertIn(f"lookup.{key}", str(error))

    def test_system_name_servers(self) -> None:
        """resolv.conf is read, again when it changed; odd lines are passed over."""
        path = Path(self.mktemp())
        servers = SystemNameservers(path)
        self.assertEqual(servers(), [("127.0.0.1", 53)])
        path.write_text("# x\nsearch example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n")
        self.assertEqual(servers(), [("192.0.2.1", 53), ("2001:db8::1", 53)])
        path.write_text("nameserver\nnameserver nonsense\nnameserver 192.0.2.9 # old\n")
        os.utime(path, ns=(1, 1))
        self.assertEqual(servers(), [("192.0.2.9", 53)])
