"""A cache server and coordinators: it registers with its own, and asks all of them (figures 3, 4).

Its own coordinator is where the configuration says; the others are found as coordinators find each
other. Each must prove by its certificate to be the one of its domain (R14).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ntmobile.errors import AccessDenied, NTMobileError
from ntmobile.interfaces import Coordinator, ICoordinatorLookup
from ntmobile.protocols.coordination import CoordinatorLinks
from ntmobile.protocols.link import Link
from ntmobile.servers.configuration import Server
from ntmobile.servers.lasting import LastingProblem
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.exchange import CacheRegistration, CacheServer

log = Logger()

#: Seconds between two registrations, and after one that failed or a link that was lost.
INTERVAL: Final = 30.0
RETRY: Final = 2.0


@implementer(ICoordinatorLookup)
@frozen
class OwnFirst:
    """Knows where one coordinator is, and asks another lookup for the rest."""

    own: Server
    others: ICoordinatorLookup

    def find(self, domain: str) -> Deferred[Coordinator]:
        """See :class:`~ntmobile.interfaces.ICoordinatorLookup`."""
        if domain != self.own.name:
            return self.others.find(domain)
        servers = tuple((host, self.own.port) for host in self.own.addresses)
        return succeed(Coordinator(domain, servers, self.own.port, self.own.port))


@define(eq=False)
class Registration:
    """Keeps a cache server registered with its coordinator.

    :ivar free: tells how many bytes there are for more.
    """

    domain: str
    server: CacheServer
    links: CoordinatorLinks
    free: Callable[[], Awaitable[int]]
    clock: IReactorTime
    _link: Link | None = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _running: bool = field(default=False, init=False)
    _problem: LastingProblem = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._problem = LastingProblem(f"registering with {self.domain}", self.clock)

    def start(self) -> None:
        """Register, and keep registered."""
        self._running = True
        self._now()

    def stop(self) -> None:
        """Register no more."""
        self._running = False
        self._later(None)

    def _later(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None and self._running:
            self._timer = self.clock.callLater(seconds, self._now)

    def _now(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._register())

    async def _register(self) -> None:
        try:
            free = min(await self.free(), (1 << 50) - 1)
            link = await self.links.link(self.domain)
            answer = await link.request(CacheRegistration(self.server, free))
            if not isinstance(answer, LinkAcknowledgement):
                raise AccessDenied(f"the coordinator of {self.domain} does not take this server")
        except NTMobileError as problem:
            self._problem.failed(problem)
            self._later(RETRY)
            return
        except Exception:
            log.failure("registering with the coordinator")
            self._later(INTERVAL)
            return
        self._problem.succeeded()
        if link is not self._link:
            log.info("registered with the coordinator of {domain}", domain=self.domain)
            self._link = link
            link.closed.addCallback(self._lost, link)
        self._later(INTERVAL)

    def _lost(self, reason: Any, link: Link) -> Any:
        if link is self._link:
            self._link = None
            self._later(RETRY)
        return reason
