"""DC_CN: Route Directions that wait until their client has acknowledged them (rule R16)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from attrs import define, field

from ntmobile.errors import InvalidName
from ntmobile.machines.direction.records import (
    CAPACITY,
    DIRECTION_LIFETIME,
    Effect,
    Notify,
    TellClient,
    TellCoordinator,
    Waiting,
)
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.signalling.clients import Client, ClientTable
from ntmobile.wire import names
from ntmobile.wire.messages.coordination import (
    LocationUpdate,
    RouteDirectionRefusal,
    RouteDirectionTransfer,
    RouteDirectionTransferResponse,
)
from ntmobile.wire.messages.realtime import NotificationRequest, Outcome, Reason

#: ``NotificationRequest.kind`` of a direction that waits.
REALTIME: Final = Reason.REALTIME
#: A client that counts as online acknowledges within so many seconds, or it is notified.
ACKNOWLEDGED: Final = 3.0
#: Directions that wait for one client, and of those the ones from one and the same requester.
FOR_ONE: Final = 256
FROM_ONE: Final = 4


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
    move_limiter: RateLimiter = field(factory=lambda: RateLimiter(rate=2, burst=8, capacity=20_000))
    _waiting: dict[str, dict[bytes, Waiting]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def __len__(self) -> int:
        """How many directions wait."""
        return self._count

    def transferred(
        self, domain: str, transfer: RouteDirectionTransfer, now: float
    ) -> tuple[RouteDirectionTransferResponse, list[Effect]]:
        """A Route Direction for a client of ours, made by the DC of ``domain``."""
        message = transfer.direction
        client = self.clients.find(transfer.cn)
        if (
            client is None
            or client.fqdn != transfer.cn
            or not _speaks_for(domain, message.requester)
            or message.peer != message.requester
            or not self.admitted(message.peer, transfer.cn, now)
        ):
            return RouteDirectionTransferResponse(Outcome.UNKNOWN), []
        mine = self._waiting.get(client.fqdn, {})
        former = mine.get(message.direction)
        if former is not None and former.message.peer != message.peer:
            return RouteDirectionTransferResponse(Outcome.UNKNOWN), []
        if former is None and (len(mine) >= FOR_ONE or self._count >= CAPACITY):
            return RouteDirectionTransferResponse(Outcome.BUSY), []
        client.talks_to(message.peer)
        if former is None or former.message.generation < message.generation:
            lifetime = min(DIRECTION_LIFETIME, float(message.lifetime))
            overdue = now + ACKNOWLEDGED if client.online(now) else None
            kept = Waiting(message, domain, now + lifetime, client.location, overdue)
            self._keep(client, kept)
        if client.online(now):
            return RouteDirectionTransferResponse(Outcome.OK), [TellClient(client.fqdn, message)]
        return RouteDirectionTransferResponse(Outcome.WAKING), self._wake(client.fqdn, now)

    def _wake(self, fqdn: str, now: float) -> list[Effect]:
        if not self.wake_limiter.allow(fqdn, now):
            return []
        return [Notify(NotificationRequest(fqdn, REALTIME), unheard=True)]

    def _keep(self, client: Client, waiting: Waiting) -> None:
        """The newest ones of a requester are kept; an older one is of no use any more."""
        self._drop(client.fqdn, [waiting.message.direction])
        mine = self._waiting.get(client.fqdn, {})
        peer = waiting.message.peer
        former = [key for key, one in mine.items() if one.message.peer == peer]
        self._drop(client.fqdn, former[: max(0, len(former) - FROM_ONE + 1)])
        self._waiting.setdefault(client.fqdn, {})[waiting.message.direction] = waiting
        self._count += 1

    def _drop(self, fqdn: str, directions: Iterable[bytes]) -> None:
        mine = self._waiting.get(fqdn, {})
        for direction in directions:
            if mine.pop(direction, None) is not None:
                self._count -= 1
        if not mine:
            self._waiting.pop(fqdn, None)

    def acknowledged(
        self, fqdn: str, direction: bytes, generation: int, outcome: int
    ) -> list[Effect]:
        """The client has it, in this generation, or refuses it; a newer one goes on waiting."""
        waiting = self._waiting.get(fqdn, {}).get(direction)
        if waiting is None or waiting.message.generation > generation:
            return []
        self._drop(fqdn, [direction])
        if outcome == Outcome.OK:
            return []
        return [TellCoordinator(waiting.source, RouteDirectionRefusal(direction, fqdn))]

    def fetched(self, client: Client, now: float) -> tuple[int, list[Effect]]:
        """A Route Direction Request: all that wait, at once, also where a push was lost."""
        mine = self._living(client, now)
        return len(mine), [_told(client, one, now) for one in mine]

    def registered(self, client: Client, now: float) -> list[Effect]:
        """The client registered at another location: send again, and tell DC_MN where it is.

        Not at any rate: what a client sends under forged sources would draw all that waits for it
        to a victim each time. What was sent before is repeated by itself in any case.
        """
        effects: list[Effect] = []
        waiting = self._living(client, now)
        if not waiting or not self.move_limiter.allow(client.fqdn, now):
            return effects
        for one in waiting:
            effects.append(_told(client, one, now))
            if one.location != client.location:
                one.location = client.location
                hide = client.policy.hides_from(one.message.peer)
                update = LocationUpdate(
                    one.message.direction,
                    client.fqdn,
                    client.located(now, hide=hide),
                    client.der,
                )
                effects.append(TellCoordinator(one.source, update))
        return effects

    def revoked(self, fqdn: str) -> None:
        """A device is revoked: what waits for it, or would lead to it, does so no more (R34)."""
        self._drop(fqdn, list(self._waiting.get(fqdn, {})))
        for client, mine in list(self._waiting.items()):
            self._drop(client, [key for key, one in mine.items() if one.message.peer == fqdn])

    def _living(self, client: Client, now: float) -> list[Waiting]:
        mine = self._waiting.get(client.fqdn, {})
        return [one for one in mine.values() if now < one.expires]

    def handle_timer(self, now: float) -> list[Effect]:
        """Forget what nobody fetched; to be called every second or so.

        Whoever counts as online but does not acknowledge may have fallen asleep since it was heard
        last, and is notified too.
        """
        effects: list[Effect] = []
        for fqdn, mine in list(self._waiting.items()):
            self._drop(fqdn, [key for key, one in mine.items() if now >= one.expires])
            overdue = [one for one in mine.values() if one.overdue and now >= one.overdue]
            for one in overdue:
                one.overdue = None
            if overdue:
                effects += self._wake(fqdn, now)
        return effects


def _told(client: Client, waiting: Waiting, now: float) -> TellClient:
    """What is left of its lifetime is told, so that the temporal key ends in time (R18)."""
    left = max(1, int(waiting.expires - now))
    return TellClient(client.fqdn, msgspec.structs.replace(waiting.message, lifetime=left))


def _speaks_for(domain: str, fqdn: str) -> bool:
    try:
        return names.domain_of(fqdn) == domain
    except InvalidName:
        return False
