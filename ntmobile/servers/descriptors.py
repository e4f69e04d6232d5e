"""How many files and connections this process may have open at once."""

from __future__ import annotations

import resource
from typing import Final

#: For all but connections: files of stores, links, listening sockets, libraries.
RESERVE: Final = 256


def descriptors(wanted: int) -> int:
    """Have the system allow so many, as far as it does without privilege.

    :return: how many it allows now, at most as many as were wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft
    return most


def connections(wanted: int, each: int) -> int:
    """How many connections there may be, each of which may need so many descriptors."""
    return max(1, min(wanted, (descriptors(wanted * each + RESERVE) - RESERVE) // each))
