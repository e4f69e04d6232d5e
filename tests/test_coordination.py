from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ntmobile.errors import AuthenticationError, NTMobileError, UnknownName, Unreachable
from ntmobile.interfaces import Coordinator, ICoordinatorLookup
from ntmobile.protocols.coordination import CONNECT_TIMEOUT, IDLE, QUARANTINE, CoordinatorLinks
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.tls import client_context_factory, server_context_factory
from ntmobile.testing import Host, VirtualInternet
from ntmobile.testing.tls import run_tls_in
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.realtime import KeepAlive
from tests.realms import MemoryRealm

DC1, DC2, DC3 = "dc1.ntm.example", "dc2.ntm.example", "dc3.ntm.example"
HERE, THERE, OTHER = "203.0.113.1", "203.0.113.2", "203.0.113.3"


@implementer(ICoordinatorLookup)
class Table:
    """A lookup that answers from a table, and counts."""

    def __init__(self) -> None:
        self.servers: dict[str, tuple[tuple[str, int], ...]] = {}
        self.asked: list[str] = []

    def find(self, domain: str) -> Deferred[Coordinator]:
        """Find a coordinator."""
        self.asked.append(domain)
        if domain not in self.servers:
            return fail(UnknownName(f"no coordinator of {domain}"))
        return succeed(Coordinator(domain, self.servers[domain], 4330, 4330))


