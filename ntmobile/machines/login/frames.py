"""Frames of the inner session of a login: four bytes of length, then the encoded message."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.wire.codec import FRAME_LIMIT, Message, decode, encode

_LENGTH: Final = struct.Struct("!I")


def frame(message: Message) -> bytes:
    """A message as it stands in the inner session; too long is :class:`MalformedMessage`."""
    data = encode(message)
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Puts frames together from plaintext of any cut.

    :param limit: longest message, in bytes; a longer one is refused by its length alone.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take plaintext, yield the messages that are whole.

        :raises MalformedMessage: a frame that is too long or does not decode.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._limit:
                raise MalformedMessage(f"a frame of {length} bytes, more than {self._limit}")
            if len(self._buffer) < _LENGTH.size + length:
                return
            data = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            yield decode(data, self._limit)
