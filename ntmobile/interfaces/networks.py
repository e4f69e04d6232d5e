# ruff: noqa: N805  (methods of an interface have no self)
"""What a client is attached to, and how it hears of changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from zope.interface import Attribute, Interface


@frozen
class Way:
    """A default route of one family, and the interface that it leads through.

    :ivar family: 4 or 6. :ivar index: the interface's index, as IP_PKTINFO takes it (ip(7)).
    :ivar interface: its name. :ivar addresses: its usable numeric addresses of the family.
    """

    family: int
    index: int
    interface: str
    addresses: tuple[str, ...]


@frozen
class LocalNetworks:
    """What a client is attached to at a moment.

    :ivar addresses: its usable numeric addresses, IPv4 and IPv6: no loopback, link-local,
        tentative, deprecated or multicast ones, and none of the virtual network's own devices.
    :ivar networks: the networks it is in, such as ``192.168.1.0/24`` or ``2001:db8::/64``.
    :ivar routes: families (4, 6) that have a default route.
    :ivar gateways: numeric addresses of the default gateways (R17: never candidates).
    :ivar ways: default routes, in each family the one that the system prefers first; empty where
        the system does not tell.
    """

    addresses: tuple[str, ...]
    networks: tuple[str, ...] = ()
    routes: frozenset[int] = frozenset()
    gateways: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()


class INetworkWatcher(Interface):
    """Notices changes of the client's own addresses and routes."""

    def start(changed: Callable[[LocalNetworks], None]) -> LocalNetworks:
        """Begin to watch.

        :param changed: called in the reactor's thread soon after a change that makes a difference,
            bursts of changes joined.
        :return: what there is now.
        """

    def stop() -> None:
        """Watch no more."""


class INetworkWatcherProvider(Interface):
    """A plugin that makes an :class:`INetworkWatcher` from a client's ``[watch]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``netlink``")

    def configure(section: Mapping[str, object], reactor: object) -> INetworkWatcher:
        """Make a watcher.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        :raises NotPermittedHere: this system has not what it needs.
        """
