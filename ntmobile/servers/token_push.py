"""Pushing authentication tokens to the cache servers of the realm (paper, V-A; rules R28, R34).

One conversation with each CS, over HTTPS and mutual TLS: the AS posts what changed, the CS answers
up to which change it knows everything, and the AS goes on from there. So a CS that was down, or
began anew, gets what it lacks without saying more. Where nothing changes, a word every five seconds
renews the lease by which a CS goes, and finds out if it has begun anew.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ntmobile.errors import NTMobileError, Unreachable
from ntmobile.interfaces import IAccountStore
from ntmobile.protocols.http_asking import HttpServerAt
from ntmobile.protocols.http_routes import JSON_TYPE
from ntmobile.servers.configuration import CachePlace
from ntmobile.servers.lasting import LastingProblem
from ntmobile.servers.workers import Workers
from ntmobile.wire.documents import read_document, write_document
from ntmobile.wire.messages.exchange import Token, TokenAcknowledgement, TokenUpdate
from ntmobile.wire.problems import error_of

log = Logger()

#: How often the store is asked for changes, in seconds: well within the one second of R34.
POLL: Final = 0.25
#: A CS hears a word after this part of the lease, and at least every so many seconds: one that has
#: just begun anew refuses everybody until then.
LEASE_PART: Final = 5.0
BEAT_LONGEST: Final = 5.0
#: Seconds that a CS has for one request.
PATIENCE: Final = 5.0
#: Seconds until a CS that does not answer is tried again: at first, and at most.
RETRY_FIRST: Final = 0.5
RETRY_LONGEST: Final = 5.0
#: Updates that may change nothing at the CS until it is given up for now.
FUTILE: Final = 3
#: Where a CS takes them.
TARGET: Final = "/v1/tokens"


@define(eq=False)
class CacheConversation:
    """What one CS is told.

    :ivar changes: the update that follows a number, and the last number there is.
    :ivar period: seconds between words where nothing changes.
    :ivar known: up to which change it knows everything; None: not known since it was last away.
    """

    name: str
    server: HttpServerAt
    update: Callable[[int | None], Deferred[TokenUpdate]]
    latest: Callable[[], int]
    period: float
    clock: IReactorTime
    random: Random
    known: int | None = None
    _talking: bool = False
    _again: bool = False
    _stopped: bool = True
    _failures: int = 0
    _call: IDelayedCall | None = None
    _ongoing: Deferred[None] | None = None
    _problem: LastingProblem = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._problem = LastingProblem(
            f"telling the cache server {self.name} of tokens", self.clock
        )

    def start(self) -> None:
        """Begin."""
        self._stopped = False
        self._talk()

    async def stop(self) -> None:
        """End."""
        self._stopped = True
        self._cancel()
        if self._ongoing is not None:
            self._ongoing.cancel()
        await self.server.close()

    def changed(self) -> None:
        """Something changed: tell it now, unless the CS is away."""
        self._again = True
        if not self._talking and not self._failures and not self._stopped:
            self._talk()

    def _cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _talk(self) -> None:
        self._cancel()
        self._talking, self._again = True, False
        self._ongoing = Deferred.fromCoroutine(self._tell_all())
        self._ongoing.addCallbacks(
            lambda _: self._told(), lambda failure: self._failed(failure.value)
        ).addErrback(lambda failure: log.failure("telling of tokens failed", failure))

    async def _tell_all(self) -> None:
        """Send updates until the CS knows all."""
        futile = 0
        while not self._stopped:
            before = self.known
            update = await self.update(before)
            self.known = await self._post(update)
            if self.known == update.sequence == self.latest():
                return
            futile = futile + 1 if self.known == before else 0
            if futile >= FUTILE:
                raise Unreachable(f"{self.name} does not take what it is told")

    async def _post(self, update: TokenUpdate) -> int:
        headers = {"content-type": JSON_TYPE}
        status, body = await self.server.ask("POST", TARGET, write_document(update), headers)
        if status != 200:
            raise Unreachable(f"{self.name}: {error_of(status, body)}")
        return read_document(TokenAcknowledgement, body).sequence

    def _told(self) -> None:
        self._talking = False
        self._failures = 0
        self._problem.succeeded()
        if self._stopped:
            return
        if self._again:
            self._talk()
        else:
            self._call = self.clock.callLater(self.period, self._talk)

    def _failed(self, problem: BaseException) -> None:
        self._talking = False
        self.known = None
        if self._stopped:
            return
        if not isinstance(problem, NTMobileError):
            log.error("telling {name} of tokens: {problem!r}", name=self.name, problem=problem)
        self._problem.failed(f"the cache server {problem}")
        pause = min(RETRY_LONGEST, RETRY_FIRST * 1.6**self._failures)
        self._failures += 1
        self._call = self.clock.callLater(pause * self.random.uniform(0.5, 1.0), self._talk)


@define(eq=False)
class TokenPush:
    """Tells all cache servers of a realm.

    :ivar storage: the thread of the store. :ivar lease: seconds.
    :ivar unix_time: wall clock. :ivar sequence: of the last change.
    """

    store: IAccountStore
    storage: Workers
    lease: float
    unix_time: Callable[[], float]
    reactor: Any
    sequence: int = 0
    conversations: list[CacheConversation] = field(factory=list, init=False)
    _loop: LoopingCall | None = field(default=None, init=False)
    _looking: LastingProblem = field(init=False)
    _polling: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._looking = LastingProblem("looking for changes of tokens", self.reactor)

    def add(
        self, place: CachePlace, tls: IOpenSSLClientConnectionCreator, random: Random | None = None
    ) -> None:
        """Tell one more CS. :param tls: verifies that it is that one."""
        server = HttpServerAt(self.reactor, place.name, place.endpoints, tls, PATIENCE)
        self.conversations.append(
            CacheConversation(
                place.name,
                server,
                self._update,
                lambda: self.sequence,
                min(self.lease / LEASE_PART, BEAT_LONGEST),
                self.reactor,
                random or Random(),
            )
        )

    def start(self) -> None:
        """Begin with what is there now; where there is no CS, nothing is looked for."""
        if not self.conversations:
            return
        self.sequence = self.store.last_token_change()
        self._loop = LoopingCall(self.poll)
        self._loop.clock = self.reactor
        self._loop.start(POLL, now=False)
        for one in self.conversations:
            one.start()

    async def stop(self) -> None:
        """End."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        stopping = [Deferred.fromCoroutine(one.stop()) for one in self.conversations]
        await DeferredList(stopping)

    def poll(self) -> None:
        """Look for changes now. Also called when this AS made one itself."""
        if self._loop is None or self._polling:
            return
        self._polling = True
        Deferred.fromCoroutine(self._poll()).addErrback(
            lambda failure: log.failure("looking for changes failed", failure)
        )

    async def _poll(self) -> None:
        try:
            sequence = await self.storage.run(self.store.last_token_change)
        except NTMobileError as problem:
            self._looking.failed(f"cannot look for changes of tokens: {problem}")
            return
        finally:
            self._polling = False
        self._looking.succeeded()
        if sequence != self.sequence:
            self.sequence = sequence
            for one in self.conversations:
                one.changed()

    def _update(self, known: int | None) -> Deferred[TokenUpdate]:
        return Deferred.fromCoroutine(self._make_update(known))

    async def _make_update(self, known: int | None) -> TokenUpdate:
        """What follows a number; an update of nothing asks a CS what it knows."""
        lease, time = max(1, int(self.lease)), int(self.unix_time() * 1000)
        if known is None:
            return TokenUpdate(self.sequence, self.sequence, lease=lease, time=time)
        if known > self.sequence:
            known = 0  # of another past than this AS's, which was put back
        found = await self.storage.run(self.store.token_changes, known, self.unix_time())
        self.sequence = max(self.sequence, found.sequence)
        tokens = tuple(
            Token(one.token, one.fqdn, one.key, int(one.expires)) for one in found.tokens
        )
        if found.sequence < self.sequence:
            lease = 0  # the rest comes next; until then devices are not refused, but told to wait
        return TokenUpdate(found.sequence, known, tokens, found.revoked, lease, time)
