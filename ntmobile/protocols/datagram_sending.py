"""Sending datagrams, alone or as runs, on a socket that does not block.

A run is cut by the system (``UDP_SEGMENT``): one call, one way through its tables, for up to 64
datagrams. What a relay queues for one correspondent during a batch is joined into runs, wherever
in the batch it stood: the order within a correspondent is kept, that between two means nothing.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Final

from attrs import define, frozen

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_calls import run_ancillary

Buffer = bytes | bytearray | memoryview
Ancillary = Sequence[tuple[int, int, bytes]]

#: Datagrams of one run; kernels before 6.9 take no more.
RUN_SEGMENTS: Final = 64
#: Bytes of one run, by family: the largest payload of IP and UDP, which IPv6 would allow 40 more.
RUN_BYTES: Final = {socket.AF_INET: 65507, socket.AF_INET6: 65487}
#: Sizes of datagrams whose control data is remembered.
_ANCILLARIES: Final = 1024

#: Refusals of a run of which the datagrams may still pass one by one: larger than the path, more
#: than this kernel joins, an interface or a policy that cannot cut.
_ONE_BY_ONE: Final = (errno.EMSGSIZE, errno.EINVAL, errno.EIO, errno.EOPNOTSUPP)


@frozen
class Unsent:
    """One datagram that the system did not take, and why (an ``errno``)."""

    datagram: Buffer
    remote: Address
    problem: int

    @property
    def too_big(self) -> bool:
        """It is larger than the path, as far as the system knows."""
        return self.problem == errno.EMSGSIZE


@define(eq=False, slots=True)
class _Run:
    """What waits for one correspondent.

    :ivar segment: size of the datagrams. :ivar pieces: buffers in which they lie.
    :ivar room: how many more may follow; none after a shorter one.
    """

    remote: Address
    segment: int
    pieces: list[Buffer]
    room: int


class DatagramSender:
    """The sending half of a port.

    :param segments: the system cuts runs; else they are sent datagram by datagram.
    :ivar sent: datagrams that the system took. :ivar runs: of how many runs of two or more.
    :ivar dropped: datagrams that it did not take, by reason.
    """

    def __init__(self, sock: socket.socket, *, segments: bool) -> None:
        self.sent = 0
        self.runs = 0
        self.dropped: Counter[str] = Counter()
        self.socket_family = sock.family
        self._segments = segments
        self._sendto = sock.sendto
        self._sendmsg = sock.sendmsg
        self._most = RUN_BYTES[socket.AddressFamily(sock.family)]
        self._ancillaries: dict[int, tuple[tuple[int, int, bytes], ...]] = {}
        self._open: dict[Address, _Run] = {}
        self._waiting: list[_Run] = []

    # -- at once

    def send(self, datagram: Buffer, remote: Address, ancillary: Ancillary = ()) -> bool:
        """Send a datagram now. ``False``: it is larger than the path; other failures are counted.

        :param ancillary: control data, such as the interface to use (``IP_PKTINFO``, ip(7)).
        """
        return self._send(datagram, remote, ancillary) != errno.EMSGSIZE

    def send_run(
        self, data: Buffer, segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> int:
        """Send datagrams of ``segment`` bytes that lie one after another; the last may be shorter.

        :return: how many were larger than the path; those that fit were sent.
        """
        if len(data) <= segment:
            return int(not self.send(data, remote, ancillary))
        return sum(one.too_big for one in self._send_run(data, segment, remote, ancillary))

    # -- at the end of a batch

    @property
    def waiting(self) -> bool:
        """Something was queued and not yet flushed."""
        return bool(self._waiting)

    def queue(self, data: Buffer, segment: int, remote: Address) -> None:
        """Have datagrams sent by :meth:`flush`, as :meth:`send_run` would.

        :param data: must stay as it is until then.
        """
        octets = len(data)
        count = 1 if octets <= segment else -(-octets // segment)
        run = self._open.get(remote)
        if (
            run is None
            or count > run.room
            or not (segment == run.segment or (count == 1 and octets < run.segment))
        ):
            room = self._run_length(segment) - count if octets == count * segment else 0
            run = self._open[remote] = _Run(remote, segment, [data], room)
            self._waiting.append(run)
        else:
            run.pieces.append(data)
            run.room = run.room - count if octets == count * run.segment else 0

    def flush(self) -> list[Unsent]:
        """Send all that waits; what was not sent."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        self._open.clear()
        unsent: list[Unsent] = []
        for run in waiting:
            first, segment, remote = run.pieces[0], run.segment, run.remote
            if len(run.pieces) > 1:
                unsent += self._send_pieces(run.pieces, segment, remote)
            elif len(first) > segment:
                unsent += self._send_run(first, segment, remote)
            elif problem := self._send(first, remote):
                unsent.append(Unsent(first, remote, problem))
        return unsent

    # -- the calls

    def _run_length(self, segment: int) -> int:
        """Most datagrams of one run."""
        return min(RUN_SEGMENTS, self._most // segment) if 0 < segment < self._most else 1

    def _send_run(
        self, data: Buffer, segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> list[Unsent]:
        """Send one buffer of datagrams, in as many runs as it takes."""
        most = self._run_length(segment) * segment
        if len(data) <= most:
            return self._send_pieces([data], segment, remote, ancillary)
        view, unsent = memoryview(data), []
        for at in range(0, len(data), most):
            unsent += self._send_pieces([view[at : at + most]], segment, remote, ancillary)
        return unsent

    def _send(self, datagram: Buffer, remote: Address, ancillary: Ancillary = ()) -> int:
        """Send one datagram; 0, or the error."""
        try:
            if ancillary:
                self._sendmsg((datagram,), ancillary, 0, remote)
            else:
                self._sendto(datagram, remote)
        except OSError as problem:
            self.dropped[f"sending: {problem.strerror}"] += 1
            return problem.errno or errno.EIO
        self.sent += 1
        return 0

    def _send_pieces(
        self, pieces: list[Buffer], segment: int, remote: Address, ancillary: Ancillary = ()
    ) -> list[Unsent]:
        """Send one run that lies in several buffers; one by one where the run is refused."""
        if not self._segments or segment > self._most:
            return self._send_singly(pieces, segment, remote, ancillary)
        cut = self._ancillaries.get(segment)
        if cut is None:
            if len(self._ancillaries) >= _ANCILLARIES:
                self._ancillaries.clear()
            cut = self._ancillaries[segment] = (run_ancillary(segment),)
        try:
            self._sendmsg(pieces, (*cut, *ancillary) if ancillary else cut, 0, remote)
        except OSError as problem:
            if problem.errno in _ONE_BY_ONE:
                return self._send_singly(pieces, segment, remote, ancillary)
            parts = list(_datagrams(pieces, segment))
            self.dropped[f"sending: {problem.strerror}"] += len(parts)
            return [Unsent(part, remote, problem.errno or errno.EIO) for part in parts]
        self.runs += 1
        self.sent += -(-sum(map(len, pieces)) // segment)
        return []

    def _send_singly(
        self, pieces: list[Buffer], segment: int, remote: Address, ancillary: Ancillary
    ) -> list[Unsent]:
        unsent = []
        fitting = self._most  # what has the size of a datagram that was too big need not be tried
        for part in _datagrams(pieces, segment):
            problem = (
                self._send(part, remote, ancillary) if len(part) <= fitting else errno.EMSGSIZE
            )
            if problem == errno.EMSGSIZE:
                fitting = min(fitting, len(part) - 1)
            if problem:
                unsent.append(Unsent(part, remote, problem))
        return unsent


def _datagrams(pieces: list[Buffer], segment: int) -> list[memoryview]:
    """The datagrams of a run, one by one."""
    return [
        memoryview(piece)[at : at + segment]
        for piece in pieces
        for at in range(0, len(piece), segment)
    ]
