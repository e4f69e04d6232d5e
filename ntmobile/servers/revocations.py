"""Telling DCs at once who is revoked, and that the AS lives (rule R34).

The store is asked often for changes, because ``ntm user`` and ``ntm device`` write to it as well. A
DC that was away asks for what it missed; a lease tells it that there is something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import Change, IAccountStore, Revocation
from ntmobile.protocols.link import Link
from ntmobile.servers.lasting import LastingProblem
from ntmobile.servers.workers import Workers
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import Lease, RevocationPush, Revoked

log = Logger()

#: How often the store is asked for changes, in seconds: well within the one second of R34.
POLL: Final = 0.25
#: A lease is renewed after this part of it, and at least every so many seconds.
LEASE_PART: Final = 5.0
LEASE_LONGEST: Final = 60.0
#: How long a DC may take to acknowledge; then its link is closed, and it begins afresh.
PATIENCE: Final = 10.0
#: Revoked devices in one message.
PUSH_LIMIT: Final = 256
#: Certificates of one device told one by one in one change: those that expire last, of which one
#: is what its DC knows.
SERIALS_LIMIT: Final = 16


@define
class Told:
    """A DC that is linked, and up to which change it was told."""

    domain: str
    sequence: int


@define(eq=False)
class ChangeFeed:
    """Pushes revocations and leases to the DCs that are linked.

    :ivar lease: seconds. :ivar storage: the thread of the store.
    :ivar sequence: of the last change that was pushed to whom it concerns.
    """

    store: IAccountStore
    storage: Workers
    lease: float
    unix_time: Callable[[], float]
    clock: IReactorTime
    sequence: int = 0
    _told: dict[Link, Told] = field(factory=dict, init=False)
    _loops: list[LoopingCall] = field(factory=list, init=False)
    _polling: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _looking: LastingProblem = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._looking = LastingProblem("looking for changes", self.clock)

    def start(self) -> None:
        """Begin with what is there now."""
        self.sequence = self.store.last_change()
        period = min(self.lease / LEASE_PART, LEASE_LONGEST)
        for seconds, call in ((POLL, self.poll), (period, self._lease_all)):
            loop = LoopingCall(call)
            loop.clock = self.clock
            loop.start(seconds, now=False).addErrback(
                lambda failure: log.failure("a periodic task failed", failure)
            )
            self._loops.append(loop)

    def stop(self) -> None:
        """End the timers."""
        for loop in self._loops:
            if loop.running:
                loop.stop()
        self._loops.clear()

    def __len__(self) -> int:
        return len(self._told)

    # -- links

    def add(self, link: Link, domain: str) -> None:
        """A DC is linked: it gets a lease, and pushes of its domain from now on."""
        self._told[link] = Told(domain, self.sequence)
        self._ask(link, self._new_lease())

    def remove(self, link: Link) -> None:
        """Its link is gone."""
        self._told.pop(link, None)

    def _new_lease(self) -> Lease:
        return Lease(max(1, int(self.lease)), int(self.unix_time() * 1000), self.sequence)

    def _lease_all(self) -> None:
        for link in tuple(self._told):
            self._ask(link, self._new_lease())

    def _ask(self, link: Link, message: Message) -> None:
        """Send; a DC that does not acknowledge is cut off, so that it begins afresh."""
        asked = link.request(message, PATIENCE)

        def failed(failure: Failure) -> None:
            told = self._told.get(link)
            if told is not None:
                log.warn(
                    "the coordinator of {domain} did not acknowledge: {problem}",
                    domain=told.domain,
                    problem=failure.getErrorMessage(),
                )
            link.close()

        asked.addErrback(failed)

    # -- changes

    def poll(self) -> None:
        """Look for changes now, and push them. Also called when this AS made one itself."""
        if self._polling:
            self._again = True
            return
        self._polling = True
        Deferred.fromCoroutine(self._poll()).addErrback(
            lambda failure: log.failure("looking for changes failed", failure)
        ).addBoth(self._polled)

    def _polled(self, result: object) -> None:
        self._polling = False
        if self._again:
            self._again = False
            self.poll()

    async def _poll(self) -> None:
        try:
            while changes := await self.storage.run(self.store.changes_since, self.sequence):
                self._push(changes)
        except NTMobileError as problem:
            self._looking.failed(f"cannot look for changes: {problem}")
        else:
            self._looking.succeeded()

    def _push(self, changes: list[Change]) -> None:
        self.sequence = changes[-1].sequence
        for link, told in tuple(self._told.items()):
            for push in pushes(changes, told.domain, told.sequence):
                if push.revoked:
                    told.sequence = push.sequence
                    self._ask(link, push)

    async def missed(self, since: int, domain: str) -> RevocationPush:
        """What a DC missed: one message; while it is behind it asks again."""
        changes = await self.storage.run(self.store.changes_since, since)
        return next(pushes(changes, domain, since), RevocationPush(since, (), since))


def pushes(changes: Iterable[Change], domain: str, since: int) -> Iterator[RevocationPush]:
    """The messages that tell one DC of its domain's share of some changes, in order."""
    gathered: list[Revoked] = []
    sequence = since
    for change in changes:
        revoked = revoked_by(change) if change.user.partition(".")[2] == domain else []
        if len(gathered) + len(revoked) > PUSH_LIMIT:
            yield RevocationPush(sequence, tuple(gathered), since)
            gathered, since = [], sequence
        gathered += revoked
        sequence = change.sequence
    if sequence > since:
        yield RevocationPush(sequence, tuple(gathered), since)


def revoked_by(change: Change) -> list[Revoked]:
    """What ceased to hold by one change: at most as much as fits one message."""
    by_device: dict[str, list[Revocation]] = {}
    for each in change.revoked:
        by_device.setdefault(each.fqdn, []).append(each)
    found = []
    for fqdn, revocations in by_device.items():
        latest = sorted(revocations, key=lambda each: -each.expires)[:SERIALS_LIMIT]
        found += [Revoked(fqdn, _serial(each.serial)) for each in latest]
    if len(found) > PUSH_LIMIT:  # a user with many devices was disabled: all their certificates
        found = [Revoked(fqdn) for fqdn in by_device]
    return found


def _serial(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
