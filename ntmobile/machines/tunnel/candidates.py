"""Which addresses of a correspondent a tunnel may send to unasked (R17)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import msgspec

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.constants import CANDIDATES
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Relay

#: RFC 1918, RFC 6598 (carriers) and RFC 4193: addresses that only the own network can be behind.
PRIVATE: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
)


def is_private(host: str) -> bool:
    """Whether a numeric address is of a private range, a carrier's or unique local."""
    address = ip_address(host)
    return any(address in network for network in PRIVATE if network.version == address.version)


def is_forbidden(host: str, own: Container[str]) -> bool:
    """Whether nothing is ever to be sent there, whoever names it.

    Loopback is allowed where this host itself has no other address: everything runs on one machine.

    :param own: hosts of the own addresses.
    """
    address = ip_address(host)
    if address.is_loopback:
        return host not in own
    if getattr(address, "ipv4_mapped", None) is not None:
        return True  # an IPv4 address that hides from these rules: nobody writes it so
    return (
        address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or host == "255.255.255.255"
    )


def directed(
    endpoints: Iterable[Endpoint], own: Iterable[Address], refused: Container[str] = ()
) -> list[Address]:
    """The candidates of a direction: the DC has observed the public ones (R17).

    :param own: own addresses, which are never candidates. :param refused: own gateways.
    """
    mine = list(own)
    hosts = [host for host, _ in mine]
    result: list[Address] = []
    for endpoint in endpoints:
        remote = endpoint.pair()
        if is_forbidden(remote[0], hosts) or remote in mine or remote[0] in refused:
            continue
        if remote not in result:
            result.append(remote)
    return result[:CANDIDATES]


def offered(
    endpoints: Iterable[Endpoint],
    heard: Container[str],
    own: Iterable[Address],
    refused: Container[str] = (),
) -> list[Address]:
    """The candidates of an offer: nobody observed the public ones, so only those heard from count.

    :param heard: hosts that authentic datagrams of this session came from.
    """
    return [
        remote
        for remote in directed(endpoints, own, refused)
        if is_private(remote[0]) or remote[0] in heard
    ]


def reachable_relay(relay: Relay | None, own: Iterable[Address]) -> Relay | None:
    """The relay of a direction, at such of its addresses as a relay can have; None without any.

    It may well be on the own gateway, or on loopback where everything runs on one machine.
    """
    if relay is None:
        return None
    hosts = [host for host, _ in own]
    local = any(ip_address(host).is_loopback for host in hosts)
    possible = tuple(
        each
        for each in relay.endpoints
        if (local and each.ip.is_loopback) or not is_forbidden(str(each.ip), hosts)
    )
    return msgspec.structs.replace(relay, endpoints=possible) if possible else None
