"""Exchange requests: telling the coordinators of the destinations what waits here (paper, V-B).

One request for each domain that an item goes to. What cannot be told now is kept with the reason,
and told again later, ever more seldom, until it expires; what a coordinator refuses for good is not
told again by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ntmobile.errors import (
    AccessDenied,
    AuthenticationError,
    InvalidName,
    NTMobileError,
    StorageFailed,
    UnknownName,
)
from ntmobile.interfaces import Exchange, ICacheStorage, WaitingKind
from ntmobile.protocols.caching.records import read_key, read_object
from ntmobile.protocols.caching.roots import Roots
from ntmobile.protocols.caching.turns import Ask, Turns
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.exchange import (
    CacheServer,
    Delivery,
    EncryptedDataExchangeRequest,
    EncryptedDataExchangeResponse,
    EncryptionKeyExchangeRequest,
    EncryptionKeyExchangeResponse,
    RequestInfo,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.roles import speaks_for

log = Logger()

#: Seconds that a client waits for what coordinators say; they are told in any case.
PATIENCE: Final = 8.0
#: Seconds until a request is repeated for the first time, and at most.
FIRST: Final = 5.0
MOST: Final = 900.0
#: Requests read from the storage at once, items judged at once, and seconds between two looks.
LISTED: Final = 500
AT_ONCE: Final = 32
LONGEST_LOOK: Final = 60.0
#: Seconds after which a storage that failed is asked again: for all, and for one item.
AFTER_FAILURE: Final = 5.0
REST: Final = 60.0

_TOLD: Final = frozenset({Outcome.OK, Outcome.WAKING})
#: What another attempt could change.
_LATER: Final = frozenset({Outcome.UNREACHABLE, Outcome.BUSY, Outcome.NO_RELAY})
_FAILED: Final = "the cache server cannot read or write what it keeps; it is tried again"
_WRONG_ROOT: Final = "the stored data is not what the sender signed; it has to be sent anew"

_Item = tuple[WaitingKind, bytes]


@define(eq=False)
class Exchanges:
    """Tells coordinators of what waits at one cache server.

    :ivar server: this server, as others find it. :ivar ask: asks a coordinator.
    :ivar trust: decides which domains are asked at all. :ivar unix_time: seconds.
    """

    storage: ICacheStorage
    server: CacheServer
    ask: Ask
    trust: TrustStore
    roots: Roots
    clock: IReactorTime
    unix_time: Callable[[], float]
    _telling: dict[_Item, list[Deferred[None]]] = field(factory=dict, init=False)
    _gate: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)
    _turns: Turns = field(init=False)
    _resting: dict[_Item, float] = field(factory=dict, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _looking: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _stopped: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = Turns(self.ask)

    # -- As time goes by

    def start(self) -> None:
        """Tell what is still to be told, from now on."""
        self._stopped = False
        self.wake()

    def stop(self) -> None:
        """Tell no more; what is under way ends by itself."""
        self._stopped = True
        self._look_in(None)

    def wake(self) -> None:
        """There may be something to tell."""
        if self._looking:
            self._again = True
        elif not self._stopped:
            self._look_in(None)
            Deferred.fromCoroutine(self._look())

    def _look_in(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None and not self._stopped:
            self._timer = self.clock.callLater(seconds, self.wake)

    async def _look(self) -> None:
        self._looking, self._again = True, False
        wait = AFTER_FAILURE
        try:
            self._rested()
            found = await self.storage.exchanges(self.unix_time(), LISTED)
            for item, each in _by_item(found).items():
                if item not in self._telling and item not in self._resting:
                    Deferred.fromCoroutine(self._tell_later(item, each))
            due = await self.storage.next_exchange()
            wait = LONGEST_LOOK if due is None else due - self.unix_time()
        except NTMobileError as problem:
            log.warn("the storage cannot say what is to be told: {problem}", problem=str(problem))
        except Exception:
            log.failure("what is to be told could not be looked for")
        finally:
            self._looking = False
        if self._again:
            self.wake()
        else:
            # What is being told right now is still due; it is not asked for in circles.
            self._look_in(min(max(wait, 1.0), LONGEST_LOOK))

    def _rested(self) -> None:
        now = self.clock.seconds()
        for item in [item for item, until in self._resting.items() if until <= now]:
            del self._resting[item]

    async def _tell_later(self, item: _Item, each: list[Exchange]) -> None:
        attempts = max(one.attempts for one in each)
        destinations = [one.destination for one in each]
        await self.tell(*item, each[0].document, destinations, attempts)

    # -- One item

    async def tell_soon(
        self, kind: WaitingKind, identifier: bytes, document: bytes, destinations: Sequence[str]
    ) -> tuple[Delivery, ...]:
        """Tell of an item now: what the coordinators say, as far as they say it soon."""
        results: dict[str, Delivery] = {}
        done: Deferred[None] = Deferred()

        def finish(result: object = None) -> None:
            if not done.called:
                done.callback(None)

        task = Deferred.fromCoroutine(
            self.tell(kind, identifier, document, destinations, 0, results)
        )
        task.addBoth(finish)
        timer = self.clock.callLater(PATIENCE, finish)
        await done
        if timer.active():
            timer.cancel()
        late = "its coordinator has not answered yet; it goes on"
        return tuple(
            results.get(each) or Delivery(each, Outcome.UNREACHABLE, late) for each in destinations
        )

    async def tell(
        self,
        kind: WaitingKind,
        identifier: bytes,
        document: bytes,
        destinations: Sequence[str],
        attempts: int,
        results: dict[str, Delivery] | None = None,
    ) -> None:
        """Tell the coordinators of some destinations of an item, and note what they say.

        :param results: gets what they say, as it comes.
        """
        item = (kind, identifier)
        found: dict[str, Delivery] = {} if results is None else results
        again = False
        while item in self._telling:
            waiting: Deferred[None] = Deferred()
            self._telling[item].append(waiting)
            await waiting
            again = True
        self._telling[item] = []
        try:
            if again:
                destinations = await self._untold(item, destinations, found)
            if destinations:
                await self._tell(item, document, destinations, attempts, found)
        except NTMobileError as problem:
            log.warn("an exchange request waits: {problem}", problem=str(problem))
            await self._rest(item, destinations, attempts, found)
        except Exception:
            log.failure("an exchange request failed")
            await self._rest(item, destinations, attempts, found)
        finally:
            for waiting in self._telling.pop(item):
                waiting.callback(None)

    async def _tell(
        self,
        item: _Item,
        document: bytes,
        destinations: Sequence[str],
        attempts: int,
        results: dict[str, Delivery],
    ) -> None:
        if item[0] == "data" and not await self._is_right(document):
            refused = [Delivery(each, Outcome.REFUSED, _WRONG_ROOT) for each in destinations]
            results.update({each.destination: each for each in refused})
            await self._note(item, refused, attempts)
            return
        asked = [
            Deferred.fromCoroutine(self._ask(item, document, domain, fqdns))
            for domain, fqdns in _by_domain(destinations).items()
        ]
        for each in asked:
            deliveries = await each
            results.update({one.destination: one for one in deliveries})
            await self._note(item, deliveries, attempts)

    async def _untold(
        self, item: _Item, destinations: Sequence[str], results: dict[str, Delivery]
    ) -> Sequence[str]:
        """Those of the destinations whose coordinators were not told meanwhile, by somebody else.

        :param results: gets the others.
        """
        kind, identifier = item
        if kind == "key":
            return destinations
        found = await self.storage.deliveries(identifier, self.unix_time())
        told = {each.destination for each in found if each.state != "not told"}
        results.update({each: Delivery(each, Outcome.OK, "") for each in told})
        return [each for each in destinations if each not in told]

    async def _is_right(self, document: bytes) -> bool:
        await self._gate.acquire()
        try:
            return await self.roots.is_right(read_object(document).read(), self.unix_time())
        finally:
            self._gate.release()

    async def _rest(
        self,
        item: _Item,
        destinations: Sequence[str],
        attempts: int,
        results: dict[str, Delivery],
    ) -> None:
        """Leave an item alone for a while, even if the storage does not take a note of that."""
        self._resting[item] = self.clock.seconds() + REST
        failed = [
            Delivery(each, Outcome.UNREACHABLE, _FAILED)
            for each in destinations
            if each not in results
        ]
        with suppress(NTMobileError):  # as before, which was logged
            await self._note(item, failed, attempts)

    async def _note(self, item: _Item, deliveries: list[Delivery], attempts: int) -> None:
        at = self.unix_time()
        told = [one.destination for one in deliveries if one.outcome in _TOLD]
        if told:
            await self.storage.told(*item, told, at)
        reasons: defaultdict[tuple[str, float | None], list[str]] = defaultdict(list)
        for one in deliveries:
            if one.outcome not in _TOLD:
                later = one.outcome in _LATER
                until = at + min(FIRST * 2**attempts, MOST) if later else None
                reasons[one.reason, until].append(one.destination)
        for (reason, until), fqdns in reasons.items():
            await self.storage.postpone(*item, fqdns, reason, until, at)

    async def _ask(
        self, item: _Item, document: bytes, domain: str, fqdns: list[str]
    ) -> list[Delivery]:
        """What the coordinator of a domain says for some of its devices."""
        try:
            self.trust.authority_for(domain)
            answer = await self._turns.ask(domain, self._request(item[0], document, fqdns))
        except UnknownName as problem:
            return _all(fqdns, Outcome.UNKNOWN, str(problem))
        except AuthenticationError as problem:
            return _all(fqdns, Outcome.UNTRUSTED, str(problem))
        except StorageFailed:
            raise
        except NTMobileError as problem:
            return _all(fqdns, Outcome.UNREACHABLE, str(problem))
        if not isinstance(answer, EncryptionKeyExchangeResponse | EncryptedDataExchangeResponse):
            return _all(fqdns, Outcome.UNREACHABLE, f"the coordinator of {domain} made no sense")
        said = {one.destination: one for one in answer.results}
        missing = Delivery("x", Outcome.UNREACHABLE, f"the coordinator of {domain} said nothing")
        return [
            said.get(each) or msgspec.structs.replace(missing, destination=each) for each in fqdns
        ]

    def _request(self, kind: WaitingKind, document: bytes, fqdns: list[str]) -> Message:
        if kind == "data":
            record = read_object(document)
            return EncryptedDataExchangeRequest(
                self.server, _for(record.info, fqdns), record.manifest
            )
        said = read_key(document)
        key = said.key
        return EncryptionKeyExchangeRequest(
            self.server, _for(said.info, fqdns), key.identifier, key.certificate, key.expires
        )


def _for(info: RequestInfo, fqdns: list[str]) -> RequestInfo:
    return msgspec.structs.replace(info, destinations=tuple(fqdns))


def _all(fqdns: list[str], outcome: Outcome, reason: str) -> list[Delivery]:
    return [Delivery(each, outcome, reason[:200]) for each in fqdns]


def _by_domain(destinations: Iterable[str]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for each in destinations:
        found[names.domain_of(each)].append(each)
    return found


def _by_item(found: Iterable[Exchange]) -> dict[_Item, list[Exchange]]:
    items: defaultdict[_Item, list[Exchange]] = defaultdict(list)
    for each in found:
        items[each.kind, each.identifier].append(each)
    return items


def check_sender(server: str, sender: str) -> None:
    """See that a server may speak for a sender to coordinators (R1).

    :raises AccessDenied: it may not: coordinators would end the link.
    """
    if not speaks_for("cs", server, sender):
        domain = server.partition(".")[2]
        raise AccessDenied(
            f"this cache server sends for devices of {domain}; use one of your own domain"
        )


def check_destinations(destinations: Sequence[str]) -> None:
    """See that all are names of devices, and each is there once.

    :raises InvalidName: they are not.
    """
    for each in destinations:
        names.check_fqdn(each)
    if len(set(destinations)) != len(destinations):
        raise InvalidName("a destination is named twice; name each once")
