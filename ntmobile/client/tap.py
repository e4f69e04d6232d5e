"""``twistd ntm-client``: options and service of the agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.python import usage

from ntmobile.client.agent import Agent
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import LoginResult, find_coordinator, log_in
from ntmobile.client.node import Node
from ntmobile.client.pins import PinStore
from ntmobile.client.settings import DeviceSettings, load_settings
from ntmobile.client.state import PINS, default_state
from ntmobile.interfaces import (
    IAttachmentFactory,
    IAttachmentProvider,
    INetworkWatcher,
    INetworkWatcherProvider,
)
from ntmobile.plugins import find
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time


class Options(usage.Options):
    """Options of the agent."""

    synopsis = "[--state DIR]"
    longdesc = "The agent of an enrolled device; see ntm enroll, and ntm up, which runs it."
    optParameters = [["state", "s", None, "State directory of the device [$NTM_STATE]."]]


def make_node(state: Path, settings: DeviceSettings, reactor: Any) -> Node:
    """The node of a state directory.

    :raises NotRegistered: no device is enrolled there.
    :raises ConfigurationError: a file there is wrong.
    """
    identity = DeviceIdentity.load(state)
    name, section = settings.watch
    watching: INetworkWatcherProvider = find(INetworkWatcherProvider, name)
    watcher: INetworkWatcher = watching.configure(section, reactor)
    return Node(
        reactor=reactor,
        certificate=identity.certificate,
        x25519=identity.keys.x25519.private_bytes_raw(),
        sign=identity.sign,
        trust=identity.trust,
        pins=PinStore(state / PINS),
        log_in=_logging_in(identity, settings, reactor),
        watcher=watcher,
        settings=settings.node,
    )


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


def make_agent(state: Path, reactor: Any) -> Agent:
    """The agent of a state directory. :raises NTMobileError: it cannot be."""
    settings = load_settings(state)
    name, section = settings.attachment
    provider: IAttachmentProvider = find(IAttachmentProvider, name)
    attach: IAttachmentFactory = provider.configure(section, reactor)
    return Agent(reactor, state, make_node(state, settings, reactor), attach, reactor.stop)


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with the device or its settings is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    state = Path(options["state"]) if options["state"] else default_state()
    return Starting("ntm-client", lambda: make_agent(state, reactor))
