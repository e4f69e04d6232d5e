"""A whole platform in this very process, on loopback: AS, DCs, RS and nodes over real sockets."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ntmobile.client.account import Account
from ntmobile.client.identity import DeviceIdentity, home_authority
from ntmobile.client.login import enroll
from ntmobile.client.node import Node
from ntmobile.client.opening import open_node
from ntmobile.client.state import SETTINGS
from ntmobile.servers.account import AccountServer
from ntmobile.servers.configuration import load_account_server, load_coordinator, load_relay
from ntmobile.servers.coordinator import CoordinatorService
from ntmobile.servers.passwords import hash_password
from ntmobile.servers.realm import Realm
from ntmobile.servers.relay import RelayService

HOST = "127.0.0.1"
PASSWORD = "a password of some length"
#: Domains of the two coordinators.
DC1, DC2 = "dc1.ntm.example", "dc2.ntm.example"


#: Ports below those that the system gives to anybody, a block of its own for each process of tests.
_PORTS = itertools.cycle(range(10000 + os.getpid() % 100 * 220, 10220 + os.getpid() % 100 * 220))


def free_port() -> int:
    """A port that is free for UDP and TCP now, and that no other process of tests will take."""
    for port in itertools.islice(_PORTS, 220):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind((HOST, port))
                datagram.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@define(eq=False)
class Platform:
    """A realm's servers and nodes; see :meth:`PlatformTestCase.platform`.

    :ivar services: by name, ``as``, ``dc1``, ``dc2``, ``rs1``.
    """

    directory: Path
    realm: Realm
    ports: dict[str, int]
    services: dict[str, Any] = field(factory=dict)
    nodes: list[Node] = field(factory=list)
    extra: dict[str, int] = field(factory=dict)

    def start(self, name: str) -> Any:
        """Start one server from its configuration, as after a restart."""
        service: Any
        if name == "as":
            service = AccountServer(load_account_server(self.directory / "as.toml"), reactor)
        elif name.startswith("dc"):
            file = self.directory / f"{name}.{self.realm.domain}" / "dc.toml"
            service = CoordinatorService(load_coordinator(file), reactor)
        else:
            service = RelayService(load_relay(self.directory / "relays" / f"{name}.toml"), reactor)
        service.startService()
        self.services[name] = service
        return service

    async def stop(self, name: str) -> None:
        """Stop one server."""
        await maybeDeferred(self.services.pop(name).stopService)

    async def enroll(
        self, account: str, device: str, former: DeviceIdentity | None = None, **settings: str
    ) -> Path:
        """Make a device; ``settings`` are lines for its ``node.toml``.

        One of that name is replaced; ``former`` is its identity, where it is still there.
        """
        number = len(list((self.directory / "devices").glob("*")))
        state = self.directory / "devices" / f"{number}.{device}.{account}"
        domain = account.partition("@")[2]
        port = self.ports[domain.partition(".")[0]]
        parsed = Account.parse(account, device, (HOST, port))
        bundle = (self.directory / "ca.pem").read_bytes()
        trust = home_authority(bundle, domain, "ca.pem")
        await enroll(reactor, state, parsed, trust, PASSWORD, former=former, replace=True)
        lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
        text = parsed.to_toml().decode() + lines + '[watch]\nplugin = "poll"\n'
        (state / SETTINGS).write_text(text, encoding="utf-8")
        return state

    async def node(self, account: str, device: str, **settings: str) -> Node:
        """Make a device and open its node, registered."""
        return await self.open(await self.enroll(account, device, None, **settings))

    async def open(self, state: Path) -> Node:
        """Open the node of a state directory."""
        node = await open_node(state, reactor)
        self.nodes.append(node)
        return node

    async def close(self) -> None:
        """Stop all."""
        for node in self.nodes:
            await node.stop()
        for name in list(self.services):
            await self.stop(name)


def realm_ports() -> dict[str, int]:
    """Free ports for a realm's servers."""
    return {name: free_port() for name in ("as", "dc1", "dc2", "rs1")}


def coordinators(domain: str, ports: dict[str, int]) -> str:
    """The lines of a static lookup for a realm's coordinators."""
    return "".join(f'"{dc}.{domain}" = ["{HOST}:{ports[dc]}"]\n' for dc in ("dc1", "dc2"))


def make_realm(
    directory: Path, domain: str, users: tuple[str, ...], others: str = "", ports: Any = None
) -> Platform:
    """A realm with two coordinators, one relay, and users; nothing runs yet.

    :param others: lines for the static lookup of coordinators elsewhere.
    """
    ports = ports or realm_ports()
    realm = Realm.create(directory, domain, [HOST], ports["as"])
    table = coordinators(domain, ports) + others
    for dc in ("dc1", "dc2"):
        realm.add_coordinator(f"{dc}.{domain}", [HOST], ports[dc], free_port())
        file = directory / f"{dc}.{domain}" / "dc.toml"
        text = file.read_text(encoding="utf-8")
        static = f'[lookup]\nplugin = "static"\n[lookup.coordinators]\n{table}'
        file.write_text(text.replace('[lookup]\nplugin = "dns"\n', static), encoding="utf-8")
    realm.add_relay("rs1", f"dc1.{domain}", [HOST], ports["rs1"])
    store = realm.accounts()
    try:
        for user in users:
            label, _, home = user.partition("@")
            store.add_user(f"{label}.{home}", hash_password(PASSWORD))
    finally:
        store.close()
    return Platform(directory, realm, ports)


class PlatformTestCase(TestCase):
    """Tests against a whole platform in this process."""

    timeout = 60

    def place(self) -> Path:
        """A directory that is not there yet, for a realm."""
        directory = Path(self.mktemp()).resolve()
        directory.parent.mkdir(parents=True, exist_ok=True)
        return directory

    async def platform(self, domain: str = "ntm.example") -> Platform:
        """A running platform with the users alice (dc1) and bob (dc2)."""
        users = (f"alice@dc1.{domain}", f"bob@dc2.{domain}")
        platform = make_realm(self.place(), domain, users)
        await self.run_platform(platform)
        return platform

    async def run_platform(self, platform: Platform) -> None:
        """Start all servers of a realm, and stop them after the test."""
        for name in ("as", "dc1", "dc2", "rs1"):
            platform.start(name)
        self.addCleanup(lambda: Deferred.fromCoroutine(platform.close()))
        await self.eventually(
            lambda: (
                platform.services["dc1"].account_server.link is not None
                and platform.services["dc2"].account_server.link is not None
                and bool(platform.services["dc1"].relays.registry.relays)
            ),
            "the servers are linked",
        )

    async def eventually(
        self, condition: Callable[[], bool], what: str, timeout: float = 20.0
    ) -> None:
        """Wait until something is so, and no longer than ``timeout`` seconds."""
        deadline = reactor.seconds() + timeout
        while not condition():
            if reactor.seconds() > deadline:
                self.fail(f"not within {timeout:g} s: {what}")
            await deferLater(reactor, 0.01, lambda: None)

    async def assertRaises_(
        self, kinds: type[Exception] | tuple[type[Exception], ...], awaitable: Awaitable[object]
    ) -> Exception:
        """The exception of that kind, or one of those kinds, that an awaitable raises."""
        try:
            await awaitable
        except kinds as problem:
            return problem
        raise self.failureException(f"none of {kinds}")
