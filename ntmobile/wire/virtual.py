"""Virtual addresses: what applications see, stable for a device's life (design section 6).

Virtual IPv6 is a unique local /64 for each coordinator, derived from its domain, so realms need no
coordination. Virtual IPv4 comes from a pool of the home coordinator and is only local truth (R24).
"""

from __future__ import annotations

from collections.abc import Container
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from ntmobile.errors import QuotaExceeded
from ntmobile.wire.names import check_domain, check_fqdn

#: The default pool of virtual IPv4 addresses (RFC 2544's range: carriers use 100.64.0.0/10).
POOL: Final = IPv4Network("198.18.0.0/15")
#: Interface identifiers and pool offsets below these belong to the platform (resolver, gateway).
RESERVED_INTERFACES: Final = 1 << 16
RESERVED_HOSTS: Final = 16


def prefix_of(domain: str) -> IPv6Network:
    """The /64 of a coordinator: ``fd`` and 7 bytes of SHA-256("ntm virtual prefix" || domain)."""
    digest = sha256(b"ntm virtual prefix" + check_domain(domain).encode("ascii")).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))


def address_of(domain: str, fqdn: str, salt: int = 0) -> IPv6Address:
    """The virtual IPv6 address of a device in the prefix of ``domain``.

    The interface identifier is 8 bytes of SHA-256("ntm virtual address" || salt || fqdn), the salt
    as 4 bytes, big endian. Where two devices collide, the coordinator tries the next salt.
    Identifiers that are reserved (below :data:`RESERVED_INTERFACES`, or in RFC 5453) are passed
    over in the same way.
    """
    name = check_fqdn(fqdn).encode("ascii")
    while True:
        digest = sha256(b"ntm virtual address" + salt.to_bytes(4, "big") + name).digest()
        interface = int.from_bytes(digest[:8], "big")
        if not _is_reserved(interface):
            return prefix_of(domain)[interface]
        salt += 1


def _is_reserved(interface: int) -> bool:
    """RFC 5453's identifiers (IANA Ethernet block, subnet anycast) and the platform's own."""
    return (
        interface < RESERVED_INTERFACES
        or interface >> 24 == 0x02005EFFFE
        or interface >> 7 == 0xFDFFFFFFFFFFFF80 >> 7
    )


def is_virtual_of(domain: str, address: IPv6Address) -> bool:
    """Whether ``address`` lies in the prefix derived from ``domain`` (rule R22)."""
    return address in prefix_of(domain)


def hosts_in(pool: IPv4Network) -> tuple[int, int]:
    """The first offset a device may have in ``pool``, and how many offsets follow from there.

    Network and broadcast addresses are left out, and in pools of a /24 or more the first
    :data:`RESERVED_HOSTS` too.
    """
    first = RESERVED_HOSTS if pool.num_addresses >= 256 else 1
    return first, max(0, pool.num_addresses - 1 - first)


def pick_ipv4(pool: IPv4Network, fqdn: str, taken: Container[IPv4Address]) -> IPv4Address:
    """A free virtual IPv4 address: a start derived from ``fqdn``, then the next free one.

    :raises QuotaExceeded: every address of the pool is taken.
    """
    first, count = hosts_in(pool)
    digest = sha256(b"ntm virtual address" + check_fqdn(fqdn).encode("ascii")).digest()
    start = int.from_bytes(digest[:8], "big")
    for step in range(count):
        candidate = pool[first + (start + step) % count]
        if candidate not in taken:
            return candidate
    raise QuotaExceeded(f"the pool {pool} has no free virtual address; configure a larger one")
