"""The cache server as a service: HTTPS port, storage, and links to coordinators."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.interfaces import (
    ICacheStorage,
    ICacheStorageProvider,
    ICoordinatorLookup,
    ICoordinatorLookupProvider,
)
from ntmobile.plugins import find
from ntmobile.plugins.files import make_directory
from ntmobile.protocols.bulk_tls import BulkTLSFactory
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.caching.api import Cache
from ntmobile.protocols.coordination import CoordinatorLinks
from ntmobile.protocols.http_limits import Limits
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.tls import client_context_factory, server_context_factory
from ntmobile.servers.cache_configuration import CacheConfiguration
from ntmobile.servers.cache_registration import OwnFirst, Registration
from ntmobile.servers.descriptors import connections
from ntmobile.servers.listening import listen_tcp
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.exchange import CacheServer
from ntmobile.wire.messages.fields import Endpoint

log = Logger()

#: Seconds between two removals of what is over, between two looks at idle links, and until a
#: storage that could not be opened is tried again.
EXPIRY: Final = 60.0
LINKS: Final = 5.0
REOPEN: Final = 10.0
#: Seconds in which a coordinator answers an exchange request.
ANSWER: Final = 5.0


class CacheService(Service):
    """``twistd ntm-cache``.

    :ivar cache: what it serves. :ivar api: what it listens with.
    :raises ConfigurationError: a file or plugin named in the configuration is wrong.
    """

    def __init__(self, configuration: CacheConfiguration, reactor: Any) -> None:
        self.configuration = configuration
        self._reactor = reactor
        self._trust = configuration.identity.trust()
        self._credentials = configuration.identity.credentials()
        self._ports: list[Any] = []
        self._ticking: list[LoopingCall] = []
        self._opening: Deferred[None] | None = None
        self._storage = self._make_storage()
        listening = configuration.listening
        server = CacheServer(
            configuration.name,
            tuple(Endpoint.of((host, listening.port)) for host in listening.addresses),
        )
        lookup = OwnFirst(configuration.coordinator, self._open_lookup())
        self.coordinators = CoordinatorLinks(
            reactor,
            lookup,
            self._client_tls,
            self._asked,
            lambda domain: verify_peer(("dc", domain)),
        )
        self.cache = Cache(
            server,
            configuration.realm,
            self._storage,
            self._trust,
            lambda domain, message: self.coordinators.request(domain, message, ANSWER),
            reactor,
            time.time,
            self._offload,
            configuration.largest,
            configuration.requests,
        )
        # One connection may also need a file for a body.
        most = connections(configuration.connections, 2)
        if most < configuration.connections:
            log.warn(
                "at most {most} connections: the system allows no more open files",
                most=most,
            )
        limits = Limits(connections=most, per_address=max(most // 4, 1))
        self.api = self.cache.api(reactor, limits, configuration.state)
        self._registration = Registration(
            configuration.coordinator.name,
            server,
            self.coordinators,
            self._storage.free,
            reactor,
        )

    # -- What the configuration names

    def _make_storage(self) -> ICacheStorage:
        plugin, section = self.configuration.storage
        provider: ICacheStorageProvider = find(ICacheStorageProvider, plugin)
        make_directory(self.configuration.state)
        storage: ICacheStorage = provider.configure(
            section, str(self.configuration.state), self.configuration.quotas, self._reactor
        )
        return storage

    def _open_lookup(self) -> ICoordinatorLookup:
        plugin, section = self.configuration.lookup
        provider: ICoordinatorLookupProvider = find(ICoordinatorLookupProvider, plugin)
        lookup: ICoordinatorLookup = provider.configure(section, self._reactor)
        return lookup

    def _client_tls(self, domain: str) -> IOpenSSLClientConnectionCreator:
        return client_context_factory(
            self._credentials.key,
            self._credentials.chain,
            self._trust,
            "dc",
            domain,
            clock=self.cache.unix_time,
        )

    def _offload(self, call: Callable[[], bytes]) -> Awaitable[bytes]:
        running: Deferred[bytes] = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), call
        )
        return running

    async def _asked(self, message: Message, link: Link) -> Message | None:
        raise AuthenticationError("a coordinator asks nothing of a cache server")

    # -- Its life

    def startService(self) -> None:
        """Listen, open the storage, and register. :raises ConfigurationError: a port is in use."""
        Service.startService(self)
        listening = self.configuration.listening
        tls = server_context_factory(
            self._credentials.key,
            self._credentials.chain,
            self._trust,
            peer_roles={"as"},
            require_peer=False,
            alpn=(HTTP_PROTOCOL,),
            clock=self.cache.unix_time,
        )
        self.api.serving = False
        for host in listening.listen:
            factory = BulkTLSFactory(tls, False, self.api)
            self._ports.append(listen_tcp(self._reactor, listening.port, factory, host))
        self._opening = Deferred.fromCoroutine(self._open())
        log.info(
            "cache server {name} on TCP port {port} of {hosts}",
            name=self.configuration.name,
            port=listening.port,
            hosts=", ".join(listening.listen),
        )

    async def _open(self) -> None:
        """Open the storage, sooner or later, and begin."""
        while self.running:
            try:
                await self._storage.open()
                break
            except NTMobileError as problem:
                log.error(
                    "the storage cannot be opened, tried again in {seconds} s: {problem}",
                    seconds=int(REOPEN),
                    problem=str(problem),
                )
                await deferLater(self._reactor, REOPEN)
        if not self.running:
            return
        self.api.serving = True
        self.cache.exchanges.start()
        self._registration.start()
        self._every(EXPIRY, self._expire)
        self._every(LINKS, self.coordinators.close_idle)

    def _every(self, seconds: float, call: Callable[[], object]) -> None:
        ticking = LoopingCall(call)
        ticking.clock = self._reactor
        ticking.start(seconds, now=False).addErrback(
            lambda failure: log.failure("a regular call ended", failure)
        )
        self._ticking.append(ticking)

    def _expire(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._remove_expired())

    async def _remove_expired(self) -> None:
        self.cache.access.tick()
        if not self.cache.tokens.heard:
            return  # a clock that is wrong would have everything over (R12)
        try:
            count = await self._storage.expire(self.cache.unix_time(), self.configuration.idle)
        except NTMobileError as problem:
            log.warn("what is over could not be removed: {problem}", problem=str(problem))
        else:
            if count:
                log.info("removed {count} keys and objects that are over", count=count)

    def stopService(self) -> Deferred[None]:
        """Close everything; what is stored stays."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        self._ports.clear()
        for ticking in self._ticking:
            if ticking.running:
                ticking.stop()
        self._registration.stop()
        self.cache.exchanges.stop()
        self.api.close()
        self.coordinators.close()
        await self._storage.close()
