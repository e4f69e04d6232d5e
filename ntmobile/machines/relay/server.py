"""The relay server's machine: it forwards what a DC directed, between proven addresses.

Forwarding looks at kind, index and source address alone: :meth:`RelayServer.forward` is one look-up
and two comparisons. All else takes :meth:`RelayServer.datagram_received`, and requests go on to
:class:`~ntmobile.machines.relay.binding.Binding` (R25 to R27). What a stranger sends costs no
cryptography before length, kind, index and rate are checked, and no answer is larger than what it
answers (R8).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.relay.binding import Binding
from ntmobile.machines.relay.limits import HELD_SIZE, RelayLimits, RelayTally
from ntmobile.machines.relay.tunnel import HeldHandshake, Leg, RelayedTunnel
from ntmobile.wire.headers import FORWARDED, HEADER, HEADER_SIZE, Header, Kind
from ntmobile.wire.messages.coordination import (
    RelayCount,
    RelayDirection,
    RelayEnd,
    RelayReport,
    RelayResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.messages.relaying import RelayTooBig
from ntmobile.wire.relaying import REQUEST_LIMIT, REQUEST_SIZE, seal_relayed

#: Flags of a RELAY_UNKNOWN hint: the tunnel is here, but the address is no leg of it.
UNBOUND: Final = 1
#: Seconds between looks for tunnels that are over.
SWEEP: Final = 1.0
#: Signals "too big" a second to one leg.
TOO_BIG_RATE: Final = 5.0
#: Tunnels and ended tunnels in one report.
REPORT_SIZE: Final = 1000


class RelayServer:
    """The tunnels of one RS.

    :param boot: 8 bytes, fresh at each start, by which DC and clients see a restart (R26).
    :param limits: bounds. :param random: makes the secret of this start.
    :ivar tally: what became of datagrams.
    """

    def __init__(
        self,
        boot: bytes,
        limits: RelayLimits | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.boot = boot
        self.limits = limits or RelayLimits()
        self.tally = RelayTally()
        self._binding = Binding(boot, self.limits, self.tally, random)
        self._tunnels: dict[bytes, RelayedTunnel] = {}
        self._ended: dict[bytes, None] = {}
        self._ended_octets = 0
        self._reported = (0.0, 0)
        self._sweep_at = 0.0
        self._hints = RateLimiter(self.limits.hints, self.limits.hints, 1)
        self._too_big = RateLimiter(TOO_BIG_RATE, TOO_BIG_RATE, 2 * self.limits.capacity)

    def __len__(self) -> int:
        """How many tunnels there are."""
        return len(self._tunnels)

    # -- the DC's orders

    def direct(self, direction: RelayDirection, now: float) -> RelayResponse:
        """Relay this tunnel; BUSY at capacity. Repeating is harmless, other keys start afresh."""
        first, second = direction.keys
        tunnel = self._tunnels.get(direction.direction)
        if tunnel is None and len(self._tunnels) >= self.limits.capacity:
            return RelayResponse(direction.direction, Outcome.BUSY, self.boot)
        if tunnel is None or (tunnel.first.key, tunnel.second.key) != (first, second):
            if tunnel is not None:
                self._ended_octets += tunnel.octets
            if not self._tunnels:
                self._sweep_at = now + SWEEP
            tunnel = RelayedTunnel(Leg(first), Leg(second), now)
            self._tunnels[direction.direction] = tunnel
            self._ended.pop(direction.direction, None)
        tunnel.expires = max(tunnel.expires, now + direction.lifetime)
        tunnel.limit(direction.rate or self.limits.rate)
        return RelayResponse(direction.direction, Outcome.OK, self.boot)

    def end(self, order: RelayEnd) -> bool:
        """Forget a tunnel; whether there was one. It is not reported, the DC knows."""
        tunnel = self._tunnels.pop(order.direction, None)
        if tunnel is not None:
            self._ended_octets += tunnel.octets
        return tunnel is not None

    def reports(self, now: float) -> list[RelayReport]:
        """The load and the counts of all tunnels, in as many reports as it takes; one at least.

        An ended tunnel is in each until the DC has it: call :meth:`reported` when it answered.
        """
        counts = [
            RelayCount(index, tunnel.datagrams, tunnel.octets, int(tunnel.idle(now)))
            for index, tunnel in self._tunnels.items()
        ]
        octets = self._ended_octets + sum(count.octets for count in counts)
        then, before = self._reported
        rate = int((octets - before) / (now - then)) if now > then else 0
        self._reported = (now, octets)
        ended = list(self._ended)
        return [
            RelayReport(
                len(counts),
                min(rate, (1 << 32) - 1),
                tuple(counts[start : start + REPORT_SIZE]),
                tuple(ended[start : start + REPORT_SIZE]),
            )
            for start in range(0, max(len(counts), len(ended), 1), REPORT_SIZE)
        ]

    def reported(self, report: RelayReport) -> None:
        """The DC has this report: its ended tunnels need no further mention."""
        for index in report.ended:
            self._ended.pop(index, None)

    # -- time

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` may have something to do."""
        return self._sweep_at if self._tunnels else None

    def handle_timer(self, now: float) -> None:
        """End what is over, and drop handshakes that waited too long."""
        self._sweep_at = now + SWEEP
        for index, tunnel in list(self._tunnels.items()):
            if tunnel.over(now, self.limits.idle):
                del self._tunnels[index]
                self._ended_octets += tunnel.octets
                self.tally.expired += 1
                self._remember_ended(index)
            elif tunnel.held is not None and now >= tunnel.held.until:
                tunnel.held = None

    def _remember_ended(self, index: bytes) -> None:
        self._ended[index] = None
        while len(self._ended) > self.limits.capacity:
            del self._ended[next(iter(self._ended))]

    # -- forwarding

    def forward(
        self, index: bytes, source: Address, count: int, octets: int, now: float
    ) -> Address | None:
        """Where ``count`` datagrams of one tunnel from one source go; None: nowhere as they are.

        This is the hot path, for one datagram or a run whose headers all name the same tunnel. What
        gets None goes through :meth:`unforwarded` or :meth:`unforwarded_run`. A run passes the rate
        limit whole or not at all: runs are shorter than the burst of any rate.

        :param index: of their headers. :param octets: of all together.
        """
        tunnel = self._tunnels.get(index)
        if tunnel is None:
            return None
        leg, other = tunnel.first, tunnel.second
        if source != leg.address:
            leg, other = other, leg
            if source != leg.address:
                return None
        remote = other.address
        if remote is None:
            return None
        leg.heard = now
        # RelayedTunnel.admits, without the call.
        full_at = tunnel.full_at if tunnel.full_at > now else now
        full_at += octets * tunnel.seconds_per_byte
        if full_at - now > tunnel.burst:
            self.tally.limited += count
            return None
        tunnel.full_at = full_at
        tunnel.datagrams += count
        tunnel.octets += octets
        self.tally.forwarded += count
        return remote

    def datagram_received(self, datagram: bytes, source: Address, now: float) -> list[Transmit]:
        """Any datagram of the data port. Never raises, whatever it holds."""
        if len(datagram) >= HEADER_SIZE and datagram[0] in FORWARDED:
            remote = self.forward(datagram[4:12], source, 1, len(datagram), now)
            if remote is not None:
                return [Transmit(datagram, remote)]
        return self.unforwarded(datagram, source, now)

    def unforwarded(self, datagram: bytes, source: Address, now: float) -> list[Transmit]:
        """A datagram that :meth:`forward` did not take, or that is not for forwarding."""
        if len(datagram) < HEADER_SIZE or not source[1]:
            self.tally.malformed += 1
            return []
        request = datagram[0] == Kind.RELAY_REQUEST
        if not (request or datagram[0] in FORWARDED) or (
            request and not REQUEST_SIZE <= len(datagram) <= REQUEST_LIMIT
        ):
            self.tally.malformed += 1
            return []
        tunnel = self._tunnels.get(datagram[4:12])
        if tunnel is None:
            self.tally.unknown += 1
            return self._hint(datagram, source, 0, now)
        if request:
            return self._binding.requested(tunnel, datagram, source, now)
        side = tunnel.side_of(source)
        if side is None:
            return self._late(tunnel, datagram, source, now)
        if not tunnel.joined:
            self._hold(tunnel, side, datagram, now)
        return []

    def unforwarded_run(
        self, index: bytes | None, data: memoryview, segment: int, source: Address, now: float
    ) -> list[Transmit]:
        """The datagrams of a run that :meth:`forward` did not take; ``segment`` bytes each.

        :param index: the one that all headers name; ``None``: they are not for forwarding.
        """
        tunnel = None if index is None else self._tunnels.get(index)
        if tunnel is not None and tunnel.joined and tunnel.side_of(source) is not None:
            return []  # over the rate, and counted: a flood costs no look at each datagram
        effects: list[Transmit] = []
        for at in range(0, len(data), segment):
            effects += self.unforwarded(bytes(data[at : at + segment]), source, now)
        return effects

    def _late(
        self, tunnel: RelayedTunnel, datagram: bytes, source: Address, now: float
    ) -> list[Transmit]:
        """From no leg: forwarded if it was one just before a rebind, else hinted at."""
        for leg, other in ((tunnel.first, tunnel.second), (tunnel.second, tunnel.first)):
            if source == leg.former and now < leg.former_until and other.address is not None:
                if not tunnel.admits(len(datagram), now):
                    self.tally.limited += 1
                    return []
                tunnel.datagrams += 1
                tunnel.octets += len(datagram)
                self.tally.forwarded += 1
                return [Transmit(datagram, other.address)]
        self.tally.unbound += 1
        return self._hint(datagram, source, UNBOUND, now)

    def _hold(self, tunnel: RelayedTunnel, side: int, datagram: bytes, now: float) -> None:
        """Keep one handshake until the other leg is bound (R25): the newest, if there are more."""
        tunnel.leg(side).heard = now
        if datagram[0] != Kind.TUNNEL_REQUEST or len(datagram) > HELD_SIZE:
            self.tally.waiting += 1
            return
        self.tally.held += 1
        tunnel.held = HeldHandshake(bytes(datagram), side, now + self.limits.hold)

    def _hint(self, datagram: bytes, source: Address, flags: int, now: float) -> list[Transmit]:
        """A bare header, never more than what it answers, and few of them (R8).

        It has the index and counter of the datagram, so that only who saw that can forge one.
        """
        if not self._hints.allow(None, now):
            return []
        self.tally.hints += 1
        _, _, _, index, counter = HEADER.unpack_from(datagram)
        return [Transmit(Header(Kind.RELAY_UNKNOWN, flags, index, counter).pack(), source)]

    # -- what did not fit

    def sender(self, datagram: bytes, remote: Address) -> Address | None:
        """The leg from which a datagram came that was forwarded to ``remote``."""
        tunnel = self._tunnels.get(datagram[4:12])
        side = None if tunnel is None else tunnel.side_of(remote)
        return None if tunnel is None or side is None else tunnel.leg(1 - side).address

    def unsent(self, datagram: bytes, source: Address | None, now: float, *, too_big: bool) -> bool:
        """The system did not send a forwarded datagram; whether :meth:`too_big` should follow.

        :param source: see :meth:`sender`.
        """
        tunnel = self._tunnels.get(datagram[4:12])
        if tunnel is not None:
            tunnel.datagrams -= 1
            tunnel.octets -= len(datagram)
        self.tally.forwarded -= 1
        if not too_big:
            self.tally.unsent += 1
            return False
        self.tally.too_big += 1
        side = None if tunnel is None or source is None else tunnel.side_of(source)
        return side is not None and self._too_big.allow((datagram[4:12], side), now)

    def too_big(self, datagram: bytes, source: Address, limit: int) -> list[Transmit]:
        """Tell the sender that a datagram did not fit the other leg (R27).

        :param limit: bytes of a datagram that fits; 0 where it is not known.
        """
        _, _, _, index, counter = HEADER.unpack_from(datagram)
        tunnel = self._tunnels.get(index)
        side = None if tunnel is None else tunnel.side_of(source)
        if tunnel is None or side is None:
            return []
        signal = RelayTooBig(min(len(datagram), 65535), max(0, min(limit, 65535)))
        return [Transmit(seal_relayed(tunnel.leg(side).key, index, counter, signal), source)]
