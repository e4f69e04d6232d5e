"""Opening a node from a state directory: for the agent, and for programs that embed one.

::

    node = await open_node(Path("state"))
    await node.exchange.send(["laptop.bob.dc2.ntm.example"], b"read me later", application="mail")
    socket = node.listen_datagram(5000, lambda payload, source, port: print(payload))
    peer = await node.resolve("phone.alice.dc1.ntm.example")
    socket.send(b"hello", str(peer.ipv6), 5000)
    await node.stop()
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from ntmobile.client.devices import ask_devices
from ntmobile.client.exchange import Exchange, ExchangeStore, Session
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import LoginResult, find_coordinator, log_in
from ntmobile.client.node import Node
from ntmobile.client.pins import PinStore
from ntmobile.client.settings import DeviceSettings, load_settings
from ntmobile.client.state import PINS
from ntmobile.errors import NotRegistered
from ntmobile.interfaces import INetworkWatcher, INetworkWatcherProvider
from ntmobile.machines.login.identities import Devices
from ntmobile.plugins import find

#: Seconds that :func:`open_node` waits for the coordinator.
REGISTER_TIMEOUT = 30.0


def make_node(state: Path, settings: DeviceSettings, reactor: Any) -> Node:
    """The node of a state directory, not started.

    :raises NotRegistered: no device is enrolled there.
    :raises ConfigurationError: a file there is wrong.
    """
    identity = DeviceIdentity.load(state)
    name, section = settings.watch
    watching: INetworkWatcherProvider = find(INetworkWatcherProvider, name)
    watcher: INetworkWatcher = watching.configure(section, reactor)

    logins = Logins(reactor, settings, identity)
    pins, store = PinStore(state / PINS), ExchangeStore(state)
    store.adopt(identity.keys.identity.public_key().public_bytes_raw())

    async def devices(user: str) -> Devices:
        session = logins.session()
        known = session.index, session.key
        at, trust = node.registering.unix_time(), node.directing.trust
        domain = identity.domain
        return await ask_devices(reactor, session.coordinator, domain, trust, known, user, at)

    node = Node(
        reactor=reactor,
        certificate=identity.certificate,
        x25519=identity.keys.x25519.private_bytes_raw(),
        sign=identity.sign,
        trust=identity.trust,
        pins=pins,
        log_in=lambda: Deferred.fromCoroutine(logins.log_in()),
        watcher=watcher,
        settings=settings.node,
        ask_devices=devices,
        exchange=Exchange(
            reactor,
            logins.session,
            store,
            pins,
            devices,
            lambda event: node.tell(event),
        ),
    )
    return node


@define(eq=False)
class Logins:
    """Logs in with the latest certificate, wherever the DC is now, and knows the last session."""

    reactor: Any
    settings: DeviceSettings
    identity: DeviceIdentity
    _session: Session | None = field(default=None, init=False, repr=False)

    async def log_in(self) -> LoginResult:
        """Log in; raises as :func:`ntmobile.client.login.log_in` does."""
        domain = self.identity.domain
        addresses = await find_coordinator(self.reactor, domain, self.settings.account.dc)
        result = await log_in(self.reactor, self.identity, addresses)
        self.identity = result.identity
        self._session = Session.of(result, addresses)
        return result

    def session(self) -> Session:
        """What the last login gave. :raises NotRegistered: there was none."""
        if self._session is None:
            raise NotRegistered("no session with the coordinator yet; see ntm status")
        return self._session


async def open_node(state: Path, reactor: Any = None, *, timeout: float = REGISTER_TIMEOUT) -> Node:
    """Open the node of an enrolled device inside this program, and wait until it is registered.

    The device's agent must not run at the same time: the newer session would end the older.

    :raises NotRegistered: no device is enrolled there.
    :raises Unreachable: the coordinator did not answer in ``timeout`` seconds.
    """
    if reactor is None:
        from twisted.internet import reactor
    node = make_node(state, load_settings(state), reactor)
    node.start()
    try:
        await node.when_registered(timeout)
    except BaseException:
        await node.stop()
        raise
    return node
