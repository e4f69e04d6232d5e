"""What this system has of the fast calls: found by trying them once on the loopback."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from typing import Final

from attrs import frozen

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_calls import (
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    BatchReader,
    MessageReader,
    PlainReader,
    Reader,
    has_recvmmsg,
    run_ancillary,
)

#: Seconds that a datagram may take on the loopback.
_PATIENCE: Final = 0.2


class Receive(Enum):
    """How datagrams are received, the fastest first; the value is for people."""

    BATCH = "recvmmsg and UDP_GRO"
    BATCH_OF_ONES = "recvmmsg"
    MESSAGE = "recvmsg and UDP_GRO"
    PLAIN = "recvfrom"

    @property
    def runs(self) -> bool:
        """A message may be a run: the socket gets ``UDP_GRO``."""
        return self in (Receive.BATCH, Receive.MESSAGE)

    def reader(self, sock: socket.socket) -> Reader:
        """What reads a socket so."""
        if self in (Receive.BATCH, Receive.BATCH_OF_ONES):
            return BatchReader(sock)
        return MessageReader(sock) if self is Receive.MESSAGE else PlainReader(sock)


@frozen
class DatagramSupport:
    """How a port receives, and whether it sends runs by ``UDP_SEGMENT``."""

    receive: Receive
    segments: bool

    def __str__(self) -> str:
        sends = "UDP_SEGMENT" if self.segments else "sendto"
        return f"receives by {self.receive.value}, sends by {sends}"


#: What every system has.
PLAIN: Final = DatagramSupport(Receive.PLAIN, segments=False)


@lru_cache(maxsize=1)
def datagram_support() -> DatagramSupport:
    """What this system has, found out at the first call."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            return _tried(family, host)
        except OSError:  # no such family, or its loopback is down
            continue
    return _accepted()


def _tried(family: socket.AddressFamily, host: str) -> DatagramSupport:
    """Send and receive runs. :raises OSError: not even one datagram can be sent."""
    with (
        socket.socket(family, socket.SOCK_DGRAM) as near,
        socket.socket(family, socket.SOCK_DGRAM) as far,
    ):
        for end in (near, far):
            end.setblocking(False)
            end.bind((host, 0))
        remote = far.getsockname()
        near.sendto(b"1", remote)
        if _arrived(PlainReader(far), far) != [(b"1", 1)]:
            return PLAIN
        gro = _offers(far, UDP_GRO, 1)
        segments = gro and _segments(near, remote)
        runs = segments and _arrived(MessageReader(far), far) == [(bytes(250), 100)]
        if segments and not runs:  # it sends them, or does it? what arrived is gone
            segments = False
        if not has_recvmmsg():
            return DatagramSupport(Receive.MESSAGE if runs else Receive.PLAIN, segments)
        for part in (b"2", b"33"):
            near.sendto(part, remote)
        batch = _arrived(BatchReader(far), far) == [(b"2", 1), (b"33", 2)]
        if runs and batch:
            _segments(near, remote)
            batch = _arrived(BatchReader(far), far) == [(bytes(250), 100)]
        if batch:
            return DatagramSupport(Receive.BATCH if runs else Receive.BATCH_OF_ONES, segments)
        return DatagramSupport(Receive.MESSAGE if runs else Receive.PLAIN, segments)


def _segments(near: socket.socket, remote: Address) -> bool:
    """Send a run of 100, 100 and 50 bytes; whether the system took it."""
    try:
        return near.sendmsg((bytes(250),), (run_ancillary(100),), 0, remote) == 250
    except OSError:
        return False


def _arrived(reader: Reader, sock: socket.socket) -> list[tuple[bytes, int]]:
    """What one batch holds: messages and their datagrams' size."""
    messages: list[tuple[bytes, int]] = []
    with suppress(OSError):
        select.select([sock], [], [], _PATIENCE)
        reader.read(lambda data, size, source: messages.append((bytes(data), size)), lambda: None)
    return messages


def _accepted() -> DatagramSupport:
    """Where there is no loopback: what the kernel does not refuse to set."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
            gro, segments = _offers(asked, UDP_GRO, 1), _offers(asked, UDP_SEGMENT, 0)
            if has_recvmmsg():
                return DatagramSupport(Receive.BATCH if gro else Receive.BATCH_OF_ONES, segments)
            return DatagramSupport(Receive.MESSAGE if gro else Receive.PLAIN, segments)
    return PLAIN


def _offers(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True
