"""An RS's link to its DC: it registers, is directed, and reports (R25, R26)."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ntmobile.errors import AccessDenied, AuthenticationError, NTMobileError
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.redial import InTurn, LinkEndpoint, abort
from ntmobile.protocols.relaying import Relaying
from ntmobile.servers.configuration import Server
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayRegistrationResponse,
)
from ntmobile.wire.messages.realtime import Outcome

log = Logger()

#: Least and most seconds between attempts, growth; ``backoffPolicy`` adds jitter.
_RETRY: Final = backoffPolicy(0.2, 15.0, 1.6)
#: Bounds of the interval of reports that a DC may ask for, in seconds.
_INTERVALS: Final = (1, 600)


class CoordinatorLink:
    """Keeps an RS registered with its DC, for ever trying again; tunnels do not need it.

    :param coordinator: whom to dial, and who it must prove to be.
    :param tls: expects the same. :param registration: what it is told first, each time.
    """

    def __init__(
        self,
        reactor: Any,
        coordinator: Server,
        tls: IOpenSSLClientConnectionCreator,
        relaying: Relaying,
        registration: RelayRegistration,
    ) -> None:
        self._reactor = reactor
        self._relaying = relaying
        self._registration = registration
        self._name = coordinator.name
        self._stopping = False
        verify = verify_peer((coordinator.role, coordinator.name))
        endpoint = LinkEndpoint(
            InTurn(
                [
                    wrapClientTLS(
                        tls, HostnameEndpoint(reactor, host, coordinator.port, timeout=10)
                    )
                    for host in coordinator.addresses
                ]
            ),
            reactor,
            f"the coordinator {coordinator.name}",
            lambda: Link(reactor, self._asked, verify),
            self._greet,
        )
        self._service = ClientService(
            endpoint, Factory.forProtocol(Protocol), retryPolicy=_RETRY, clock=reactor
        )

    def start(self) -> None:
        """Dial, and keep linked."""
        self._service.startService()

    def stop(self) -> Deferred[None]:
        """Close the link, and dial no more."""
        self._stopping = True
        stopped: Deferred[None] = self._service.stopService()
        return stopped

    async def _greet(self, link: Link) -> None:
        """Register."""
        answer = await link.request(self._registration)
        if not isinstance(answer, RelayRegistrationResponse) or answer.outcome != Outcome.OK:
            raise AccessDenied(f"{self._name} does not take this relay server")
        low, high = _INTERVALS
        self._report_every(min(max(answer.interval, low), high), link)
        log.info(
            "registered with {coordinator} as {name}",
            coordinator=self._name,
            name=self._registration.name,
        )

    def _report_every(self, interval: int, link: Link) -> None:
        reports = LoopingCall(lambda: Deferred.fromCoroutine(self._report(link)))
        reports.clock = self._reactor
        # A restarted DC knows nothing of the load, so the first report goes at once.
        reports.start(interval, now=True).addErrback(
            lambda failure: log.failure("the reports ended", failure)
        )
        link.closed.addCallback(self._closed, reports)

    async def _report(self, link: Link) -> None:
        server = self._relaying.server
        try:
            for report in server.reports(self._reactor.seconds()):
                if isinstance(await link.request(report), LinkAcknowledgement):
                    server.reported(report)
        except NTMobileError as problem:
            if link.alive:
                log.warn(
                    "{coordinator} does not answer: {problem}",
                    coordinator=self._name,
                    problem=str(problem),
                )
                abort(link)

    def _closed(self, reason: object, reports: LoopingCall) -> object:
        if reports.running:
            reports.stop()
        if not self._stopping:
            log.warn(
                "lost the coordinator {name}; {count} tunnels go on",
                name=self._name,
                count=self._count,
            )
        return reason

    async def _asked(self, message: Message, link: Link) -> Message | None:
        match message:
            case RelayDirection():
                response = self._relaying.direct(message)
                if response.outcome != Outcome.OK:
                    log.warn("a tunnel was refused: there are {count}", count=self._count)
                return response
            case RelayEnd():
                self._relaying.end(message)
                return LinkAcknowledgement()
            case _:
                raise AuthenticationError(
                    "not a request that a coordinator makes of a relay server"
                )

    @property
    def _count(self) -> int:
        return len(self._relaying.server)
