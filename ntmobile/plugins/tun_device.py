"""The reactor's side of a TUN device: packets to and from applications."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import AttachmentTraffic

log = Logger()

#: Packets read in one wake-up; then others have their turn.
BURST: Final = 64
#: The longest packet a device can hand over.
_LARGEST: Final = 65535

#: Writing failed for now or for this packet; the device lives.
_PASSING: Final = (errno.EAGAIN, errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class TunDevice:
    """Reads a TUN descriptor (one packet a read, no packet information) through the reactor.

    :param descriptor: becomes this object's, to be closed by it; made non-blocking.
    :param receive: called with each packet that an application sent.
    :param lost: called once if the device goes away by itself.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        descriptor: int,
        receive: Callable[[bytes], None],
        lost: Callable[[NTMobileError], None],
    ) -> None:
        self.traffic = AttachmentTraffic()
        self._reactor = reactor
        self._descriptor = descriptor
        self._receive = receive
        self._lost = lost
        os.set_blocking(descriptor, False)
        reactor.addReader(self)

    def send(self, packet: bytes) -> None:
        """Hand one packet to the kernel; what it does not take is dropped and counted."""
        try:
            os.write(self._descriptor, packet)
        except OSError as problem:
            self.traffic.dropped += 1
            if problem.errno not in _PASSING:
                self.connectionLost(Failure(problem))
        else:
            self.traffic.to_applications += 1

    def doRead(self) -> None:
        """See ``IReadDescriptor``: pass on at most :data:`BURST` packets."""
        for _ in range(BURST):
            if self._descriptor < 0:
                return
            try:
                packet = os.read(self._descriptor, _LARGEST)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.EIO:  # which means: down for now
                    self.connectionLost(Failure(problem))
                return
            if not packet:
                self.connectionLost(Failure(EOFError("end of file")))
                return
            self.traffic.from_applications += 1
            try:
                self._receive(packet)
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
