"""Which addresses may be named to a correspondent (rule R17).

Public addresses only if the DC itself observed them; private ones only of the ranges that sites
use; so that a direction can never be made into a list of targets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from ntmobile.wire.messages.fields import Endpoint, Location

#: Ranges that a client may claim as its own local address: RFC 1918, RFC 6598, RFC 4193.
PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
#: At most so many candidates in a direction.
LIMIT: Final = 4


def is_private(endpoint: Endpoint) -> bool:
    """Whether a client may claim this address without the DC having seen it."""
    ip = endpoint.ip
    return any(ip.version == network.version and ip in network for network in PRIVATE)


def is_usable(endpoint: Endpoint) -> bool:
    """Whether a datagram may be sent there at all: never multicast, unspecified or broadcast."""
    ip = endpoint.ip
    return not (ip.is_multicast or ip.is_unspecified or ip.is_reserved)


def observed_of(location: Location, family: int) -> Endpoint | None:
    """The address of this family under which the DC sees the client."""
    return next((one for one in location.observed if one.family == family), None)


def private_of(location: Location, family: int) -> list[Endpoint]:
    """The private addresses of this family that the client claims."""
    return [one for one in location.local if one.family == family and is_private(one)]


def limited(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The first four usable ones, each once."""
    return tuple(dict.fromkeys(one for one in endpoints if is_usable(one)))[:LIMIT]
