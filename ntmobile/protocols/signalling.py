"""The DC's UDP port: signalling sessions of its clients (paper, section III; rules R7 to R10)."""

from __future__ import annotations

from collections.abc import Callable, Container

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.table import (
    ClientAnswered,
    ClientAsked,
    ClientHeard,
    SessionTable,
)
from ntmobile.protocols.datagram_adapter import RunTransport
from ntmobile.protocols.timing import MachineTimer

log = Logger()

#: What the service is told; the transmissions are done here.
Event = ClientHeard | ClientAsked | ClientAnswered


class SignallingPort(DatagramProtocol):
    """One listening address of the DC: a protocol of Twisted, or the receiver of a data port."""

    noisy = False

    def __init__(self, signalling: Signalling) -> None:
        self._signalling = signalling
        self._sender: RunTransport | None = None
        self._askers: set[Address] = set()

    def attach(self, sender: RunTransport) -> None:
        """Send through this data port, which hands over what it receives."""
        self._sender = sender

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Hand a datagram to the table of sessions."""
        self._askers.add(addr)
        self._signalling.datagram_received(datagram, addr)
        self.batch_ended()

    def run_received(self, data: memoryview, segment: int, source: Address) -> None:
        """See :class:`~ntmobile.protocols.datagram_port.RunReceiver`."""
        self._askers.add(source)
        for at in range(0, len(data), segment) if segment else (0,):
            self._signalling.datagram_received(bytes(data[at : at + segment]), source)

    def batch_ended(self) -> None:
        """See :class:`~ntmobile.protocols.datagram_port.RunReceiver`: answer."""
        self._signalling.flush(self, self._askers)
        self._askers.clear()

    def send(self, datagram: bytes, remote: Address) -> None:
        """Send from this address; what cannot be sent is lost, as anywhere on the way."""
        if self._sender is not None:
            self._sender.send(datagram, remote)
        elif self.transport is not None:
            try:
                self.transport.write(datagram, remote)
            except OSError as problem:
                log.debug("could not send to {remote}: {problem}", remote=remote, problem=problem)


class Signalling:
    """The DC's sessions on all its ports.

    :param tell: called with each event of the sessions.
    """

    def __init__(
        self, clock: IReactorTime, table: SessionTable, tell: Callable[[Event], None]
    ) -> None:
        self.table = table
        self._clock = clock
        self._tell = tell
        self._ports: dict[bool, SignallingPort] = {}
        self._flushing = False
        self._timer = MachineTimer(clock, self._wake)

    def port(self, *, ipv6: bool) -> SignallingPort:
        """A protocol to listen with; one for each family sends to the clients of that family."""
        port = SignallingPort(self)
        self._ports.setdefault(ipv6, port)
        return port

    def datagram_received(self, datagram: bytes, remote: Address) -> None:
        """From any port; :meth:`flush` is to be called afterwards."""
        self.table.datagram_received(datagram, remote, self._clock.seconds())

    def _wake(self, now: float) -> None:
        self.table.handle_timer(now)
        self.flush()

    def flush(self, port: SignallingPort | None = None, askers: Container[Address] = ()) -> None:
        """Carry out what the table wants; to be called after each use of :attr:`table`.

        :param port: where datagrams of ``askers`` came in; what goes to them leaves there.
        """
        if self._flushing:
            return  # whoever is told of an event may call this; it is gone on with below
        self._flushing = True
        try:
            while effects := self.table.effects():
                for effect in effects:
                    if isinstance(effect, Transmit):
                        self._send(effect, port if effect.remote in askers else None)
                    else:
                        self._told(effect)
        finally:
            self._flushing = False
        self._timer.set(self.table.next_timer())

    def _told(self, event: Event) -> None:
        try:
            self._tell(event)
        except Exception:  # a fault of ours in one client's matter is not the others'
            log.failure("an event of a session was not served")

    def stop(self) -> None:
        """No timers any more, whatever becomes of requests that are still under way."""
        self._timer.stop()

    def _send(self, effect: Transmit, port: SignallingPort | None) -> None:
        if port is None:
            port = self._ports.get(":" in effect.remote[0])
        if port is not None:
            port.send(effect.datagram, effect.remote)
