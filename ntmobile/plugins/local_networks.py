"""What this machine is attached to, as the kernel tells it (rtnetlink(7)) or as sockets show it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from attrs import frozen

from ntmobile.interfaces import LocalNetworks, Way

_NETLINK_ROUTE: Final = 0
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE = 18, 22, 26
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_NLM_F_DUMP: Final = 0x301
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBi")  # family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 3, 1, 2, 8
_IFA_F_UNUSABLE: Final = 0x20 | 0x40 | 0x08  # deprecated, tentative, duplicate found
_RTA_GATEWAY, _RTA_OIF, _RTA_PRIORITY = 5, 4, 6
_RT_TABLE_MAIN, _RTN_UNICAST, _RT_SCOPE_LINK = 254, 1, 253

#: Messages by which something goes: a link, an address, a route.
_RTM_NEWLINK, _RTM_DELLINK, _RTM_DELADDR, _RTM_DELROUTE = 16, 17, 21, 25

#: Devices that are not a network to be reached by: our own.
OWN_PREFIX: Final = "ntm"


@frozen
class _Default:
    """A default route; of two the one with the lower priority is taken."""

    index: int
    family: int
    gateway: str | None
    priority: int


@frozen
class _Raw:
    """The three dumps: usable interfaces by index, addresses, default routes."""

    links: Mapping[int, str]
    addresses: tuple[tuple[int, str, int], ...]
    defaults: tuple[_Default, ...]


def read_local_networks() -> LocalNetworks:
    """What there is now. Asks the kernel where it can; never blocks for long, never raises."""
    try:
        raw = _read_kernel()
    except (OSError, AttributeError, struct.error):
        return _guess()
    usable = [one for one in raw.addresses if one[0] in raw.links and _is_usable(one[1])]
    networks = {
        str(ip_network(f"{host}/{prefix}", strict=False))
        for _, host, prefix in usable
        if prefix < (128 if ":" in host else 32)
    }
    defaults = [one for one in raw.defaults if one.index in raw.links]
    return LocalNetworks(
        tuple(sorted(host for _, host, _ in usable)),
        tuple(sorted(networks)),
        frozenset(one.family for one in defaults),
        tuple(sorted({one.gateway for one in defaults if one.gateway})),
        tuple(_ways(raw, usable)),
    )


def _ways(raw: _Raw, usable: Sequence[tuple[int, str, int]]) -> Iterator[Way]:
    """Each interface with a default route and an address, in order of preference."""
    seen = set()
    for one in sorted(raw.defaults, key=lambda one: (one.family, one.priority)):
        hosts = (host for index, host, _ in usable if index == one.index)
        own = tuple(sorted(host for host in hosts if (":" in host) == (one.family == 6)))
        if own and (one.family, one.index) not in seen:
            seen.add((one.family, one.index))
            yield Way(one.family, one.index, raw.links[one.index], own)


def _is_usable(host: str) -> bool:
    address = ip_address(host)
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


def _read_kernel() -> _Raw:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as asking:
        asking.settimeout(2.0)
        asking.bind((0, 0))
        links = dict(_links(asking))
        addresses = tuple(_addresses(asking))
        return _Raw(links, addresses, tuple(_defaults(asking)))


def _dump(asking: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """The bodies of a dump's messages."""
    head = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_DUMP, kind, 0)
    asking.send(head + body)
    while True:
        data = asking.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, found, _, _, _ = _HEADER.unpack_from(data, offset)
            if found == _NLMSG_DONE:
                return
            if found == _NLMSG_ERROR or length < _HEADER.size:
                code = struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                raise OSError(-code, os.strerror(-code))
            yield data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _links(asking: socket.socket) -> Iterator[tuple[int, str]]:
    for body in _dump(asking, _RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        name = (
            _attributes(body[_LINK.size :])
            .get(_IFLA_IFNAME, b"")
            .rstrip(b"\0")
            .decode(errors="replace")
        )
        running = flags & _IFF_UP and flags & _IFF_RUNNING
        if running and not flags & _IFF_LOOPBACK and not name.startswith(OWN_PREFIX):
            yield index, name


def _addresses(asking: socket.socket) -> Iterator[tuple[int, str, int]]:
    for body in _dump(asking, _RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, prefix, flags, _, index = _ADDRESS.unpack_from(body)
        attributes = _attributes(body[_ADDRESS.size :])
        wide = attributes.get(_IFA_FLAGS)
        flags = struct.unpack("=I", wide)[0] if wide else flags
        packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if packed and not flags & _IFA_F_UNUSABLE and family in (socket.AF_INET, socket.AF_INET6):
            yield index, str(ip_address(packed)), prefix


def _defaults(asking: socket.socket) -> Iterator[_Default]:
    for body in _dump(asking, _RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        yield from _default(body)


def _default(body: bytes) -> Iterator[_Default]:
    """The route of a message, if it is a default route."""
    family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    if prefix or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:
        return
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    attributes = _attributes(body[_ROUTE.size :])
    gateway = attributes.get(_RTA_GATEWAY)
    yield _Default(
        _number(attributes.get(_RTA_OIF)),
        4 if family == socket.AF_INET else 6,
        str(ip_address(gateway)) if gateway else None,
        _number(attributes.get(_RTA_PRIORITY)),
    )


def _number(attribute: bytes | None) -> int:
    return int(struct.unpack("=I", attribute)[0]) if attribute else 0


def breaks(data: bytes, used: Collection[int]) -> bool:
    """Whether messages of the kernel say that something went which interfaces in use had.

    :param data: what a netlink socket received. :param used: indices of those interfaces.
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        body = data[offset + _HEADER.size : offset + length]
        try:
            if _broken_link(kind, body) in used:
                return True
        except struct.error:
            break
        offset += (length + 3) & ~3
    return False


def _broken_link(kind: int, body: bytes) -> int:
    """The interface that lost something, by one message; 0 if none did."""
    if kind in (_RTM_NEWLINK, _RTM_DELLINK):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        return 0 if kind == _RTM_NEWLINK and flags & _IFF_RUNNING else int(index)
    if kind == _RTM_DELADDR:
        return int(_ADDRESS.unpack_from(body)[4])
    if kind == _RTM_DELROUTE:
        return next((one.index for one in _default(body)), 0)
    return 0


def _guess() -> LocalNetworks:
    """Where there is no rtnetlink: the addresses that the system would send from."""
    addresses = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                host = probe.getsockname()[0].partition("%")[0]
        except OSError:
            continue
        if _is_usable(host):
            addresses.append(host)
    routes = frozenset(6 if ":" in host else 4 for host in addresses)
    return LocalNetworks(tuple(sorted(addresses)), (), routes)
