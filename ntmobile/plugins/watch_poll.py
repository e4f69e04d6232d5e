"""The ``poll`` watcher: looks every second, where nothing tells of changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import INetworkWatcher, INetworkWatcherProvider, LocalNetworks
from ntmobile.plugins.local_networks import read_local_networks
from ntmobile.plugins.section import reject_unknown

log = Logger()


@implementer(INetworkWatcher)
class PollingWatcher:
    """Compares what there is with what there was.

    :param interval: seconds between looks. :param read: reads what there is.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        interval: float = 1.0,
        read: Callable[[], LocalNetworks] = read_local_networks,
    ) -> None:
        self._interval = interval
        self._read = read
        self._known = LocalNetworks(())
        self._changed: Callable[[LocalNetworks], None] = lambda networks: None
        self._loop = LoopingCall(self.look)
        self._loop.clock = reactor

    def start(self, changed: Callable[[LocalNetworks], None]) -> LocalNetworks:
        """See :class:`~ntmobile.interfaces.INetworkWatcher`."""
        self._changed = changed
        self._known = self._read()
        self._loop.start(self._interval, now=False).addErrback(
            lambda failure: log.failure("watching the network failed", failure)
        )
        return self._known

    def look(self, broken: bool = False) -> None:
        """Look once, and tell of a difference.

        :param broken: it is told also if all looks the same: something went, and came again.
        """
        networks = self._read()
        if networks == self._known and not broken:
            return
        self._known = networks
        try:
            self._changed(networks)
        except Exception:  # the next change is told all the same
            log.failure("a change of the network was not served")

    def stop(self) -> None:
        """See :class:`~ntmobile.interfaces.INetworkWatcher`."""
        if self._loop.running:
            self._loop.stop()


@implementer(IPlugin, INetworkWatcherProvider)
class PollingWatcherProvider:
    """Makes a :class:`PollingWatcher`. Key: ``interval`` in seconds, 0.1 to 60, by default 1."""

    name = "poll"

    def configure(self, section: Mapping[str, object], reactor: object) -> PollingWatcher:
        """See :class:`~ntmobile.interfaces.INetworkWatcherProvider`."""
        reject_unknown("watch", section, ("interval",))
        interval = section.get("interval", 1.0)
        if not isinstance(interval, int | float) or not 0.1 <= interval <= 60:
            raise ConfigurationError("watch.interval: expected seconds from 0.1 to 60")
        return PollingWatcher(IReactorTime(reactor), float(interval))


poll = PollingWatcherProvider()
