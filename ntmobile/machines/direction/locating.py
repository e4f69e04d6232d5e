"""How the DNS answers that lead to a coordinator are read: what counts, in which order.

DNS answers are hints (rule R14), from servers that strangers run. So everything taken from them is
bounded in number, must answer the question that was asked, and leads to no address at which a
coordinator cannot be. What a hint leads to must prove itself by its certificate in any case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, TypeVar

from ntmobile.wire.dns_messages import Reply
from ntmobile.wire.dns_records import (
    Alias,
    Authority,
    HostAddress,
    Kind,
    Record,
    ServerName,
    ServicePort,
)

#: Hosts of one domain that are considered.
HOSTS_LIMIT: Final = 4
#: Addresses of one host, and in all, that are considered.
ADDRESSES_EACH: Final = 4
ADDRESSES_LIMIT: Final = 8
#: Aliases (CNAME) followed from a host's name to its addresses.
ALIASES_LIMIT: Final = 4
#: Seconds that an answer is believed: at least, at most, and at most for "there is none".
TTL_MIN: Final = 5
TTL_MAX: Final = 3600
NEGATIVE_TTL_MAX: Final = 300

_HOST: Final = re.compile(r"(?!.*\.\d+\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]+")
#: Where no coordinator can be: "this" network, the future use block, IPv4 in IPv6's clothes.
_IMPOSSIBLE: Final = tuple(map(ip_network, ("0.0.0.0/8", "240.0.0.0/4", "::/96", "::ffff:0:0/96")))

Random = Callable[[int], bytes]
T = TypeVar("T", HostAddress, ServerName, ServicePort)


def records_at(reply: Reply, name: str, shape: type[T]) -> list[tuple[T, int]]:
    """The data of ``shape`` that the answer section has at exactly ``name``, with their TTLs."""
    return [
        (record.data, record.ttl)
        for record in reply.answers
        if record.name == name and isinstance(record.data, shape)
    ]


def alias_of(reply: Reply, name: str) -> str | None:
    """Where the answer section sends those who ask for ``name``, if it does."""
    for record in reply.answers:
        if record.name == name and isinstance(record.data, Alias):
            return record.data.host
    return None


def name_servers(reply: Reply, domain: str) -> tuple[list[str], int]:
    """The hosts of the domain's NS records, and their TTL; none if none is a host name."""
    found = records_at(reply, domain, ServerName)[:HOSTS_LIMIT]
    hosts = [data.host for data, _ in found if is_host(data.host)]
    return hosts, min((ttl for _, ttl in found), default=0)


def services(reply: Reply, name: str, random: Random = os.urandom) -> tuple[list[ServicePort], int]:
    """The SRV records at ``name`` in the order to try them (RFC 2782), and their TTL.

    A target ``.`` (empty here) says that the service is decidedly not offered; it is kept.
    """
    found = [
        (data, ttl)
        for data, ttl in records_at(reply, name, ServicePort)
        if data.target == "" or (is_host(data.target) and data.port)
    ]
    ordered = _by_preference([data for data, _ in found], random)[:HOSTS_LIMIT]
    return ordered, min((ttl for _, ttl in found), default=0)


def _by_preference(found: Iterable[ServicePort], random: Random) -> list[ServicePort]:
    """By priority, and within one by lot: the higher the weight, the likelier it comes first."""
    ordered = []
    remaining = sorted(found, key=lambda data: (data.priority, data.weight))
    while remaining:
        group = [data for data in remaining if data.priority == remaining[0].priority]
        lot = int.from_bytes(random(4), "big") % (sum(data.weight for data in group) + 1)
        for chosen in group:
            lot -= chosen.weight
            if lot <= 0:
                break
        ordered.append(chosen)
        remaining.remove(chosen)
    return ordered


def addresses(reply: Reply, name: str) -> tuple[list[IPv4Address | IPv6Address], int]:
    """The addresses of ``name`` in a reply to A or AAAA, aliases followed within it; and the TTL.

    All of them, those that are not :func:`usable` too.
    """
    ttls = [TTL_MAX]
    for _ in range(ALIASES_LIMIT + 1):
        found = records_at(reply, name, HostAddress)
        if found:
            ttls += [ttl for _, ttl in found]
            return [data.address for data, _ in found], min(ttls)
        ttls += [r.ttl for r in reply.answers if r.name == name and r.data.kind == Kind.CNAME]
        alias = alias_of(reply, name)
        if alias is None:
            break
        name = alias
    return [], min(ttls)


def usable(address: IPv4Address | IPv6Address) -> bool:
    """Whether a coordinator may be there: private networks yes; loopback, multicast and such no."""
    return not (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or any(address in network for network in _IMPOSSIBLE)
    )


def is_host(name: str) -> bool:
    """Whether ``name`` can be a host's: at least two labels, the last one no number."""
    return len(name) <= 253 and _HOST.fullmatch(name) is not None


def positive_ttl(seconds: Sequence[int]) -> float:
    """How long to believe what was found by answers with these TTLs."""
    return float(min(max(min(seconds, default=TTL_MIN), TTL_MIN), TTL_MAX))


def negative_ttl(reply: Reply) -> float:
    """How long to believe that there is nothing: the SOA's word within bounds (RFC 2308)."""
    told = [_negative(record) for record in reply.authority if record.data.kind == Kind.SOA]
    return float(min(max(min(told, default=TTL_MIN), TTL_MIN), NEGATIVE_TTL_MAX))


def _negative(record: Record) -> int:
    assert isinstance(record.data, Authority)
    return min(record.ttl, record.data.minimum)
