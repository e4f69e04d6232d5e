"""The client's part of a login: TLS to the DC, and inside it TLS to the AS (rules R2, R3, R12).

The client verifies both by certificate. At that moment it may not know the time, so the validity of
both certificates is judged when the AS's answer has told it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ntmobile.errors import NTMobileError, Unreachable
from ntmobile.machines.login.proofs import binding_of, check_response, refusal
from ntmobile.protocols.device_link import PATIENCE as CONNECT
from ntmobile.protocols.device_link import connect_device
from ntmobile.protocols.link import Link
from ntmobile.protocols.login_inner import InnerSession
from ntmobile.protocols.tls import (
    client_context_factory,
    connection_of,
    exporter,
    verify_again,
)
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import FRAME_LIMIT, Message
from ntmobile.wire.messages.account import (
    BINDING_LABEL,
    SESSION_LABEL,
    LoginRelay,
    LoginResponse,
    SessionGrant,
    SessionRefusal,
)
from ntmobile.wire.messages.fields import Address

#: Seconds for a login, once there is a connection.
PATIENCE: Final = 60.0
#: Bytes that may come from a DC in one login.
LIMIT: Final = 524288

#: Makes the request for a connection, given what binds it to that connection (R2).
MakeRequest = Callable[[bytes], Message]


@frozen
class Answer:
    """How a login ended well at the AS.

    :ivar response: the AS's, of outcome OK. :ivar grant: the DC's session, if it gave one.
    :ivar problem: why there is no session where one was wanted.
    :ivar session_key: the exporter of the connection to the DC (R3).
    :ivar received: monotonic seconds of the reactor when the AS's time was read.
    :ivar address: of the DC.
    """

    response: LoginResponse
    grant: SessionGrant | None
    problem: NTMobileError | None
    session_key: bytes = field(repr=False)
    received: float
    address: Address


@define(eq=False)
class LoginClient:
    """Logs in at the DC of one domain.

    :ivar reactor: provides TCP, names and time.
    :ivar trust: the realm's authority decides who is the DC, and who the AS.
    :ivar domain: of the DC.
    """

    reactor: Any
    trust: TrustStore
    domain: str
    connect_patience: float = CONNECT
    patience: float = PATIENCE

    async def log_in(
        self, addresses: Sequence[Address], make: MakeRequest, *, grant: bool = True
    ) -> Answer:
        """Log in at the first of the DC's addresses that answers as that DC.

        :param addresses: host names or numeric addresses, with port.
        :param grant: whether to wait for the session; after a logout there is none.
        :raises Unreachable: none answered, or the login was interrupted; try again.
        :raises CertificateError: DC or AS are not who they must be.
        :raises NTMobileError: the login did not succeed; of the kind that fits the outcome.
        """
        conversation = Conversation(self, make, grant)
        # The time is not known yet, so what depends on it is judged later: see _answered.
        link, address = await connect_device(
            self.reactor,
            addresses,
            self.trust,
            self.domain,
            conversation.heard,
            lambda: None,
            self.connect_patience,
        )
        return await conversation.run(link, address)

    def realm(self) -> str:
        """Of the AS."""
        return self.trust.authorities[self.trust.home].realm


class Conversation:
    """One login on one connection."""

    def __init__(self, client: LoginClient, make: MakeRequest, grant: bool) -> None:
        self._client = client
        self._make = make
        self._wants_grant = grant
        self._done: Deferred[None] = Deferred()
        self._link: Link | None = None
        self._inner: InnerSession | None = None
        self._asked = False
        self._bytes = 0
        self._response: LoginResponse | None = None
        self._received = 0.0
        self._grant: SessionGrant | None = None
        self._problem: NTMobileError | None = None

    async def run(self, link: Link, address: Address) -> Answer:
        """Carry it out; closes the link. See :meth:`LoginClient.log_in` for the errors."""
        self._link = link
        realm, trust = self._client.realm(), self._client.trust
        side = client_context_factory(None, None, trust, "as", realm, clock=lambda: None)
        self._inner = InnerSession(side, FRAME_LIMIT)
        session_key = exporter(connection_of(link.transport), SESSION_LABEL)
        clock = self._client.reactor
        timer = clock.callLater(
            self._client.patience, self._fail, Unreachable("the login took too long; try again")
        )
        link.closed.addCallback(self._lost)
        self._relay(self._inner.start())
        try:
            await self._done
        finally:
            if timer.active():
                timer.cancel()
            self._end()
        assert self._response is not None  # or _done would have failed
        return Answer(
            self._response, self._grant, self._problem, session_key, self._received, address
        )

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()

    async def heard(self, message: Message, link: Link) -> Message | None:
        """A frame of the DC."""
        if self._inner is None or self._done.called:
            return None
        try:
            match message:
                case LoginRelay(data):
                    self._records(data)
                case SessionGrant() if self._response is not None and self._wants_grant:
                    self._grant = message
                    self._succeed()
                case SessionRefusal(outcome, detail):
                    self._fail(refusal(outcome, detail))
                case _:
                    self._fail(Unreachable("the coordinator does not keep to the protocol"))
        except NTMobileError as problem:
            self._fail(problem)
        return None

    def _records(self, data: bytes) -> None:
        """Records of the AS, or of whom the DC puts in its place."""
        assert self._inner is not None  # see heard
        self._bytes += len(data)
        if self._bytes > LIMIT:
            raise Unreachable("the coordinator sends more than any login needs")
        if self._response is not None:
            return  # the end of the inner session
        messages, answer = self._inner.feed(data)
        self._relay(answer)
        if self._inner.open and not self._asked:
            self._ask()
        for message in messages[:1]:
            self._answered(check_response(message))

    def _ask(self) -> None:
        """TLS stands and the AS proved its role: now the request may leave the device."""
        assert self._inner is not None and self._link is not None  # see run
        self._asked = True
        binding = binding_of(exporter(connection_of(self._link.transport), BINDING_LABEL))
        self._relay(self._inner.send(self._make(binding)))

    def _answered(self, response: LoginResponse) -> None:
        """The AS let us in: judge both certificates by the time that it tells (R12)."""
        assert self._inner is not None and self._link is not None  # see run
        now, trust = response.time / 1000, self._client.trust
        verify_again(self._inner.tls.connection, trust, now)
        verify_again(connection_of(self._link.transport), trust, now)
        self._response = response
        self._received = self._client.reactor.seconds()
        if not self._wants_grant:
            self._succeed()

    def _relay(self, records: list[bytes]) -> None:
        if self._link is not None:
            for piece in records:
                self._link.tell(LoginRelay(piece))

    def _lost(self, reason: Failure) -> None:
        self._fail(Unreachable("the coordinator closed the connection during the login; try again"))

    def _succeed(self) -> None:
        if not self._done.called:
            self._done.callback(None)

    def _fail(self, problem: NTMobileError) -> None:
        """It failed, or, after the AS's answer, only the session failed."""
        if self._done.called:
            return
        if self._response is not None:
            self._problem = problem
            self._done.callback(None)
        else:
            self._done.errback(Failure(problem))
