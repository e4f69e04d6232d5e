"""DC_CN: Route Directions that wait until their client has acknowledged them (rule R16)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from ntmobile.machines.clients import Client, ClientTable
from ntmobile.machines.directing import (
    CAPACITY,
    DIRECTION_LIFETIME,
    Effect,
    Notify,
    TellClient,
    TellCoordinator,
    Waiting,
)
from ntmobile.machines.rate import RateLimiter
from ntmobile.wire import names
from ntmobile.wire.messages.coordination import (
    LocationUpdate,
    RouteDirectionTransfer,
    RouteDirectionTransferResponse,
)
from ntmobile.wire.messages.realtime import NotificationRequest, Outcome

#: ``NotificationRequest.kind`` of a direction that waits.
REALTIME = 1


@define
class WaitingDirections:
    """Keeps directions for 60 s, sends them again when their client registers, wakes sleepers.

    :ivar admitted: whether (MN, CN) were disclosed to each other lately; see ``Disclosure``.
    """

    clients: ClientTable
    admitted: Callable[[str, str, float], bool]
    wake_limiter: RateLimiter = field(
        factory=lambda: RateLimiter(rate=0.2, burst=5, capacity=20_000)
    )
    _waiting: dict[str, dict[bytes, Waiting]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def transferred(
        self, domain: str, transfer: RouteDirectionTransfer, now: float
    ) -> tuple[RouteDirectionTransferResponse, list[Effect]]:
        """A Route Direction for a client of ours, made by the DC of ``domain``."""
        message = transfer.direction
        client = self.clients.find(transfer.cn)
        if (
            client is None
            or client.fqdn != transfer.cn
            or names.domain_of(message.requester) != domain
            or message.peer != message.requester
            or not self.admitted(message.peer, transfer.cn, now)
            or self._count >= CAPACITY
        ):
            return RouteDirectionTransferResponse(Outcome.UNKNOWN), []
        waiting = Waiting(message, domain, now + DIRECTION_LIFETIME, client.location.generation)
        mine = self._waiting.setdefault(client.fqdn, {})
        former = mine.get(message.direction)
        if former is not None and former.message.generation >= message.generation:
            return RouteDirectionTransferResponse(Outcome.OK), []
        self._count += former is None
        mine[message.direction] = waiting
        client.talks_to(message.peer)
        if client.online(now):
            return RouteDirectionTransferResponse(Outcome.OK), [TellClient(client.fqdn, message)]
        effects: list[Effect] = []
        if self.wake_limiter.allow(client.fqdn, now):
            effects.append(Notify(NotificationRequest(client.fqdn, REALTIME)))
        return RouteDirectionTransferResponse(Outcome.WAKING), effects

    def acknowledged(self, fqdn: str, direction: bytes) -> None:
        """The client has it."""
        mine = self._waiting.get(fqdn, {})
        if mine.pop(direction, None) is not None:
            self._count -= 1
        if not mine:
            self._waiting.pop(fqdn, None)

    def fetched(self, client: Client, now: float) -> tuple[int, list[Effect]]:
        """A Route Direction Request: all that wait, at once, also where a push was lost."""
        mine = self._living(client, now)
        return len(mine), [TellClient(client.fqdn, one.message) for one in mine]

    def registered(self, client: Client, now: float) -> list[Effect]:
        """The client registered at another location: send again, and tell DC_MN where it is."""
        effects: list[Effect] = []
        for one in self._living(client, now):
            effects.append(TellClient(client.fqdn, one.message))
            if one.location != client.location.generation:
                one.location = client.location.generation
                update = LocationUpdate(
                    one.message.direction,
                    client.fqdn,
                    client.located(now),
                    client.certificate.der,
                )
                effects.append(TellCoordinator(one.source, update))
        return effects

    def _living(self, client: Client, now: float) -> list[Waiting]:
        mine = self._waiting.get(client.fqdn, {})
        return [one for one in mine.values() if now < one.expires]

    def handle_timer(self, now: float) -> None:
        """Forget what nobody fetched; to be called every second or so."""
        for fqdn, mine in list(self._waiting.items()):
            for direction in [key for key, one in mine.items() if now >= one.expires]:
                del mine[direction]
                self._count -= 1
            if not mine:
                del self._waiting[fqdn]
