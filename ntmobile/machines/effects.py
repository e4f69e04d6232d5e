"""Effects that several machines return. A machine never acts; whoever runs it carries these out."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

#: Numeric host text and port, as Twisted gives them.
Address: TypeAlias = tuple[str, int]


@frozen(slots=True)
class Transmit:
    """Send a datagram to a transport address."""

    datagram: bytes
    remote: Address


@frozen(slots=True)
class TransmitRun:
    """Send datagrams that lie one after another in a buffer.

    :ivar segment: bytes of each of them; the last may be shorter.
    """

    data: bytearray
    segment: int
    remote: Address
