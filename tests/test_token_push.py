"""How the AS tells cache servers of authentication tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AccessDenied, ConfigurationError, Unreachable
from ntmobile.interfaces import TokenChanges
from ntmobile.machines.exchange.tokens import TokenTable
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.http_routes import Answer, Call, Head, Route, Table
from ntmobile.protocols.http_server import HttpApi
from ntmobile.protocols.tls import server_context_factory
from ntmobile.servers.authority import issue_server
from ntmobile.servers.configuration import load_account_server
from ntmobile.servers.credentials import load_signer
from ntmobile.servers.realm import Realm
from ntmobile.servers.token_push import (
    BEAT_LONGEST,
    FUTILE,
    RETRY_LONGEST,
    CacheConversation,
    TokenPush,
)
from ntmobile.wire.documents import read_document, write_document
from ntmobile.wire.messages.exchange import Token, TokenAcknowledgement, TokenUpdate
from tests.platforms import DC1, DC2, HOST, Platform, PlatformTestCase, free_port, make_realm

CACHE = f"cs1.{DC1}"


@define(eq=False)
class FakeCache:
    """A CS as far as tokens go, over real TLS.

    :ivar heard: all updates.
    """

    platform: Platform
    port: int
    table: TokenTable = field(factory=TokenTable)
    heard: list[TokenUpdate] = field(factory=list)
    peers: list[Any] = field(factory=list)
    _listening: Any = None
    _api: Any = None

    def start(self, name: str = CACHE, role: str = "cs") -> None:
        """Listen."""
        trust = self.platform.realm.account_server().identity.trust()
        stem = self.platform.directory / "authority" / "root"
        root = load_signer(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        key = Ed25519PrivateKey.generate()
        certificate = issue_server(root, role, name, key.public_key(), datetime.now(UTC))
        tls = server_context_factory(
            key, [certificate], trust, peer_roles=("as",), alpn=(HTTP_PROTOCOL,)
        )
        route = Route(
            "POST",
            "/v1/tokens",
            "Take tokens",
            "as",
            self._take,
            body=TokenUpdate,
            body_limit=1 << 20,
            answer=TokenAcknowledgement,
        )
        self._api = HttpApi(Table([route]), {"as": self._access}, reactor)
        factory: Any = TLSMemoryBIOFactory(tls, False, self._api)
        self._listening = reactor.listenTCP(self.port, factory, interface=HOST)

    def _access(self, head: Head) -> None:
        self.peers.append(head.peer)
        if head.peer is None or head.peer[0] != "as":
            raise AccessDenied("only the account server")

    async def _take(self, call: Call) -> Answer:
        self.heard.append(call.message)
        self.table.apply(call.message, reactor.seconds())
        return Answer(document=TokenAcknowledgement(self.table.sequence))

    async def stop(self) -> None:
        """Vanish."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
            self._api.close()

    def knows(self, fqdn: str) -> bool:
        """Whether some token of a device holds."""
        return bool(self.table._of_device.get(fqdn))


