"""Ports, receivers and sockets for the tests of the datagram transport."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from unittest import SkipTest

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from zope.interface import implementer

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.datagram_support import DatagramSupport, Receive, datagram_support

HOSTS = ("127.0.0.1", "::1")


@implementer(IReactorFDSet)
class Watched:
    """A reactor that only knows what it watches."""

    def __init__(self) -> None:
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        """Watch it."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Watch it no more."""
        self.readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Nobody asks."""

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Nobody asks."""

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """Watch nothing."""
        return []

    def getReaders(self) -> list[IReadDescriptor]:
        """What is watched."""
        return self.readers

    def getWriters(self) -> list[IWriteDescriptor]:
        """Nothing."""
        return []


class Kept:
    """A receiver that keeps what came; ``then`` is called with each run too."""

    def __init__(self, then: Callable[[memoryview, int, Address], None] | None = None) -> None:
        self.runs: list[tuple[bytes, int, Address]] = []
        self.batches = 0
        self._then = then

    def run_received(self, data: memoryview, segment: int, source: Address) -> None:
        """Keep it."""
        self.runs.append((bytes(data), segment, source))
        if self._then is not None:
            self._then(data, segment, source)

    def batch_ended(self) -> None:
        """Count it."""
        self.batches += 1

    @property
    def datagrams(self) -> list[bytes]:
        """All, one by one."""
        return [
            data[at : at + size]
            for data, size, _ in self.runs
            for at in range(0, max(1, len(data)), max(1, size))
        ]


def bound(host: str) -> socket.socket:
    """A socket on a port of the loopback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.bind((host, 0))
    except OSError:
        made.close()
        raise SkipTest(f"this machine has no {host}") from None
    made.settimeout(5)
    return made


def supports() -> Iterator[DatagramSupport]:
    """All ways to receive and send that this system has."""
    best = datagram_support()
    order = list(Receive)
    for receive in order[order.index(best.receive) :]:
        for segments in {best.segments, False}:
            yield DatagramSupport(receive, segments)


def gather(port: DatagramPort, kept: Kept, count: int = 1) -> None:
    """Let the port read until its receiver has so many datagrams, for five seconds at most."""
    read(port, lambda: len(kept.datagrams) >= count)


def read(port: DatagramPort, until: Callable[[], bool]) -> None:
    """Let the port read until a condition holds, for five seconds at most."""
    for _ in range(500):
        if until():
            return
        if select.select([port], [], [], 0.01)[0]:
            port.doRead()
    raise AssertionError(f"{port} did not get it; it counts {port.counts()}")
