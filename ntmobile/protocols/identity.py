"""Identity Requests: the signed device list of a user, from its AS through its DC (rule R5).

A client asks its own DC over TLS, after proving its session; that DC asks its AS about its own
users, and the DC of any other domain about that one's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Final
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.machines.login.identities import session_proof
from ntmobile.machines.rate import RateLimiter
from ntmobile.protocols.link import Link
from ntmobile.protocols.tls import connection_of, exporter
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    BINDING_LABEL,
    IdentityRequest,
    IdentityResponse,
    SessionProof,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.realtime import Outcome

log = Logger()

#: Requests a second and at once, of one client and of one foreign DC.
CLIENT_RATE: Final = (1.0, 30.0)
COORDINATOR_RATE: Final = (20.0, 200.0)


@define(eq=False)
class IdentityDesk:
    """Answers Identity Requests at one DC.

    :ivar domain: of the DC. :ivar account_link: the link to its AS, or None.
    :ivar session: FQDN and session key of a session index, or None.
    :ivar ask_coordinator: sends a request to the DC of another domain.
    :ivar trust: whose domains a client may have us look up and dial.
    """

    domain: str
    account_link: Callable[[], Link | None]
    session: Callable[[bytes], tuple[str, bytes] | None]
    ask_coordinator: Callable[[str, Message], Awaitable[Message]]
    clock: IReactorTime
    trust: TrustStore
    _proven: WeakKeyDictionary[Link, str] = field(factory=WeakKeyDictionary, init=False)
    _clients: RateLimiter = field(factory=lambda: RateLimiter(*CLIENT_RATE), init=False)
    _coordinators: RateLimiter = field(factory=lambda: RateLimiter(*COORDINATOR_RATE), init=False)

    def takes(self, message: Message) -> bool:
        """Whether a client's message is for this desk."""
        return isinstance(message, SessionProof | IdentityRequest)

    async def client_asked(self, message: Message, link: Link) -> Message:
        """A request on the link of a client, which has no certificate.

        :raises AuthenticationError: it has not proven its session, or it is not a request.
        """
        match message:
            case SessionProof():
                return self._prove(message, link)
            case IdentityRequest(name) if link in self._proven:
                if not self._clients.allow(self._proven[link], self.clock.seconds()):
                    return IdentityResponse(Outcome.BUSY)
                return await self._answer(name)
            case _:
                raise AuthenticationError("a request without a session")

    def _prove(self, message: SessionProof, link: Link) -> LinkAcknowledgement:
        known = self.session(message.index)
        exported = exporter(connection_of(link.transport), BINDING_LABEL)
        # An unknown session costs and says the same as a wrong proof.
        fqdn, key = known or ("", bytes(32))
        right = compare_digest(session_proof(key, exported), message.mac)
        if known is None or not right:
            return LinkAcknowledgement(Outcome.REFUSED, "no such session; log in again")
        self._proven[link] = fqdn
        return LinkAcknowledgement()

    async def coordinator_asked(self, domain: str, message: IdentityRequest) -> IdentityResponse:
        """A request of another DC: about users of this domain only (R1)."""
        if not self._coordinators.allow(domain, self.clock.seconds()):
            return IdentityResponse(Outcome.BUSY)
        if not self._is_ours(message.name):
            return IdentityResponse(Outcome.UNKNOWN)
        return await self._ask_account_server(message.name)

    def _is_ours(self, name: str) -> bool:
        return names.is_user_of(name, self.domain) or names.is_device_of(name, self.domain)

    async def _answer(self, name: str) -> IdentityResponse:
        if self._is_ours(name):
            return await self._ask_account_server(name)
        try:
            names.check_server(name)
            answer = await self._ask_abroad(name)
        except NTMobileError as problem:
            log.info("no identity of {name}: {problem}", name=name, problem=str(problem))
            return IdentityResponse(Outcome.UNREACHABLE)
        return answer if isinstance(answer, IdentityResponse) else _UNREACHABLE

    async def _ask_abroad(self, name: str) -> Message:
        """Ask the DC of a user ``USER.DOMAIN``; clients ask about users, so that is one label."""
        domain = names.check_domain(name.partition(".")[2])
        # A domain of no realm could prove nothing, so no client can have us knock there.
        self.trust.authority_for(domain)
        return await self.ask_coordinator(domain, IdentityRequest(name))

    async def _ask_account_server(self, name: str) -> IdentityResponse:
        link = self.account_link()
        if link is None:
            return _UNREACHABLE
        try:
            answer = await link.request(IdentityRequest(name))
        except NTMobileError as problem:
            log.warn("the account server: {problem}", problem=str(problem))
            return _UNREACHABLE
        return answer if isinstance(answer, IdentityResponse) else _UNREACHABLE


_UNREACHABLE: Final = IdentityResponse(Outcome.UNREACHABLE)
