"""A DC's clients as its DNS zone sees them: virtual addresses, never locations (design, 5)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from ntmobile.machines.signalling.clients import ClientTable
from ntmobile.servers.assignment import Assignments
from ntmobile.wire import names


class DomainNames:
    """Provides :class:`ntmobile.machines.zone.ZoneData`."""

    def __init__(self, clients: ClientTable, assignments: Assignments) -> None:
        self._clients = clients
        self._assignments = assignments

    def virtual_addresses(self, name: str) -> tuple[IPv6Address | None, IPv4Address | None] | None:
        """A device that ever logged in, or the device of a user that registered last."""
        if names.is_user_of(name, self._clients.domain):
            client = self._clients.find(name)
            return None if client is None else self._assignments.of(client.fqdn)
        return self._assignments.of(name)

    def has_below(self, name: str) -> bool:
        """Whether a user has devices."""
        return self._assignments.has_user(name)
