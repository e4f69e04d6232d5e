"""The table of all that can be asked of a cache server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.interfaces import ICacheStorage
from ntmobile.machines.exchange.tokens import TokenTable
from ntmobile.protocols.caching.access import ACCOUNT_SERVER, LINES, CacheAccess
from ntmobile.protocols.caching.downloads import Downloads
from ntmobile.protocols.caching.exchanging import Exchanges
from ntmobile.protocols.caching.keys import Keys
from ntmobile.protocols.caching.objects import Objects
from ntmobile.protocols.caching.roots import Offload, Roots
from ntmobile.protocols.caching.turns import Ask
from ntmobile.protocols.caching.uploads import Uploads
from ntmobile.protocols.http_limits import Limits
from ntmobile.protocols.http_openapi import with_document
from ntmobile.protocols.http_routes import Answer, Call, Route, Table
from ntmobile.protocols.http_server import HttpApi
from ntmobile.protocols.http_tracing import traced
from ntmobile.wire import problems
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.messages.exchange import CacheServer, TokenAcknowledgement, TokenUpdate

log = Logger()

#: Seconds by which a clock is wrong enough to say so.
WRONG: Final = 30.0
#: Most bytes of an update of tokens: a thousand of them.
TOKENS_LIMIT: Final = 1 << 20


class Cache:
    """One cache server: what it knows, and what can be asked of it.

    :ivar tokens: told by the AS. :ivar exchanges: what coordinators are to be told.
    :ivar access: who may ask.
    :param server: this server, as others find it. :param realm: its realm.
    :param ask: asks the coordinator of a domain. :param clock: monotonic.
    :param wall: this machine's unix seconds, until the AS tells better ones (R12).
    :param offload: runs hashing in a thread.
    :param largest: bytes that one object may have.
    :param requests: that one device may make in a second.
    """

    def __init__(
        self,
        server: CacheServer,
        realm: str,
        storage: ICacheStorage,
        trust: TrustStore,
        ask: Ask,
        clock: IReactorTime,
        wall: Callable[[], float],
        offload: Offload,
        largest: int = 1 << 40,
        requests: int = 250,
    ) -> None:
        self.tokens = TokenTable()
        self._wall = wall
        self._offset = 0.0
        unix_time = self.unix_time
        self.access = CacheAccess(
            server.name, realm, self.tokens, trust, clock, unix_time, requests
        )
        roots = Roots(storage, offload)
        objects = Objects(storage, unix_time)
        self.exchanges = Exchanges(storage, server, ask, trust, roots, clock, unix_time)
        self._clock = clock
        self._name = server.name
        self._served = (
            Keys(storage, self.exchanges, trust, unix_time),
            Uploads(storage, objects, self.exchanges, roots, trust, largest),
            Downloads(storage, objects, trust, self.access.charge),
        )

    def unix_time(self) -> float:
        """The realm's time, as its AS says (R12)."""
        return self._wall() + self._offset

    def api(
        self, reactor: Any, limits: Limits | None = None, directory: Path | None = None
    ) -> HttpApi:
        """All of it as what to listen with.

        :param directory: of files for bodies that find no room in memory.
        """
        routes = [route for served in self._served for route in served.routes()]
        asked = traced(Table([*routes, self._token_route()]), self._name)
        table, access = with_document(asked, "ntmobile cache server", LINES)
        return HttpApi(table, self.access.table() | access, reactor, limits, directory)

    def _token_route(self) -> Route:
        return Route(
            "POST",
            "/v1/tokens",
            "Tell, as the account server, of authentication tokens",
            ACCOUNT_SERVER,
            self._update_tokens,
            body=TokenUpdate,
            body_limit=TOKENS_LIMIT,
            answer=TokenAcknowledgement,
            problems=(problems.DENIED,),
        )

    async def _update_tokens(self, call: Call) -> Answer:
        update: TokenUpdate = call.message
        now = self._clock.seconds()
        heard = self.tokens.accepts(now)
        if update.time:
            self._set_time(update.time / 1000)
        self.tokens.apply(update, now)
        if self.tokens.accepts(now) and not heard:
            log.info("the account server is heard: {count} tokens", count=len(self.tokens))
        return Answer(document=TokenAcknowledgement(self.tokens.sequence))

    def _set_time(self, said: float) -> None:
        offset = said - self._wall()
        if abs(offset - self._offset) > WRONG:
            log.warn(
                "this machine's clock is {seconds} s off the account server's, which counts",
                seconds=round(-offset),
            )
        self._offset = offset
