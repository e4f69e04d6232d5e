"""Looks now and then at what ports lost, and tells the log of what is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ntmobile.protocols.datagram_port import DatagramPort

log = Logger()

#: Seconds between two looks.
INTERVAL: Final = 60.0


class DatagramWatch:
    """Warns at most once a minute, however much is lost.

    :param ports: whose counts are watched.
    """

    def __init__(self, clock: IReactorTime, ports: Iterable[DatagramPort]) -> None:
        self._ports = tuple(ports)
        self._known: Counter[str] = Counter()
        self._unread = 0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Look at once, and then each minute."""
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        """No more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        unread = sum(port.kernel_drops for port in self._ports)
        dropped = sum((port.dropped for port in self._ports), Counter[str]())
        if unread > self._unread:
            log.warn(
                "{count} datagrams came faster than they could be read, and are lost",
                count=unread - self._unread,
            )
        new = dropped - self._known
        if new:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(new.items()))
            log.info("datagrams lost: {reasons}", reasons=reasons)
        self._unread, self._known = unread, dropped
