"""Headers of the pieces of one packet, which are the same but for what counts up.

That is the identification of IPv4, with its header's checksum, and the sequence number of TCP. Such
a header is made in one call, since there is one for every datagram that a tunnel carries.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from ntmobile.wire.packet import TCP


@lru_cache(maxsize=64)
def layout(version: int, start: int, protocol: int, top: int) -> struct.Struct:
    """What a header of ``top`` bytes falls into, whose transport's begins at ``start``.

    IPv4: what stays, identification, what stays, checksum; then, or of IPv6 at once: what stays,
    and of TCP the sequence number and what stays after it.
    """
    before, at = ("!4sH4sH", 12) if version == 4 else ("!", 0)
    if protocol == TCP:
        return struct.Struct(f"{before}{start + 4 - at}sI{top - start - 8}s")
    return struct.Struct(f"{before}{top - at}s")


@lru_cache(maxsize=64)
def beginning(size: int) -> struct.Struct:
    """The first bytes of a packet; unpacking is the fastest way to get them for comparison."""
    return struct.Struct(f"{size}s")
