"""A platform with a cache server, and what waits for its tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ntmobile.client.devices import ask_devices
from ntmobile.client.exchange import Exchange, ExchangeStore, Session
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import log_in
from ntmobile.client.pins import PinStore
from ntmobile.client.state import PINS
from ntmobile.machines.login.identities import Devices
from ntmobile.servers.cache import CacheService
from ntmobile.servers.cache_configuration import load_cache
from tests.platforms import (
    DC1,
    DC2,
    HOST,
    Platform,
    PlatformTestCase,
    coordinators,
    free_port,
    make_realm,
    realm_ports,
)

#: Two parts.
TEXT = b"nobody between the two reads this. " * 150000


@define(eq=False)
class Stores:
    """Where stored data lives.

    :ivar first: the realm with the cache server, of ``dc1``. :ivar second: the receiver's realm,
        perhaps the same.
    """

    first: Platform
    second: Platform
    file: Path
    cache: Any = field(init=False, default=None)

    def start(self) -> None:
        """Start the cache server, as after a restart."""
        self.cache = CacheService(load_cache(self.file), reactor)
        self.cache.startService()

    async def stop(self) -> None:
        """End it."""
        if self.cache is not None:
            service, self.cache = self.cache, None
            await service.stopService()


class StoresTestCase(PlatformTestCase):
    """Tests with a cache server."""

    async def stores(self, other: str = "ntm.example", *, running: bool = True) -> Stores:
        """All servers run; alice is of dc1, bob of dc2.

        :param other: the realm of bob.
        """
        ours, theirs, port = realm_ports(), realm_ports(), free_port()
        users = (f"alice@{DC1}", f"bob@{DC2}")
        home = table = coordinators("ntm.example", ours)
        abroad = coordinators(other, theirs) if other != "ntm.example" else ""
        table += abroad
        second = first = make_realm(self.place(), "ntm.example", users, abroad, ours)
        if abroad:
            second = make_realm(self.place(), other, (f"bob@dc2.{other}",), home, theirs)
            first.realm.trust(other, second.directory / "ca.pem")
            second.realm.trust("ntm.example", first.directory / "ca.pem")
            await self.run_platform(second)
        first.realm.add_cache("cs1", DC1, [HOST], port)
        file = first.directory / "caches" / "cs1.toml"
        text = file.read_text(encoding="utf-8")
        static = f'[lookup]\nplugin = "static"\n[lookup.coordinators]\n{table}'
        file.write_text(text.replace('[lookup]\nplugin = "dns"\n', static), encoding="utf-8")
        stores = Stores(first, second, file)
        stores.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(stores.stop()))
        await self.run_platform(first)
        await self.registered(stores)
        return stores

    async def registered(self, stores: Stores) -> None:
        """The coordinator knows the cache server."""
        caches = stores.first.services["dc1"].stored_data.caches
        await self.eventually(lambda: len(caches) == 1, "the cache server registered")

    async def tokens_known(self, stores: Stores) -> None:
        """The cache server knows the tokens of all logins."""
        push = stores.first.services["as"].tokens
        last = stores.first.services["as"].store.last_token_change
        await self.eventually(
            lambda: (
                bool(push.conversations)
                and all(each.known == last() for each in push.conversations)
            ),
            "the cache server knows the tokens",
        )


@define(eq=False)
class Client:
    """A device with its exchange."""

    fqdn: str
    state: Path
    session: Session
    pins: PinStore
    store: ExchangeStore
    exchange: Exchange

    def again(self) -> None:
        """Start anew from the state directory."""
        self.store.close()
        self.store = ExchangeStore(self.state)
        self.exchange = Exchange(reactor, lambda: self.session, self.store, self.pins)


class DevicesTestCase(StoresTestCase):
    """Alice's phone and Bob's laptop with their exchanges, but without nodes."""

    async def start(self, other: str = "ntm.example") -> tuple[Client, Client]:
        """All servers, and both devices, logged in; the laptop has published its pre-key.

        :param other: the laptop's realm.
        """
        self.served = stores = await self.stores(other)
        phone = await self.client(stores.first, f"alice@{DC1}", "phone")
        laptop = await self.client(stores.second, f"bob@dc2.{other}", "laptop")
        await self.be_written_to(laptop)
        return phone, laptop

    async def be_written_to(self, client: Client) -> None:
        """Let a device of dc2 admit Alice's devices, and publish its pre-key."""
        found = self.served.second.services["dc2"].domain.clients.find(client.fqdn)
        found.policy = evolve(found.policy, allow=("*.alice.dc1.ntm.example",))
        await self.tokens_known(self.served)
        await client.exchange.publish()

    async def client(self, platform: Platform, account: str, device: str) -> Client:
        """Enrol a device and log in."""
        state = await platform.enroll(account, device)
        identity = DeviceIdentity.load(state)
        places = [(HOST, platform.ports[account.partition("@")[2].partition(".")[0]])]
        session = Session.of(await log_in(reactor, identity, places), places)
        pins, store = PinStore(state / PINS), ExchangeStore(state)

        async def devices(user: str) -> Devices:
            known = session.index, session.key
            at = time.time()
            domain, trust = identity.domain, identity.trust
            return await ask_devices(reactor, places, domain, trust, known, user, at)

        exchange = Exchange(reactor, lambda: session, store, pins, devices)
        client = Client(identity.fqdn, state, session, pins, store, exchange)
        self.addCleanup(lambda: client.store.close())
        self.addCleanup(pins.close)
        return client

    def letter(self, text: bytes = TEXT) -> Path:
        """A file to send."""
        file = Path(self.mktemp()).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
        return file
