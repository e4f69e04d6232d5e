"""The network that counts as one source of attempts."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def source_network(address: str) -> str:
    """What an attacker cannot multiply: an IPv4 address, or the /64 of an IPv6 one.

    Text that is no address stands for itself, so that all such count together where it is empty.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found, 64), strict=False))
    return str(found)
