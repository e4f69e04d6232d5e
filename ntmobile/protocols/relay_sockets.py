"""The sockets of a data port: bound early, never fragmenting (R27).

With ``IP_PMTUDISC_DO`` every datagram carries the don't-fragment bit, the system remembers the path
MTU that routers report, and a datagram beyond it is refused with EMSGSIZE: that is the moment to
tell the sender. ``IP_PMTUDISC_PROBE`` would not look at what routers report, so that datagrams too
big for a path would vanish without a word.
"""

from __future__ import annotations

import socket
from typing import Final

from ntmobile.errors import ConfigurationError
from ntmobile.machines.effects import Address
from ntmobile.protocols.fragmenting import never_fragment

#: linux/in.h and linux/in6.h; Python names none of these.
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24

#: IP and UDP headers.
OVERHEAD: Final = {socket.AF_INET: 28, socket.AF_INET6: 48}


def family_of(host: str) -> socket.AddressFamily:
    """The family of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def bind_data_port(address: Address) -> socket.socket:
    """A UDP socket on a numeric address, for a :class:`.DatagramPort`.

    :raises ConfigurationError: the port is in use, the address is not this machine's, or the
        system forbids it.
    """
    made = socket.socket(family_of(address[0]), socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        never_fragment(made)
        made.bind(address)
    except OSError as problem:
        made.close()
        raise ConfigurationError(
            f"cannot use UDP port {address[1]} of {address[0]}: {problem.strerror}"
        ) from None
    return made


def path_limit(remote: Address) -> int:
    """Bytes of a datagram that fit the path to an address, as the system knows it now; 0: unknown.

    A socket that is connected, and sends nothing, is the only one that can be asked.
    """
    family = family_of(remote[0])
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_MTU)
        if family == socket.AF_INET6
        else (socket.IPPROTO_IP, _IP_MTU)
    )
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            return max(0, probe.getsockopt(level, option) - OVERHEAD[family])
    except OSError:
        return 0
