"""TLS for servers that move much: many records at a time, where Twisted takes one by one.

A record has 16 KiB, and between TLS and application Twisted does as much for one as for a hundred.
Here all records of one read of the socket come to the application as one piece, and all records of
one piece of the application go to the socket together.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IAddress
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

#: Most bytes of a record's content, and what is read from a socket, and sent to it, at once.
RECORD: Final = 1 << 14
BULK: Final = 1 << 18
#: More than TLS adds to a record.
_OVERHEAD: Final = 64


class BulkTLS(BufferingTLSTransport):
    """One connection; it overrides what moves data in Twisted's, and nothing of the handshake."""

    def makeConnection(self, transport: Any) -> None:
        """Read much at once."""
        if isinstance(transport, Connection):
            transport.bufferSize = transport.SEND_LIMIT = BULK
        base: Any = super()
        base.makeConnection(transport)

    def _flushReceiveBIO(self) -> None:
        """Give the application all that has come, as one piece."""
        pieces: list[bytes] = []
        try:
            while not self._lostTLSConnection:
                pieces.append(self._tlsConnection.recv(RECORD))
        except WantReadError:
            self._deliver(pieces)
        except ZeroReturnError:
            self._deliver(pieces)
            if not self._lostTLSConnection:
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
        except Error:
            failure = Failure()
            self._deliver(pieces)
            if not self._lostTLSConnection:
                self._tlsShutdownFinished(failure)
        self._flushSendBIO()

    def _deliver(self, pieces: list[bytes]) -> None:
        if pieces and not self._aborted:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            ProtocolWrapper.dataReceived(self, data)

    def _write(self, data: bytes) -> None:
        """Protect all of it, and give it to the socket together."""
        if self._lostTLSConnection or not self._handshakeDone or len(data) <= RECORD:
            base: Any = super()
            base._write(data)
            return
        try:
            # Nothing but a handshake could make this wait, and TLS 1.3 has none after the first.
            self._tlsConnection.sendall(data)
        except Error:
            self._tlsShutdownFinished(Failure())
            return
        records = len(data) // RECORD + 2
        transport: Any = self.transport
        transport.write(self._tlsConnection.bio_read(len(data) + records * _OVERHEAD))


class TLSFactory(TLSMemoryBIOFactory):
    """Twisted's makes a TLS connection around nothing where the inner factory refuses one."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A TLS connection, or None."""
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


class BulkTLSFactory(TLSFactory):
    """Makes connections that move much."""

    protocol = BulkTLS
