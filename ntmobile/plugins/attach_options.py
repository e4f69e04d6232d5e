"""What the configuration sections of the attachment plugins have in common."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Final

from ntmobile.errors import ConfigurationError

#: Any of the world's virtual networks: each coordinator's /64 is a ULA, pools are in RFC 2544's.
DEFAULT_ROUTES: Final = ("fd00::/8", "198.18.0.0/15")


def parse_routes(values: Mapping[str, object]) -> tuple[str, ...]:
    """Parse ``routes``: which networks go through the device, by default all virtual ones.

    :raises ConfigurationError: no list of networks such as ``"fd00::/8"``.
    """
    problem = ConfigurationError('attachment.routes is no list of networks such as "fd00::/8"')
    routes = values.get("routes", list(DEFAULT_ROUTES))
    if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
        raise problem
    try:
        return tuple(str(ip_network(route)) for route in routes)
    except ValueError:
        raise problem from None
