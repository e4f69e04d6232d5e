"""The inner TLS session of a login: client and AS, through a DC that only carries records (R2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ntmobile.errors import AuthenticationError
from ntmobile.machines.login.frames import FrameReader, frame
from ntmobile.protocols.tls import ClientTLS, MemoryTLS, ServerTLS
from ntmobile.wire.codec import Message

#: Largest piece of records in one Login Relay or Login Data.
PIECE: Final = 32768


class InnerSession:
    """One end of the inner session: records in, messages and records out.

    :ivar tls: the session itself, for its exporter and its peer.
    :param limit: longest message that the other end may send.
    """

    def __init__(self, side: ServerTLS | ClientTLS, limit: int) -> None:
        self.tls = MemoryTLS(side)
        self._reader = FrameReader(limit)

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self.tls.established and not self.tls.closed

    def start(self) -> list[bytes]:
        """The client's first records."""
        return pieces(self.tls.start())

    def feed(self, records: bytes) -> tuple[list[Message], list[bytes]]:
        """Take records from the other end; the messages that are whole now, and records to send.

        :raises CertificateError: the other end is not who it must be.
        :raises AuthenticationError: any other failure of TLS.
        :raises MalformedMessage: what is inside is no message.
        """
        plaintext, answer = self.tls.feed(records)
        return list(self._reader.feed(plaintext)), pieces(answer)

    def send(self, message: Message) -> list[bytes]:
        """The records that carry a message."""
        return pieces(self.tls.send(frame(message)))

    def close(self) -> list[bytes]:
        """The records that end the session, or an alert that waits."""
        try:
            return pieces(self.tls.close())
        except AuthenticationError:
            return []


def pieces(records: bytes) -> list[bytes]:
    """Records, cut so that each piece fits a message."""
    return list(_cut(records))


def _cut(records: bytes) -> Iterator[bytes]:
    for start in range(0, len(records), PIECE):
        yield records[start : start + PIECE]
