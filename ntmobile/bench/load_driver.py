"""The closed loop of ``ntm bench load``: so many operations under way, and no more.

One socket plays all clients, each under a loopback address of its own (``IP_PKTINFO`` gives the
source), so that the DC sees as many addresses as there are clients.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

from attrs import define, field

from ntmobile.bench.load_clients import LoadClient, index_of
from ntmobile.errors import ConfigurationError, NTMobileError
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.fields import Address, Endpoint

#: ``IP_PKTINFO`` of Linux; Python names it from 3.14 on.
_PKTINFO: Final = 8
_SOURCE: Final = struct.Struct("@i4s4s")
#: An operation that takes longer, in seconds, has failed.
PATIENCE: Final = 3.0
#: Requests of one client in one phase: DCs remember 256 of the last minute (R10).
FOR_ONE: Final = 64
#: Datagrams taken before operations are begun again.
_DRAIN: Final = 32


class Wire:
    """The socket of all clients.

    :raises ConfigurationError: this system has no such sockets.
    """

    def __init__(self, coordinator: Address) -> None:
        self.coordinator = coordinator
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            # All addresses of the loopback, and nothing from outside.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
            self.socket.bind(("0.0.0.0", 0))
        except (OSError, AttributeError) as problem:
            self.socket.close()
            raise ConfigurationError(
                f"clients cannot be simulated here: {problem}; it takes Linux 5.7 or later"
            ) from None
        self.socket.setblocking(False)
        self.port = int(self.socket.getsockname()[1])

    def place(self, client: LoadClient, number: int) -> None:
        """Give a client its address: the number-th of 127.1.0.0 and above."""
        address = (0x7F010000 + number).to_bytes(4, "big")
        client.here = Endpoint(address, self.port)
        client.source = _SOURCE.pack(0, address, address)

    def send(self, client: LoadClient, datagram: bytes) -> None:
        """Send from the address of a client; what the system has no room for is lost."""
        with suppress(BlockingIOError):
            self.socket.sendmsg(
                (datagram,), ((socket.IPPROTO_IP, _PKTINFO, client.source),), 0, self.coordinator
            )

    def close(self) -> None:
        """No datagrams any more."""
        self.socket.close()


@define
class Tally:
    """What a phase counted. ``latencies``: seconds of each operation that succeeded."""

    latencies: array[float] = field(factory=lambda: array("d"))
    errors: Counter[str] = field(factory=Counter)
    seconds: float = 0.0
    own_cpu: float = 0.0


class Phase(Protocol):
    """What the clients do for a while."""

    def begin(self, load: Load) -> bool:
        """Begin one operation; ``False``: there is nothing left to do."""

    def received(self, load: Load, client: LoadClient, kind: int, datagram: bytes) -> None:
        """A datagram for a client. :raises NTMobileError: it is not what belongs there."""


@define(eq=False)
class Load:
    """Runs phases over all clients.

    :ivar window: operations under way at once.
    """

    wire: Wire
    clients: list[LoadClient]
    window: int
    tally: Tally = field(factory=Tally, init=False)
    _by_index: dict[bytes, LoadClient] = field(init=False)
    _under_way: dict[LoadClient, None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._by_index = {client.index: client for client in self.clients}

    def started(self, client: LoadClient) -> None:
        """An operation of this client is under way."""
        client.begun = time.perf_counter()
        self._under_way[client] = None

    def is_busy(self, client: LoadClient) -> bool:
        """Whether an operation of this client is under way."""
        return client.begun != 0.0

    def finished(self, client: LoadClient, error: str = "") -> None:
        """It is over."""
        if client.begun:
            if error:
                self.tally.errors[error] += 1
            else:
                self.tally.latencies.append(time.perf_counter() - client.begun)
            client.begun = 0.0
            del self._under_way[client]

    def run(self, phase: Phase, seconds: float) -> Tally:
        """Run one phase until its time is over or nothing is left; then wait for what is open."""
        tally = self.tally = Tally()
        poll = select.poll()
        poll.register(self.wire.socket, select.POLLIN)
        begun, cpu = time.perf_counter(), _cpu()
        end = begun + seconds
        more = True
        while True:
            now = time.perf_counter()
            if now >= end:
                more = False
            while more and len(self._under_way) < self.window:
                more = phase.begin(self)
            if not more and not self._under_way:
                break
            if not self._drain(phase):
                poll.poll(10)
            self._give_up()
        tally.seconds, tally.own_cpu = time.perf_counter() - begun, _cpu() - cpu
        return tally

    def _drain(self, phase: Phase) -> bool:
        """Take some datagrams; ``False`` if there were none."""
        receive = self.wire.socket.recvfrom
        for number in range(_DRAIN):
            try:
                datagram, remote = receive(2048)
            except BlockingIOError:
                return number > 0
            found = index_of(datagram) if remote == self.wire.coordinator else None
            client = self._by_index.get(found[1]) if found is not None else None
            if found is None or client is None:
                self.tally.errors["a datagram for nobody"] += 1
                continue
            if found[0] == Kind.SIGNAL_UNKNOWN:
                self.finished(client, "the session is unknown")
                continue
            try:
                phase.received(self, client, found[0], datagram)
            except NTMobileError as problem:
                self.tally.errors[str(problem)] += 1
        return True

    def _give_up(self) -> None:
        """What takes too long has failed; the oldest comes first."""
        due = time.perf_counter() - PATIENCE
        while self._under_way:
            client = next(iter(self._under_way))
            if client.begun > due:
                break
            self.finished(client, "no answer")


def rounds(clients: list[LoadClient], size: int = 1) -> Iterator[tuple[LoadClient, ...]]:
    """All clients in groups of ``size``, again and again, as often as a DC remembers requests."""
    for _ in range(FOR_ONE):
        for start in range(0, len(clients) - size + 1, size):
            yield tuple(clients[start : start + size])


def _cpu() -> float:
    times = os.times()
    return times.user + times.system
