"""The ``netlink`` watcher, the default on Linux: the kernel tells of changes (rtnetlink(7)).

What it tells is a sign to look, a few milliseconds later, so that a burst of changes is one change.
Where an interface in use lost its carrier, an address or its default route meanwhile, that is told
even if all looks the same afterwards: two networks may well give the same private address. A slow
look goes on beside it, should a message be lost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NotPermittedHere
from ntmobile.interfaces import INetworkWatcher, INetworkWatcherProvider, LocalNetworks
from ntmobile.plugins.local_networks import breaks, read_local_networks
from ntmobile.plugins.section import reject_unknown
from ntmobile.plugins.watch_poll import PollingWatcher

#: Links, addresses and routes of both families (RTMGRP_*).
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
#: Seconds in which a burst of messages is joined.
SETTLE: Final = 0.01
#: Seconds between the slow looks.
SLOW: Final = 10.0


@implementer(INetworkWatcher, IReadDescriptor)
class NetlinkWatcher:
    """Listens to the kernel; see :class:`~ntmobile.interfaces.INetworkWatcher`."""

    def __init__(
        self, reactor: Any, read: Callable[[], LocalNetworks] = read_local_networks
    ) -> None:
        self._reactor = reactor
        self._slow = PollingWatcher(reactor, SLOW, read)
        self._call: IDelayedCall | None = None
        self._used: frozenset[int] = frozenset()
        self._broken = False
        self._changed: Callable[[LocalNetworks], None] = lambda networks: None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
            self._socket.bind((0, _GROUPS))
        except (AttributeError, OSError) as problem:
            raise NotPermittedHere(
                f'no netlink here ({problem}); set watch.plugin = "poll" in node.toml'
            ) from None

    def start(self, changed: Callable[[LocalNetworks], None]) -> LocalNetworks:
        """See :class:`~ntmobile.interfaces.INetworkWatcher`."""
        self._reactor.addReader(self)
        self._changed = changed
        networks = self._slow.start(self._tell)
        self._used = frozenset(way.index for way in networks.ways)
        return networks

    def _tell(self, networks: LocalNetworks) -> None:
        self._used = frozenset(way.index for way in networks.ways)
        self._changed(networks)

    def stop(self) -> None:
        """See :class:`~ntmobile.interfaces.INetworkWatcher`."""
        self._reactor.removeReader(self)
        self._slow.stop()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._socket.close()

    def fileno(self) -> int:
        """The socket, for the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "netlink"

    def doRead(self) -> None:
        """Something changed; an overrun (ENOBUFS) says no less."""
        for _ in range(64):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                continue
            if not data:
                break
            self._broken = self._broken or breaks(data, self._used)
        if self._call is None or not self._call.active():
            self._call = self._reactor.callLater(SETTLE, self._look)

    def _look(self) -> None:
        broken, self._broken = self._broken, False
        self._slow.look(broken)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave the socket up; the slow looks go on."""


@implementer(IPlugin, INetworkWatcherProvider)
class NetlinkWatcherProvider:
    """Makes a :class:`NetlinkWatcher`; has no keys."""

    name = "netlink"

    def configure(self, section: Mapping[str, object], reactor: object) -> NetlinkWatcher:
        """See :class:`~ntmobile.interfaces.INetworkWatcherProvider`."""
        reject_unknown("watch", section, ())
        return NetlinkWatcher(reactor)


netlink = NetlinkWatcherProvider()
