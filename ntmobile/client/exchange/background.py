"""What goes on by itself: pre-keys, uploads that were cut, delivery, confirmations, what arrives.

One round after the other. What does not succeed is tried again, ever more seldom; :meth:`wake`,
when there is something new or the network is back, begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ntmobile.client.exchange import receiving, sending
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import (
    ENDED,
    Arrived,
    Delivered,
    Failed,
    Item,
    Outgoing,
    Stored,
    Uploading,
)
from ntmobile.errors import (
    AuthenticationError,
    NoSuchItem,
    NotRegistered,
    NTMobileError,
    StorageFailed,
    StorageFull,
    Unreachable,
)
from ntmobile.protocols import trace

log = Logger()

#: Seconds from the end of a round to the next, where something is left to do: first, and at most.
FIRST: Final = 1.0
LONGEST: Final = 300.0
#: The same where nothing is: pre-keys may be due.
IDLE: Final = 3600.0
#: Items of which the delivery is asked for in one round: those asked about longest ago.
ASKED: Final = 64
#: Another attempt may succeed. Anything else will not be otherwise next time, or has to be told at
#: once, like a cache server that is full: it says so before anything is uploaded.
_LATER: Final = (Unreachable, NotRegistered, AuthenticationError, StorageFailed)


@define(eq=False)
class Background:
    """The rounds of one device.

    :ivar publish: publishes pre-keys. :ivar look: lists what waits, as ``Exchange.inbox(None)``.
    """

    device: Device
    publish: Callable[[], Awaitable[None]]
    look: Callable[[], Awaitable[list[Item]]]
    _running: Deferred[None] | None = field(default=None, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _pause: float = field(default=FIRST, init=False)
    _again: bool = field(default=False, init=False)
    _started: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _uploads: dict[bytes, list[Deferred[None]]] = field(factory=dict, init=False)
    _withdrawn: set[bytes] = field(factory=set, init=False)
    _asked: dict[bytes, int] = field(factory=dict, init=False)
    _said: set[str] = field(factory=set, init=False)
    _rounds: int = field(default=0, init=False)
    _told: set[bytes] = field(factory=set, init=False)
    _unlooked: bool = field(default=True, init=False)
    _published: float | None = field(default=None, init=False)

    # -- life

    def start(self) -> None:
        """Begin, unless :meth:`stop` was called."""
        if self._ended:
            return
        self._started = True
        self.wake(look=True)

    async def stop(self) -> None:
        """End; what was begun goes on at the next start."""
        self._started, self._ended = False, True
        self._cancel()
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def wake(self, *, look: bool = False) -> None:
        """Begin a round now, or another one after the present one.

        :param look: see also what has arrived.
        """
        self._unlooked = self._unlooked or look
        self._pause = FIRST
        if not self._started:
            return
        if self._running is not None:
            self._again = True
            return
        self._cancel()
        self._again = False
        running = self._running = Deferred.fromCoroutine(self._round())
        running.addBoth(self._rested)
        if running.called:
            self._running = None

    def _cancel(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _rested(self, result: Any) -> None:
        self._running = None
        if not self._started:
            return
        if self._again:
            self.wake()
            return
        busy = self._busy()
        self._next = self.device.reactor.callLater(
            self._pause if busy else IDLE, self._turn, min(2 * self._pause, LONGEST)
        )

    def _turn(self, pause: float) -> None:
        self.wake(look=pause == LONGEST)
        self._pause = pause

    def _busy(self) -> bool:
        """Whether something is left to do."""
        return (
            self._unlooked
            or self._published is None
            or bool(self.device.store.to_confirm())
            or any(one.state in ("uploading", "stored") for one in self.device.store.outgoing())
        )

    # -- a round

    async def _round(self) -> None:
        self._rounds += 1
        self._said.clear()
        if self._published is None or self._now() - self._published >= IDLE:
            await self._try("publishing pre-keys", self._publish())
        if self._unlooked:
            await self._try("listing what waits", self._look())
        for item in self.device.store.to_confirm():
            await self._try("a confirmation", receiving.confirm(self.device, item))
        outgoing = self.device.store.outgoing()
        for one in outgoing:
            if one.state == "uploading":
                await self._try(f"sending {one.name}", self.upload(one.object))
        stored = [one for one in outgoing if one.state == "stored"]
        for one in sorted(stored, key=lambda one: self._asked.get(one.object, 0))[:ASKED]:
            self._asked[one.object] = self._rounds
            if not await self._try("asking for delivery", self.ask(one)):
                break  # the others will not do better now

    async def _try(self, what: str, work: Awaitable[object]) -> bool:
        """Do something, and say once in a round why it was not done."""
        try:
            await work
        except CancelledError:
            raise
        except NTMobileError as problem:
            line = f"{what}: {problem}"
            if line not in self._said:
                self._said.add(line)
                log.info("{line}", line=line)
            return False
        except Exception:
            log.failure("{what} failed", what=what)
            return False
        return True

    def _now(self) -> float:
        seconds: float = self.device.reactor.seconds()
        return seconds

    async def _publish(self) -> None:
        await self.publish()
        self._published = self._now()

    async def _look(self) -> None:
        self._unlooked = False
        try:
            items = await self.look()
        except BaseException:
            self._unlooked = True
            raise
        self.arrived(items)

    def arrived(self, items: list[Item]) -> None:
        """Tell of items that were not told of yet."""
        for item in items:
            if item.object not in self._told:
                self._told.add(item.object)
                trace.note("arrived", f"from {item.sender}")
                self.device.tell(Arrived(item))

    # -- sending

    async def upload(self, object: bytes) -> None:
        """Upload an object, or wait for the end of an upload that is under way.

        :raises NTMobileError: it was cut, or will not be; its state says which.
        """
        others = self._uploads.get(object)
        if others is None:
            await self._upload_first(object)
        else:
            joined: Deferred[None] = Deferred()
            others.append(joined)
            await joined

    async def _upload_first(self, object: bytes) -> None:
        self._uploads[object] = []
        told: NTMobileError | None = Unreachable("the upload was interrupted; it goes on later")
        try:
            await self._upload(sending.find(self.device, object))
            told = None
        except NTMobileError as problem:
            told = problem
            raise
        finally:
            for one in self._uploads.pop(object):
                if one.called:  # who waited is gone
                    continue
                if told is None:
                    one.callback(None)
                else:
                    one.errback(told)

    async def _upload(self, outgoing: Outgoing) -> None:
        if outgoing.state != "uploading" or outgoing.object in self._withdrawn:
            return

        def progress(done: int, length: int) -> None:
            if outgoing.object in self._withdrawn:
                raise Unreachable("it is being withdrawn")
            self.device.tell(Uploading(outgoing.object, done, length))

        try:
            if self.device.now() >= outgoing.expires:
                raise NoSuchItem("its time is over; send it anew")
            await sending.upload(self.device, outgoing, progress)
        except NTMobileError as problem:
            self._not_uploaded(outgoing, problem)
            raise
        self.device.tell(Stored(outgoing.object))
        self.wake()

    def _not_uploaded(self, outgoing: Outgoing, problem: NTMobileError) -> None:
        reason = str(problem)
        self.device.caches = None  # they may have moved
        if isinstance(problem, _LATER) and not isinstance(problem, StorageFull):
            self.device.store.keep_outgoing(evolve(outgoing, reason=reason))
            self.device.tell(Uploading(outgoing.object, 0, outgoing.length, reason))
            return
        self.fail(outgoing, reason)

    def fail(self, outgoing: Outgoing, reason: str) -> None:
        """Give an object up that is not stored."""
        failed = evolve(outgoing, state="failed", reason=reason, hashes=b"")
        self.device.store.keep_outgoing(failed)
        self.device.spool.remove(Path(outgoing.source))
        self.device.tell(Failed(outgoing.object, reason))

    async def withdraw(self, object: bytes) -> None:
        """Take an object back; an upload that is under way ends first."""
        outgoing = sending.find(self.device, object)
        if outgoing.state in ENDED:
            raise NoSuchItem(f"it cannot be withdrawn any more: {outgoing.state}")
        self._withdrawn.add(object)
        try:
            if object in self._uploads:
                with suppress(NTMobileError):
                    await self.upload(object)
            await sending.withdraw(self.device, sending.find(self.device, object))
        finally:
            self._withdrawn.discard(object)

    async def ask(self, outgoing: Outgoing) -> Outgoing:
        """Ask how far a stored object has come, and tell of new confirmations (R32).

        :raises AuthenticationError: a confirmation is not the receiver's.
        """
        if outgoing.state != "stored":
            return outgoing
        if self.device.now() >= outgoing.expires:
            expired = evolve(outgoing, state="expired", reason="not all have fetched it in time")
            self.device.store.keep_outgoing(expired)
            return expired
        before = {each.destination for each in outgoing.statuses if each.state == "confirmed"}
        known = await sending.status(self.device, outgoing)
        for each in known.statuses:
            if each.state == "confirmed" and each.destination not in before:
                trace.note("delivered", f"to {each.destination}")
                self.device.tell(Delivered(known.object, each.destination))
        return known
