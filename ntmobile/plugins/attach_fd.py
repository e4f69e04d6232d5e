"""The ``fd`` attachment: a TUN descriptor that the caller has (VpnService, a packet tunnel).

In an application::

    factory = FdAttachmentFactory(reactor, descriptor)

and in the configuration of a client whose parent hands a descriptor down::

    [attachment]
    plugin = "fd"
    descriptor = 3

The device must deliver plain IP packets, one a read (``IFF_TUN | IFF_NO_PI``), and who made it has
given it the client's virtual addresses, MTU and routes. With ``IFF_VNET_HDR`` as well, packets of
up to 64 KiB are exchanged, which is many times as fast.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorFDSet
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, NotPermittedHere
from ntmobile.interfaces import (
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.plugins.attach_device import DeviceAttachment, Lost, Receive
from ntmobile.plugins.section import reject_unknown
from ntmobile.plugins.tun_device import TunDevice


@implementer(IAttachment)
class FdAttachment(DeviceAttachment):
    """Carries packets over a copy of the caller's descriptor."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        descriptor: int,
        addresses: VirtualAddresses,
        receive: Receive,
        lost: Lost,
    ) -> None:
        try:
            if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                raise ConfigurationError(f"descriptor {descriptor} is no TUN device")
            own = os.dup(descriptor)
        except OSError as problem:
            raise ConfigurationError(f"descriptor {descriptor}: {problem.strerror}") from problem
        self._addresses = addresses
        super().__init__(TunDevice(reactor, own, receive, lost))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`~ntmobile.interfaces.IAttachment`: the caller's system routes any socket."""
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    def readdress(self, addresses: VirtualAddresses) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`.

        :raises NotPermittedHere: they are others; the caller must make a new device for them.
        """
        if addresses != self._addresses:
            raise NotPermittedHere(
                f"the virtual addresses are now {addresses.ipv6} and {addresses.ipv4}; give them "
                "to a new device, and its descriptor to a new attachment"
            )

    def add_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: routes are the caller's."""

    def remove_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: routes are the caller's."""

    def close(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`; the caller's descriptor stays open."""
        self._device.close()

    def shutdown(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self.close()


@implementer(IAttachmentFactory)
class FdAttachmentFactory:
    """Attaches to a given TUN descriptor, of which it uses a copy."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def open(
        self, addresses: VirtualAddresses, state: Path, receive: Receive, lost: Lost
    ) -> Deferred[IAttachment]:
        """See :class:`~ntmobile.interfaces.IAttachmentFactory`; the state directory is not used."""
        reactor = IReactorFDSet(self._reactor)
        return execute(FdAttachment, reactor, self._descriptor, addresses, receive, lost)


@implementer(IPlugin, IAttachmentProvider)
class FdProvider:
    """Makes an :class:`FdAttachmentFactory`; its one key is ``descriptor``."""

    name = "fd"

    def configure(self, section: Mapping[str, object], reactor: object) -> FdAttachmentFactory:
        """See :class:`~ntmobile.interfaces.IAttachmentProvider`."""
        reject_unknown("attachment", section, ("descriptor",))
        descriptor = section.get("descriptor")
        if type(descriptor) is not int or descriptor < 0:
            raise ConfigurationError("attachment.descriptor must be the number of a descriptor")
        return FdAttachmentFactory(reactor, descriptor)


fdAttachment = FdProvider()
