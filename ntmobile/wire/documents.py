"""Messages as JSON documents: the same structures, their names and bounds, for HTTP (rule R11).

Bytes are base64. Unknown fields are ignored, so that versions can meet; everything else that does
not fit is :class:`MalformedMessage`, on writing too.
"""

from __future__ import annotations

from functools import cache
from typing import Final, TypeVar

import msgspec

from ntmobile.errors import MalformedMessage
from ntmobile.wire.codec import Message

#: Largest document of a request.
DOCUMENT_LIMIT: Final = 1 << 18
#: Largest document of an answer: a thousand entries of a list.
ANSWER_LIMIT: Final = 1 << 22

_M = TypeVar("_M", bound=Message)
_ENCODER: Final = msgspec.json.Encoder()


@cache
def _decoder(kind: type[_M]) -> msgspec.json.Decoder[_M]:
    return msgspec.json.Decoder(kind, strict=True)


def write_document(message: Message, limit: int = ANSWER_LIMIT) -> bytes:
    """A message as JSON; out of bounds or over ``limit`` bytes is :class:`MalformedMessage`."""
    try:
        data = _ENCODER.encode(message)
    except (TypeError, ValueError, RecursionError, OverflowError) as problem:
        kind = type(message).__name__
        raise MalformedMessage(f"a {kind} that cannot be written: {problem}") from None
    read_document(type(message), data, limit)
    return data


def read_document(
    kind: type[_M], data: bytes | bytearray | memoryview, limit: int = DOCUMENT_LIMIT
) -> _M:
    """Read JSON of at most ``limit`` bytes that must be a ``kind``.

    :raises MalformedMessage: it is anything else; the text says which field is wrong.
    """
    if len(data) > limit:
        raise MalformedMessage(f"a document of {len(data)} bytes, more than {limit}")
    try:
        found: _M = _decoder(kind).decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as problem:
        raise MalformedMessage(f"not a {kind.__name__}: {problem}") from None
    return found