class PushTests(PlatformTestCase):
    """A platform whose AS knows one cache server."""

    async def start(self) -> tuple[Platform, FakeCache]:
        """It runs; the cache server does not yet."""
        users = (f"alice@{DC1}", f"bob@{DC2}")
        platform = make_realm(self.place(), "ntm.example", users)
        cache = FakeCache(platform, free_port())
        file = platform.directory / "as.toml"
        file.write_text(file.read_text() + f'\n[caches]\n"{CACHE}" = ["{HOST}:{cache.port}"]\n')
        await self.run_platform(platform)
        self.addCleanup(lambda: Deferred.fromCoroutine(cache.stop()))
        return platform, cache

    async def test_changes(self) -> None:
        """R28, R34: a login is told to the CS within a second, and so is its end."""
        platform, cache = await self.start()
        cache.start()
        await self.eventually(lambda: bool(cache.heard), "a first word")
        await platform.enroll(f"alice@{DC1}", "phone")
        fqdn = f"phone.alice.{DC1}"
        await self.eventually(lambda: cache.knows(fqdn), "the token is there", 1.0)
        store = platform.realm.accounts()
        store.set_disabled(f"alice.{DC1}", True, reactor.seconds())
        store.close()
        await self.eventually(lambda: not cache.knows(fqdn), "it is revoked", 1.0)
        self.assertEqual(set(cache.peers), {("as", "ntm.example")})
        self.assertTrue(cache.table.accepts(reactor.seconds()))

    async def test_down(self) -> None:
        """R34: a CS that was down hears of all that happened meanwhile, when it comes back."""
        platform, cache = await self.start()
        await platform.enroll(f"alice@{DC1}", "phone")
        await platform.enroll(f"alice@{DC1}", "tablet")
        cache.start()
        await self.eventually(lambda: cache.knows(f"tablet.alice.{DC1}"), "tokens", 6.0)
        await cache.stop()
        store = platform.realm.accounts()
        store.remove(f"tablet.alice.{DC1}", reactor.seconds())
        store.close()
        await platform.enroll(f"alice@{DC1}", "laptop")
        cache.start()
        await self.eventually(lambda: cache.knows(f"laptop.alice.{DC1}"), "the new one", 7.0)
        self.assertFalse(cache.knows(f"tablet.alice.{DC1}"))
        self.assertTrue(cache.knows(f"phone.alice.{DC1}"))

    async def test_began_anew(self) -> None:
        """A CS that forgot everything, as by a restart, is told all again."""
        platform, cache = await self.start()
        cache.start()
        await platform.enroll(f"alice@{DC1}", "phone")
        await self.eventually(lambda: cache.knows(f"phone.alice.{DC1}"), "the token")
        await cache.stop()
        cache.table = TokenTable()
        cache.start()
        await self.eventually(lambda: cache.knows(f"phone.alice.{DC1}"), "again", 7.0)

    async def test_another(self) -> None:
        """R1: who is not that very cache server hears nothing."""
        platform, cache = await self.start()
        await platform.enroll(f"alice@{DC1}", "phone")
        for name, role in ((f"cs2.{DC1}", "cs"), (CACHE, "rs")):
            cache.start(name, role)
            await self.failures(platform, 2)
            self.assertEqual(cache.heard, [])
            await cache.stop()

    async def failures(self, platform: Platform, count: int) -> None:
        """Wait until the CS was tried in vain so many times more."""
        (conversation,) = platform.services["as"].tokens.conversations
        before = conversation._failures
        await self.eventually(
            lambda: conversation._failures >= before + count, "it was tried in vain", 12.0
        )


