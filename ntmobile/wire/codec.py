"""The one codec: a registered number (two bytes, big endian), then the fields as MessagePack array.

Messages of non-realtime communication are maps by field name instead, so that the same structure
is a JSON object over HTTP (:mod:`ntmobile.wire.documents`).

Rule R11: size is limited before decoding, every failure becomes :class:`MalformedMessage`,
encoding validates too. Unknown fields at the end are ignored, so that versions can meet; fields are
only ever added at the end, with a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec
from attrs import frozen

from ntmobile.errors import MalformedMessage

#: Largest signalling datagram, header and tag included (rule R10).
DATAGRAM_LIMIT: Final = 1200
#: Largest frame between servers and in a login.
FRAME_LIMIT: Final = 65536


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base of every message: immutable, its fields in a fixed order.

    What is immutable cannot lead back to itself, so the garbage collector need not look for that.
    """


@frozen
class Declaration:
    """What is known of a message type: where it stands in the conversations of design section 5.

    :ivar number: the registered number, 1 to 65535.
    :ivar title: its name in the paper and the documents, such as ``Registration Request``.
    :ivar sender: who sends it. :ivar receiver: who receives it.
    :ivar transport: ``udp``, ``link`` (TLS between servers or client and DC), ``inner`` (client and
        AS through the DC), ``https`` (as JSON) or ``tunnel`` (end to end).
    :ivar protection: how it is protected, in a few words.
    """

    number: int
    title: str
    sender: str
    receiver: str
    transport: str
    protection: str
    type: type[Message]


_BY_NUMBER: dict[int, Declaration] = {}
_BY_TYPE: dict[type[Message], Declaration] = {}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Message]] = {}
_ENCODER: Final = msgspec.msgpack.Encoder()

_M = TypeVar("_M", bound=Message)


def declare(
    number: int,
    title: str,
    *,
    sender: str,
    receiver: str,
    transport: str,
    protection: str,
) -> Callable[[type[_M]], type[_M]]:
    """Register a message class; a decorator. A number taken already is a ``ValueError``."""

    def register(cls: type[_M]) -> type[_M]:
        if number in _BY_NUMBER or not 0 < number < 65536:
            raise ValueError(f"message number {number:#06x} is taken or out of range")
        declaration = Declaration(number, title, sender, receiver, transport, protection, cls)
        _BY_NUMBER[number] = declaration
        _BY_TYPE[cls] = declaration
        _DECODERS[number] = msgspec.msgpack.Decoder(cls, strict=True)
        return cls

    return register


def declarations() -> Iterator[Declaration]:
    """All declared messages, by number."""
    yield from (_BY_NUMBER[number] for number in sorted(_BY_NUMBER))


def declaration_of(message: Message | type[Message]) -> Declaration:
    """The declaration of a message or message class."""
    return _BY_TYPE[message if isinstance(message, type) else type(message)]


def encode(message: Message, limit: int = FRAME_LIMIT) -> bytes:
    """Encode a message; out of bounds or over ``limit`` bytes is :class:`MalformedMessage`."""
    declaration = _BY_TYPE[type(message)]
    try:
        body = _ENCODER.encode(message)
    except (TypeError, ValueError, RecursionError, OverflowError) as problem:
        raise MalformedMessage(f"a {declaration.title} that does not encode: {problem}") from None
    data = declaration.number.to_bytes(2, "big") + body
    decode(data, limit)
    return data


def decode(data: bytes | bytearray | memoryview, limit: int = FRAME_LIMIT) -> Message:
    """Decode one message of at most ``limit`` bytes; any failure is :class:`MalformedMessage`."""
    if not 3 <= len(data) <= limit:
        raise MalformedMessage(f"a message of {len(data)} bytes, outside 3 to {limit}")
    view = memoryview(data)
    number = int.from_bytes(view[:2], "big")
    decoder = _DECODERS.get(number)
    if decoder is None:
        raise MalformedMessage(f"a message of unknown number {number:#06x}")
    try:
        return decoder.decode(view[2:])
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as problem:
        title = _BY_NUMBER[number].title
        raise MalformedMessage(f"a {title} that does not decode: {problem}") from None


def decode_as(kind: type[_M], data: bytes | bytearray | memoryview, limit: int = FRAME_LIMIT) -> _M:
    """Decode a message that must be a ``kind``; anything else is :class:`MalformedMessage`."""
    message = decode(data, limit)
    if not isinstance(message, kind):
        expected = declaration_of(kind).title
        raise MalformedMessage(f"a {declaration_of(message).title} where a {expected} belongs")
    return message
