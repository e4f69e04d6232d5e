"""Links, addresses and routes through rtnetlink(7): a few requests, each acknowledged.

Needs no ``ip`` command, which accounts without sbin in their PATH may not find.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from types import TracebackType
from typing import Final

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_NETLINK_ROUTE: Final = 0
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_REPLACE: Final = 0x100
_NLM_F_CREATE: Final = 0x400

_RTM_NEWLINK: Final = 16
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25

_IFF_UP: Final = 0x1
_IFLA_MTU: Final = 4
_IFLA_AF_SPEC: Final = 26
_IFLA_GSO_MAX_SIZE: Final = 41
_IFLA_GSO_IPV4_MAX_SIZE: Final = 63
_IFLA_INET6_ADDR_GEN_MODE: Final = 8
_IN6_ADDR_GEN_MODE_NONE: Final = b"\x01"
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_F_NODAD: Final = 0x02
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RT_TABLE_MAIN: Final = 254
_RTPROT_STATIC: Final = 4
_RT_SCOPE_UNIVERSE: Final = 0
_RT_SCOPE_LINK: Final = 253
_RTN_UNICAST: Final = 1

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBi")  # family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type
_ATTRIBUTE: Final = struct.Struct("=HH")

_TIMEOUT: Final = 5.0


class RouteSocket:
    """A conversation with the kernel about the network namespace it was made in.

    Every method raises :exc:`OSError` with the kernel's number and a text that names the request.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, _NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT)
        self._sequence = 0

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def set_up(self, index: int, mtu: int | None = None) -> None:
        """Bring the link up, with this MTU in bytes if one is given."""
        attributes = b"" if mtu is None else _attribute(_IFLA_MTU, struct.pack("=I", mtu))
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP) + attributes
        self._request("link up", _RTM_NEWLINK, 0, body)

    def limit_segments(self, index: int, size: int) -> None:
        """Have the kernel hand over at most so many bytes at a time, to be cut (TSO, USO)."""
        for kind in (_IFLA_GSO_MAX_SIZE, _IFLA_GSO_IPV4_MAX_SIZE):  # the second since Linux 6.3
            limit = _attribute(kind, struct.pack("=I", size))
            body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + limit
            self._request("limit segments", _RTM_NEWLINK, 0, body)

    def without_link_local(self, index: int) -> None:
        """Have the kernel make no IPv6 link-local address when the link comes up."""
        mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)
        spec = _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + spec
        self._request("link addrgenmode none", _RTM_NEWLINK, 0, body)

    def add_address(self, index: int, address: Interface) -> None:
        """Give the link an address, usable at once (no duplicate address detection)."""
        flags = _NLM_F_CREATE | _NLM_F_REPLACE
        self._request(f"address {address}", _RTM_NEWADDR, flags, _address(index, address))

    def remove_address(self, index: int, address: Interface) -> None:
        """Take an address from the link."""
        self._request(f"no address {address}", _RTM_DELADDR, 0, _address(index, address))

    def add_route(self, index: int, network: Network) -> None:
        """Send a network's traffic to the link."""
        flags = _NLM_F_CREATE | _NLM_F_REPLACE
        self._request(f"route {network}", _RTM_NEWROUTE, flags, _route(index, network))

    def remove_route(self, index: int, network: Network) -> None:
        """Send a network's traffic to the link no more."""
        self._request(f"no route {network}", _RTM_DELROUTE, 0, _route(index, network))

    def _request(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        self._socket.send(_HEADER.pack(length, kind, flags, self._sequence, 0) + body)
        while True:
            answer = self._socket.recv(1 << 16)
            _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
            if kind == _NLMSG_ERROR and sequence == self._sequence:
                (number,) = struct.unpack_from("=i", answer, _HEADER.size)
                if number:
                    raise OSError(-number, f"{what}: {os.strerror(-number)}")
                return


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _address(index: int, address: Interface) -> bytes:
    six = isinstance(address.ip, IPv6Address)
    head = _ADDRESS.pack(
        socket.AF_INET6 if six else socket.AF_INET,
        address.network.prefixlen,
        _IFA_F_NODAD if six else 0,
        _RT_SCOPE_UNIVERSE,
        index,
    )
    packed = address.ip.packed
    return head + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def _route(index: int, network: Network) -> bytes:
    six = isinstance(network, IPv6Network)
    head = _ROUTE.pack(
        socket.AF_INET6 if six else socket.AF_INET,
        network.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        _RT_SCOPE_UNIVERSE if six else _RT_SCOPE_LINK,
        _RTN_UNICAST,
        0,
    )
    return (
        head
        + _attribute(_RTA_DST, network.network_address.packed)
        + _attribute(_RTA_OIF, struct.pack("=i", index))
    )
