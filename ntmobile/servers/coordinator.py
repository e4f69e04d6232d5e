"""The direction coordinator as a service: sockets, links and stores around its domain.

One TCP port serves clients that log in, other DCs and the DC's own RSs; one UDP port the clients'
signalling; another the DNS function. The DC itself dials its AS.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Awaitable
from ipaddress import ip_address
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.interfaces import (
    ICoordinatorLookup,
    ICoordinatorLookupProvider,
    ILocationStore,
    ILocationStoreProvider,
    INotifier,
    INotifierProvider,
)
from ntmobile.machines.signalling.table import SessionTable
from ntmobile.machines.zone import Zone
from ntmobile.plugins import find
from ntmobile.protocols import naming
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.coordination import CoordinatorLinks
from ntmobile.protocols.identity import IdentityDesk
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.login import LoginDesk
from ntmobile.protocols.naming_transports import NamingPorts
from ntmobile.protocols.signalling import Signalling
from ntmobile.protocols.tls import (
    NTM_PROTOCOL,
    client_context_factory,
    server_context_factory,
)
from ntmobile.servers.account_link import AccountLink
from ntmobile.servers.assignment import Assignments
from ntmobile.servers.configuration import CoordinatorConfiguration
from ntmobile.servers.domain import BATCH, TICK, Domain
from ntmobile.servers.incoming import IncomingLinks
from ntmobile.servers.lasting import LastingProblem
from ntmobile.servers.listening import listen_signalling, listen_tcp
from ntmobile.servers.naming import DomainNames
from ntmobile.servers.relays import Relays
from ntmobile.servers.stored_data import StoredData
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import IdentityRequest, Revoked
from ntmobile.wire.messages.coordination import RelayDirection
from ntmobile.wire.messages.fields import Endpoint

log = Logger()

#: Locations are written behind by so many seconds.
WRITE_BEHIND: Final = 1.0
#: From so many clients on, the garbage collector is spared those that were restored.
MANY: Final = 1000


class CoordinatorService(Service):
    """``twistd ntm-dc``.

    :param reactor: provides time, UDP, TCP and threads.
    :raises ConfigurationError: a file or plugin named in the configuration is wrong.
    """

    def __init__(self, configuration: CoordinatorConfiguration, reactor: Any) -> None:
        self.configuration = configuration
        self._reactor = reactor
        self._trust = configuration.identity.trust()
        self._credentials = configuration.identity.credentials()
        self._offset = 0.0
        self._written_sequence = -1
        self._storing = LastingProblem("storing locations", reactor)
        self.account_server: AccountLink
        self._ports: list[Any] = []
        self._incoming = IncomingLinks(reactor, self._make_link)
        self._ticking: list[LoopingCall] = []
        self._store = self._open_store()
        domain = configuration.domain
        self.assignments = Assignments(domain, configuration.pool, self._store)
        self.relays = Relays(domain, reactor)
        self.coordinators = CoordinatorLinks(
            reactor,
            self._open_lookup(),
            lambda peer: self._client_tls("dc", peer),
            self._peer_asked,
            lambda peer: verify_peer(("dc", peer)),
        )
        self.domain = Domain(
            domain,
            self._trust,
            self.relays.registry,
            self,
            self._open_notifier(),
            reactor,
            self.unix_time,
            configuration.allow,
            os.urandom,
            (int(configuration.keepalive[0]), int(configuration.keepalive[1])),
        )
        self.signalling = Signalling(reactor, SessionTable(os.urandom), self.domain.tell)
        self.domain.signalling = self.signalling
        self.stored_data = StoredData.make(
            configuration, self.domain, self.ask_coordinator, reactor
        )
        self.desk = LoginDesk(
            account_link=lambda: self.account_server.link,
            assign=self.assignments.assign,
            admit=self.domain.admit,
            endpoints=self._endpoints,
            trust=self._trust,
            unix_time=self.unix_time,
            domain=domain,
            clock=reactor,
        )
        self.identities = IdentityDesk(
            domain=domain,
            account_link=lambda: self.account_server.link,
            session=self.domain.session,
            ask_coordinator=self.ask_coordinator,
            clock=reactor,
            trust=self._trust,
        )
        server = configuration.account_server
        self.account_server = AccountLink(
            reactor,
            [(host, server.port) for host in server.addresses],
            self._client_tls("as", server.name),
            verify_peer(("as", server.name)),
            self.desk,
            self._leased,
            self._revoked,
            self._store.sequence(),
        )

    def unix_time(self) -> float:
        """Unix seconds by the AS's clock, once it was heard (R12)."""
        return time.time() + self._offset

    # -- plugins

    def _open_store(self) -> ILocationStore:
        name, section = self.configuration.locations
        provider: ILocationStoreProvider = find(ILocationStoreProvider, name)
        return provider.configure(section, str(self.configuration.state), self._reactor)

    def _open_lookup(self) -> ICoordinatorLookup:
        name, section = self.configuration.lookup
        provider: ICoordinatorLookupProvider = find(ICoordinatorLookupProvider, name)
        return provider.configure(section, self._reactor)

    def _open_notifier(self) -> INotifier:
        name, section = self.configuration.notify
        provider: INotifierProvider = find(INotifierProvider, name)
        return provider.configure(section, self._reactor)

    def _client_tls(self, role: str, name: str) -> IOpenSSLClientConnectionCreator:
        key, chain = self._credentials.key, self._credentials.chain
        return client_context_factory(key, chain, self._trust, role, name, clock=self.unix_time)

    # -- service

    def startService(self) -> None:
        """Listen, restore the clients, dial the AS.

        :raises ConfigurationError: a port is not free.
        """
        Service.startService(self)
        self.stored_data.start()
        for stored in self._store.load():
            self.domain.restore(stored)
        if len(self.domain.clients) >= MANY:
            # What was restored stays, so that it need not be looked through for garbage again and
            # again: with 100 000 clients everybody would wait for half a second each time.
            gc.collect()
            gc.freeze()
        log.info(
            "{domain}: {count} clients restored",
            domain=self.domain.name,
            count=len(self.domain.clients),
        )
        listening = self.configuration.listening
        factory = self._tcp_factory()
        for host in listening.listen:
            port = self.signalling.port(ipv6=":" in host)
            self._ports.append(listen_signalling(self._reactor, listening.port, port, host))
            self._ports.append(listen_tcp(self._reactor, listening.port, factory, host))
            self._ports.append(self._listen_dns(host))
        self._tick(TICK, self._every_second)
        self._tick(WRITE_BEHIND, self._write)
        self.account_server.start()
        log.info("serving {domain}", domain=self.domain.name)

    def _listen_dns(self, host: str) -> Any:
        zone = Zone(
            self.domain.name,
            DomainNames(self.domain.clients, self.assignments),
            tuple(ip_address(one) for one in self.configuration.listening.addresses),
            udp_port=self.configuration.listening.port,
            tcp_port=self.configuration.listening.port,
            networks=self.configuration.dns_networks,
        )
        server = naming.NameServer(zone, self._reactor)
        return naming.listen(self._reactor, server, host, self.configuration.dns_port)

    def _tcp_factory(self) -> Factory[Any]:
        tls = server_context_factory(
            self._credentials.key,
            self._credentials.chain,
            self._trust,
            peer_roles=("dc", "rs", "cs"),
            foreign_roles=("dc", "cs"),
            require_peer=False,
            alpn=(NTM_PROTOCOL, HTTP_PROTOCOL),
            clock=self.unix_time,
        )
        return self._incoming.factory(tls, self.stored_data.api)

    def _make_link(self) -> Link:
        verify = verify_peer(("dc", None), ("rs", None), ("cs", None), optional=True)
        link = Link(self._reactor, self._link_asked, verify)
        link.ready.addErrback(lambda failure: None)  # the link itself has logged why
        link.closed.addCallback(lambda _: self.desk.client_gone(link))
        return link

    def _tick(self, seconds: float, call: Any) -> None:
        async def guarded() -> None:
            try:
                await _maybe(call())
            except Exception:  # a task that fails once goes on the next time
                log.failure("a periodic task failed")

        loop = LoopingCall(guarded)
        loop.clock = self._reactor
        loop.start(seconds, now=False)
        self._ticking.append(loop)

    async def _stop(self) -> None:
        try:
            await self._close_all()
        finally:
            self.stored_data.stop()
            await self._store.close()

    async def _close_all(self) -> None:
        for loop in self._ticking:
            if loop.running:
                loop.stop()
        self._ticking.clear()
        for port in self._ports:
            if isinstance(port, NamingPorts):
                await port.stop()
            else:
                await _maybe(port.stopListening())
        self._ports.clear()
        self._incoming.close()
        self.signalling.stop()
        self.coordinators.close()
        await _maybe(self.account_server.stop())
        await self.domain.notifier.close()
        await self._write()

    def stopService(self) -> Deferred[None]:
        """Stop listening, write what is left, close the links."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    # -- what the domain needs of the world (servers.outside.Outside)

    async def ask_coordinator(
        self, domain: str, message: Message, then: str | None = None
    ) -> Message:
        """Send a request to another domain's DC; ``then``: who may be asked after it."""
        return await self.coordinators.request(domain, message, then=then)

    async def direct_relay(
        self, relay: str, message: RelayDirection, devices: tuple[str, str]
    ) -> Message:
        """Send a request to one of our RSs; ``devices``: the two ends of the tunnel."""
        return await self.relays.direct(relay, message, devices)

    def end_relays(self, device: str) -> None:
        """Have our RSs forget the tunnels of a device (R34)."""
        self.relays.end(device)

    # -- what comes in

    async def _link_asked(self, message: Message, link: Link) -> Message | None:
        if link.peer is None:
            if self.identities.takes(message):
                return await self.identities.client_asked(message, link)
            return await self.desk.client_asked(message, link)
        if link.peer[0] == "rs":
            return await self.relays.asked(message, link)
        if link.peer[0] == "cs":
            return await self.stored_data.cache_asked(message, link)
        return await self._peer_asked(message, link)

    async def _peer_asked(self, message: Message, link: Link) -> Message | None:
        if link.peer is None or link.peer[0] != "dc":
            raise AuthenticationError("only coordinators ask this")
        if isinstance(message, IdentityRequest):
            return await self.identities.coordinator_asked(link.peer[1], message)
        if self.stored_data.takes(message):
            return await self.stored_data.coordinator_asked(link.peer[1], message)
        return self.domain.coordinator_asked(link.peer[1], message)

    def _leased(self, seconds: float, unix_time: float) -> None:
        self._offset = unix_time - time.time()
        self.domain.lease_until = self._reactor.seconds() + seconds

    def _revoked(self, revoked: Revoked) -> None:
        self.domain.revoke(revoked.fqdn, revoked.serial)
        self.stored_data.revoked(revoked)

    def _endpoints(self) -> tuple[Endpoint, ...]:
        listening = self.configuration.listening
        return tuple(Endpoint.of((host, listening.port)) for host in listening.addresses)

    # -- every second

    def _every_second(self) -> None:
        self.domain.tick()
        self.relays.tick()
        self.stored_data.tick()
        self.coordinators.close_idle()

    async def _write(self) -> None:
        """Write what has changed until now, in batches, between which clients are served.

        What was revoked is in the first one, with the sequence up to which it was (R34).
        """
        left, sequence = len(self.domain.changed), self.account_server.sequence
        if not left and not self.domain.removed and sequence == self._written_sequence:
            return
        while True:
            changed, removed = self.domain.drain_changes()
            try:
                await self.stored_data.note()
                await self._store.write(changed, removed, sequence)
            except NTMobileError as problem:
                self._storing.failed(problem)
                self.domain.changed.update(one.fqdn for one in changed)
                self.domain.removed.update(removed)
                return
            self._written_sequence = sequence
            self._storing.succeeded()
            left -= BATCH
            if left <= 0:
                return


async def _maybe(result: Any) -> None:
    if isinstance(result, Awaitable):
        await result
