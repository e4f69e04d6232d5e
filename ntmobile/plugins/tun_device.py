"""The reactor's side of a TUN device: packets to and from applications.

A device with ``IFF_VNET_HDR`` hands over up to 64 KiB at a time, to be cut by whoever sends it on,
and takes as much; see :mod:`ntmobile.wire.offload`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import AttachmentTraffic
from ntmobile.plugins.linux import DATAGRAMS, offload_tun
from ntmobile.wire.offload import (
    PARTIAL,
    VIRTIO_SIZE,
    GsoKind,
    Offload,
    open_virtio,
    pack_virtio,
)
from ntmobile.wire.packet import Buffer
from ntmobile.wire.segmentation import Segmentation

log = Logger()

#: Packets, and bytes, read in one wake-up; then others have their turn.
BURST: Final = 64
BURST_BYTES: Final = 256 << 10
#: The longest packet a device can hand over.
_LARGEST: Final = 65535

Receive = Callable[[Buffer, Offload | None], object]

#: Writing failed for now or for this packet; the device lives.
_PASSING: Final = (errno.EAGAIN, errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class TunDevice:
    """Reads a TUN descriptor (one packet a read, no packet information) through the reactor.

    :param descriptor: becomes this object's, to be closed by it; made non-blocking.
    :param receive: called with each packet that an application sent, valid only during the call,
        and what is left to be done with it.
    :param lost: called once if the device goes away by itself.
    :ivar offload: whether it takes packets of which something is left to be done.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        descriptor: int,
        receive: Receive,
        lost: Callable[[NTMobileError], None],
    ) -> None:
        self.traffic = AttachmentTraffic()
        self._reactor = reactor
        self._descriptor = descriptor
        self._receive = receive
        self._lost = lost
        os.set_blocking(descriptor, False)
        offered = offload_tun(descriptor, VIRTIO_SIZE)
        self.offload = offered is not None
        # Before Linux 6.2 a device refuses datagrams that are joined.
        self._joined_datagrams = bool((offered or 0) & DATAGRAMS)
        self._before = VIRTIO_SIZE if self.offload else 0
        self._buffer = bytearray(self._before + _LARGEST)
        self._view = memoryview(self._buffer)
        reactor.addReader(self)

    def send(self, packet: Buffer, offload: Offload | None = None) -> None:
        """Hand one packet to the kernel; what it does not take is dropped and counted."""
        self.send_parts((packet,), offload)

    def send_parts(self, parts: Sequence[Buffer], offload: Offload | None) -> None:
        """Hand over a packet in parts, of which the first holds all headers."""
        if offload is not None and offload.kind is GsoKind.UDP and not self._joined_datagrams:
            self._send_singly(b"".join(parts), offload)
            return
        if self._before:
            parts = (pack_virtio(offload, parts[0]), *parts)
        try:
            os.writev(self._descriptor, parts)
        except OSError as problem:
            self.traffic.dropped += 1
            if problem.errno not in _PASSING:
                self.connectionLost(Failure(problem))
        else:
            self.traffic.to_applications += 1

    def _send_singly(self, packet: bytes, offload: Offload) -> None:
        """Hand over datagrams that came joined."""
        segmentation = Segmentation(packet, offload, len(packet))
        room = memoryview(bytearray(segmentation.length))
        for number in range(segmentation.count):
            self.send(room[: segmentation.write(number, room, 0)], PARTIAL)

    def doRead(self) -> None:
        """See ``IReadDescriptor``: pass on at most :data:`BURST` packets."""
        left = BURST_BYTES
        for _ in range(BURST):
            if self._descriptor < 0 or left <= 0:
                return
            try:
                size = os.readv(self._descriptor, (self._buffer,))
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.EIO:  # which means: down for now
                    self.connectionLost(Failure(problem))
                return
            if not size:
                self.connectionLost(Failure(EOFError("end of file")))
                return
            left -= size
            self.traffic.from_applications += 1
            try:
                if self._before:
                    self._receive(*open_virtio(self._view[:size]))
                else:
                    self._receive(self._view[:size], None)
            except Exception:
                self.traffic.dropped += 1
                log.failure("a packet from an application could not be treated")

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``: the device has gone, or the reactor ends."""
        if self._descriptor >= 0:
            self.close()
            self._lost(NTMobileError(f"the TUN device has gone: {reason.getErrorMessage()}"))

    def close(self) -> None:
        """Read no more and give the descriptor up; may be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._reactor.removeReader(self)
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "tun"
