"""The data port of an RS: sockets in front of :class:`~ntmobile.machines.relay.RelayServer` (R25).

One socket a family, so that a leg may be IPv4 and its other IPv6. A datagram that is forwarded goes
out as it came in, in the same buffer, and is not looked at beyond kind and index.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EMSGSIZE
from socket import socket
from typing import cast

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorTime, ISystemHandle
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.relay import RelayServer
from ntmobile.protocols.timing import MachineTimer
from ntmobile.wire.headers import FORWARDED, HEADER_SIZE
from ntmobile.wire.messages.coordination import RelayDirection, RelayEnd, RelayResponse

log = Logger()

#: Finds how many bytes of a datagram fit the path to an address; 0 where it cannot be told.
PathLimit = Callable[[Address], int]


class RelayPort(DatagramProtocol):
    """One socket of the data port; made by :meth:`Relaying.port`."""

    noisy = False

    def __init__(self, relaying: Relaying) -> None:
        self._relaying = relaying
        self._forward = relaying.server.forward
        self._seconds = relaying.seconds
        self.send: Callable[[bytes, Address], object] | None = None

    def startProtocol(self) -> None:
        """Send through the bare socket where there is one: ``write`` parses each address anew."""
        transport = self.transport
        if transport is None:
            return
        if ISystemHandle.providedBy(transport):
            self.send = cast(socket, transport.getHandle()).sendto
        else:
            self.send = transport.write

    def stopProtocol(self) -> None:
        """Nothing is sent any more."""
        self.send = None

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """The hot path: forward, or leave it to the machine."""
        if len(datagram) >= HEADER_SIZE and datagram[0] in FORWARDED:
            remote = self._forward(datagram[4:12], addr, 1, len(datagram), self._seconds())
            if remote is not None:
                self._relaying.pass_on(datagram, addr, remote)
                return
        self._relaying.datagram_received(datagram, addr)


class Relaying:
    """A relay server's machine on its sockets and its timer.

    :param clock: monotonic seconds.
    :param path_limit: asked, seldom, when a datagram did not fit; see
        :func:`ntmobile.protocols.relay_sockets.path_limit`.
    """

    def __init__(
        self, server: RelayServer, clock: IReactorTime, path_limit: PathLimit = lambda remote: 0
    ) -> None:
        self.server = server
        self.seconds: Callable[[], float] = clock.seconds
        self._path_limit = path_limit
        self._timer = MachineTimer(clock, self._wake)
        self._ports: dict[bool, RelayPort] = {}

    def port(self, *, ipv6: bool) -> RelayPort:
        """The protocol for the one socket of a family."""
        return self._ports.setdefault(ipv6, RelayPort(self))

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

    def datagram_received(self, datagram: bytes, source: Address) -> None:
        """What the hot path did not forward."""
        self._carry_out(self.server.unforwarded(datagram, source, self.seconds()))

    def pass_on(self, datagram: bytes, source: Address, remote: Address) -> None:
        """Send a datagram that the machine forwards; tell the sender if it is too big (R27)."""
        port = self._ports.get(":" in remote[0])
        if port is None or port.send is None:
            self._unsent(datagram, source, remote, too_big=False)
            return
        try:
            port.send(datagram, remote)
        except OSError as problem:
            self._unsent(datagram, source, remote, too_big=problem.errno == EMSGSIZE)
        except MessageLengthError:
            self._unsent(datagram, source, remote, too_big=True)

    def _unsent(self, datagram: bytes, source: Address, remote: Address, *, too_big: bool) -> None:
        if self.server.unsent(datagram, source, self.seconds(), too_big=too_big):
            limit = self._path_limit(remote)
            log.debug(
                "{size} bytes do not fit the path to {remote}, which takes {limit}",
                size=len(datagram),
                remote=remote,
                limit=limit,
            )
            self._carry_out(self.server.too_big(datagram, source, limit))

    def _carry_out(self, effects: list[Transmit]) -> None:
        for effect in effects:
            port = self._ports.get(":" in effect.remote[0])
            if port is None or port.send is None:
                continue
            try:
                port.send(effect.datagram, effect.remote)
            except (OSError, MessageLengthError) as problem:
                log.debug(
                    "could not send to {remote}: {problem}", remote=effect.remote, problem=problem
                )

    def _wake(self, now: float) -> None:
        self.server.handle_timer(now)
        self._timer.set(self.server.next_timer())
