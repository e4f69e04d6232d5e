"""What HTTP clients may take of a server: connections, time, and memory for bodies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import frozen

#: Bodies up to so many bytes are taken at once; longer ones when there is room.
SMALL: Final = 65536


@frozen
class Limits:
    """What clients may take of a server.

    :ivar connections: at once, :ivar per_address: of them from one IPv4 address or IPv6 /64.
    :ivar head: seconds for the head of a request, TLS included. :ivar idle: seconds between two.
    :ivar rate: least bytes a second of a body, after :ivar grace: seconds.
    :ivar stalled: seconds in which a client may read nothing of an answer.
    :ivar bodies: bytes of long bodies in memory while they come, and :ivar served: while those
        that came to a file, because there was no room, are served.
    """

    connections: int = 2000
    per_address: int = 256
    head: float = 20.0
    idle: int = 60
    rate: int = 16384
    grace: float = 30.0
    stalled: float = 60.0
    bodies: int = 12 << 20
    served: int = 8 << 20


class Room:
    """Memory for bodies; who finds none goes away, or waits in a queue."""

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()

    def take(self, size: int, enter: Callable[[], object] | None = None) -> bool:
        """Take room now, and tell so; otherwise ``enter`` is called when it was taken later."""
        size = min(size, self._size)
        if self._waiting or size > self._free:
            if enter is not None:
                self._waiting.append((size, enter))
            return False
        self._free -= size
        return True

    def leave(self, size: int) -> None:
        """Give back what was taken."""
        self._free += min(size, self._size)
        while self._waiting and self._waiting[0][0] <= self._free:
            size, call = self._waiting.popleft()
            self._free -= size
            call()
