"""What a DC has for stored data, put together: store, desk, own cache servers, HTTP API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Final

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NotRegistered, NTMobileError
from ntmobile.interfaces import IWaitingStore, IWaitingStoreProvider
from ntmobile.machines.direction.records import Notify
from ntmobile.machines.exchange.desk import ExchangeDesk
from ntmobile.plugins import find
from ntmobile.protocols.http_limits import Limits
from ntmobile.protocols.http_openapi import with_document
from ntmobile.protocols.http_server import HttpApi
from ntmobile.protocols.http_tracing import traced
from ntmobile.protocols.link import Link
from ntmobile.servers.caches import Caches
from ntmobile.servers.configuration import CoordinatorConfiguration
from ntmobile.servers.coordinator_web import LINES, CoordinatorWeb
from ntmobile.servers.descriptors import connections
from ntmobile.servers.domain import BATCH, Domain
from ntmobile.servers.exchange import EXPIRY_INTERVAL, Exchange, revoked_of
from ntmobile.servers.prekeys import PreKeys
from ntmobile.servers.storing import known_device
from ntmobile.servers.workers import Workers
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import Revoked
from ntmobile.wire.messages.exchange import (
    CacheRegistration,
    PreKeyRequest,
    TemporalKeyTransferRequest,
)
from ntmobile.wire.messages.realtime import NotificationRequest

log = Logger()

#: Calls of the store that may wait for its thread.
QUEUE: Final = 4096


@define(eq=False)
class StoredData:
    """The part of a DC that serves stored data.

    :ivar api: what the DC's TLS port serves by HTTP.
    """

    domain: Domain
    store: IWaitingStore
    workers: Workers
    exchange: Exchange
    prekeys: PreKeys
    caches: Caches
    web: CoordinatorWeb
    api: HttpApi
    _next_expiry: float = field(default=0.0, init=False)
    _expiring: bool = field(default=False, init=False)

    @classmethod
    def make(
        cls,
        configuration: CoordinatorConfiguration,
        domain: Domain,
        ask: Callable[[str, Message], Awaitable[Message]],
        reactor: Any,
    ) -> StoredData:
        """Put it together.

        :param ask: sends a request to the DC of another domain.
        :raises ConfigurationError: the store cannot be opened.
        """
        name, section = configuration.waiting
        provider: IWaitingStoreProvider = find(IWaitingStoreProvider, name)
        store = provider.configure(section, str(configuration.state))
        workers = Workers(reactor, 1, "waiting", QUEUE)

        def tell(request: NotificationRequest) -> None:
            domain.perform([Notify(request)])

        def accepts() -> bool:
            return bool(reactor.seconds() <= domain.lease_until)

        def certificate(fqdn: str) -> DeviceCertificate:
            client = domain.clients.find(fqdn)
            if client is None:
                raise NotRegistered("the session has ended meanwhile; log in again")
            return client.certificate

        desk = ExchangeDesk(domain.name, domain.clients, domain.trust)
        exchange = Exchange(desk, store, workers, ask, tell, accepts, domain.unix_time, reactor)
        caches, prekeys = Caches(domain.name), PreKeys(exchange)
        web = CoordinatorWeb(
            exchange,
            prekeys,
            caches,
            domain.session,
            certificate,
            accepts,
            domain.unix_time,
            reactor,
        )
        title = f"Coordinator of {domain.name}"
        routes = traced(web.table(), domain.name)
        table, everybody = with_document(routes, title, LINES)
        default = Limits()
        most = connections(default.connections, 2)
        limits = evolve(default, connections=most, per_address=min(most, default.per_address))
        api = HttpApi(table, {**web.access(), **everybody}, reactor, limits, configuration.state)
        return cls(domain, store, workers, exchange, prekeys, caches, web, api)

    def start(self) -> None:
        """Let the store's thread be made."""
        self.workers.start()
        self.domain.came_back = self._came_back

    def _came_back(self, fqdn: str) -> None:
        reminding = Deferred.fromCoroutine(self.exchange.came_back(fqdn))
        reminding.addErrback(lambda failure: failure.trap(NTMobileError))

    def stop(self) -> None:
        """End connections and thread, close the store."""
        self.api.close()
        self.workers.stop()
        self.store.close()

    # -- from other servers

    def takes(self, message: Message) -> bool:
        """Whether a request of another DC is about stored data."""
        return isinstance(message, TemporalKeyTransferRequest | PreKeyRequest)

    async def coordinator_asked(self, domain: str, message: Message) -> Message:
        """A request of the DC of ``domain``, which its certificate has proven."""
        match message:
            case TemporalKeyTransferRequest():
                return await self.exchange.transferred(domain, message)
            case PreKeyRequest():
                return await self.prekeys.asked(domain, message)
            case _:
                raise AuthenticationError("not a request that a coordinator makes")

    async def cache_asked(self, message: Message, link: Link) -> Message:
        """A request of a cache server, of this domain or another."""
        assert link.peer is not None
        if isinstance(message, CacheRegistration):
            return self.caches.registered(message, link)
        return await self.exchange.cache_asked(link.peer[1], message)

    # -- its devices

    def revoked(self, revoked: Revoked) -> None:
        """A certificate, or a device, holds no more (R34); done with the next :meth:`note`."""
        self.exchange.revoked.append(revoked)

    async def note(self) -> None:
        """Record devices that have another certificate or policy, and forget the revoked.

        :raises NTMobileError: nothing of it was recorded; it is done the next time.
        """
        revoked, renewed = list(self.exchange.revoked), list(islice(self.domain.renewed, BATCH))
        if not renewed and not revoked:
            return
        self.domain.renewed.difference_update(renewed)
        try:
            gone = await self._gone(revoked)
            clients = [self.domain.clients.find(fqdn) for fqdn in renewed]
            devices = [known_device(one) for one in clients if one is not None]
            await self.exchange.note(devices, gone)
        except BaseException:
            self.domain.renewed.update(renewed)
            raise
        del self.exchange.revoked[: len(revoked)]

    async def _gone(self, revoked: Sequence[Revoked]) -> list[str]:
        """Those of the revoked whose present certificate it is that holds no more."""
        if not revoked:
            return []
        fqdns = [one.fqdn for one in revoked]
        known = await self.workers.run(self.store.devices, fqdns)
        return sorted(revoked_of(known, revoked))

    def tick(self) -> None:
        """Every second; what has expired is erased once a minute (R31)."""
        now = self.domain.clock.seconds()
        if now < self._next_expiry or self._expiring or not self.exchange.accepts():
            return  # without the AS's time a clock that is wrong would have everything over (R12)
        self._next_expiry, self._expiring = now + EXPIRY_INTERVAL, True
        self.web.tick()
        Deferred.fromCoroutine(self._expire())

    async def _expire(self) -> None:
        try:
            await self.exchange.tick()
        except NTMobileError as problem:
            log.warn("what has expired was not erased: {problem}", problem=str(problem))
        except Exception:
            log.failure("erasing what has expired failed")
        finally:
            self._expiring = False
