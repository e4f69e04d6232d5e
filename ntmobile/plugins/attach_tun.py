"""The ``tun`` attachment: a TUN device on this host, for a client with CAP_NET_ADMIN.

Every program of the host then reaches the virtual network. In a client's configuration::

    [attachment]
    plugin = "tun"
    name = "ntm0"
    routes = ["fd00::/8", "198.18.0.0/15"]

Where the host has a network of its own in one of these, give the prefixes of the coordinators
instead, or the host's own network as a more specific route.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorFDSet
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, NotPermittedHere, NTMobileError
from ntmobile.interfaces import (
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.plugins import linux
from ntmobile.plugins.attach_device import Lost, Receive
from ntmobile.plugins.attach_interface import InterfaceAttachment
from ntmobile.plugins.attach_options import parse_routes
from ntmobile.plugins.section import reject_unknown
from ntmobile.plugins.tun_device import TunDevice
from ntmobile.plugins.tun_interface import TunInterface

DEFAULT_NAME: Final = "ntm0"

#: What Linux takes (15 bytes at most) and shells, sysctl and people can bear.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,15}")

_REFUSALS: Final = (errno.EPERM, errno.EACCES)


@implementer(IAttachment)
class TunAttachment(InterfaceAttachment):
    """A TUN device of the host's, which goes when it is closed."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        name: str,
        addresses: VirtualAddresses,
        routes: tuple[str, ...],
        receive: Receive,
        lost: Lost,
    ) -> None:
        self._name = name
        try:
            descriptor = linux.open_tun(name)
        except OSError as problem:
            raise self._explain(problem) from problem
        self._interface = TunInterface(name)
        device = TunDevice(reactor, descriptor, receive, lost)
        try:
            super().__init__(device, self._set, addresses, routes)
        except BaseException:
            device.close()
            raise

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`~ntmobile.interfaces.IAttachment`: any socket of the host's will do."""
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    def close(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._device.close()

    def shutdown(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self.close()

    def _set(self, addresses: list[str], routes: list[str], mtu: int) -> None:
        try:
            self._interface.configure(addresses, routes, mtu)
        except OSError as problem:
            raise self._explain(problem) from problem

    def _explain(self, problem: OSError) -> NTMobileError:
        if problem.errno in _REFUSALS:
            return NotPermittedHere(
                f"the interface {self._name} is not permitted here ({problem.strerror}): give the "
                'agent CAP_NET_ADMIN, or set attachment.plugin = "netns" or "datagram" in node.toml'
            )
        if isinstance(problem, FileNotFoundError):
            return NotPermittedHere(
                "there is no /dev/net/tun here: load the module tun, or set "
                'attachment.plugin = "datagram" in node.toml'
            )
        if problem.errno == errno.EBUSY:
            return ConfigurationError(
                f"another program has the interface {self._name}; set attachment.name"
            )
        return NTMobileError(f"the interface {self._name}: {problem.strerror}")


@implementer(IAttachmentFactory)
class TunAttachmentFactory:
    """Makes the TUN device."""

    def __init__(self, reactor: Any, name: str, routes: tuple[str, ...]) -> None:
        self._reactor = reactor
        self._name = name
        self._routes = routes

    def open(
        self, addresses: VirtualAddresses, state: Path, receive: Receive, lost: Lost
    ) -> Deferred[IAttachment]:
        """See :class:`~ntmobile.interfaces.IAttachmentFactory`; the state directory is not used."""
        reactor = IReactorFDSet(self._reactor)
        return execute(TunAttachment, reactor, self._name, addresses, self._routes, receive, lost)


@implementer(IPlugin, IAttachmentProvider)
class TunProvider:
    """Makes a :class:`TunAttachmentFactory`; its keys are ``name`` and ``routes``."""

    name = "tun"

    def configure(self, section: Mapping[str, object], reactor: object) -> TunAttachmentFactory:
        """See :class:`~ntmobile.interfaces.IAttachmentProvider`."""
        reject_unknown("attachment", section, ("name", "routes"))
        name = section.get("name", DEFAULT_NAME)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"attachment.name: {name!r} is no name of an interface (up to 15 letters, digits, "
                "- and _)"
            )
        return TunAttachmentFactory(reactor, name, parse_routes(section))


tunAttachment = TunProvider()
