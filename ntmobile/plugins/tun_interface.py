"""The kernel's side of a TUN device: which addresses and routes it has."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from ntmobile.plugins.rtnetlink import Interface, Network, RouteSocket


class TunInterface:
    """The interface of a TUN device in the network namespace of this process.

    It knows what it has set, so setting it anew changes only the difference, and connections on
    addresses that stay are not disturbed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._index = socket.if_nametoindex(name)
        self._addresses: list[Interface] = []
        self._routes: list[Network] = []

    def configure(self, addresses: Iterable[str], routes: Iterable[str], mtu: int) -> None:
        """Bring the interface up with just these addresses (``A/PREFIX``), routes and MTU.

        IPv6 ones are left out where the kernel has no IPv6.

        :raises OSError: the kernel refused; what was done before stays.
        """
        ipv6 = os.path.isdir("/proc/sys/net/ipv6")
        wanted = [a for a in map(ip_interface, addresses) if ipv6 or a.version == 4]
        networks = [n for n in map(ip_network, routes) if ipv6 or n.version == 4]
        with RouteSocket() as kernel:
            if ipv6:
                _write_setting(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6", "0")
                kernel.without_link_local(self._index)
            kernel.set_up(self._index, mtu)
            with suppress(OSError):  # it is a matter of speed
                kernel.limit_segments(self._index, run_size(mtu))
            # The new before the old: with its last IPv4 address a link loses its IPv4 routes.
            for address in wanted:
                if address not in self._addresses:
                    kernel.add_address(self._index, address)
                    self._addresses.append(address)
            for address in [a for a in self._addresses if a not in wanted]:
                kernel.remove_address(self._index, address)
                self._addresses.remove(address)
            self._set_routes(kernel, networks)

    def _set_routes(self, kernel: RouteSocket, networks: list[IPv4Network | IPv6Network]) -> None:
        for network in networks:
            if network not in self._routes:
                kernel.add_route(self._index, network)
                self._routes.append(network)
        for network in [n for n in self._routes if n not in networks]:
            try:
                kernel.remove_route(self._index, network)
            except OSError as problem:
                if problem.errno != errno.ESRCH:  # somebody else did
                    raise
            self._routes.remove(network)


def run_size(mtu: int) -> int:
    """Bytes of TCP that become one whole run of datagrams, and not one and the rest.

    A run has 65487 bytes at most, with 36 in each datagram that are ours; in the rest are headers
    of IPv6 and of TCP with timestamps. The kernel counts in its own headers (MAX_TCP_HEADER, 320).
    """
    return 65487 // (mtu + 36) * (mtu - 72) + 400


def _write_setting(path: str, text: str) -> bool:
    """Write a kernel setting where that is possible (containers have a read-only /proc/sys)."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        return False
    return True
