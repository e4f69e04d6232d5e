"""System calls that move many datagrams at once, and what this system has of them.

``recvmmsg`` (recvmmsg(2)) is not in Python; cffi calls it in ABI mode, so nothing is compiled. A
socket with ``UDP_GRO`` is handed a *run*: datagrams of one sender and one size that arrived one
after another, in one buffer, with their size as control data; the last may be shorter (udp(7)).
``UDP_SEGMENT`` is the same for sending.

The three readers differ in calls only. Each fills buffers that it owns and uses again, and hands
over what came by :data:`Received`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from cffi import FFI

from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_addresses import Addresses

#: linux/udp.h; Python names none of these before 3.12.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

#: Bytes of one buffer: the largest run that a system hands over.
RUN_SIZE: Final = 65536
#: Messages that one call, and about one wake-up, reads at most.
BATCH: Final = 64
#: Bytes that one wake-up reads about, so that others have their turn.
BATCH_BYTES: Final = 262_144
#: Messages that a wake-up reads even where each is a long run.
LEAST_BATCH: Final = 4

#: Buffers are further apart than a power of two, or all their beginnings would share the same few
#: lines of the processor's caches.
_STRIDE: Final = RUN_SIZE + 33 * 64
_CONTROL: Final = 32  # CMSG_SPACE of one int is 24
_WORD: Final = struct.calcsize("P")
#: Words of a struct mmsghdr: name, its length, iovec, their count, control, its length, flags, and
#: the bytes received; the same on 32 and 64 bits.
_HEAD: Final = 8
#: Where the size of datagrams stands in a struct cmsghdr of UDP_GRO, after length, level and type.
_GRO_SIZE: Final = _WORD + 8

#: Errors of reading that mean: nothing there, or news of an earlier datagram (ICMP).
_NOTHING: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)

#: Takes a run: its bytes, valid during the call; the size of its datagrams; its sender.
Received = Callable[[memoryview, int, Address], None]


class Reader(Protocol):
    """Reads a socket that does not block.

    :ivar datagrams: read so far. :ivar runs: messages that held more than one.
    :ivar octets: read so far.
    """

    datagrams: int
    runs: int
    octets: int

    def read(self, received: Received, failed: Callable[[], None]) -> float:
        """Read one batch and hand it over.

        :return: the share of a wake-up's work that this was: 0 nothing was there, 1 all or more.
        :param failed: called while an exception of ``received`` is handled; the batch goes on.
        :raises OSError: the socket has an error other than that nothing is there.
        """


def _library() -> tuple[FFI, Any]:
    ffi = FFI()
    ffi.cdef("int recvmmsg(int, void *, unsigned int, int, void *);")
    return ffi, ffi.dlopen(None)


def has_recvmmsg() -> bool:
    """Whether the C library has ``recvmmsg``, and structures as this module lays them out."""
    try:
        ffi, library = _library()
        return sys.byteorder == "little" and bool(ffi.cast("uintptr_t", library.recvmmsg))
    except (OSError, AttributeError):
        return False


class _Buffers:
    """Buffers of :data:`RUN_SIZE`, and how many of them to fill next."""

    def __init__(self) -> None:
        self._memory = bytearray(BATCH * _STRIDE)
        whole = memoryview(self._memory)
        self._views = [whole[at : at + RUN_SIZE] for at in range(0, BATCH * _STRIDE, _STRIDE)]
        self._most = BATCH
        self.datagrams = 0
        self.runs = 0
        self.octets = 0

    def _read(self, messages: int, octets: int) -> float:
        """Count a batch; as many messages next as make :data:`BATCH_BYTES` at that size."""
        share = messages / self._most
        self.datagrams += messages
        self.octets += octets
        if messages:
            fitting = BATCH_BYTES * messages // (octets or 1)
            self._most = min(BATCH, max(LEAST_BATCH, fitting))
        return share


class BatchReader(_Buffers):
    """``recvmmsg``: a batch of messages, each a datagram or a run, by one call.

    The structures that the call reads and writes are read and written through ``memoryview.cast``,
    a batch at a time: cffi's own access to fields costs more than all the rest.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._ffi, library = _library()
        self._recvmmsg: Callable[[int, object, int, int, object], int] = library.recvmmsg
        self._descriptor = sock.fileno()
        self._addresses = Addresses(sock.family)
        self._name = self._addresses.size
        names, controls = bytearray(BATCH * self._name), bytearray(BATCH * _CONTROL)
        vectors = struct.pack(
            f"{2 * BATCH}P",
            *(
                word
                for number in range(BATCH)
                for word in (self._address(self._memory) + number * _STRIDE, RUN_SIZE)
            ),
        )
        self._vectors = bytearray(vectors)
        name, control, vector = map(self._address, (names, controls, self._vectors))
        self._fresh = b"".join(
            struct.pack(
                f"{_HEAD}P",
                name + number * self._name,
                self._name,
                vector + number * 2 * _WORD,
                1,
                control + number * _CONTROL,
                _CONTROL,
                0,
                0,
            )
            for number in range(BATCH)
        )
        heads = bytearray(self._fresh)
        self._pointer = self._ffi.from_buffer(heads)
        self._heads = memoryview(heads)
        words = self._heads.cast("P")
        self._control_lengths, self._lengths = words[5::_HEAD], words[7::_HEAD]
        self._sizes = memoryview(controls).cast("I")[_GRO_SIZE // 4 :: _CONTROL // 4]
        self._names = memoryview(names)

    def _address(self, buffer: bytearray) -> int:
        return int(self._ffi.cast("uintptr_t", self._ffi.from_buffer(buffer)))

    def read(self, received: Received, failed: Callable[[], None]) -> float:
        """See :class:`Reader`."""
        most = self._most
        self._heads[:] = self._fresh  # the last call left what it received in there
        count = self._recvmmsg(
            self._descriptor, self._pointer, most, socket.MSG_DONTWAIT, self._ffi.NULL
        )
        if count < 0:
            problem = self._ffi.errno
            if problem in _NOTHING:
                return 0.0
            raise OSError(problem, os.strerror(problem))
        lengths = self._lengths[:count].tolist()
        width, at = self._name, 0
        names = self._names[: count * width].tobytes()
        known = self._addresses.known
        share = self._read(count, sum(lengths))
        for view, length, control, size in zip(
            self._views,
            lengths,
            self._control_lengths[:count].tolist(),
            self._sizes[:count].tolist(),
            strict=False,  # there are more buffers than messages
        ):
            name = names[at : at + width]
            at += width
            source = known.get(name) or self._addresses.learn(name)
            if control and length > size > 0:
                self.runs += 1
                self.datagrams += (length - 1) // size
            else:
                size = length
            try:
                received(view[:length], size, source)
            except Exception:
                failed()
        return share


class MessageReader(_Buffers):
    """``recvmsg_into``: one message, a datagram or a run, by each call."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._recvmsg_into = sock.recvmsg_into
        self._space = socket.CMSG_SPACE(4)

    def read(self, received: Received, failed: Callable[[], None]) -> float:
        """See :class:`Reader`."""
        messages = octets = 0
        for view in self._views[: self._most]:
            try:
                length, control, _, source = self._recvmsg_into((view,), self._space)
            except OSError as problem:
                if problem.errno in _NOTHING:
                    break
                raise
            messages += 1
            octets += length
            size = _run_size(control)
            if length > size > 0:
                self.runs += 1
                self.datagrams += (length - 1) // size
            else:
                size = length
            try:
                received(view[:length], size, source[:2])
            except Exception:
                failed()
        return self._read(messages, octets)


class PlainReader(_Buffers):
    """``recvfrom_into``: one datagram by each call; every system has it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._recvfrom_into = sock.recvfrom_into

    def read(self, received: Received, failed: Callable[[], None]) -> float:
        """See :class:`Reader`."""
        messages = octets = 0
        for view in self._views[: self._most]:
            try:
                length, source = self._recvfrom_into(view)
            except OSError as problem:
                if problem.errno in _NOTHING:
                    break
                raise
            messages += 1
            octets += length
            try:
                received(view[:length], length, source[:2])
            except Exception:
                failed()
        return self._read(messages, octets)


def _run_size(control: list[tuple[int, int, bytes]]) -> int:
    """The size of a run's datagrams; 0 where it is a single one."""
    for level, kind, value in control:
        if (level, kind) == (SOL_UDP, UDP_GRO):
            return int.from_bytes(value[:4], sys.byteorder)
    return 0


def run_ancillary(size: int) -> tuple[int, int, bytes]:
    """Control data of a run to send: cut it into datagrams of this size."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)
