"""The Internet checksum (RFC 1071), whole and by difference (RFC 1624)."""

from __future__ import annotations

import struct
from typing import Final

_PSEUDO_V4: Final = struct.Struct("!4s4sxBH")
_PSEUDO_V6: Final = struct.Struct("!16s16sI3xB")


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """The one's complement sum of the 16-bit words, 0 to 65535; an odd last byte is padded."""
    # 2^16 is 1 modulo 65535, so the whole number's remainder is the sum of its words.
    total = int.from_bytes(data, "big")
    if len(data) % 2:
        total <<= 8
    # A sum of anything but zeros never folds to zero.
    return (total - 1) % 0xFFFF + 1 if total else 0


def checksum(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """The checksum of data whose checksum field is zero; of sound data that has one, zero.

    :param start: a sum that is added, such as that of a pseudo-header.
    """
    total = ones_sum(data) + start
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def pseudo_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293, RFC 8200 section 8.1).

    :param source: 4 or 16 bytes, and ``destination`` the same.
    :param length: of transport header and payload together.
    """
    if len(source) == 4:
        return ones_sum(_PSEUDO_V4.pack(source, destination, protocol, length))
    return ones_sum(_PSEUDO_V6.pack(source, destination, length, protocol))


def adjust(value: int, old: bytes, new: bytes) -> int:
    """The checksum after ``old`` was replaced by ``new`` (same even length, at an even offset).

    A checksum that was right stays right, one that was wrong stays wrong (RFC 1624, equation 3).
    """
    total = (~value & 0xFFFF) + (~ones_sum(old) & 0xFFFF) + ones_sum(new)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
