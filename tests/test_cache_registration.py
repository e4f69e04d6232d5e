"""A cache server and coordinators: where they are sought, and how it stays registered."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import StorageFailed, UnknownName, Unreachable
from ntmobile.interfaces import Coordinator, ICoordinatorLookup
from ntmobile.protocols.coordination import CoordinatorLinks
from ntmobile.servers.cache_registration import INTERVAL, RETRY, OwnFirst, Registration
from ntmobile.servers.configuration import Server
from ntmobile.testing.clock import ExactClock
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.exchange import CacheRegistration, CacheServer
from ntmobile.wire.messages.fields import Endpoint

DC1 = "dc1.ntm.example"
SERVER = CacheServer(f"cs1.{DC1}", (Endpoint.of(("192.0.2.9", 4332)),))


class NoLookup:
    """Knows nobody."""

    def find(self, domain: str) -> Deferred[Coordinator]:
        raise UnknownName(domain)


class OwnFirstTests(SynchronousTestCase):
    """Looking for coordinators."""

    def test_own(self) -> None:
        """R14: the own coordinator is where the configuration says; others are looked up."""
        own = Server("dc", DC1, ("192.0.2.1", "2001:db8::1"), 5000)
        lookup = OwnFirst(own, cast(ICoordinatorLookup, NoLookup()))
        found: Coordinator = self.successResultOf(lookup.find(DC1))
        self.assertEqual(found.servers, (("192.0.2.1", 5000), ("2001:db8::1", 5000)))
        self.assertRaises(UnknownName, lookup.find, "dc2.ntm.example")


@define(eq=False)
class FakeLink:
    """A link that answers."""

    closed: Deferred[Any] = field(factory=Deferred)
    asked: list[Message] = field(factory=list)
    answer: Message = field(factory=LinkAcknowledgement)

    async def request(self, message: Message) -> Message:
        self.asked.append(message)
        return self.answer


@define(eq=False)
class FakeLinks:
    """Gives one link, or fails."""

    current: FakeLink | None = None

    async def link(self, domain: str) -> FakeLink:
        if self.current is None:
            raise Unreachable(f"{domain} is not there")
        return self.current


class RegistrationTests(SynchronousTestCase):
    """Staying registered."""

    def setUp(self) -> None:
        self.clock, self.links, self.link = ExactClock(), FakeLinks(), FakeLink()
        self.free: list[Any] = [1000]
        self.registration = Registration(
            DC1, SERVER, cast(CoordinatorLinks, self.links), self.tell_free, self.clock
        )

    def tell_free(self) -> Deferred[int]:
        """How much room there is."""
        if isinstance(self.free[0], Exception):
            raise self.free[0]
        return succeed(self.free[0])

    def test_registered(self) -> None:
        """It registers at once, and tells from time to time how much room there is."""
        self.links.current = self.link
        self.registration.start()
        self.assertEqual(self.link.asked, [CacheRegistration(SERVER, 1000)])
        self.free[0] = 1 << 60
        self.clock.advance(INTERVAL)
        self.assertEqual(self.link.asked[1:], [CacheRegistration(SERVER, (1 << 50) - 1)])

    def test_not_there(self) -> None:
        """A coordinator that is not there, or does not take it, is tried again."""
        self.registration.start()
        self.clock.advance(RETRY)
        self.links.current = self.link
        self.link.answer = CacheRegistration(SERVER, 0)
        self.clock.advance(RETRY)
        self.link.answer = LinkAcknowledgement()
        self.clock.advance(RETRY)
        self.assertEqual(len(self.link.asked), 2)
        self.flushLoggedErrors()

    def test_lost(self) -> None:
        """A coordinator that was restarted hears of it soon."""
        self.links.current = self.link
        self.registration.start()
        self.links.current = another = FakeLink()
        self.link.closed.callback(None)
        self.clock.advance(RETRY)
        self.assertEqual(another.asked, [CacheRegistration(SERVER, 1000)])

    def test_storage_fails(self) -> None:
        """A storage that does not tell its room is asked again."""
        self.links.current = self.link
        self.free[0] = StorageFailed("locked")
        self.registration.start()
        self.free[0] = 5
        self.clock.advance(RETRY)
        self.assertEqual(self.link.asked, [CacheRegistration(SERVER, 5)])

    def test_stopped(self) -> None:
        """After its end nothing is left behind, not even by a link that goes later."""
        self.links.current = self.link
        self.registration.start()
        self.registration.stop()
        self.link.closed.callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])
