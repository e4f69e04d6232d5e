"""Make before break at the sockets: which interface a node sends through, in each family.

The machine :class:`~ntmobile.machines.device.egress.Egress` decides; here its questions go to the
DC through the interface in question, and its decisions to the sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.client.sockets import ClientSockets
from ntmobile.interfaces import LocalNetworks, Way
from ntmobile.machines.device.egress import Egress
from ntmobile.machines.effects import Transmit
from ntmobile.protocols import trace
from ntmobile.protocols.timing import MachineTimer

log = Logger()


class WaysOut:
    """The ways out of this device.

    :param knock: makes a question to the DC whether it can be reached by a way; None: there is no
        session with it now.
    :param moved: called when everything goes another way in some family.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sockets: ClientSockets,
        knock: Callable[[Way], Transmit | None],
        moved: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._sockets = sockets
        self._knock = knock
        self._moved = moved
        self._egress: dict[int, Egress[Way]] = {4: Egress(), 6: Egress()}
        self._timer = MachineTimer(clock, self._wake)

    def changed(self, networks: LocalNetworks) -> bool:
        """The networks are these now.

        :return: whether nothing goes another way: a new one is preferred, and not known to work.
        """
        self._sockets.forget_routes(networks.networks)
        now, moved, waiting = self._clock.seconds(), False, False
        for family, egress in self._egress.items():
            ways = [way for way in networks.ways if way.family == family]
            known = egress.ways
            moved = egress.changed(ways, now) or moved
            waiting = waiting or (egress.pinned is not None and egress.ways != known)
        self._settle(now)
        return waiting and not moved

    def doubt(self) -> None:
        """Something that goes out of here seems lost."""
        now = self._clock.seconds()
        for egress in self._egress.values():
            egress.doubt(now)
        self._settle(now)

    def answered(self, way: object) -> None:
        """The DC answered a question that went by this way."""
        if isinstance(way, Way):
            now = self._clock.seconds()
            if self._egress[way.family].answered(way, now):
                self._take(way, "the coordinator answers there")
            self._settle(now)

    def stop(self) -> None:
        """Ask nothing more."""
        self._timer.stop()

    def shown(self) -> dict[str, Any]:
        """By family the interface in use, and the one that the system prefers."""
        return {
            f"ipv{family}": {"used": egress.current.interface, "preferred": ways[0].interface}
            for family, egress in self._egress.items()
            if egress.current is not None and (ways := egress.ways)
        }

    def _wake(self, now: float) -> None:
        for egress in self._egress.values():
            if egress.handle_timer(now) and egress.current is not None:
                self._take(egress.current, "nothing answers by another one")
        self._settle(now)

    def _take(self, way: Way, why: str) -> None:
        log.info("sending through {interface}: {why}", interface=way.interface, why=why)
        trace.note("network", f"through {way.interface}")
        self._pin()
        self._moved()

    def _pin(self) -> None:
        for family, egress in self._egress.items():
            pinned, ways = egress.pinned, egress.ways
            if pinned is None:
                self._sockets.unpin(family)
            else:
                self._sockets.pin(family, pinned.index, ways[0].addresses)

    def _settle(self, now: float) -> None:
        self._pin()
        times = []
        for egress in self._egress.values():
            for way in egress.due(now):
                question = self._knock(way)
                if question is not None:
                    self._sockets.send(question.datagram, question.remote, way.index)
            times.append(egress.next_timer())
        self._timer.set(min((time for time in times if time is not None), default=None))