class CoordinationTests(SynchronousTestCase):
    realm = MemoryRealm()

    def setUp(self) -> None:
        """Dc1 wants to talk to others; dc2 listens on its host."""
        self.internet = VirtualInternet(seed=4)
        run_tls_in(self.internet, self)
        self.here = self.internet.host("dc1", HERE)
        self.there = self.internet.host("dc2", THERE)
        self.other = self.internet.host("other", OTHER)
        self.lookup = Table()
        self.lookup.servers[DC2] = ((THERE, 4330),)
        key, chain = self.realm.server("dc", DC1)
        trust = self.realm.trust()
        self.links = CoordinatorLinks(
            self.here.reactor,
            self.lookup,
            lambda domain: client_context_factory(key, chain, trust, "dc", domain),
            self.handle,
            lambda domain: verify_peer(("dc", domain)),
        )
        self.accepted: list[Link] = []
        self.silent = False
        self.listen(self.there, "dc", DC2)

    async def handle(self, message: Message, link: Link) -> Message | None:
        """What either end is asked."""
        if self.silent:
            await Deferred()
        return LinkAcknowledgement(0, f"{link.peer}")

    def listen(
        self, host: Host, role: str, name: str, realm: MemoryRealm | None = None, port: int = 4330
    ) -> None:
        """A server with a certificate of some role and name."""
        realm = realm or self.realm
        key, chain = realm.server(role, name)
        tls = server_context_factory(key, chain, realm.trust(), peer_roles=("dc",))

        def accept() -> Link:
            link = Link(host.reactor, self.handle, verify_peer(("dc", None)))
            link.ready.addErrback(lambda failure: None)
            self.accepted.append(link)
            return link

        factory: Any = TLSMemoryBIOFactory(tls, False, Factory.forProtocol(accept))
        host.reactor.listenTCP(port, factory)

    def ask(self, domain: str = DC2) -> Message:
        """Ask a domain's DC something."""
        return self.internet.result(self.links.request(domain, KeepAlive(1)))

    def test_asks(self) -> None:
        """A link is opened, both ends prove themselves, and the question is answered."""
        answer = self.ask()
        self.assertEqual(answer, LinkAcknowledgement(0, f"('dc', '{DC1}')"))
        self.assertEqual(self.accepted[0].peer, ("dc", DC1))

    def test_one_link(self) -> None:
        """All questions to a domain share one link, those that wait for it to open included."""
        answers = [Deferred.fromCoroutine(self.links.request(DC2, KeepAlive(n))) for n in range(5)]
        for answer in answers:
            self.internet.result(answer)
        self.ask()
        self.assertEqual(len(self.accepted), 1)
        self.assertEqual(self.lookup.asked, [DC2])

    def test_both_ways(self) -> None:
        """The other end may ask over the same link."""
        self.ask()
        answer = self.internet.result(self.accepted[0].request(KeepAlive(2)))
        self.assertEqual(answer, LinkAcknowledgement(0, f"('dc', '{DC2}')"))

    def test_another_domain(self) -> None:
        """R14: whatever DNS says, another domain's DC is not taken for the one asked for."""
        self.lookup.servers[DC3] = ((THERE, 4330),)
        with self.assertRaises(AuthenticationError):
            self.ask(DC3)

    def test_another_role(self) -> None:
        """R1: a relay's or cache's certificate never passes as a DC's."""
        for number, (role, name) in enumerate((("rs", f"rs1.{DC3}"), ("cs", f"cs1.{DC3}"))):
            port = 5000 + number
            self.listen(self.other, role, name, port=port)
            self.lookup.servers[DC3] = ((OTHER, port),)
            with self.assertRaises(AuthenticationError):
                self.ask(DC3)
            self.internet.advance(QUARANTINE + 1)

    def test_another_realm(self) -> None:
        """R1: a certificate of that name by another authority is none."""
        self.listen(self.other, "dc", DC3, MemoryRealm())
        self.lookup.servers[DC3] = ((OTHER, 4330),)
        with self.assertRaises(NTMobileError):
            self.ask(DC3)

    def test_next_address(self) -> None:
        """Addresses that do not answer, or prove nothing, are passed over in favour of the next."""
        self.listen(self.other, "dc", DC3)
        self.lookup.servers[DC2] = ((OTHER, 9), (OTHER, 4330), (THERE, 4330))
        self.assertEqual(self.ask(), LinkAcknowledgement(0, f"('dc', '{DC1}')"))

    def test_unknown(self) -> None:
        """A domain that has no coordinator is told as such, and is not looked up every time."""
        for _ in range(3):
            with self.assertRaises(UnknownName):
                self.ask("nobody.example")
        self.assertEqual(self.lookup.asked, ["nobody.example"])
        self.internet.advance(QUARANTINE)
        with self.assertRaises(UnknownName):
            self.ask("nobody.example")
        self.assertEqual(len(self.lookup.asked), 2)

    def test_no_address(self) -> None:
        """A coordinator without an address cannot be reached."""
        self.lookup.servers[DC3] = ()
        with self.assertRaisesRegex(Unreachable, "no address"):
            self.ask(DC3)

    def test_silent_host(self) -> None:
        """A host that swallows everything is given up in time."""
        self.internet.partition(self.here, self.there)
        start = self.internet.clock.seconds()
        with self.assertRaises(Unreachable):
            self.ask()
        self.assertLess(self.internet.clock.seconds() - start, CONNECT_TIMEOUT + 1.0)

    def test_silent_server(self) -> None:
        """R8: a server that accepts and then says nothing is given up in time."""
        silent: Any = Factory.forProtocol(_Silent)
        self.other.reactor.listenTCP(4330, silent)
        self.lookup.servers[DC2] = ((OTHER, 4330),)
        start = self.internet.clock.seconds()
        problem = self.assertRaises(Unreachable, self.ask)
        self.assertIn(f"no TLS connection within {CONNECT_TIMEOUT:g} s", str(problem))
        self.assertLess(self.internet.clock.seconds() - start, CONNECT_TIMEOUT + 1.0)

    def test_silent_addresses(self) -> None:
        """Addresses that say nothing are tried at nearly the same time; a false one is named."""
        self.internet.partition(self.here, self.there)
        self.lookup.servers[DC2] = ((THERE, 4330), (THERE, 4331), (OTHER, 4330))
        start = self.internet.clock.seconds()
        self.assertRaises(Unreachable, self.ask)
        self.assertLess(self.internet.clock.seconds() - start, CONNECT_TIMEOUT + 2.0)

    def test_slow_address(self) -> None:
        """Where a first address says nothing, the next one is in use a moment later."""
        self.internet.partition(self.here, self.there)
        self.listen(self.other, "dc", DC2)
        self.lookup.servers[DC2] = ((THERE, 4330), (OTHER, 4330))
        start = self.internet.clock.seconds()
        self.ask()
        self.assertLess(self.internet.clock.seconds() - start, 1.0)

    def test_two_readings(self) -> None:
        """Where the DC asked first is silent, the one asked next is sought meanwhile."""
        self.internet.partition(self.here, self.there)
        self.lookup.servers[DC3] = ((THERE, 4330),)
        start = self.internet.clock.seconds()
        first = self.links.request(DC2, KeepAlive(1), then=DC3)
        self.assertRaises(Unreachable, self.internet.result, first)
        self.assertRaises(Unreachable, self.ask, DC3)
        self.assertLess(self.internet.clock.seconds() - start, CONNECT_TIMEOUT + 1.0)

    def test_one_reading(self) -> None:
        """R13: as long as the first DC answers, nobody hears what else the name could mean."""
        self.internet.result(self.links.request(DC2, KeepAlive(1), then=DC3))
        self.internet.advance(5.0)
        self.assertEqual(self.lookup.asked, [DC2])

    def test_dead_link(self) -> None:
        """A host that went without a word is noticed by the first questions, and dialled again."""
        self.ask()
        self.internet.partition(self.here, self.there)
        with self.assertRaises(Unreachable):
            self.ask()
        self.internet.heal()
        self.internet.advance(QUARANTINE)
        self.ask()
        self.assertEqual(len(self.accepted), 2)

    def test_closed_link(self) -> None:
        """A link that the other end closed is opened again for the next question."""
        self.ask()
        self.accepted[0].close()
        self.internet.advance(1.0)
        self.ask()
        self.assertEqual(len(self.accepted), 2)

    def test_no_answer(self) -> None:
        """A question that the other end does not answer fails in its time."""
        self.ask()
        self.silent = True
        with self.assertRaises(Unreachable):
            self.ask()

    def test_fault_of_a_lookup(self) -> None:
        """A fault in a lookup is logged, and told as unreachable."""

        def fault(domain: str) -> Deferred[Coordinator]:
            raise ZeroDivisionError("a fault")

        self.patch(self.lookup, "find", fault)
        with self.assertRaises(Unreachable):
            self.ask()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_idle(self) -> None:
        """A link that nobody used for long is closed; one in use is not."""
        self.ask()
        self.links.close_idle()
        self.internet.advance(IDLE - 10.0)
        self.ask()
        self.internet.advance(20.0)
        self.links.close_idle()
        self.assertEqual(len(self.links), 1)
        self.internet.advance(IDLE)
        self.links.close_idle()
        self.internet.advance(1.0)
        self.assertEqual(len(self.links), 0)
        self.assertFalse(self.accepted[0].alive)

    def test_many_unknown_domains(self) -> None:
        """R8: clients may ask for any number of domains; what failed is forgotten soon."""
        for number in range(50):
            with self.assertRaises(UnknownName):
                self.ask(f"nobody{number}.example")
        self.internet.advance(QUARANTINE)
        self.links.close_idle()
        self.assertEqual(len(self.links), 0)

    def test_close(self) -> None:
        """At the end all links close, and no timer is left."""
        self.ask()
        self.links.close()
        self.internet.advance(5.0)
        self.assertFalse(self.accepted[0].alive)
        self.assertEqual(self.here.reactor.getDelayedCalls(), [])

    def test_close_while_dialling(self) -> None:
        """At the end what is dialled, or shakes hands, goes on no more; nothing new begins."""
        silent: Any = Factory.forProtocol(_Silent)
        self.other.reactor.listenTCP(4330, silent)
        for domain, address in ((DC2, (OTHER, 4330)), (DC3, (OTHER, 4444))):
            self.lookup.servers[domain] = (address,)
        asked = [Deferred.fromCoroutine(self.links.link(domain)) for domain in (DC2, DC3)]
        self.internet.advance(0.5)
        self.links.close()
        asked.append(Deferred.fromCoroutine(self.links.link(DC2)))
        for one in asked:
            self.failureResultOf(one, Unreachable)
        self.internet.advance(0.5)
        self.assertEqual(self.here.reactor.getDelayedCalls(), [])


class _Silent(Protocol):
    """Accepts a connection and says nothing."""
