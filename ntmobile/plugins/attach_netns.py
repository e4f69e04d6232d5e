"""The ``netns`` attachment: a virtual network in a namespace of its own, without root.

The default on Linux. In a client's configuration::

    [attachment]
    plugin = "netns"
    # Which networks go there; these are the default.
    routes = ["fd00::/8", "198.18.0.0/15"]

The namespace and the programs in it outlive the agent; the next agent of the same state directory
goes on with them. See :mod:`ntmobile.plugins.netns`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.plugin import IPlugin
from twisted.python import runtime
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NotPermittedHere, NotRegistered, NTMobileError
from ntmobile.interfaces import (
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.plugins.attach_device import Lost, Receive
from ntmobile.plugins.attach_interface import InterfaceAttachment
from ntmobile.plugins.attach_options import parse_routes
from ntmobile.plugins.netns.channel import Channel, ChannelLost, Message
from ntmobile.plugins.netns.spawn import start
from ntmobile.plugins.section import reject_unknown
from ntmobile.plugins.tun_device import TunDevice

_ENDED: Final = (
    "the process that keeps the virtual network has ended, and programs inside have lost their "
    "network; run ntm down and ntm up, and start them again"
)


@implementer(IReadDescriptor)
class Keeper:
    """The process in the namespace, as an agent sees it.

    :param lost: called once if it ends by itself.
    """

    def __init__(self, reactor: IReactorFDSet, channel: Channel, lost: Lost) -> None:
        self._reactor = reactor
        self._channel = channel
        self._lost = lost
        reactor.addReader(self)

    def ask(self, operation: str, **arguments: Any) -> tuple[Message, list[int]]:
        """See :meth:`~ntmobile.plugins.netns.channel.Channel.request`."""
        if self._channel.fileno() < 0:
            raise ChannelLost("the virtual network is closed")
        try:
            return self._channel.request(operation, **arguments)
        except ChannelLost:
            self._fail()
            raise

    def configure(self, addresses: list[str], routes: list[str], mtu: int) -> None:
        """Set the interface inside."""
        self.ask("configure", addresses=addresses, routes=routes, mtu=mtu)

    def close(self) -> None:
        """Leave it alone; may be repeated."""
        if self._channel.fileno() >= 0:
            self._reactor.removeReader(self)
            self._channel.close()

    def _fail(self) -> None:
        self.close()
        self._lost(NTMobileError(_ENDED))

    def doRead(self) -> None:
        """See ``IReadDescriptor``: it is silent between requests, so this is its end."""
        self._fail()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``: the reactor ends, or the descriptor is broken."""
        if self._channel.fileno() >= 0:
            self._fail()

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "netns"


@implementer(IAttachment)
class NetnsAttachment(InterfaceAttachment):
    """The virtual network in the namespace, while an agent has it."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        channel: Channel,
        addresses: VirtualAddresses,
        routes: tuple[str, ...],
        receive: Receive,
        lost: Lost,
    ) -> None:
        self._lost: Lost | None = lost
        self._keeper = Keeper(reactor, channel, self._fail)
        try:
            _, [descriptor] = self._keeper.ask("attach", offload=True)
            device = TunDevice(reactor, descriptor, receive, self._fail)
            try:
                super().__init__(device, self._keeper.configure, addresses, routes)
            except BaseException:
                device.close()
                raise
        except BaseException:
            self._lost = None
            self._keeper.close()
            raise

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        _, [descriptor] = self._keeper.ask(
            "socket", family=int(family), type=int(kind), protocol=int(protocol)
        )
        made = socket.socket(fileno=descriptor)
        made.setblocking(False)
        return made

    def close(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: the namespace and programs stay."""
        self._lost = None
        self._device.close()
        self._keeper.close()

    def shutdown(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: ends the process in the namespace."""
        self._lost = None
        try:
            self._keeper.ask("shutdown")
        finally:
            self.close()

    def _fail(self, problem: NTMobileError) -> None:
        lost = self._lost
        if lost is not None:
            self.close()
            lost(problem)


@implementer(IAttachmentFactory)
class NetnsAttachmentFactory:
    """Opens the virtual network of a state directory, and makes it where there is none."""

    def __init__(self, reactor: Any, routes: tuple[str, ...]) -> None:
        self._reactor = reactor
        self._routes = routes

    def open(
        self, addresses: VirtualAddresses, state: Path, receive: Receive, lost: Lost
    ) -> Deferred[IAttachment]:
        """See :class:`~ntmobile.interfaces.IAttachmentFactory`."""

        async def opened() -> IAttachment:
            if not runtime.platform.isLinux():
                raise NotPermittedHere(
                    "network namespaces exist on Linux only: set attachment.plugin = "
                    '"datagram" in node.toml'
                )
            os.makedirs(state, 0o700, exist_ok=True)
            try:
                channel = Channel.connect(state)
            except NotRegistered:
                await start(self._reactor, state)
                channel = Channel.connect(state)
            return NetnsAttachment(
                IReactorFDSet(self._reactor), channel, addresses, self._routes, receive, lost
            )

        return Deferred.fromCoroutine(opened())


@implementer(IPlugin, IAttachmentProvider)
class NetnsProvider:
    """Makes a :class:`NetnsAttachmentFactory`; its one key is ``routes``."""

    name = "netns"

    def configure(self, section: Mapping[str, object], reactor: object) -> NetnsAttachmentFactory:
        """See :class:`~ntmobile.interfaces.IAttachmentProvider`."""
        reject_unknown("attachment", section, ("routes",))
        return NetnsAttachmentFactory(reactor, parse_routes(section))


netnsAttachment = NetnsProvider()
