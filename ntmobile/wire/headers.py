"""The one datagram header (rule R23), the same for signalling, direct and relayed tunnel traffic.

::

     0       1       2       3       4
     +-------+-------+-------+-------+
     | kind  | flags |   reserved    |
     +-------+-------+-------+-------+
     |           index (8)           |   tunnel or session identifier
     |                               |
     +-------+-------+-------+-------+
     |          counter (8)          |   big endian; with the key it makes the nonce
     |                               |
     +-------+-------+-------+-------+
     | body ...

The first byte tells the traffics of one socket apart. A relay server reads kind and index, and
nothing else. The whole header is the additional data of whatever seals the body.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage

HEADER: Final = struct.Struct("!BBH8sQ")
HEADER_SIZE: Final = HEADER.size
TAG_SIZE: Final = 16


class Kind(IntEnum):
    """The first byte of a datagram."""

    TUNNEL_REQUEST = 0x10  #: handshake message 1, end to end
    TUNNEL_RESPONSE = 0x11  #: handshake message 2, end to end
    TUNNEL_DATA = 0x12  #: a sealed inner packet or control message, end to end
    TUNNEL_UNKNOWN = 0x13  #: unauthenticated hint: no session of this index here (R15)
    SIGNAL_HELLO = 0x20  #: client to DC: a fresh nonce, MACed with the session key (R7)
    SIGNAL_WELCOME = 0x21  #: DC to client: the other nonce
    SIGNAL_UNKNOWN = 0x22  #: unauthenticated hint: no such session, or no keys for it
    SIGNAL_SEALED = 0x23  #: an envelope under the keys of the session
    RELAY_REQUEST = 0x30  #: client to RS: Relay Tunnel Request, MACed (R25)
    RELAY_RESPONSE = 0x31  #: RS to client: Relay Tunnel Response, MACed
    RELAY_TOO_BIG = 0x32  #: RS to client: a datagram did not fit the other leg (R27)
    RELAY_UNKNOWN = 0x33  #: RS to client, unauthenticated hint: no such tunnel here


#: What an RS forwards without looking further.
FORWARDED: Final = frozenset(
    {Kind.TUNNEL_REQUEST, Kind.TUNNEL_RESPONSE, Kind.TUNNEL_DATA, Kind.TUNNEL_UNKNOWN}
)


class Flag(IntFlag):
    """The second byte of a datagram."""

    EPOCH = 0x03  #: mask: the key epoch, modulo four (R19)
    PARTIAL = 0x04  #: tunnel data: the inner packet's TCP or UDP checksum covers its pseudo header
    #: only, since the seal covers all; who hands the packet on completes it (R23)
    CONTROL = 0x10  #: tunnel data: the body is a control message, not an inner packet
    FIRST = 0x20  #: tunnel data: the first half of a packet split over two datagrams (R23)
    SECOND = 0x40  #: tunnel data: the second half; its counter is that of the first plus one
    FROM_COORDINATOR = 0x80  #: signalling: sent by the DC


@frozen(slots=True)
class Header:
    """A parsed header. ``index`` has 8 bytes, ``counter`` is below 2^64."""

    kind: Kind
    flags: int
    index: bytes
    counter: int

    def pack(self) -> bytes:
        """The 20 bytes of this header."""
        return HEADER.pack(self.kind, self.flags, 0, self.index, self.counter)

    @classmethod
    def parse(cls, datagram: bytes | bytearray | memoryview) -> Header:
        """Read a header; too short, unknown kind, reserved bits: :class:`MalformedMessage`."""
        if len(datagram) < HEADER_SIZE:
            raise MalformedMessage(
                f"a datagram of {len(datagram)} bytes is shorter than its header"
            )
        kind, flags, reserved, index, counter = HEADER.unpack_from(datagram)
        if reserved:
            raise MalformedMessage("reserved header bytes are not zero")
        try:
            return cls(Kind(kind), flags, index, counter)
        except ValueError:
            raise MalformedMessage(f"a datagram of unknown kind {kind:#04x}") from None
