"""The ``netns`` attachment: a virtual network in a namespace of its own, without root.

The default on Linux. In a client's configuration::

    [attachment]
    plugin = "netns"

The namespace and the programs in it outlive the agent; the next agent of the same state directory
goes on with them. See :mod:`ntmobile.plugins.netns`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NotRegistered, NTMobileError
from ntmobile.interfaces import (
    AttachmentTraffic,
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.plugins.attach_options import parse_routes, reject_unknown
from ntmobile.plugins.netns.channel import Channel
from ntmobile.plugins.netns.spawn import start
from ntmobile.plugins.tun_device import TunDevice


@implementer(IAttachment, IReadDescriptor)
class NetnsAttachment:
    """A conversation with the process in the namespace, and its TUN device."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        channel: Channel,
        routes: tuple[str, ...],
        addresses: VirtualAddresses,
        receive: Callable[[bytes], None],
        lost: Callable[[NTMobileError], None],
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._routes = list(dict.fromkeys([addresses.ipv4_pool, *routes]))
        self._addresses = addresses
        self._lost = lost
        _, [descriptor] = channel.request("attach")
        self._device = TunDevice(reactor, descriptor, receive, self._fail)
        try:
            self._configure()
        except BaseException:
            self._device.close()
            raise
        reactor.addReader(self)

    @property
    def traffic(self) -> AttachmentTraffic:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        return self._device.traffic

    def send(self, packet: bytes) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._device.send(packet)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        _, [descriptor] = self._channel.request(
            "socket", family=int(family), type=int(kind), protocol=int(protocol)
        )
        made = socket.socket(fileno=descriptor)
        made.setblocking(False)
        return made

    def readdress(self, addresses: VirtualAddresses) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._addresses = addresses
        self._configure()

    def add_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        if network not in self._routes:
            self._routes.append(network)
            self._configure()

    def remove_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        if network in self._routes:
            self._routes.remove(network)
            self._configure()

    def close(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: the namespace and programs stay."""
        self._device.close()
        if self._channel.fileno() >= 0:
            self._reactor.removeReader(self)
            self._channel.close()

    def shutdown(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: ends the process in the namespace."""
        try:
            self._channel.request("shutdown")
        finally:
            self.close()

    def _configure(self) -> None:
        addresses = self._addresses
        self._channel.request(
            "configure",
            addresses=[f"{addresses.ipv6}/{addresses.ipv6_prefix}", f"{addresses.ipv4}/32"],
            routes=self._routes,
            mtu=addresses.mtu,
        )

    def _fail(self, problem: NTMobileError) -> None:
        self.close()
        self._lost(problem)

    # The channel is silent between requests: readable means that the other end has gone.

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        self._fail(
            NTMobileError(
                "the process that keeps the virtual network has ended; programs inside have lost "
                "their network: start them again after ntm down and ntm up"
            )
        )

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``: the reactor ends."""
        self.close()

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "netns"


@implementer(IAttachmentFactory)
class NetnsAttachmentFactory:
    """Opens the virtual network of a state directory, and makes it where there is none."""

    def __init__(self, reactor: Any, routes: tuple[str, ...]) -> None:
        self._reactor = reactor
        self._routes = routes

    def open(
        self,
        addresses: VirtualAddresses,
        state: Path,
        receive: Callable[[bytes], None],
        lost: Callable[[NTMobileError], None],
    ) -> Deferred[IAttachment]:
        """See :class:`~ntmobile.interfaces.IAttachmentFactory`."""

        async def opened() -> IAttachment:
            os.makedirs(state, 0o700, exist_ok=True)
            try:
                channel = Channel.connect(state)
            except NotRegistered:
                await start(self._reactor, state)
                channel = Channel.connect(state)
            try:
                return NetnsAttachment(
                    IReactorFDSet(self._reactor), channel, self._routes, addresses, receive, lost
                )
            except BaseException:
                channel.close()
                raise

        return Deferred.fromCoroutine(opened())


@implementer(IPlugin, IAttachmentProvider)
class NetnsProvider:
    """Makes a :class:`NetnsAttachmentFactory`; its one key is ``routes``."""

    name = "netns"

    def configure(self, section: Mapping[str, object], reactor: object) -> IAttachmentFactory:
        """See :class:`~ntmobile.interfaces.IAttachmentProvider`."""
        reject_unknown(section, ("routes",))
        return NetnsAttachmentFactory(reactor, parse_routes(section))


netnsAttachment = NetnsProvider()
