"""The floor: what a datagram costs at least, in the cipher and in system calls."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from attrs import define
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ntmobile.bench.datagrams import Burst, Sink, udp_socket
from ntmobile.bench.results import NothingTransferred, Row, Table

SIZE = 1200
#: Datagrams of a run, and how many there are in one sample.
SEGMENTS, DATAGRAMS = 54, 20_000
_NONCE = bytes(12)
_HEADER = bytes(20)

_NOTE = f"""\
Microseconds a datagram of {SIZE} bytes, with nothing around it. Cipher: AES-256-GCM in place, one
call of the library each. System calls: over loopback, sending includes all that the kernel does up
to the receiver's buffer; a run is {SEGMENTS} datagrams in one call."""


def seal(count: int) -> float:
    """Seconds for sealing datagrams."""
    cipher, data, into = AESGCM(bytes(32)), bytes(SIZE), bytearray(SIZE + 16)
    began = time.perf_counter()
    for _ in range(count):
        cipher.encrypt_into(_NONCE, data, _HEADER, into)
    return time.perf_counter() - began


def opened(count: int) -> float:
    """Seconds for opening datagrams."""
    cipher, into = AESGCM(bytes(32)), bytearray(SIZE)
    sealed = cipher.encrypt(_NONCE, bytes(SIZE), _HEADER)
    began = time.perf_counter()
    for _ in range(count):
        cipher.decrypt_into(_NONCE, sealed, _HEADER, into)
    return time.perf_counter() - began


@define
class Loopback:
    """Two sockets of this process.

    :ivar segments: datagrams of one run. :ivar messages: runs of one call.
    """

    segments: int
    messages: int = 1

    def times(self, count: int) -> tuple[float, float]:
        """Seconds for sending, and for receiving, so many datagrams.

        :raises NothingTransferred: not all arrived.
        """
        with udp_socket("127.0.0.1") as receiver, udp_socket("127.0.0.1") as sender:
            sender.connect(receiver.getsockname())
            burst, sink = Burst(bytes(SIZE), self.segments, self.messages), Sink(SIZE)
            sink.adopt(receiver)
            sent, sending, receiving = 0, 0.0, 0.0
            while sent < count:
                began = time.perf_counter()
                sent += burst.send(sender.fileno())
                between = time.perf_counter()
                while sink.receive(receiver.fileno()):
                    pass
                receiving += time.perf_counter() - between
                sending += between - began
        if sink.datagrams < count:
            raise NothingTransferred(f"{sink.datagrams} of {count} arrived")
        return sending, receiving


def _plain(count: int) -> tuple[float, float]:
    """The same as :meth:`Loopback.times` with ``send`` and ``recv_into`` of Python."""
    data, buffer = bytes(SIZE), bytearray(65536)
    with udp_socket("127.0.0.1") as receiver, udp_socket("127.0.0.1") as sender:
        sender.connect(receiver.getsockname())
        receiver.settimeout(1.0)
        sending, receiving = 0.0, 0.0
        for _ in range(count // 16):
            began = time.perf_counter()
            for _ in range(16):
                sender.send(data)
            between = time.perf_counter()
            for _ in range(16):
                receiver.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            receiving += time.perf_counter() - between
            sending += between - began
    return sending, receiving


def measure(repeat: int) -> Table:
    """Measure all, in turn."""
    runs, calls = Loopback(SEGMENTS), Loopback(1, 32)
    names = {
        "seal": seal,
        "open": opened,
        f"send, a run of {SEGMENTS} a call": _part(runs.times, 0),
        f"receive, a run of {SEGMENTS} a call": _part(runs.times, 1),
        "send, 32 singly with sendmmsg": _part(calls.times, 0),
        "receive, 32 singly with recvmmsg": _part(calls.times, 1),
        "send, one a call": _part(_plain, 0),
        "receive, one a call": _part(_plain, 1),
    }
    rows = {name: Row(name) for name in names}
    for _ in range(repeat):
        for name, work in names.items():
            rows[name].samples.append(work(DATAGRAMS) / DATAGRAMS * 1e6)
    table = Table("The floor", "µs a datagram", more=False, note=_NOTE)
    table.rows = list(rows.values())
    return table


def _part(work: Callable[[int], tuple[float, float]], number: int) -> Callable[[int], float]:
    return lambda count: work(count)[number]
