"""The account server: the only holder of authentication data, for all DCs of a realm (paper, V-A).

DCs dial it over mutual TLS. It answers the logins that they relay, tells them who is revoked, and
signs the lists of devices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import AuthenticationError, ConfigurationError
from ntmobile.interfaces import IAccountStore, IAccountStoreProvider
from ntmobile.plugins import find
from ntmobile.plugins.files import read_file
from ntmobile.protocols.accounts import AccountDesk
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.link import Link
from ntmobile.protocols.tls import (
    client_context_factory,
    connection_of,
    peer_identity,
    server_context_factory,
)
from ntmobile.servers.configuration import AccountServerConfiguration
from ntmobile.servers.credentials import load_signer
from ntmobile.servers.identities import DeviceLists
from ntmobile.servers.incoming import IncomingLinks
from ntmobile.servers.listening import listen_tcp
from ntmobile.servers.registrar import AccountRegistrar
from ntmobile.servers.revocations import ChangeFeed
from ntmobile.servers.token_push import TokenPush
from ntmobile.servers.trusted import check_told, trusted_realms
from ntmobile.servers.workers import Workers
from ntmobile.wire import names
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    ChangesRequest,
    IdentityRequest,
    LoginData,
)

log = Logger()


class AccountServer(Service):
    """The AS of one realm.

    :param reactor: provides TCP, time and threads.
    :param pool: for tests, what stands in for threads. :param wall: unix seconds.
    :raises ConfigurationError: a file or plugin named in the configuration is wrong.
    """

    def __init__(
        self,
        configuration: AccountServerConfiguration,
        reactor: Any,
        pool: Any = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.configuration = configuration
        self._wall = wall
        self._reactor = reactor
        credentials = configuration.identity.credentials()
        trust = configuration.identity.trust()
        signer = load_signer(configuration.device_ca_certificate, configuration.device_ca_key)
        if signer.certificate not in trust.authorities[trust.home].device_cas:
            raise ConfigurationError(
                f"{configuration.device_ca_certificate}: not in the trust bundle "
                f"{configuration.identity.bundle}; devices would not be believed"
            )
        bundle = read_file(configuration.identity.bundle)
        trusted = trusted_realms(trust)
        check_told(bundle, trusted)
        name, section = configuration.store
        provider: IAccountStoreProvider = find(IAccountStoreProvider, name)
        self.store: IAccountStore = provider.open(section, configuration.file.parent, make=False)
        self._storage = Workers(reactor, 1, "accounts", pool=pool)
        self._hashing = Workers(reactor, os.cpu_count() or 1, "passwords", pool=pool)
        self.feed = ChangeFeed(
            self.store, self._storage, configuration.lease, self.unix_time, reactor
        )
        self.lists = DeviceLists(self.store, self._storage, signer, self.unix_time)
        self.registrar = AccountRegistrar(
            self.store,
            signer,
            trust,
            bundle,
            trusted,
            configuration.device_certificate_lifetime,
            self._storage,
            self._hashing,
            self.unix_time,
            reactor,
            self._changed,
        )
        key, chain = credentials.key, credentials.chain
        self.tokens = TokenPush(
            self.store, self._storage, configuration.lease, self.unix_time, reactor
        )
        for place in configuration.caches:
            tls = client_context_factory(
                key,
                chain,
                trust,
                "cs",
                place.name,
                alpn=(HTTP_PROTOCOL,),
                clock=self.unix_time,
            )
            self.tokens.add(place, tls)
        self._outer_tls = server_context_factory(
            key, chain, trust, peer_roles=("dc",), clock=self.unix_time
        )
        self._inner_tls = server_context_factory(key, chain, trust, peer_roles=())
        self._ports: list[IListeningPort] = []
        self._incoming = IncomingLinks(reactor, self._make_link)
        self._desks: dict[Link, AccountDesk] = {}

    def unix_time(self) -> float:
        """The realm's time: this machine's wall clock (R12)."""
        return self._wall()

    def _changed(self) -> None:
        """This AS itself changed something: tell it now, not with the next look."""
        self.feed.poll()
        self.tokens.poll()

    # -- service

    def startService(self) -> None:
        """Listen for DCs.

        :raises ConfigurationError: a port is not free.
        """
        Service.startService(self)
        listening = self.configuration.listening
        factory = self._incoming.factory(self._outer_tls)
        for host in listening.listen:
            self._ports.append(listen_tcp(self._reactor, listening.port, factory, host))
        self._storage.start()
        self._hashing.start()
        self.feed.start()
        self.tokens.start()
        log.info("account server of {realm}", realm=self.configuration.realm)

    def stopService(self) -> Deferred[None]:
        """Stop listening, close the links, end what is under way."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.feed.stop()
        await self.tokens.stop()
        stopping = [port.stopListening() for port in self._ports]
        self._ports.clear()
        await DeferredList([each for each in stopping if isinstance(each, Deferred)])
        self._incoming.close()
        self._hashing.stop()
        self._storage.stop()
        self.store.close()

    # -- links

    def _make_link(self) -> Link:
        link = Link(self._reactor, self._asked, _coordinator)
        link.ready.addCallbacks(self._stands, self._refused, errbackArgs=(link,))
        link.closed.addCallback(lambda _: self._gone(link))
        return link

    def _refused(self, failure: Failure, link: Link) -> None:
        peer = None if link.transport is None else link.transport.getPeer()
        log.warn(
            "refused a connection from {host}: {problem}",
            host=getattr(peer, "host", "nowhere"),
            problem=failure.getErrorMessage(),
        )

    def _stands(self, link: Link) -> None:
        if link.peer is None:
            return
        domain = link.peer[1]
        self._desks[link] = AccountDesk(
            domain, link, self._inner_tls, self.registrar, self._reactor
        )
        self.feed.add(link, domain)
        log.info("linked to the coordinator of {domain}", domain=domain)

    def _gone(self, link: Link) -> None:
        desk = self._desks.pop(link, None)
        self.feed.remove(link)
        if desk is not None:
            desk.close()
            log.info("lost the coordinator of {domain}", domain=desk.domain)

    async def _asked(self, message: Message, link: Link) -> Message | None:
        """A request of a DC: for its own domain only (R1)."""
        desk = self._desks.get(link)
        if desk is None:
            raise AuthenticationError("no coordinator asks on this link")
        match message:
            case LoginData():
                desk.take(message)
                return None
            case ChangesRequest(since):
                return await self.feed.missed(since, desk.domain)
            case IdentityRequest(name):
                return await self.lists.of(_user_in(name, desk.domain))
            case _:
                raise AuthenticationError("not a request that a coordinator makes")


def _coordinator(transport: ITransport) -> tuple[str, str]:
    """The verified identity of a peer; TLS has admitted DCs of this realm only (R1)."""
    identity = peer_identity(connection_of(transport))
    if identity is None or identity[0] != "dc":
        raise AuthenticationError("only coordinators link to an account server")
    return identity


def _user_in(name: str, domain: str) -> str:
    """The user that a name stands for, itself or its device, in a DC's own domain (R1)."""
    if names.is_user_of(name, domain):
        return name
    if names.is_device_of(name, domain):
        return names.user_of(name)
    raise AuthenticationError(f"the coordinator of {domain} does not speak for {name}")
