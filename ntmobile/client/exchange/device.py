"""What sending and receiving share: the device, its servers, and whom it trusts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from ntmobile.client.exchange.asking import Session, SignedServer, cache_server, coordinator
from ntmobile.client.exchange.store import ExchangeStore
from ntmobile.client.pins import PinStore
from ntmobile.errors import UntrustedIdentity
from ntmobile.machines.exchange.signing import Signer
from ntmobile.machines.identities import Devices
from ntmobile.wire import names
from ntmobile.wire.messages.fields import Address


@frozen
class Device:
    """This device; see :class:`~ntmobile.client.exchange.exchange.Exchange`."""

    reactor: Any
    session: Callable[[], Session]
    store: ExchangeStore
    pins: PinStore
    ask_devices: Callable[[str], Awaitable[Devices]] | None
    wall: Callable[[], float]

    def now(self) -> float:
        """Unix seconds by the AS's clock (R12)."""
        return self.wall() + self.session().time_offset

    @property
    def signer(self) -> Signer:
        """Signs what this device sends."""
        identity = self.session().identity
        return Signer(identity.fqdn, identity.certificate.der, identity.keys.identity)

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[SignedServer]:
        """The own DC."""
        server = coordinator(self.reactor, self.session(), self.now)
        try:
            yield server
        finally:
            await server.close()

    @asynccontextmanager
    async def cache(self, name: str, places: Sequence[Address]) -> AsyncIterator[SignedServer]:
        """A CS."""
        server = cache_server(self.reactor, self.session(), name, places, self.now)
        try:
            yield server
        finally:
            await server.close()

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
