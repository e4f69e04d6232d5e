"""What the agent does for ``ntm send``, ``sent``, ``withdraw``, ``inbox`` and ``get``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from ntmobile.client.exchange.exchange import Exchange
from ntmobile.client.exchange.items import Failed, Item, Outgoing, Stored, Uploading
from ntmobile.client.exchange.parcel import LIFETIME, Parcel, check_labels
from ntmobile.errors import AlreadyExists, InvalidName, NoSuchItem, NTMobileError, Unreachable

#: The application of the commands, where no other is named.
APPLICATION: Final = "ntm"
#: Seconds between two events at least, and at most.
_LEAST: Final = 0.1
_MOST: Final = 5.0
#: Seconds until a download that was cut goes on: first.
_FIRST: Final = 0.5

#: Items of which the delivery is asked for at once.
_ASKED: Final = 64

_P = TypeVar("_P", bound=msgspec.Struct)
Tell = Callable[[object], None]


class SendParameters(msgspec.Struct, frozen=True):
    """Of ``send``.

    :ivar file: one in the outbox is removed once it is sent.
    :ivar wait: seconds in which it should be stored, to be told; None: as long as it takes.
    """

    destinations: tuple[str, ...]
    file: str
    application: str = APPLICATION
    service: str = ""
    item: str = ""
    name: str | None = None
    type: str = ""
    note: str = ""
    message: str = ""
    lifetime: float = LIFETIME
    wait: float | None = None

    def parcel(self) -> Parcel:
        """What is to be sent."""
        names = tuple(name.rstrip(".").lower() for name in self.destinations)
        fields = {
            name: getattr(self, name)
            for name in ("service", "item", "name", "type", "note", "message", "lifetime")
        }
        return Parcel(names, Path(self.file), self.application, **fields)


class InboxParameters(msgspec.Struct, frozen=True):
    """Of ``inbox``; no application: all of them."""

    application: str | None = APPLICATION


class GetParameters(msgspec.Struct, frozen=True):
    """Of ``get``.

    :ivar item: the identifier in hex, or its beginning; none: the one that waits.
    :ivar into: a file, or a directory for a file of the name that the sender gave; None: a file of
        the agent's own.
    :ivar application: None: any. :ivar wait: seconds for which to go on trying; None: for ever.
    """

    item: str = ""
    into: str | None = None
    application: str | None = None
    wait: float | None = None


class SentParameters(msgspec.Struct, frozen=True):
    """Of ``sent``; no item: all of them."""

    item: str = ""


class WithdrawParameters(msgspec.Struct, frozen=True):
    """Of ``withdraw``."""

    item: str


class Serving:
    """Serves the commands of one exchange."""

    def __init__(self, reactor: Any, exchange: Exchange) -> None:
        self._reactor = reactor
        self._exchange = exchange

    # -- the sender

    async def send(self, given: Mapping[str, Any], tell: Tell) -> object:
        """Send a file; tells how far it is. What was begun goes on when nobody waits any more."""
        wanted = _parameters(given, SendParameters)
        parcel = wanted.parcel()
        heard: DeferredQueue[object] = DeferredQueue()
        forget = self._exchange.listen(heard.put)
        try:
            with self._beating({"done": 0, "length": 0}, tell) as told:

                def progress(done: int, length: int) -> None:
                    told.update(length=length)

                outgoing = await self._exchange.announce(parcel, progress)
            # It goes on when nobody waits any more; what becomes of it is heard by the events.
            uploading = Deferred.fromCoroutine(self._exchange.resume(outgoing.object))
            uploading.addErrback(lambda failure: self._cut(failure))
            end = None if wanted.wait is None else self._reactor.seconds() + wanted.wait
            await self._until_stored(outgoing, heard, tell, end)
        finally:
            forget()
        return _outgoing(*self._exchange.outgoing(outgoing.object))

    def _cut(self, failure: Failure) -> None:
        failure.trap(NTMobileError)
        self._exchange.wake()

    async def _until_stored(
        self, outgoing: Outgoing, heard: DeferredQueue[object], tell: Tell, end: float | None
    ) -> None:
        """Until it is stored, or that moment, telling how far it is; also that nothing happens."""
        last = Uploading(outgoing.object, 0, outgoing.length)
        told_at = float("-inf")
        while end is None or self._reactor.seconds() < end:
            quiet = self._reactor.seconds() - told_at
            if quiet > _LEAST or last.problem:
                told_at = self._reactor.seconds()
                name = outgoing.object.hex()
                tell(
                    {"id": name, "done": last.done, "length": last.length, "problem": last.problem}
                )
            most = _MOST if end is None else min(_MOST, end - self._reactor.seconds())
            match await self._next(heard, max(0.0, most)):
                case Uploading(outgoing.object) as last:
                    pass
                case Stored(outgoing.object):
                    return
                case Failed(outgoing.object, reason):
                    raise NTMobileError(reason)

    async def _next(self, heard: DeferredQueue[object], most: float) -> object:
        """The next event; None where there is none for so many seconds."""
        waiting: Deferred[object] = heard.get()
        waiting.addTimeout(most, self._reactor, lambda result, seconds: None)
        return await waiting

    async def sent(self, given: Mapping[str, Any], _: Tell) -> object:
        """What was sent, the newest last, and how far it is, as the servers say now if they do."""
        wanted = _parameters(given, SentParameters).item
        found = self._exchange.outgoing()
        if wanted:
            found = [_one(found, wanted, "sent from here")]
        problem = ""
        for one in [one for one in found if one.state == "stored"][-_ASKED:]:
            try:
                await self._exchange.status(one.object)
            except NTMobileError as failed:
                problem = str(failed)
                break
        known = {one.object: one for one in self._exchange.outgoing()}
        return {
            "items": [_outgoing(known.get(one.object, one)) for one in found],
            "problem": problem,
        }

    async def withdraw(self, given: Mapping[str, Any], _: Tell) -> object:
        """Take back what was sent."""
        wanted = _parameters(given, WithdrawParameters).item
        found = _one(self._exchange.outgoing(), wanted, "sent from here")
        await self._exchange.withdraw(found.object)
        return _outgoing(*self._exchange.outgoing(found.object))

    @contextmanager
    def _beating(self, told: dict[str, Any], tell: Tell) -> Iterator[dict[str, Any]]:
        """Tell something now and again, so that who asked does not think that nobody is there."""
        beating = LoopingCall(lambda: tell(told))
        beating.clock = self._reactor
        beating.start(_MOST)
        try:
            yield told
        finally:
            beating.stop()

    # -- the receiver

    async def inbox(self, given: Mapping[str, Any], _: Tell) -> object:
        """What waits, and how many items of other applications do."""
        wanted = _parameters(given, InboxParameters).application
        check_labels(wanted or "")
        found = await self._exchange.waiting(None)
        items = [one for one in found.items if wanted in (None, one.application)]
        return {
            "items": [_item(one) for one in items],
            "problems": found.problems,
            "others": len(found.items) - len(items),
        }

    async def get(self, given: Mapping[str, Any], tell: Tell) -> object:
        """Fetch an item, and have its sender told."""
        wanted = _parameters(given, GetParameters)
        end = None if wanted.wait is None else self._reactor.seconds() + wanted.wait
        item = await self._wanted(wanted)
        into = None if wanted.into is None else Path(wanted.into)
        if into is not None and into.is_dir():
            into /= item.file_name
        with self._beating({**_item(item), "done": 0, "problem": ""}, tell) as told:

            def progress(done: int, length: int) -> None:
                told.update(done=done, problem="")
                tell(told)

            pause = _FIRST
            while True:
                try:
                    path = await self._exchange.fetch(item, into, confirm=True, progress=progress)
                except Unreachable as problem:
                    if end is not None and self._reactor.seconds() + pause >= end:
                        raise
                    told.update(problem=str(problem))
                    tell(told)
                else:
                    return {**_item(item), "file": str(path)}
                await deferLater(self._reactor, pause, lambda: None)
                pause = min(2 * pause, _MOST)

    async def _wanted(self, wanted: GetParameters) -> Item:
        """The item that is asked for; the one that waits if none is named."""
        found = await self._exchange.waiting(wanted.application)
        problems = "".join(f"; {problem}" for problem in found.problems)
        if not wanted.item:
            if len(found.items) != 1:
                count = len(found.items) or "none"
                raise NoSuchItem(f"name one; waiting: {count}, see ntm inbox{problems}")
            return found.items[0]
        try:
            return _one(found.items, wanted.item, f"waiting; see ntm inbox{problems}")
        except NoSuchItem:
            files = self._exchange.received(wanted.item)
            if files:
                raise AlreadyExists(f"it was fetched before, as {files[0]}") from None
            raise


def _parameters(given: Mapping[str, Any], kind: type[_P]) -> _P:
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as problem:
        raise InvalidName(
            f"the agent was asked for something that it does not know: {problem}"
        ) from None


_T = TypeVar("_T", Item, Outgoing)


def _one(found: Sequence[_T], wanted: str, what: str) -> _T:
    """The one whose identifier begins so.

    :raises NoSuchItem: there is none. :raises InvalidName: there are several.
    """
    matching = [one for one in found if wanted and one.object.hex().startswith(wanted.lower())]
    if not matching:
        raise NoSuchItem(f"no item {wanted!r} is {what}")
    if len(matching) > 1:
        raise InvalidName(f"{len(matching)} items begin with {wanted!r}; write more of it")
    return matching[0]


def _item(item: Item) -> dict[str, Any]:
    """An item as JSON."""
    manifest, details = item.manifest, item.details
    return {
        "id": item.object.hex(),
        "sender": item.sender,
        "name": details.name,
        "file_name": item.file_name,
        "type": details.type,
        "note": details.note,
        "length": details.length,
        "application": item.application,
        "service": manifest.service,
        "item": manifest.item,
        "message": manifest.message,
        "expires": manifest.expires,
    }


def _outgoing(outgoing: Outgoing) -> dict[str, Any]:
    """What was sent as JSON."""
    return {
        "id": outgoing.object.hex(),
        "name": outgoing.name,
        "length": outgoing.length,
        "state": outgoing.state,
        "reason": outgoing.reason,
        "made": round(outgoing.made),
        "expires": outgoing.expires,
        "destinations": [
            {
                "destination": each.destination,
                "state": each.state,
                "reason": each.reason,
                "at": each.at or None,
            }
            for each in outgoing.statuses
        ],
    }
