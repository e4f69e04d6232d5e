"""The ``static`` lookup: a table of coordinators in the configuration, without DNS.

In a server's configuration::

    [lookup]
    plugin = "static"
    [lookup.coordinators]
    "dc1.ntm.example" = ["192.0.2.1:4330", "[2001:db8::1]:4330"]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, InvalidName, UnknownName
from ntmobile.interfaces import Coordinator, ICoordinatorLookup, ICoordinatorLookupProvider
from ntmobile.plugins.lookup_options import COORDINATOR_PORT, parse_address
from ntmobile.plugins.section import reject_unknown
from ntmobile.wire.names import check_domain

_KEYS: Final = ("coordinators",)


@implementer(ICoordinatorLookup)
class StaticLookup:
    """Answers from a table."""

    def __init__(self, coordinators: Mapping[str, Coordinator]) -> None:
        self._coordinators = dict(coordinators)

    def find(self, domain: str) -> Deferred[Coordinator]:
        """See :class:`~ntmobile.interfaces.ICoordinatorLookup`."""
        try:
            found = self._coordinators.get(check_domain(domain))
        except InvalidName as problem:
            return fail(problem)
        if found is None:
            return fail(
                UnknownName(
                    f"no coordinator of {domain} is known; add it to [lookup.coordinators] of this "
                    "server's configuration"
                )
            )
        return succeed(found)


@implementer(IPlugin, ICoordinatorLookupProvider)
class StaticLookupProvider:
    """Makes a :class:`StaticLookup` of the table ``coordinators``: domain to ``HOST:PORT`` list."""

    name = "static"

    def configure(self, section: Mapping[str, object], reactor: object) -> StaticLookup:
        """See :class:`~ntmobile.interfaces.ICoordinatorLookupProvider`."""
        reject_unknown("lookup", section, _KEYS)
        table = section.get("coordinators", {})
        if not isinstance(table, Mapping):
            raise ConfigurationError('lookup.coordinators is no table of "DOMAIN" = ["HOST:PORT"]')
        return StaticLookup({domain: _coordinator(domain, table[domain]) for domain in table})


def _coordinator(domain: str, value: object) -> Coordinator:
    key = f'lookup.coordinators."{domain}"'
    try:
        check_domain(domain)
    except InvalidName as problem:
        raise ConfigurationError(f"{key}: {problem}") from problem
    if not isinstance(value, list) or not value:
        raise ConfigurationError(f'{key} is no list of "HOST:PORT"')
    servers = tuple(parse_address(key, item, COORDINATOR_PORT) for item in value)
    return Coordinator(domain, servers, udp_port=servers[0][1], tcp_port=servers[0][1])


staticLookup = StaticLookupProvider()
