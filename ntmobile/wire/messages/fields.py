"""Field types with their bounds, and the small structures that several messages carry."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from ntmobile.errors import MalformedMessage

# "$" would let a newline at the end through.
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[a-z0-9.-]+\Z")]
#: A pattern over FQDNs, such as ``*.alice.dc1.ntm.example``: an FQDN of at most 70, and ``*.``.
Pattern = Annotated[str, Meta(min_length=1, max_length=72, pattern=r"\A[a-z0-9.*-]+\Z")]
Text = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=0, lt=1 << 32)]
Counter = Annotated[int, Meta(ge=0, lt=1 << 62)]
#: Unix time in milliseconds, of the AS's clock (R12).
Millis = Annotated[int, Meta(ge=0, lt=1 << 53)]
Seconds = Annotated[int, Meta(ge=0, lt=1 << 31)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Identifier = Annotated[bytes, Meta(min_length=8, max_length=8)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Certificate = Annotated[bytes, Meta(min_length=64, max_length=400)]
AddressBytes = Annotated[bytes, Meta(min_length=4, max_length=16)]

#: Version of IP.
Family = Annotated[int, Meta(ge=4, le=6)]

#: Address and port as Twisted gives them: numeric host text, port.
Address = tuple[str, int]


class Endpoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A transport address: 4 or 16 address bytes, UDP or TCP port."""

    address: AddressBytes
    port: Port

    def __post_init__(self) -> None:
        if len(self.address) not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")

    @classmethod
    def of(cls, address: Address) -> Endpoint:
        """From numeric host text and port; not numeric is :class:`MalformedMessage`.

        An IPv4 address that a socket of both families shows as ``::ffff:192.0.2.1`` is IPv4.
        """
        try:
            return cls(_packed(address[0]), address[1])
        except ValueError:
            raise MalformedMessage(f"not a numeric address: {address[0]!r}") from None

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address as an object."""
        return ipaddress.ip_address(self.address)

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.address) == 4 else 6

    def pair(self) -> Address:
        """Numeric host text and port."""
        return str(self.ip), self.port


@lru_cache(maxsize=8192)  # a datagram's source is asked for several times
def _packed(host: str) -> bytes:
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return ip.packed if mapped is None else mapped.packed


Endpoints = Annotated[tuple[Endpoint, ...], Meta(max_length=8)]
Candidates = Annotated[tuple[Endpoint, ...], Meta(max_length=4)]


class Location(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a client is, as its DC knows it (R9, R17).

    :ivar generation: grows with every change; the newest wins.
    :ivar observed: source addresses the DC saw, at most one a family.
    :ivar local: addresses of the client's own interfaces, with the port of its socket.
    :ivar translated: families (4, 6) in which what the DC saw is not an address of the client: N.
    :ivar online: heard within its lifetime; otherwise the last known location.
    """

    generation: Counter
    observed: Endpoints
    local: Endpoints
    translated: Annotated[tuple[Family, ...], Meta(max_length=2)] = ()
    online: bool = True
