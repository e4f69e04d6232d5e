"""How a DC gets word to a device: directly where it is online, else by a push service.

A device that is online is told over its own session. Where it does not acknowledge that, or is off,
the notifier is asked, again with growing pauses while its service is out of order. Of what is to be
said to one device about the same thing only the newest is said, and each device is pushed to at a
rate, so that nobody can drain its battery.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.machines.rate import RateLimiter
from ntmobile.wire.messages.realtime import NotificationRequest, Reason

#: Seconds in which a device that is online acknowledges.
PATIENCE: Final = 3.0
#: How long a notification is worth something, in seconds: a direction (R16), an item.
LIFETIMES: Final[dict[int, float]] = {Reason.REALTIME: 60.0, Reason.ITEM: 3600.0}
#: Pauses after failures of the service: the first, the longest; and how often it is asked at most.
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 300.0
ATTEMPTS: Final = 10
#: Different things that wait to be said: to one device, and in all. More are not said one by one.
EACH: Final = 16
CAPACITY: Final = 50_000


@frozen
class Tell:
    """Ask the device itself; then :meth:`Waking.acknowledged` or :meth:`Waking.unheard`."""

    request: NotificationRequest


@frozen
class Push:
    """Ask the notifier; then :meth:`Waking.delivered`, or :meth:`Waking.failed`.

    :ivar count: for how many requests. :ivar lifetime: in seconds. :ivar attempt: from 1.
    """

    request: NotificationRequest
    count: int
    lifetime: float
    attempt: int


Effect: TypeAlias = Tell | Push
#: Receiver, kind, sender, application: of the same, the newest is enough.
Subject: TypeAlias = tuple[str, int, str, str]


class _Stage(Enum):
    TOLD = 1
    PUSHED = 2
    WAITING = 3


@define
class _Pending:
    """Something to be said.

    :ivar count: for how many requests, of which ``sent`` are on their way.
    :ivar due: when it is to be said, or, where it was told, when an answer is overdue.
    """

    request: NotificationRequest
    expires: float
    stage: _Stage = _Stage.WAITING
    due: float = 0.0
    count: int = 1
    sent: int = 0
    attempt: int = 0


def subject_of(request: NotificationRequest) -> Subject:
    """What a request is about."""
    return request.receiver, request.kind, request.sender, request.application


@define
class Waking:
    """What is to be said to the devices of one domain.

    :ivar online: whether a device is heard at present.
    :ivar pushes: of one device. :ivar dropped: what there was no room for.
    """

    online: Callable[[str, float], bool]
    pushes: RateLimiter = field(factory=lambda: RateLimiter(rate=0.2, burst=5, capacity=50_000))
    dropped: int = field(default=0, init=False)
    _pending: dict[str, dict[Subject, _Pending]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._count

    def wanted(
        self, request: NotificationRequest, now: float, *, unheard: bool = False
    ) -> list[Effect]:
        """A device shall be told.

        :param unheard: it is known not to hear its DC at present, although it counts as online.
        """
        mine = self._pending.setdefault(request.receiver, {})
        subject = subject_of(request)
        if subject not in mine and len(mine) >= EACH:
            # So many at once: that something waits is all there is to say.
            request = NotificationRequest(request.receiver, request.kind)
            subject = subject_of(request)
        expires = now + LIFETIMES.get(request.kind, 60.0)
        former = mine.get(subject)
        if former is not None:
            former.request, former.expires = request, max(former.expires, expires)
            former.count += 1
            return []
        if self._count >= CAPACITY or len(mine) > EACH + 1:
            self.dropped += 1
            self._tidy(request.receiver)
            return []
        pending = mine[subject] = _Pending(request, expires)
        self._count += 1
        return self._begin(pending, now, directly=not unheard)

    def _begin(self, pending: _Pending, now: float, *, directly: bool = True) -> list[Effect]:
        request = pending.request
        if directly and self.online(request.receiver, now):
            pending.stage, pending.sent = _Stage.TOLD, pending.count
            pending.due = now + 2 * PATIENCE
            return [Tell(request)]
        if not self.pushes.allow(request.receiver, now):
            pending.stage = _Stage.WAITING
            pending.due = now + max(0.1, self.pushes.wait(request.receiver, now))
            return []
        pending.stage, pending.sent = _Stage.PUSHED, pending.count
        pending.attempt += 1
        left = max(1.0, pending.expires - now)
        return [Push(request, pending.count, left, pending.attempt)]

    # -- what became of it

    def acknowledged(self, request: NotificationRequest, now: float) -> list[Effect]:
        """The device has heard."""
        return self._said(request, _Stage.TOLD, now)

    def unheard(self, request: NotificationRequest, now: float) -> list[Effect]:
        """The device did not acknowledge in :data:`PATIENCE` seconds."""
        pending = self._find(request, _Stage.TOLD)
        return [] if pending is None else self._begin(pending, now, directly=False)

    def delivered(self, request: NotificationRequest, now: float) -> list[Effect]:
        """The service took it, or never will: it is done."""
        return self._said(request, _Stage.PUSHED, now)

    def failed(self, request: NotificationRequest, after: float | None, now: float) -> bool:
        """The service cannot now; not before ``after`` seconds. :return: it is tried again."""
        pending = self._find(request, _Stage.PUSHED)
        if pending is None:
            return False
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (pending.attempt - 1))
        pending.due = now + max(pause, after or 0.0)
        if pending.attempt >= ATTEMPTS or pending.due >= pending.expires:
            self._drop(pending)
            return False
        pending.stage = _Stage.WAITING
        return True

    def registered(self, fqdn: str, now: float) -> list[Effect]:
        """The device came back: what waits is said to it, and directions it fetches by itself."""
        effects: list[Effect] = []
        for pending in list(self._pending.get(fqdn, {}).values()):
            if pending.request.kind == Reason.REALTIME:
                self._drop(pending)
            elif pending.stage is _Stage.WAITING:
                effects += self._begin(pending, now)
        return effects

    def forget(self, fqdn: str) -> None:
        """The device is revoked or gone (R34)."""
        for pending in list(self._pending.get(fqdn, {}).values()):
            self._drop(pending)

    def handle_timer(self, now: float) -> list[Effect]:
        """Say what is due, forget what is over; to be called every second or so."""
        effects: list[Effect] = []
        for mine in list(self._pending.values()):
            for pending in list(mine.values()):
                if now >= pending.expires:
                    self._drop(pending)
                elif pending.stage is not _Stage.PUSHED and now >= pending.due:
                    # Where it was told, the session ended meanwhile, and its answers with it.
                    directly = pending.stage is _Stage.WAITING
                    effects += self._begin(pending, now, directly=directly)
        self.pushes.expire(now)
        return effects

    # -- inside

    def _find(self, request: NotificationRequest, stage: _Stage) -> _Pending | None:
        pending = self._pending.get(request.receiver, {}).get(subject_of(request))
        return pending if pending is not None and pending.stage is stage else None

    def _said(self, request: NotificationRequest, stage: _Stage, now: float) -> list[Effect]:
        pending = self._find(request, stage)
        if pending is None:
            return []
        pending.count -= pending.sent
        if not pending.count:
            self._drop(pending)
            return []
        pending.attempt = 0
        return self._begin(pending, now)

    def _drop(self, pending: _Pending) -> None:
        fqdn, subject = pending.request.receiver, subject_of(pending.request)
        if self._pending.get(fqdn, {}).pop(subject, None) is not None:
            self._count -= 1
        self._tidy(fqdn)

    def _tidy(self, fqdn: str) -> None:
        if not self._pending.get(fqdn, True):
            del self._pending[fqdn]
