"""DC to DC: links to the coordinators of other domains, found by lookup (paper, section III).

A coordinator proves by its certificate to be the one of the very domain that was asked for (R14);
what DNS said is only where to knock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import NTMobileError, Unreachable
from ntmobile.interfaces import ICoordinatorLookup
from ntmobile.protocols import trace
from ntmobile.protocols.link import Handler, Link, Verifier
from ntmobile.protocols.racing import Attempt, Race
from ntmobile.wire.codec import Message

log = Logger()

#: Seconds for one connection attempt, TLS included: time for the third SYN, which TCP sends at 3 s.
CONNECT_TIMEOUT = 4.0
#: Seconds that one address of a coordinator is tried before the next one is tried too.
HEAD_START = 0.5
#: Seconds without an answer after which the next reading of a name is looked up meanwhile.
PATIENCE = 0.5
#: A link that nobody used for so long is closed.
IDLE = 600.0
#: Seconds after a failure in which a domain is not tried again.
QUARANTINE = 2.0


def connect_link(
    reactor: IReactorTime,
    address: tuple[str, int],
    tls: IOpenSSLClientConnectionCreator,
    handler: Handler,
    verify: Verifier,
    timeout: float = CONNECT_TIMEOUT,
) -> Deferred[Link]:
    """Open a link to a numeric address.

    :return: fires when TLS stands and the peer is verified; fails with one of our errors.
    """
    factory = Factory.forProtocol(lambda: Link(reactor, handler, verify))
    factory.noisy = False
    host, port = address
    plain = HostnameEndpoint(reactor, host.encode(), port, timeout=timeout)
    return Deferred.fromCoroutine(_connect(reactor, plain, tls, factory, address, timeout))


async def _connect(
    reactor: IReactorTime,
    plain: HostnameEndpoint,
    tls: IOpenSSLClientConnectionCreator,
    factory: Factory[Link],
    address: tuple[str, int],
    timeout: float,
) -> Link:
    where = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    began = reactor.seconds()
    try:
        link = await wrapClientTLS(tls, plain).connect(factory)
    except (ConnectError, ConnectingCancelledError, DNSLookupError, OSError) as problem:
        reason = str(problem).rstrip(".") or "no answer"
        raise Unreachable(f"no connection to {where}: {reason}") from None
    assert isinstance(link, Link)
    left = max(0.0, began + timeout - reactor.seconds())
    expiry = deferLater(reactor, left, link.close)
    expiry.addErrback(lambda failure: failure.trap("twisted.internet.defer.CancelledError"))
    try:
        return await link.ready
    except CancelledError:
        link.abort()
        raise
    except NTMobileError as problem:
        if expiry.called:  # what the link says is but that it was closed
            raise Unreachable(f"{where}: no TLS connection within {timeout:g} s") from None
        raise type(problem)(f"{where}: {problem}") from None
    finally:
        expiry.cancel()


@define(eq=False)
class _Known:
    link: Link | None = None
    opening: list[Deferred[Link]] = field(factory=list)
    dialling: Deferred[None] | None = None
    failed_until: float = 0.0
    problem: NTMobileError | None = None
    used: float = 0.0


class CoordinatorLinks:
    """Links to other DCs, opened when needed, shared, and closed when idle.

    :param tls: makes the client's side of TLS for a domain: our certificate, its expected role.
    :param handler: answers requests that the other end sends on such a link.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        lookup: ICoordinatorLookup,
        tls: Callable[[str], IOpenSSLClientConnectionCreator],
        handler: Handler,
        verify: Callable[[str], Verifier],
    ) -> None:
        self._reactor = reactor
        self._lookup = lookup
        self._tls = tls
        self._handler = handler
        self._verify = verify
        self._known: dict[str, _Known] = {}
        self._closed = False

    async def request(
        self, domain: str, message: Message, timeout: float = 5.0, then: str | None = None
    ) -> Message:
        """Ask the DC of a domain.

        :param then: whose DC will be asked next where this one is of no help; it is sought while
            the first is slow to answer, so that two that are silent take no longer than one.
        :raises UnknownName: no coordinator of that domain is known.
        :raises Unreachable: it does not answer. :raises AuthenticationError: it is another's.
        """
        seeking = self._reactor.callLater(PATIENCE, self._seek, then) if then else None
        try:
            link = await self.link(domain)
            return await link.request(message, timeout)
        finally:
            if seeking is not None and seeking.active():
                seeking.cancel()

    def _seek(self, domain: str) -> None:
        """Open a link that may soon be wanted; a failure is kept, for a moment, with the domain."""
        seeking = Deferred.fromCoroutine(self.link(domain))
        seeking.addErrback(lambda failure: failure.trap(NTMobileError))

    async def link(self, domain: str) -> Link:
        """A verified link to the DC of a domain; see :meth:`request` for what it raises."""
        if self._closed:
            raise Unreachable("this server is going down")
        known = self._known.setdefault(domain, _Known())
        known.used = self._reactor.seconds()
        if known.link is not None and known.link.alive:
            return known.link
        if known.problem is not None and self._reactor.seconds() < known.failed_until:
            raise known.problem
        waiting: Deferred[Link] = Deferred()
        known.opening.append(waiting)
        if len(known.opening) == 1:
            known.dialling = Deferred.fromCoroutine(self._open(domain, known))
        return await waiting

    async def _open(self, domain: str, known: _Known) -> None:
        try:
            known.link = await self._reach(domain)
            known.problem = None
            outcome: Link | Failure = known.link
        except NTMobileError as problem:
            known.problem = problem
            known.failed_until = self._reactor.seconds() + QUARANTINE
            outcome = Failure(problem)
        except CancelledError:
            outcome = Failure(Unreachable("this server is going down"))
        except Exception as problem:
            log.failure("opening a link to {domain}", domain=domain)
            known.problem = Unreachable(f"the coordinator of {domain} cannot be reached: {problem}")
            outcome = Failure(known.problem)
        opening, known.opening = known.opening, []
        for waiting in opening:
            waiting.callback(outcome)

    async def _reach(self, domain: str) -> Link:
        found = await self._lookup.find(domain)
        if trace.switch.on:
            trace.note("lookup", f"{domain} is at {', '.join(h for h, _ in found.servers)}")
        if not found.servers:
            raise Unreachable(f"no address of the coordinator of {domain}")
        attempts: deque[Attempt[Link]] = deque(
            partial(self._dial, domain, address) for address in found.servers
        )
        return await Race(self._reactor, attempts, HEAD_START, Link.close).start()

    async def _dial(self, domain: str, address: tuple[str, int]) -> Link:
        tls, verify = self._tls(domain), self._verify(domain)
        try:
            link = await connect_link(self._reactor, address, tls, self._handler, verify)
        except NTMobileError as problem:
            log.info("coordinator of {domain}: {problem}", domain=domain, problem=str(problem))
            raise
        log.info(
            "linked to the coordinator of {domain} at {address}", domain=domain, address=address[0]
        )
        return link

    def __len__(self) -> int:
        """How many domains are known, reached or not."""
        return len(self._known)

    def close_idle(self) -> None:
        """Close links that nobody used for a while; to be called every few seconds.

        Domains that were not reached are forgotten after their quarantine: clients may ask for any
        number of them.
        """
        now = self._reactor.seconds()
        for domain, known in list(self._known.items()):
            if known.opening:
                continue
            alive = known.link is not None and known.link.alive
            if now - known.used > IDLE or (not alive and now >= known.failed_until):
                del self._known[domain]
                if known.link is not None:
                    known.link.close()

    def close(self) -> None:
        """Close all, and open none any more."""
        self._closed = True
        for known in tuple(self._known.values()):
            if known.dialling is not None:
                known.dialling.cancel()
            if known.link is not None:
                known.link.close()
        self._known.clear()
