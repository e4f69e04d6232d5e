"""What travels in the virtual internet, and what the internet remembers of it."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host

#: A transport address as Twisted gives it: numeric host text and port.
Address = tuple[str, int]

#: What IP and UDP headers add to a payload, by family, when a datagram meets an MTU.
OVERHEAD: Final = {4: 28, 6: 48}
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
WILDCARD: Final = {4: "0.0.0.0", 6: "::"}


@lru_cache(maxsize=4096)
def canonical(host: str) -> str:
    """The one spelling of a numeric address; anything else is a ``ValueError``."""
    return str(ip_address(host))


@lru_cache(maxsize=4096)
def family(host: str) -> int:
    """4 or 6, of a numeric address."""
    return ip_address(host).version


class Signal(Enum):
    """What a TCP segment says."""

    OPEN = "open"  #: SYN
    ACCEPT = "accept"  #: SYN and ACK
    DATA = "data"
    END = "end"  #: FIN
    ACK = "ack"
    PROBE = "probe"  #: asks for an acknowledgement, for example when the window is shut
    RESET = "reset"


@frozen
class Segment:
    """The part of a simulated TCP segment that is not payload.

    :ivar number: counts segments (not bytes) of one direction; the OPEN or ACCEPT is number 0.
    :ivar acknowledged: the next number expected from the other side.
    :ivar room: how many segments the sender of this one is willing to receive.
    """

    signal: Signal
    number: int = 0
    acknowledged: int = 0
    room: int = 0


@frozen
class Datagram:
    """One packet on its way: a UDP datagram, or a TCP segment where ``segment`` is set.

    :ivar source: where it claims to come from; rewritten by a NAT, forged by a spoofer.
    :ivar refusal: it is not data but the news that ``source`` has no such port (ICMP, in short).
    :ivar origin: the host that really sent it, which no protocol sees.
    """

    source: Address
    destination: Address
    payload: bytes
    segment: Segment | None = None
    refusal: bool = False
    origin: Host | None = field(default=None, eq=False, repr=False)

    @property
    def protocol(self) -> str:
        """``udp`` or ``tcp``."""
        return "udp" if self.segment is None else "tcp"

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.destination[0])

    @property
    def size(self) -> int:
        """Bytes on the link, IP and UDP headers included."""
        return len(self.payload) + OVERHEAD[self.family]

    def sent_from(self, source: Address) -> Datagram:
        """The same with another source."""
        return evolve(self, source=source)

    def sent_to(self, destination: Address) -> Datagram:
        """The same with another destination."""
        return evolve(self, destination=destination)

    def carrying(self, payload: bytes) -> Datagram:
        """The same with another payload."""
        return evolve(self, payload=payload)


class Event(Enum):
    """What became of a datagram at a place."""

    SENT = "sent"
    DELIVERED = "delivered"
    DROPPED = "dropped"


@frozen
class Capture:
    """One line of what the internet recorded.

    :ivar time: seconds of the internet's clock.
    :ivar place: name of the host, network or gateway where it happened.
    :ivar reason: for a dropped datagram, why, in a few words.
    """

    time: float
    event: Event
    place: str
    datagram: Datagram
    reason: str = ""
