"""The client's part of the trace: what it exchanges with relays and correspondents.

What passes between client and DC is traced by the DC, which sees both ends' names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from attrs import define, field

from ntmobile.machines.effects import Address
from ntmobile.protocols.trace import trace
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.realtime import RouteDirection

#: Directions and relay addresses remembered.
REMEMBERED: Final = 256
_INDEX: Final = slice(4, 12)
_TUNNEL: Final = {
    int(Kind.TUNNEL_REQUEST): "Tunnel Request",
    int(Kind.TUNNEL_RESPONSE): "Tunnel Response",
}


@define(eq=False)
class DatagramTrace:
    """Names the ends of datagrams, and traces those that open a tunnel or a relay's leg.

    To be used only where :data:`ntmobile.protocols.trace.switch` is on.

    :ivar own: this device.
    """

    own: str
    _peers: OrderedDict[bytes, str] = field(factory=OrderedDict, init=False)
    _relays: OrderedDict[Address, str] = field(factory=OrderedDict, init=False)

    def directed(self, direction: RouteDirection) -> None:
        """Learn from a Route Direction who is meant by its identifier and by its addresses."""
        self._peers[direction.direction] = direction.peer
        if direction.relay is not None:
            for endpoint in direction.relay.endpoints:
                self._relays[endpoint.pair()] = direction.relay.name
        for remembered in (self._peers, self._relays):
            while len(remembered) > REMEMBERED:
                remembered.popitem(last=False)

    def sent(self, datagram: bytes, remote: Address) -> None:
        """A datagram that leaves."""
        title = _TUNNEL.get(datagram[0])
        relay = self._relays.get(remote)
        if title is not None:
            peer = self._peers.get(datagram[_INDEX], "unknown")
            trace(title, self.own, peer, f"through {relay}" if relay else "direct")
        elif datagram[0] == Kind.RELAY_REQUEST and relay is not None:
            trace("Relay Tunnel Request", self.own, relay)

    def received(self, datagram: bytes, remote: Address) -> None:
        """A datagram that came in, authentic or not."""
        relay = self._relays.get(remote)
        if datagram[0] == Kind.RELAY_RESPONSE and relay is not None:
            trace("Relay Tunnel Response", relay, self.own)
