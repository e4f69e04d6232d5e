"""Datagrams between a client and its RS: a header, a message, and a MAC with the side's key (R25).

::

    +----------------------+-------------------------+--------------------------------+
    | header (20)          | encoded message         | HMAC-SHA256, first 16 bytes,   |
    | index = direction    | (:mod:`.messages.relaying`) | over all that precedes     |
    +----------------------+-------------------------+--------------------------------+

Every request has :data:`REQUEST_SIZE` bytes or more, and no answer has more (R8).
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.constant_time import bytes_eq
from msgspec.structs import replace

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.wire.codec import Message, decode_as, encode
from ntmobile.wire.headers import HEADER_SIZE, Header, Kind
from ntmobile.wire.messages.relaying import RelayTooBig, RelayTunnelRequest, RelayTunnelResponse

MAC_SIZE: Final = 16
#: Smallest request, and largest answer: one with a cookie and an observed IPv6 address has 108.
REQUEST_SIZE: Final = 112
#: Largest request; there is room for fields to come.
REQUEST_LIMIT: Final = 256
#: The nonce of a response that nobody asked for.
UNASKED: Final = bytes(16)

_KINDS: Final[dict[type[Message], Kind]] = {
    RelayTunnelRequest: Kind.RELAY_REQUEST,
    RelayTunnelResponse: Kind.RELAY_RESPONSE,
    RelayTooBig: Kind.RELAY_TOO_BIG,
}
_TYPES: Final = {kind: of for of, kind in _KINDS.items()}


def relay_mac(key: bytes, data: bytes) -> bytes:
    """The 16 bytes that authenticate a datagram between a client and its RS."""
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(data)
    return mac.finalize()[:MAC_SIZE]


def seal_relayed(key: bytes, direction: bytes, counter: int, message: Message) -> bytes:
    """A datagram with a request, a response or a signal. Requests are padded to their size (R8).

    :param key: of the side that sends or receives it. :param direction: the header's index.
    """
    if isinstance(message, RelayTunnelRequest):
        bare = HEADER_SIZE + len(encode(replace(message, padding=b""))) + MAC_SIZE
        message = replace(message, padding=bytes(max(0, REQUEST_SIZE - bare)))
    body = Header(_KINDS[type(message)], 0, direction, counter).pack() + encode(message)
    return body + relay_mac(key, body)


def parse_relayed(datagram: bytes) -> tuple[Header, Message]:
    """Header and message of a datagram that is *not yet authenticated*; see :func:`authentic`.

    :raises MalformedMessage: it is none of ours.
    """
    header = Header.parse(datagram)
    expected = _TYPES.get(header.kind)
    if expected is None or not HEADER_SIZE + MAC_SIZE < len(datagram) <= REQUEST_LIMIT:
        raise MalformedMessage(f"{header.kind.name} of {len(datagram)} bytes is no relay message")
    return header, decode_as(expected, datagram[HEADER_SIZE:-MAC_SIZE], REQUEST_LIMIT)


def authentic(key: bytes, datagram: bytes) -> bool:
    """Whether the datagram ends in the MAC of this key."""
    return bytes_eq(relay_mac(key, datagram[:-MAC_SIZE]), datagram[-MAC_SIZE:])


def open_relayed(key: bytes, datagram: bytes) -> tuple[Header, Message]:
    """Header and message of an authentic datagram, for who knows the key beforehand.

    :raises MalformedMessage: it is no datagram of this conversation.
    :raises AuthenticationError: another key made it, or it was changed.
    """
    if not HEADER_SIZE + MAC_SIZE < len(datagram) <= REQUEST_LIMIT:
        raise MalformedMessage(f"a relay message of {len(datagram)} bytes")
    if not authentic(key, datagram):
        raise AuthenticationError("a relay message that its key did not make")
    return parse_relayed(datagram)
