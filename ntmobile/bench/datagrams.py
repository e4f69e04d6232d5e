"""Bursts of equal datagrams, sent and counted with as little work of Python as can be.

A generator must not be what is measured, so a burst is prepared once and sent with ``sendmmsg``
(each message a run for ``UDP_SEGMENT`` if it has several segments), and a receiver takes batches
with ``recvmmsg`` and ``UDP_GRO`` and looks at lengths only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Any, Final

#: linux/udp.h
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

_MSG_DONTWAIT: Final = 0x40
#: More bytes than this are no UDP datagram.
LARGEST_RUN: Final = 65507
#: Messages of one recvmmsg.
_BATCH: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


class _Control(ctypes.Structure):
    """A ``cmsghdr`` with a ``uint16_t``, padded to its alignment."""

    _fields_ = [
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("segment", ctypes.c_uint16),
        ("padding", ctypes.c_uint8 * 6),
    ]


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def udp_socket(host: str, port: int = 0) -> socket.socket:
    """Make a bound UDP socket with large buffers, as far as the system allows."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    made.bind((host, port))
    return made


class Burst:
    """``messages`` equal runs of ``segments`` equal datagrams, for connected sockets.

    :ivar datagrams: in all of it.
    """

    def __init__(self, datagram: bytes, segments: int, messages: int) -> None:
        if segments * len(datagram) > LARGEST_RUN:
            raise ValueError(f"{segments} datagrams of {len(datagram)} bytes are no run")
        self.segments, self.datagrams = segments, segments * messages
        self._data = ctypes.create_string_buffer(datagram * segments, segments * len(datagram))
        self._vector = _Vector(ctypes.addressof(self._data), len(self._data))
        self._control = _Control(18, socket.IPPROTO_UDP, UDP_SEGMENT, len(datagram))
        self._count = messages
        self._messages = (_Message * messages)()
        for message in self._messages:
            message.header.vectors = ctypes.addressof(self._vector)
            message.header.vector_count = 1
            if segments > 1:
                message.header.control = ctypes.addressof(self._control)
                message.header.control_length = ctypes.sizeof(_Control)

    def send(self, descriptor: int) -> int:
        """Send what the socket takes; gives the number of datagrams."""
        sent: int = _libc.sendmmsg(descriptor, self._messages, self._count, _MSG_DONTWAIT)
        if sent < 0:
            if ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED):
                return 0
            raise _failed("sendmmsg")
        return sent * self.segments


class Sink:
    """Counts datagrams of one size.

    :ivar datagrams: :ivar receptions: messages that brought them, of one or more segments each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.datagrams = self.receptions = 0
        self._buffers = ctypes.create_string_buffer(_BATCH << 16)
        base = ctypes.addressof(self._buffers)
        self._vectors = (_Vector * _BATCH)(
            *(_Vector(base + (number << 16), 1 << 16) for number in range(_BATCH))
        )
        self._messages = (_Message * _BATCH)()
        vectors = ctypes.addressof(self._vectors)
        for number, message in enumerate(self._messages):
            message.header.vectors = vectors + number * ctypes.sizeof(_Vector)
            message.header.vector_count = 1

    def adopt(self, receiver: socket.socket) -> None:
        """Have a socket deliver runs, where the system can."""
        receiver.setblocking(False)
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    def receive(self, descriptor: int) -> int:
        """Take what is there, up to a batch; gives the number of datagrams.

        :raises ValueError: something else came in.
        """
        messages: Any = self._messages
        got: int = _libc.recvmmsg(descriptor, messages, _BATCH, _MSG_DONTWAIT, None)
        if got < 0:
            if ctypes.get_errno() in (errno.EAGAIN, errno.ECONNREFUSED):
                return 0
            raise _failed("recvmmsg")
        lengths: list[int] = [messages[number].length for number in range(got)]
        datagrams, rest = divmod(sum(lengths), self.size)
        if rest:
            raise ValueError(f"not all were datagrams of {self.size} bytes: {lengths}")
        self.datagrams += datagrams
        self.receptions += got
        return datagrams
