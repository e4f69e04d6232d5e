"""Socket addresses as the kernel writes them, and as Python does: host text and port."""

from __future__ import annotations

import socket
from typing import Final

from ntmobile.machines.effects import Address

#: Addresses remembered; about 250 bytes each. When there are more, all are forgotten: strangers can
#: make the kernel name as many as they like.
CAPACITY: Final = 16_384

_SIZES: Final = {socket.AF_INET: 16, socket.AF_INET6: 28}


class Addresses:
    """Reads ``struct sockaddr_in`` and ``sockaddr_in6`` (ip(7), ipv6(7)) of one family.

    :ivar size: bytes of the structure.
    :ivar known: those read lately, for a look-up without a call; :meth:`learn` the others.
    """

    def __init__(self, family: int) -> None:
        self.size = _SIZES[socket.AddressFamily(family)]
        self.known: dict[bytes, Address] = {}
        self._family = family

    def learn(self, name: bytes) -> Address:
        """The address that a structure says. A scope (of link-local addresses) is left out."""
        if len(self.known) >= CAPACITY:
            self.known.clear()
        port = int.from_bytes(name[2:4], "big")
        host = name[4:8] if self._family == socket.AF_INET else name[8:24]
        address = self.known[name] = (socket.inet_ntop(self._family, host), port)
        return address