@define(eq=False)
class FakeServer:
    """A CS that answers what it is told to.

    :ivar known: the change up to which it knows all. :ivar deaf: it takes no updates.
    """

    known: int = 0
    away: bool = False
    deaf: bool = False
    heard: list[TokenUpdate] = field(factory=list)

    async def ask(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        if self.away:
            raise Unreachable("cs1: no connection")
        update = read_document(TokenUpdate, body)
        self.heard.append(update)
        if not self.deaf and (update.since == 0 or update.since <= self.known):
            self.known = max(self.known, update.sequence) if update.since else update.sequence
        return 200, write_document(TokenAcknowledgement(self.known))

    def close(self) -> Deferred[None]:
        return succeed(None)


class ConversationTests(SynchronousTestCase):
    """One conversation, under a virtual clock."""

    def setUp(self) -> None:
        self.clock, self.server, self.latest = Clock(), FakeServer(), 7
        self.broken = False
        server: Any = self.server  # it does what a real one does
        self.conversation = CacheConversation(
            "cs1",
            server,
            self.update,
            lambda: self.latest,
            BEAT_LONGEST,
            self.clock,
            Random(1),
        )

    def update(self, known: int | None) -> Deferred[TokenUpdate]:
        """What follows a number: at most three things."""
        if self.broken:
            return fail(Unreachable("the store"))
        since = self.latest if known is None else known if known <= self.latest else 0
        up_to = min(self.latest, since + 3)
        tokens = tuple(
            Token(number.to_bytes(16, "big"), "a.b.c.example", bytes(32), 9)
            for number in range(since, up_to)
        )
        return succeed(TokenUpdate(up_to, since, tokens))

    def sinces(self) -> list[tuple[int, int]]:
        """What each update was about, and forget them."""
        heard, self.server.heard = self.server.heard, []
        return [(one.since, one.sequence) for one in heard]

    def test_snapshot(self) -> None:
        """A CS that knows nothing is asked, and then told all, part by part."""
        self.conversation.start()
        self.assertEqual(self.sinces(), [(7, 7), (0, 3), (3, 6), (6, 7)])
        self.assertEqual(self.server.known, 7)

    def test_heartbeat(self) -> None:
        """R34: where nothing changes, a word now and then renews the lease."""
        self.server.known = 7
        self.conversation.start()
        self.sinces()
        self.clock.advance(BEAT_LONGEST - 1)
        self.assertEqual(self.sinces(), [])
        self.clock.advance(1)
        self.assertEqual(self.sinces(), [(7, 7)])

    def test_change(self) -> None:
        """R34: a change is told at once, and nothing but it."""
        self.server.known = 7
        self.conversation.start()
        self.sinces()
        self.latest = 8
        self.conversation.changed()
        self.assertEqual(self.sinces(), [(7, 8)])

    def test_away(self) -> None:
        """A CS that is away is tried again ever more seldom, but every five seconds at least."""
        self.server.away = True
        self.conversation.start()
        for _ in range(100):
            self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.conversation.changed()
        self.server.away, self.server.known = False, 5
        self.clock.advance(RETRY_LONGEST)
        self.assertEqual(self.sinces(), [(7, 7), (5, 7)])
        self.assertEqual(self.server.known, 7)

    def test_put_back(self) -> None:
        """An AS whose database was put back to an earlier state tells all anew."""
        self.server.known = 100
        self.conversation.start()
        self.assertEqual(self.sinces()[:2], [(7, 7), (0, 3)])
        self.assertEqual(self.server.known, 7)

    def test_deaf(self) -> None:
        """A CS that answers, but takes nothing, is left alone for a while."""
        self.server.deaf = True
        self.conversation.start()
        self.assertEqual(len(self.sinces()), FUTILE + 1)
        self.clock.advance(0.1)
        self.assertEqual(self.sinces(), [])
        self.clock.advance(RETRY_LONGEST)
        self.assertGreater(len(self.sinces()), 0)

    def test_store_fails(self) -> None:
        """A store that fails is asked again; the conversation goes on."""
        self.broken = True
        self.conversation.start()
        self.broken = False
        self.clock.advance(RETRY_LONGEST)
        self.assertEqual(self.server.known, 7)

    def test_stopped(self) -> None:
        """After the end nothing is left to be called."""
        self.conversation.start()
        self.successResultOf(Deferred.fromCoroutine(self.conversation.stop()))
        self.conversation.changed()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UpdateTests(SynchronousTestCase):
    """What is in an update."""

    def test_parts(self) -> None:
        """R12, R34: only the last of several parts has a lease; each has the AS's time."""
        store: Any = PartsStore()
        push = TokenPush(store, store, 600.0, lambda: 1234.5, Clock(), 7)
        asked = [self.successResultOf(push._update(known)) for known in (None, 0, 3, 6)]
        found = [(one.since, one.sequence, one.lease, one.time) for one in asked]
        expected = [(7, 7, 600), (0, 3, 0), (3, 6, 0), (6, 7, 600)]
        self.assertEqual(found, [(*each, 1234500) for each in expected])


class PartsStore:
    """Seven changes, told by three; and the thread that it is asked in."""

    async def run(self, call: Any, *args: Any) -> Any:
        return call(*args)

    def token_changes(self, known: int, at: float) -> TokenChanges:
        return TokenChanges(min(7, known + 3), (), ())


class ConfigurationTests(SynchronousTestCase):
    """``[caches]`` of as.toml."""

    def load(self, text: str) -> Any:
        directory = Path(self.mktemp())
        Realm.create(directory, "ntm.example", [HOST], 4335)
        file = directory / "as.toml"
        file.write_text(file.read_text() + text)
        return load_account_server(file).caches

    def test_places(self) -> None:
        """Names with their addresses, IPv4 and IPv6, with a port or the usual one."""
        (found,) = self.load(f'[caches]\n"{CACHE}" = ["192.0.2.1:99", "[2001:db8::1]"]\n')
        self.assertEqual(found.name, CACHE)
        self.assertEqual(found.endpoints, (("192.0.2.1", 99), ("2001:db8::1", 4332)))

    def test_wrong(self) -> None:
        """What is wrong is named: the name, the address, a name without quotes."""
        for text, word in (
            ('"cs1.elsewhere.example" = ["192.0.2.1"]', "not within the realm"),
            (f'"{CACHE}" = ["host"]', "no numeric address"),
            (f'"{CACHE}" = []', "a list such as"),
            (f"{CACHE} = []", "in quotes"),
            ('"CS" = []', "no label"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                self.load(f"[caches]\n{text}\n")
            self.assertIn(word, str(caught.exception))
