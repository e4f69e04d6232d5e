"""The data port's seam on a reactor without sockets, and the choice between the two."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import DatagramProtocol

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_port import DatagramPort, RunReceiver
from ntmobile.protocols.datagram_sending import Ancillary, Buffer, Unsent

#: Largest datagram of IP; a smaller buffer would cut datagrams off unseen.
_RECEIVE: Final = 65535


class RunTransport(Protocol):
    """What a receiver sends through; see :class:`DatagramSender` for each.

    :ivar sent: :ivar dropped: counts. :ivar kind: how it receives and sends, for people.
    """

    @property
    def kernel_drops(self) -> int:
        """Datagrams that were not read in time, as far as the system tells."""

    kind: str
    sent: int
    dropped: Counter[str]

    def send(self, datagram: Buffer, remote: Address, ancillary: Ancillary = ()) -> bool:
        """Send a datagram now; ``False``: larger than the path."""

    def send_run(
        self, data: Buffer, segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> int:
        """Send a run now; how many of its datagrams were larger than the path."""

    def queue(self, data: Buffer, segment: int, remote: Address) -> None:
        """Have a run sent by :meth:`flush`."""

    def flush(self) -> list[Unsent]:
        """Send what was queued; what was not sent."""


class AdaptedPort(DatagramProtocol):
    """Any UDP transport of Twisted as a :class:`RunTransport`: datagram by datagram.

    A protocol for ``listenUDP``; each datagram that comes is a run of one, and a batch of its own.
    """

    noisy = False
    kind = "Twisted's own port"
    kernel_drops = 0

    def __init__(self, receiver: RunReceiver) -> None:
        self._receiver = receiver
        self._waiting: list[tuple[Buffer, int, Address]] = []
        self.sent = 0
        self.dropped: Counter[str] = Counter()

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Hand it over."""
        self._receiver.run_received(memoryview(datagram), len(datagram), addr[:2])
        self._receiver.batch_ended()

    def connectionRefused(self) -> None:
        """News of an earlier datagram (ICMP)."""

    def send(self, datagram: Buffer, remote: Address, ancillary: Ancillary = ()) -> bool:
        """See :class:`RunTransport`; there are no interfaces to choose from here."""
        return self._send(datagram, remote) != errno.EMSGSIZE

    def send_run(
        self, data: Buffer, segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> int:
        """See :class:`RunTransport`."""
        self.queue(data, segment, remote)
        return sum(one.too_big for one in self.flush())

    def queue(self, data: Buffer, segment: int, remote: Address) -> None:
        """See :class:`RunTransport`."""
        self._waiting.append((data, segment, remote))

    def flush(self) -> list[Unsent]:
        """See :class:`RunTransport`."""
        waiting, self._waiting = self._waiting, []
        unsent = []
        for data, segment, remote in waiting:
            for at in range(0, len(data), max(1, segment)):
                part = memoryview(data)[at : at + segment]
                problem = self._send(part, remote)
                if problem:
                    unsent.append(Unsent(part, remote, problem))
        return unsent

    def _send(self, datagram: Buffer, remote: Address) -> int:
        """0, or the error."""
        if self.transport is None:
            self.dropped["sending: closed"] += 1
            return errno.EBADF
        try:
            self.transport.write(bytes(datagram), remote)
        except MessageLengthError:
            self.dropped["sending: Message too long"] += 1
            return errno.EMSGSIZE
        except OSError as problem:
            self.dropped[f"sending: {problem.strerror}"] += 1
            return problem.errno or errno.EIO
        self.sent += 1
        return 0


def listen(
    reactor: Any,
    address: Address,
    receiver: RunReceiver,
    bind: Callable[[Address], socket.socket],
) -> tuple[RunTransport, Any]:
    """Open a data port on a numeric address; what to send through, and what to stop listening.

    :param bind: makes a bound socket, where the reactor has sockets.
    :raises OSError: or what ``bind`` or ``listenUDP`` raise: the address cannot be used.
    """
    if IReactorFDSet.providedBy(reactor):
        port = DatagramPort(bind(address), receiver, reactor)
        port.startListening()
        return port, port
    adapted = AdaptedPort(receiver)
    host, number = address
    return adapted, reactor.listenUDP(number, adapted, host, _RECEIVE)
