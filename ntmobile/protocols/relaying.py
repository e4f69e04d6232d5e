"""An RS's data port: sockets before :class:`~ntmobile.machines.relay.server.RelayServer` (R25).

One socket a family, so that a leg may be IPv4 and its other IPv6. What is forwarded goes out as it
came in, from the same memory, and is not looked at beyond kind and index. A run whose headers all
name one tunnel is one question to the machine and one entry of its counts; what a batch brought for
one address goes out in as few calls as the system allows.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAFNOSUPPORT

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.relay.runs import common_index, parts
from ntmobile.machines.relay.server import RelayServer
from ntmobile.protocols.datagram_adapter import AdaptedPort, RunTransport
from ntmobile.protocols.datagram_sending import Unsent
from ntmobile.protocols.timing import MachineTimer
from ntmobile.wire.headers import FORWARDED, HEADER_SIZE
from ntmobile.wire.messages.coordination import RelayDirection, RelayEnd, RelayResponse

log = Logger()

#: Finds how many bytes of a datagram fit the path to an address; 0 where it cannot be told.
PathLimit = Callable[[Address], int]


class Relaying:
    """A relay server's machine on its sockets and its timer; the receiver of each of its ports.

    :param clock: monotonic seconds.
    :param path_limit: asked, seldom, when a datagram did not fit; see
        :func:`ntmobile.protocols.relay_sockets.path_limit`.
    """

    def __init__(
        self, server: RelayServer, clock: IReactorTime, path_limit: PathLimit = lambda remote: 0
    ) -> None:
        self.server = server
        self.seconds: Callable[[], float] = clock.seconds
        self._forward = server.forward
        self._path_limit = path_limit
        self._timer = MachineTimer(clock, self._wake)
        self._ports: dict[bool, RunTransport] = {}
        self._now = 0.0  # of this batch, once it was asked for: a clock is not free

    def attach(self, port: RunTransport, *, ipv6: bool) -> None:
        """Send what goes to a family through this port, which has this as its receiver."""
        self._ports[ipv6] = port

    def port(self, *, ipv6: bool) -> AdaptedPort:
        """The protocol of a family for a reactor's ``listenUDP``, where there are no sockets."""
        port = AdaptedPort(self)
        self.attach(port, ipv6=ipv6)
        return port

    @property
    def ports(self) -> list[RunTransport]:
        """The ports attached."""
        return list(self._ports.values())

    def direct(self, direction: RelayDirection) -> RelayResponse:
        """The DC directs a tunnel."""
        response = self.server.direct(direction, self.seconds())
        self._timer.set(self.server.next_timer())
        return response

    def end(self, order: RelayEnd) -> bool:
        """The DC ends a tunnel; whether there was one."""
        return self.server.end(order)

    def stop(self) -> None:
        """No timer any more; the sockets are their owner's."""
        self._timer.stop()

    # -- what comes

    def run_received(self, data: memoryview, segment: int, source: Address) -> None:
        """The hot path: forward, or leave it to the machine."""
        octets, now = len(data), self._now
        if not now:
            now = self._now = self.seconds()
        if octets <= segment:
            if octets >= HEADER_SIZE and data[0] in FORWARDED:
                index = data[4:12].tobytes()
                remote = self._forward(index, source, 1, octets, now)
                if remote is not None:
                    port = self._ports.get(":" in remote[0])
                    if port is not None:
                        port.queue(data, octets, remote)
                    else:
                        self._without_port(data, octets, remote)
                    return
            self._carry_out(self.server.unforwarded(bytes(data), source, now))
            return
        index_of_all = common_index(data, segment)
        if index_of_all is not None:
            self._part_received(index_of_all, data, segment, source, now)
            return
        for part_index, part in parts(data, segment):
            self._part_received(part_index, part, segment, source, now)

    def _part_received(
        self, index: bytes | None, data: memoryview, segment: int, source: Address, now: float
    ) -> None:
        """A run of one index, or of datagrams that are not forwardable."""
        if index is not None:
            remote = self._forward(index, source, -(-len(data) // segment), len(data), now)
            if remote is not None:
                port = self._ports.get(":" in remote[0])
                if port is not None:
                    port.queue(data, segment, remote)
                else:
                    self._without_port(data, segment, remote)
                return
        self._carry_out(self.server.unforwarded_run(index, data, segment, source, now))

    def batch_ended(self) -> None:
        """Send what the batch brought; tell senders what was too big for the other leg (R27)."""
        self._now = 0.0
        for port in self._ports.values():
            for unsent in port.flush():
                self._unsent(unsent)

    # -- what goes

    def _without_port(self, data: memoryview, segment: int, remote: Address) -> None:
        """The machine forwards to a family that this system lacks."""
        for at in range(0, len(data), segment):
            self._unsent(Unsent(data[at : at + segment], remote, EAFNOSUPPORT))

    def _unsent(self, unsent: Unsent) -> None:
        datagram, now = bytes(unsent.datagram), self.seconds()
        source = self.server.sender(datagram, unsent.remote)
        due = self.server.unsent(datagram, source, now, too_big=unsent.too_big)
        if source is not None and due:
            limit = self._path_limit(unsent.remote)
            log.debug(
                "{size} bytes do not fit the path to {remote}, which takes {limit}",
                size=len(datagram),
                remote=unsent.remote,
                limit=limit,
            )
            self._carry_out(self.server.too_big(datagram, source, limit))

    def _carry_out(self, effects: list[Transmit]) -> None:
        for effect in effects:
            port = self._ports.get(":" in effect.remote[0])
            if port is not None:
                port.send(effect.datagram, effect.remote)  # what is not sent, the port counts

    def _wake(self, now: float) -> None:
        self.server.handle_timer(now)
        self._timer.set(self.server.next_timer())
