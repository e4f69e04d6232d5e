"""A UDP socket on the reactor that receives and sends runs of datagrams.

Twisted's own port makes an object, an address and a call of every datagram, and a system call each
way. This one hands over what one call brought, a run of up to 64 KiB at a time where the system
joins them, in buffers that are used again, and sends runs the same way. It never blocks and never
queues beyond one wake-up: what the system does not take at once is dropped and counted, as a router
would. It reads a bounded batch at each wake-up, so that other sockets and timers have their turn.

Sending is in :mod:`~ntmobile.protocols.datagram_sending`. On a reactor without sockets, such as a
test's, :class:`~ntmobile.protocols.datagram_adapter.AdaptedPort` takes its place.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_calls import SOL_UDP, UDP_GRO
from ntmobile.protocols.datagram_sending import DatagramSender
from ntmobile.protocols.datagram_support import DatagramSupport, datagram_support

log = Logger()

#: Bytes asked for of the system's buffers: about 30 ms of 1 Gbit/s.
BUFFER: Final = 4 << 20
#: asm-generic/socket.h; as root these go beyond net.core.rmem_max and wmem_max.
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
#: sock_diag(7): what a socket holds and dropped; the last of nine numbers is the drops.
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")


class RunReceiver(Protocol):
    """Takes what a port receives."""

    def run_received(self, data: memoryview, segment: int, source: Address) -> None:
        """Datagrams of one sender.

        :param data: datagrams of ``segment`` bytes one after another, the last may be shorter.
            Valid until the end of :meth:`batch_ended`; then the port uses the memory again.
        """

    def batch_ended(self) -> None:
        """All that one batch brought was handed over: send what waits."""


def enlarge_buffers(sock: socket.socket, size: int = BUFFER) -> None:
    """Have the system keep so many bytes of datagrams each way, as far as it may."""
    for forced, asked in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, size)
        except OSError:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, asked, size)


@implementer(IReadDescriptor, IListeningPort)
class DatagramPort(DatagramSender):
    """One bound UDP socket.

    :param sock: bound; it becomes this port's, which closes it.
    :param receiver: is handed what comes, after :meth:`startListening`.
    :param support: how to receive and send; left out, what this system was found to have.
    :ivar kind: the same in words, for logs and ``ntm netcheck``.
    """

    def __init__(
        self,
        sock: socket.socket,
        receiver: RunReceiver,
        reactor: IReactorFDSet,
        support: DatagramSupport | None = None,
    ) -> None:
        support = support or datagram_support()
        super().__init__(sock, segments=support.segments)
        sock.setblocking(False)
        enlarge_buffers(sock)
        if support.receive.runs:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.kind = str(support)
        self.socket = sock
        self._receiver = receiver
        self._reactor = reactor
        self._reader = support.receive.reader(sock)
        self._host = sock.getsockname()[:2]
        self._kernel_drops = 0

    def __repr__(self) -> str:
        return f"<DatagramPort {self._host[0]} {self._host[1]}: {self.kind}>"

    # -- as Twisted's ports

    def startListening(self) -> None:
        """Take what comes from now on."""
        self._reactor.addReader(self)

    def stopListening(self) -> None:
        """Close the socket, at once."""
        if self.socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._close()

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address that the socket is bound to."""
        kind = IPv6Address if self.socket_family == socket.AF_INET6 else IPv4Address
        return kind("UDP", *self._host)

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """The name in logs."""
        return f"{type(self._receiver).__name__} (UDP)"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or cannot watch the socket."""
        self._close()

    def _close(self) -> None:
        self._kernel_drops = self.kernel_drops
        self.socket.close()

    # -- receiving

    def doRead(self) -> None:
        """Hand over what is there, up to a batch's worth, and what came while that was handled.

        Whatever goes wrong is logged or counted, and the port goes on.
        """
        read, receive = self._reader.read, self._receiver.run_received
        done = 0.0
        while done < 1.0:
            try:
                share = read(receive, self._failed)
            except OSError as problem:  # news of an earlier datagram (ICMP), or a lack of memory
                self.dropped[f"receiving: {problem.strerror}"] += 1
                share = 0.0
            try:
                self._receiver.batch_ended()
            except Exception:
                self._failed()
            if self.waiting:
                self.flush()
            if not share:
                return
            done += share

    def _failed(self) -> None:
        log.failure("a datagram of {port} was not handled", port=self)

    # -- counts

    @property
    def received(self) -> int:
        """Datagrams received."""
        return self._reader.datagrams

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the system dropped because they were not read in time."""
        if self.socket.fileno() < 0:
            return self._kernel_drops
        try:
            found = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:
            return 0
        return int(_MEMINFO.unpack(found)[8]) if len(found) == _MEMINFO.size else 0

    def counts(self) -> dict[str, int]:
        """What came, went and was lost, by name; for logs and status."""
        counts = {"received": self.received, "runs received": self._reader.runs, "sent": self.sent}
        counts["runs sent"] = self.runs
        counts.update(self.dropped)
        if self.kernel_drops:
            counts["not read in time"] = self.kernel_drops
        return counts
