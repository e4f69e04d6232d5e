"""A realm's AS and DCs on a virtual internet, for the tests of logging in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.account import Account
from ntmobile.client.identity import DeviceIdentity, home_authority
from ntmobile.client.login import Enrolled, LoginResult, enroll, log_in, log_out
from ntmobile.interfaces import Device
from ntmobile.protocols.link import Link
from ntmobile.protocols.login import LoginDesk
from ntmobile.protocols.tls import (
    client_context_factory,
    connection_of,
    peer_identity,
    server_context_factory,
)
from ntmobile.servers.account import AccountServer
from ntmobile.servers.account_link import AccountLink
from ntmobile.servers.configuration import load_account_server, load_coordinator
from ntmobile.servers.realm import Realm
from ntmobile.testing import Host, VirtualInternet
from ntmobile.testing.tls import run_tls_in
from ntmobile.wire import virtual
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import Revoked
from ntmobile.wire.messages.fields import Endpoint

_T = TypeVar("_T")

AS_ADDRESS, DC1_ADDRESS, DC2_ADDRESS = "203.0.113.10", "203.0.113.11", "203.0.113.12"
DC1, DC2 = "dc1.ntm.example", "dc2.ntm.example"
PASSWORD = "correct horse battery"


class LoginCoordinator:
    """The part of a DC that logs clients in; tests make malicious ones of it.

    :ivar admitted: certificate, session key and lifetime of each session.
    :ivar revoked: whom the AS revoked. :ivar leases: seconds of each lease.
    """

    def __init__(self, realm: Path, domain: str, host: Host) -> None:
        self.host = host
        self.domain = domain
        self.configuration = load_coordinator(realm / domain / "dc.toml")
        self.trust = self.configuration.identity.trust()
        self.credentials = self.configuration.identity.credentials()
        self.wall: Callable[[], float] = time.time
        self.admitted: list[tuple[DeviceCertificate, bytes, float]] = []
        self.revoked: list[Revoked] = []
        self.leases: list[float] = []
        self.links: list[Link] = []
        self.account_server = self.link_to_account_server(0)
        self.desk = self.make_desk()

    def make_desk(self) -> LoginDesk:
        return LoginDesk(
            account_link=lambda: self.account_server.link,
            assign=self.assign,
            admit=self.admit,
            endpoints=lambda: (Endpoint.of((self.host.address(), 4330)),),
            trust=self.trust,
            unix_time=lambda: self.wall(),
            domain=self.domain,
            clock=self.host.reactor,
        )

    def link_to_account_server(self, sequence: int) -> AccountLink:
        key, chain = self.credentials.key, self.credentials.chain
        realm = self.configuration.realm
        server = self.configuration.account_server
        return AccountLink(
            self.host.reactor,
            [(server.addresses[0], server.port)],
            client_context_factory(key, chain, self.trust, "as", realm),
            identity,
            cast(LoginDesk, self),
            lambda seconds, _: self.leases.append(seconds),
            self.revoked.append,
            sequence,
        )

    def start(self) -> None:
        tls = server_context_factory(
            self.credentials.key,
            self.credentials.chain,
            self.trust,
            peer_roles=("dc",),
            require_peer=False,
        )
        plain = Factory.forProtocol(self.accept)
        factory: Any = TLSMemoryBIOFactory(tls, False, plain)
        self.host.reactor.listenTCP(4330, factory)
        self.account_server.start()

    def stop(self) -> None:
        self.account_server.stop()
        for link in self.links:
            link.close()

    def accept(self) -> Link:
        link = Link(self.host.reactor, self.client_asked, identity)
        link.ready.addErrback(lambda _: None)
        link.closed.addCallback(lambda _: self.desk.client_gone(link))
        self.links.append(link)
        return link

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        return await self.desk.client_asked(message, link)

    async def account_server_asked(self, message: Message) -> Message | None:
        return await self.desk.account_server_asked(message)

    def account_server_lost(self) -> None:
        self.desk.account_server_lost()

    def assign(self, user: str, device: str) -> tuple[str, IPv6Address, IPv4Address]:
        fqdn = f"{device}.{user}.{self.domain}"
        ipv4 = virtual.pick_ipv4(virtual.POOL, fqdn, ())
        return fqdn, virtual.address_of(self.domain, fqdn), ipv4

    def admit(self, certificate: DeviceCertificate, key: bytes, lifetime: float) -> bytes:
        self.admitted.append((certificate, key, lifetime))
        return os.urandom(8)


def identity(transport: ITransport) -> tuple[str, str] | None:
    """Who is at the other end."""
    return peer_identity(connection_of(transport))


class LoginTestCase(SynchronousTestCase):
    """A realm with an AS, the DC of dc1, and alice, whose phone is not enrolled yet."""

    make_coordinator: Callable[[Path, str, Host], LoginCoordinator] = LoginCoordinator

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        run_tls_in(self.internet, self)
        root = Path(mkdtemp(dir=self.mktemp_directory()))
        self.realm = Realm.create(root / "realm", "ntm.example", [AS_ADDRESS], 4335)
        self.realm.add_coordinator(DC1, [DC1_ADDRESS])
        self.realm.add_coordinator(DC2, [DC2_ADDRESS])
        self.root = root
        self.wall: Callable[[], float] = time.time
        self.as_host = self.internet.host("as", AS_ADDRESS)
        self.server = self.start_account_server()
        self.dc = self.start_coordinator(DC1, "dc1", DC1_ADDRESS)
        self.phone = self.internet.host("phone", "203.0.113.50")
        self.add_user("alice")
        self.trust = home_authority((self.realm.directory / "ca.pem").read_bytes(), DC1, "ca.pem")
        self.internet.run_until(lambda: bool(self.dc.leases))

    def mktemp_directory(self) -> str:
        path = FilePath(self.mktemp())
        path.makedirs()
        return str(path.path)

    def start_account_server(self) -> AccountServer:
        configuration = load_account_server(self.realm.directory / "as.toml")
        reactor = self.as_host.reactor
        server = AccountServer(
            configuration, reactor, reactor.getThreadPool(), wall=lambda: self.wall()
        )
        # The work factor of Argon2 is the subject of tests/test_passwords.py.
        server.registrar.verify = lambda stored, password: stored == f"plain:{password}"
        server.startService()
        self.addCleanup(lambda: server.running and server.stopService())
        return server

    def start_coordinator(self, domain: str, name: str, address: str) -> LoginCoordinator:
        host = self.internet.host(name, address)
        dc = type(self).make_coordinator(self.realm.directory, domain, host)
        dc.start()
        self.addCleanup(dc.stop)
        return dc

    def add_user(self, user: str, domain: str = DC1) -> None:
        self.server.store.add_user(f"{user}.{domain}", f"plain:{PASSWORD}")

    def device(self, fqdn: str) -> Device:
        """What the AS knows of a device that is enrolled."""
        device: Device | None = self.server.store.device(fqdn)
        assert device is not None, f"{fqdn} is not enrolled"
        return device

    def result(self, of: Deferred[_T] | Coroutine[Deferred[Any], Any, _T]) -> _T:
        return self.internet.result(of, limit=200.0)

    def enroll(
        self,
        device: str = "phone",
        *,
        user: str = "alice",
        domain: str = DC1,
        address: str = DC1_ADDRESS,
        state: str = "",
        password: str = PASSWORD,
        **more: Any,
    ) -> Enrolled:
        account = Account(user, domain, device, (address, 4330))
        directory = self.root / (state or device)
        return self.result(
            enroll(self.phone.reactor, directory, account, self.trust, password, **more)
        )

    def log_in(self, identity: DeviceIdentity, **more: Any) -> LoginResult:
        return self.result(log_in(self.phone.reactor, identity, [(DC1_ADDRESS, 4330)], **more))

    def log_out(self, identity: DeviceIdentity) -> None:
        self.result(log_out(self.phone.reactor, identity, [(DC1_ADDRESS, 4330)]))
