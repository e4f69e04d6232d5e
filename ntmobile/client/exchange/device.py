"""What sending and receiving share: the device, its servers, and whom it trusts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from ntmobile.client.exchange.asking import Session, SignedServer, cache_server, coordinator
from ntmobile.client.exchange.spool import Spool
from ntmobile.client.exchange.store import ExchangeStore
from ntmobile.client.pins import PinStore
from ntmobile.errors import UntrustedIdentity
from ntmobile.machines.exchange.signing import Signer
from ntmobile.machines.login.identities import Devices
from ntmobile.wire import names
from ntmobile.wire.messages.exchange import CacheServer
from ntmobile.wire.messages.fields import Address

#: Servers to which connections are kept.
MOST_KEPT: Final = 16


@define(eq=False)
class Device:
    """This device; see :class:`~ntmobile.client.exchange.exchange.Exchange`.

    :ivar tell: tells listeners what happened.
    :ivar caches: the own DC's cache servers, and the reactor's seconds when it named them.
    :ivar lasting: connections to servers are kept from one use to the next.
    """

    reactor: Any
    session: Callable[[], Session]
    store: ExchangeStore
    spool: Spool
    pins: PinStore
    ask_devices: Callable[[str], Awaitable[Devices]] | None
    wall: Callable[[], float]
    tell: Callable[[object], None]
    lasting: bool = False
    caches: tuple[float, tuple[CacheServer, ...]] | None = None
    _kept: dict[object, SignedServer] = field(factory=dict, init=False)
    _open: set[SignedServer] = field(factory=set, init=False)
    _of: Session | None = field(default=None, init=False)

    def now(self) -> float:
        """Unix seconds by the AS's clock (R12)."""
        return self.wall() + self.session().time_offset

    @property
    def signer(self) -> Signer:
        """Signs what this device sends."""
        identity = self.session().identity
        return Signer(identity.fqdn, identity.certificate.der, identity.keys.identity)

    def in_thread(self, call: Callable[[], object]) -> Deferred[object]:
        """Do what waits for the disk, while others run."""
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call)

    # -- servers

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[SignedServer]:
        """The own DC."""
        session = self.session()
        server = await self._server(
            session, (), lambda: coordinator(self.reactor, session, self.now)
        )
        try:
            yield server
        finally:
            await self._used(server)

    @asynccontextmanager
    async def cache(self, name: str, places: Sequence[Address]) -> AsyncIterator[SignedServer]:
        """A CS."""
        session = self.session()
        server = await self._server(
            session,
            (name, *places),
            lambda: cache_server(self.reactor, session, name, places, self.now),
        )
        try:
            yield server
        finally:
            await self._used(server)

    async def _server(
        self, session: Session, key: object, make: Callable[[], SignedServer]
    ) -> SignedServer:
        if self._of is not session:
            await self.close()
            self._of = session
        found = self._kept.get(key)
        if found is None:
            found = make()
            self._open.add(found)
            if self.lasting:
                self._kept[key] = found
                if len(self._kept) > MOST_KEPT:
                    await self._close(self._kept.pop(next(iter(self._kept))))
        return found

    def network_changed(self) -> None:
        """Connections from the former network lead nowhere: go on with new ones."""
        self.caches = None
        for server in list(self._open):
            server.abort()

    async def end(self) -> None:
        """The device goes down."""
        self.lasting = False
        for server in list(self._open):
            server.end()
        await self.close()

    async def _used(self, server: SignedServer) -> None:
        if not any(one is server for one in self._kept.values()):
            await self._close(server)

    async def _close(self, server: SignedServer) -> None:
        self._open.discard(server)
        await server.close()

    async def close(self) -> None:
        """Close the connections that are kept."""
        kept, self._kept = list(self._kept.values()), {}
        for server in kept:
            await self._close(server)

    # -- correspondents

    async def pin(self, der: bytes, fqdn: str) -> bytes:
        """The identity of a correspondent, by the pin; at first contact it is pinned (R5, R29).

        What is stored outlives certificates, so their validity in time is not looked at.

        :param der: the certificate that came with it.
        :raises UntrustedIdentity: another identity is pinned, and has not signed this one.
        :raises AuthenticationError: the certificate is another's, or of no trusted authority.
        """
        certificate = self.session().identity.trust.verify_device(der, None)
        if certificate.fqdn != fqdn:
            raise UntrustedIdentity(f"what is said to be from {fqdn} is of {certificate.fqdn}")
        try:
            self.pins.check(certificate)
        except UntrustedIdentity:
            if self.ask_devices is None:
                raise
            self.pins.learn(await self.ask_devices(names.user_of(fqdn)))
            self.pins.check(certificate)
        return certificate.identity
