"""A DC's link to its AS (paper, V-A): logins go up; assignments, outcomes, leases come down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import AuthenticationError, NTMobileError, Unreachable
from ntmobile.protocols.link import Link, Verifier
from ntmobile.protocols.login import LoginDesk
from ntmobile.protocols.redial import HANDSHAKE, InTurn, LinkEndpoint
from ntmobile.protocols.tls import tls_problem
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    ChangesRequest,
    Lease,
    LoginData,
    LoginOutcome,
    RevocationPush,
    Revoked,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement

log = Logger()

_RETRY: Final = backoffPolicy(0.2, 15.0, 1.6)


class AccountLink:
    """Keeps the link to the AS, for ever trying again.

    :ivar sequence: of the AS's changes that have been carried out.
    :param lease: told how long new work may go on, and the AS's time in unix seconds.
    :param revoke: told of each revoked device.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[tuple[str, int]],
        tls: IOpenSSLClientConnectionCreator,
        verify: Verifier,
        desk: LoginDesk,
        lease: Callable[[float, float], None],
        revoke: Callable[[Revoked], None],
        sequence: int,
    ) -> None:
        self.sequence = sequence
        self._desk = desk
        self._lease = lease
        self._revoke = revoke
        self._clock: IReactorTime = reactor
        self._link: Link | None = None
        self._leased: Deferred[None] = Deferred()
        endpoint = LinkEndpoint(
            InTurn(
                [
                    wrapClientTLS(tls, HostnameEndpoint(reactor, host.encode(), port, timeout=10))
                    for host, port in addresses
                ]
            ),
            reactor,
            "the account server",
            lambda: Link(reactor, self._handle, verify),
            self._stands,
        )
        self._service = ClientService(
            endpoint, Factory.forProtocol(Protocol), retryPolicy=_RETRY, clock=reactor
        )

    def start(self) -> None:
        """Connect, and keep connected."""
        self._service.startService()

    def stop(self) -> Any:
        """Close the link and stop trying."""
        return self._service.stopService()

    @property
    def link(self) -> Link | None:
        """The link, while it stands."""
        return self._link if self._link is not None and self._link.alive else None

    async def _stands(self, link: Link) -> None:
        """Wait for the lease, the AS's first word: in TLS 1.3 a refusal comes after the handshake.

        :raises Unreachable: the link closed before it came.
        """
        self._leased = Deferred()
        link.closed.addCallback(self._closed, link)
        await self._leased.addTimeout(HANDSHAKE, self._clock, _no_lease)
        self._link = link
        log.info("linked to the account server")

    def _closed(self, problem: Any, link: Link) -> Any:
        """The link is gone; the endpoint that made it is told by the same Deferred."""
        if not self._leased.called:
            self._leased.errback(Unreachable(f"it closed the connection: {tls_problem(problem)}"))
        if self._link is link:
            log.warn("lost the account server; logins wait for it")
            self._link = None
            self._desk.account_server_lost()
        return problem

    async def _handle(self, message: Message, link: Link) -> Message | None:
        match message:
            case Lease(seconds, time, sequence):
                self._lease(float(seconds), time / 1000)
                if not self._leased.called:
                    self._leased.callback(None)
                await self._catch_up(link, sequence)
                return LinkAcknowledgement()
            case RevocationPush():
                # Not to be counted as carried out while something before it is missing.
                sequence = message.sequence if message.since <= self.sequence else self.sequence
                self._carry_out(message.revoked, sequence)
                await self._catch_up(link, message.since)
                return LinkAcknowledgement()
            case AssignmentRequest() | LoginOutcome() | LoginData():
                return await self._desk.account_server_asked(message)
            case _:
                raise AuthenticationError("not a request that an account server makes")

    async def _catch_up(self, link: Link, sequence: int) -> None:
        """Ask for what was missed, up to a sequence, in as many messages as it takes."""
        while self.sequence < sequence:
            before = self.sequence
            try:
                answer = await link.request(ChangesRequest(before))
            except NTMobileError as problem:
                log.warn("no revocations from the account server: {problem}", problem=str(problem))
                return
            if not isinstance(answer, RevocationPush):
                raise AuthenticationError("not the answer of an account server")
            self._carry_out(answer.revoked, answer.sequence)
            if self.sequence <= before:
                return

    def _carry_out(self, revoked: tuple[Revoked, ...], sequence: int) -> None:
        for each in revoked:
            self._revoke(each)
        self.sequence = max(self.sequence, sequence)


def _no_lease(problem: object, seconds: float) -> Failure:
    return Failure(Unreachable(f"no lease came within {seconds:g} s"))
