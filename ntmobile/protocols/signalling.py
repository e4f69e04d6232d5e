"""The DC's UDP port: signalling sessions of its clients (paper, section III; rules R7 to R10)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.session_table import ClientAnswered, ClientAsked, ClientHeard, SessionTable
from ntmobile.protocols.timing import MachineTimer

log = Logger()

#: What the service is told; the transmissions are done here.
Event = ClientHeard | ClientAsked | ClientAnswered


class SignallingPort(DatagramProtocol):
    """One listening address of the DC."""

    noisy = False

    def __init__(self, signalling: Signalling) -> None:
        self._signalling = signalling

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Hand a datagram to the table of sessions."""
        self._signalling.datagram_received(datagram, addr, self)


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

    def datagram_received(self, datagram: bytes, remote: Address, port: SignallingPort) -> None:
        """From any port."""
        self.table.datagram_received(datagram, remote, self._clock.seconds())
        self.flush(port, remote)

    def _wake(self, now: float) -> None:
        self.table.handle_timer(now)
        self.flush()

    def flush(self, port: SignallingPort | None = None, asker: Address | None = None) -> None:
        """Carry out what the table wants; to be called after each use of :attr:`table`.

        :param port: where the datagram of ``asker`` came in; what goes to him leaves there.
        """
        if self._flushing:
            return  # whoever is told of an event may call this; it is gone on with below
        self._flushing = True
        try:
            while effects := self.table.effects():
                for effect in effects:
                    if isinstance(effect, Transmit):
                        self._send(effect, port if effect.remote == asker else None)
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
        ipv6 = ":" in effect.remote[0]
        port = self._ports.get(ipv6) if port is None else port
        transport = port.transport if port is not None else None
        if transport is None:
            return
        try:
            transport.write(effect.datagram, effect.remote)
        except OSError as problem:
            log.debug(
                "could not send to {remote}: {problem}", remote=effect.remote, problem=problem
            )
