"""Opening a node from a state directory: for the agent, and for programs that embed one.

::

    node = await open_node(Path("state"))
    socket = node.listen_datagram(5000, lambda payload, source, port: print(payload))
    peer = await node.resolve("phone.alice.dc1.ntm.example")
    socket.send(b"hello", str(peer.ipv6), 5000)
    await node.stop()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ntmobile.client.devices import ask_devices
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import LoginResult, find_coordinator, log_in
from ntmobile.client.node import Node
from ntmobile.client.pins import PinStore
from ntmobile.client.settings import DeviceSettings, load_settings
from ntmobile.client.state import PINS
from ntmobile.errors import NotRegistered
from ntmobile.interfaces import INetworkWatcher, INetworkWatcherProvider
from ntmobile.machines.identities import Devices
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

    async def devices(user: str) -> Devices:
        registration = node.registering.registration
        if registration is None:
            raise NotRegistered("no session with the coordinator")
        addresses = await find_coordinator(reactor, identity.domain, settings.account.dc)
        session = registration.session.index, registration.session.key
        at = node.registering.unix_time()
        trust = node.directing.trust
        return await ask_devices(reactor, addresses, identity.domain, trust, session, user, at)

    node = Node(
        reactor=reactor,
        certificate=identity.certificate,
        x25519=identity.keys.x25519.private_bytes_raw(),
        sign=identity.sign,
        trust=identity.trust,
        pins=PinStore(state / PINS),
        log_in=_logging_in(identity, settings, reactor),
        watcher=watcher,
        settings=settings.node,
        ask_devices=devices,
    )
    return node


def _logging_in(
    identity: DeviceIdentity, settings: DeviceSettings, reactor: Any
) -> Callable[[], Deferred[LoginResult]]:
    """Log in with the latest certificate, wherever the DC is now."""
    latest = identity

    async def attempt() -> LoginResult:
        nonlocal latest
        addresses = await find_coordinator(reactor, latest.domain, settings.account.dc)
        result = await log_in(reactor, latest, addresses)
        latest = result.identity
        return result

    return lambda: Deferred.fromCoroutine(attempt())


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
