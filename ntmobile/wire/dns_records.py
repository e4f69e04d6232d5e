r"""DNS questions, records and answers as plain values; the numbers are IANA's.

Names are lower-case text without the final dot. The bytes of a label that are not letters, digits,
hyphens or underscores are written ``\DDD`` as in zone files (RFC 1035, section 5.1), the dot too,
so that text with dots always means labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from string import hexdigits
from typing import Final

from attrs import frozen

#: The one class that is served (RFC 1035, section 3.2.4).
IN: Final = 1


class Kind(IntEnum):
    """Record types that ntmobile serves, asks for or treats in its own way."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    """Response codes (RFC 1035, section 4.1.1; BADVERS is RFC 6891's)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


@frozen
class Question:
    """What is asked: a name (see the module), a record type, a class."""

    name: str
    kind: int
    klass: int = IN


@frozen
class HostAddress:
    """The data of A and AAAA."""

    address: IPv4Address | IPv6Address

    @property
    def kind(self) -> Kind:
        """A or AAAA, by the family."""
        return Kind.A if self.address.version == 4 else Kind.AAAA


@frozen
class ServerName:
    """The data of NS."""

    host: str
    kind: Kind = Kind.NS


@frozen
class Alias:
    """The data of CNAME."""

    host: str
    kind: Kind = Kind.CNAME


@frozen
class Pointer:
    """The data of PTR."""

    host: str
    kind: Kind = Kind.PTR


@frozen
class Authority:
    """The data of SOA (RFC 1035, section 3.3.13); times in seconds."""

    host: str
    mailbox: str
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int
    kind: Kind = Kind.SOA


@frozen
class ServicePort:
    """The data of SRV (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str
    kind: Kind = Kind.SRV


@frozen
class NotAny:
    """The data of HINFO that answers ANY with one small record (RFC 8482, section 4.2)."""

    kind: Kind = Kind.HINFO


Data = HostAddress | ServerName | Alias | Pointer | Authority | ServicePort | NotAny


@frozen
class Record:
    """A record of class IN: owner name, time to live in seconds, and data."""

    name: str
    ttl: int
    data: Data


@frozen
class Answer:
    """What a server says to a question, whatever the transport.

    :ivar recursion: whether the server says that it resolves for its askers (RA).
    :ivar remark: an extended error for people to read: its code and text (RFC 8914).
    """

    rcode: Rcode = Rcode.NOERROR
    authoritative: bool = False
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    recursion: bool = False
    remark: tuple[int, str] | None = None


#: Records at one name: by type, the data of the set.
Sets = Mapping[int, tuple[Data, ...]]


def reverse_address(name: str) -> IPv4Address | IPv6Address | None:
    """The address whose PTR record would be at ``name``; None if it is no such name.

    Below ``in-addr.arpa`` the four numbers, below ``ip6.arpa`` the 32 digits, in reverse order
    (RFC 1035, section 3.5; RFC 3596, section 2.5).
    """
    if name.endswith(".in-addr.arpa"):
        numbers = name.removesuffix(".in-addr.arpa").split(".")
        try:
            return IPv4Address(".".join(reversed(numbers)))
        except ValueError:
            return None
    if name.endswith(".ip6.arpa"):
        digits = name.removesuffix(".ip6.arpa").split(".")
        if len(digits) == 32 and all(len(each) == 1 and each in hexdigits for each in digits):
            return IPv6Address(int("".join(reversed(digits)), 16))
    return None
