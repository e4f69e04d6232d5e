"""What attachments to an interface of the kernel's have in common: addresses and routes."""

from __future__ import annotations

from typing import Protocol

from ntmobile.interfaces import VirtualAddresses
from ntmobile.plugins.attach_device import DeviceAttachment
from ntmobile.plugins.tun_device import TunDevice


class SetInterface(Protocol):
    """Sets what an interface has: addresses with prefix length, routes, and MTU in bytes."""

    def __call__(self, addresses: list[str], routes: list[str], mtu: int) -> None:
        """Do it, or raise :class:`~ntmobile.errors.NTMobileError`."""


class InterfaceAttachment(DeviceAttachment):
    """The part of an :class:`~ntmobile.interfaces.IAttachment` that sets an interface.

    :param device: reads and writes the packets.
    :param configure: sets the interface; used at once.
    :param routes: networks to be reached through it, besides the coordinator's pool.
    """

    def __init__(
        self,
        device: TunDevice,
        configure: SetInterface,
        addresses: VirtualAddresses,
        routes: tuple[str, ...],
    ) -> None:
        super().__init__(device)
        self._configure = configure
        self._addresses = addresses
        self._routes = list(routes)
        self._apply()

    def readdress(self, addresses: VirtualAddresses) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._addresses = addresses
        self._apply()

    def add_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        if network not in self._routes:
            self._routes.append(network)
            self._apply()

    def remove_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        if network in self._routes:
            self._routes.remove(network)
            self._apply()

    def _apply(self) -> None:
        now = self._addresses
        self._configure(
            [f"{now.ipv6}/{now.ipv6_prefix}", f"{now.ipv4}/32"],
            list(dict.fromkeys([now.ipv4_pool, *self._routes])),
            now.mtu,
        )
