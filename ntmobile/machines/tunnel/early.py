"""Handshakes that overtake the direction they belong to.

A Route Direction reaches CN by way of both DCs, and the initiator's first Tunnel Request may be
there before it. Kept for a moment, it is answered as soon as the direction comes; dropped, it would
cost the time of a retransmission at every other tunnel.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from attrs import define, field

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.constants import REQUEST_SIZE
from ntmobile.wire.headers import Kind

#: Tunnel Requests kept at once; who floods a client with others only brings back the old delay.
CAPACITY: Final = 32
#: Seconds for which one is kept; by then its sender repeats it anyway.
PATIENCE: Final = 1.0
#: Largest datagram kept.
_LIMIT: Final = 512
_INDEX: Final = slice(4, 12)


@define
class EarlyRequests:
    """A few Tunnel Requests of unknown index. Nothing is answered or computed for them (R8)."""

    _held: OrderedDict[bytes, tuple[float, bytes, Address]] = field(factory=OrderedDict)

    def hold(self, datagram: bytes, remote: Address, now: float) -> None:
        """Keep a datagram if it can be a Tunnel Request; of one index the first."""
        if datagram[:1] != bytes([Kind.TUNNEL_REQUEST]):
            return
        if not REQUEST_SIZE <= len(datagram) <= _LIMIT:
            return
        index = datagram[_INDEX]
        known = self._held.get(index)
        if known is not None and now < known[0] + PATIENCE:
            return
        self._held[index] = (now, datagram, remote)
        self._held.move_to_end(index)
        while len(self._held) > CAPACITY:
            self._held.popitem(last=False)

    def take(self, index: bytes, now: float) -> tuple[bytes, Address] | None:
        """The request for a direction that has come: the datagram and where it came from."""
        held = self._held.pop(index, None)
        if held is None or now >= held[0] + PATIENCE:
            return None
        return held[1], held[2]
