"""Sockets whose datagrams are never fragmented (R27; ip(7), ipv6(7), RFC 8899)."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

#: linux/in.h and linux/in6.h; Python names none of these.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_DONTFRAG: Final = 62
_PMTUDISC_DO: Final = 2
_PMTUDISC_PROBE: Final = 3


def never_fragment(made: socket.socket, *, believe: bool = True) -> None:
    """Have no datagram fragmented, where the system can.

    :param believe: what routers report as "too big" counts: the system remembers it, and refuses
        what is larger (EMSGSIZE). Else only the own interface's MTU does, and paths are probed.
    """
    how = _PMTUDISC_DO if believe else _PMTUDISC_PROBE
    with suppress(OSError):
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, how)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, how)
