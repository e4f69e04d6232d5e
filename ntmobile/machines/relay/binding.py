"""Binding the legs of a relayed tunnel: Relay Tunnel Request and Response (R25)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.relay.challenge import Challenge
from ntmobile.machines.relay.limits import RelayLimits, RelayTally
from ntmobile.machines.relay.tunnel import Leg, RelayedTunnel
from ntmobile.wire.headers import Header
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.relaying import LegState, RelayTunnelRequest, RelayTunnelResponse
from ntmobile.wire.relaying import UNASKED, authentic, parse_relayed, seal_relayed

#: Binds of one side that may come at once.
BIND_BURST: Final = 12


class Binding:
    """Decides each request of a client: refresh, challenge, bind or refuse.

    A leg is bound by a request with the cookie that was sent to its address, under a counter above
    that of every request with a cookie before, whether that one bound or not. So what somebody
    recorded binds nothing, not even where the client answered a challenge meant for an attacker.

    :param boot: goes into every answer. :param tally: is shared with the server.
    """

    def __init__(
        self, boot: bytes, limits: RelayLimits, tally: RelayTally, random: Callable[[int], bytes]
    ) -> None:
        self._boot = boot
        self._overlap = limits.overlap
        self._tally = tally
        self._challenge = Challenge(random)
        self._requests = RateLimiter(limits.requests, limits.requests, 3 * limits.capacity)
        self._checks = RateLimiter(limits.checks, limits.checks, 1)
        self._binds = RateLimiter(limits.binds, BIND_BURST, 2 * limits.capacity)

    def requested(
        self, tunnel: RelayedTunnel, datagram: bytes, source: Address, now: float
    ) -> list[Transmit]:
        """A datagram of the kind and length of a request, for this tunnel: rate first, then MAC."""
        # Strangers share a bucket, and so cannot keep a bound leg from refreshing itself.
        key = (datagram[4:12], tunnel.side_of(source))
        if not self._requests.allow(key, now) or not self._checks.allow(None, now):
            self._tally.throttled += 1
            return []
        try:
            header, request = parse_relayed(datagram)
        except MalformedMessage:
            self._tally.malformed += 1
            return []
        assert isinstance(request, RelayTunnelRequest)  # of its kind, by parse_relayed
        if not authentic(tunnel.leg(request.side).key, datagram):
            self._tally.forged += 1
            return []
        return self._asked(tunnel, header, request, source, now)

    def _asked(
        self,
        tunnel: RelayedTunnel,
        header: Header,
        request: RelayTunnelRequest,
        source: Address,
        now: float,
    ) -> list[Transmit]:
        """An authentic request: refresh, challenge, bind or refuse."""
        leg, index, side = tunnel.leg(request.side), header.index, request.side
        here = source == leg.address
        again = header.counter == leg.counter
        if header.counter < leg.counter or (again and request.cookie and not here):
            self._tally.stale += 1
            return [self._refusal(leg, index, request, source)]
        if here or request.cookie:
            leg.counter = header.counter
        if here:
            self._tally.refreshed += 1
            leg.heard = now
            return [self._state(tunnel, leg, header, request, source)]
        if not self._challenge.answered(request.cookie, index, side, source, now):
            self._tally.challenged += 1
            cookie = self._challenge.cookie(index, side, source, now)
            answer = RelayTunnelResponse(
                LegState.CHALLENGE, request.nonce, self._boot, cookie, Endpoint.of(source)
            )
            return [Transmit(seal_relayed(leg.key, index, header.counter, answer), source)]
        if not self._binds.allow((index, side), now):
            self._tally.refused += 1
            return [self._refusal(leg, index, request, source)]
        return self._bind(tunnel, header, request, source, now)

    def _bind(
        self,
        tunnel: RelayedTunnel,
        header: Header,
        request: RelayTunnelRequest,
        source: Address,
        now: float,
    ) -> list[Transmit]:
        """The address is proven: it is the leg from now on, and not a moment before."""
        self._tally.bound += 1
        leg, other = tunnel.leg(request.side), tunnel.leg(1 - request.side)
        was_joined = tunnel.joined
        leg.former, leg.former_until = leg.address, now + self._overlap
        leg.address, leg.heard = source, now
        effects = [self._state(tunnel, leg, header, request, source)]
        if other.address is not None and not was_joined:
            news = self._response(LegState.JOINED, UNASKED, other.address)
            datagram = seal_relayed(other.key, header.index, other.counter, news)
            effects.append(Transmit(datagram, other.address))
            effects += self._release(tunnel, now)
        return effects

    def _release(self, tunnel: RelayedTunnel, now: float) -> list[Transmit]:
        """Forward the handshake that waited, if it is not too old."""
        held, tunnel.held = tunnel.held, None
        if held is None or now >= held.until:
            return []
        remote = tunnel.leg(1 - held.side).address
        if remote is None or not tunnel.admits(len(held.datagram), now):
            return []
        tunnel.datagrams += 1
        tunnel.octets += len(held.datagram)
        self._tally.released += 1
        return [Transmit(held.datagram, remote)]

    def _state(
        self,
        tunnel: RelayedTunnel,
        leg: Leg,
        header: Header,
        request: RelayTunnelRequest,
        source: Address,
    ) -> Transmit:
        state = LegState.JOINED if tunnel.joined else LegState.BOUND
        answer = self._response(state, request.nonce, source)
        return Transmit(seal_relayed(leg.key, header.index, header.counter, answer), source)

    def _refusal(
        self, leg: Leg, index: bytes, request: RelayTunnelRequest, source: Address
    ) -> Transmit:
        """REFUSED, with the counter above which a client that lost count may go on."""
        answer = self._response(LegState.REFUSED, request.nonce, source)
        return Transmit(seal_relayed(leg.key, index, max(0, leg.counter), answer), source)

    def _response(self, state: LegState, nonce: bytes, remote: Address) -> RelayTunnelResponse:
        return RelayTunnelResponse(state, nonce, self._boot, observed=Endpoint.of(remote))
