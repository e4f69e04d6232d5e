"""Virtual addresses of a DC's clients: assigned once, kept for the device's life (design, 6)."""

from __future__ import annotations

from collections.abc import Container
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from ntmobile.interfaces import ILocationStore
from ntmobile.wire import names, virtual


class Assignments:
    """Assigns FQDN and virtual addresses at a login; the store keeps them.

    :param pool: of virtual IPv4 addresses.
    """

    def __init__(self, domain: str, pool: IPv4Network, store: ILocationStore) -> None:
        self._domain = domain
        self._pool = pool
        self._store = store
        self._known = {fqdn: v6 + v4 for fqdn, (v6, v4) in store.assignments().items()}
        self._ipv6 = _Addresses({_number(kept[:16]) for kept in self._known.values()})
        self._ipv4 = _Addresses({_number(kept[16:]) for kept in self._known.values()})
        self._users = {names.user_of(fqdn) for fqdn in self._known}

    def of(self, fqdn: str) -> tuple[IPv6Address, IPv4Address] | None:
        """The addresses of a device that ever logged in."""
        kept = self._known.get(fqdn)
        return None if kept is None else (IPv6Address(kept[:16]), IPv4Address(kept[16:]))

    def has_user(self, name: str) -> bool:
        """Whether some device of ``USER.DOMAIN`` ever logged in."""
        return name in self._users

    def assign(self, user: str, device: str) -> tuple[str, IPv6Address, IPv4Address]:
        """FQDN and addresses of a device of this domain, the same ones each time.

        :raises InvalidName: device or user cannot be part of a name.
        :raises QuotaExceeded: the pool has no free address.
        :raises NTMobileError: the store cannot keep them.
        """
        labels = f"{names.check_label(device)}.{names.check_user(user)}"  # one label each (R1)
        fqdn = names.check_fqdn(f"{labels}.{self._domain}")
        if fqdn not in self._known:
            salt = 0
            while (ipv6 := virtual.address_of(self._domain, fqdn, salt)) in self._ipv6:
                salt += 1
            ipv4 = virtual.pick_ipv4(self._pool, fqdn, self._ipv4)
            self._store.assign(fqdn, ipv6.packed, ipv4.packed)
            self._known[fqdn] = ipv6.packed + ipv4.packed
            self._ipv6.add(ipv6)
            self._ipv4.add(ipv4)
            self._users.add(names.user_of(fqdn))
            return fqdn, ipv6, ipv4
        kept = self._known[fqdn]
        return fqdn, IPv6Address(kept[:16]), IPv4Address(kept[16:])


class _Addresses(Container[IPv4Address]):
    """Addresses as numbers, for there are very many."""

    def __init__(self, numbers: set[int]) -> None:
        self._numbers = numbers

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv6Address | IPv4Address) and int(address) in self._numbers

    def add(self, address: IPv6Address | IPv4Address) -> None:
        self._numbers.add(int(address))


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, "big")
