"""A platform with a cache server, and what waits for its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred

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
