"""The AS's part of the logins that one DC relays: an inner TLS session for each (rule R2)."""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NTMobileError, Unreachable
from ntmobile.protocols.link import Link
from ntmobile.protocols.login_inner import InnerSession
from ntmobile.protocols.tls import ServerTLS
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    AssignmentResponse,
    LoginData,
    LoginOutcome,
    LoginResponse,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement

log = Logger()

#: Logins under way at once that one DC may relay.
CAPACITY: Final = 1024
#: Seconds that a login may take, the wait for a thread included.
PATIENCE: Final = 60.0
#: Largest request of a device: an enrolment, with an X-Wing key and a long password.
REQUEST_LIMIT: Final = 8192


class Registrar(Protocol):
    """Decides about logins."""

    async def decide(self, request: Message, login: RelayedRequest) -> LoginResponse:
        """The answer to a device's request; whatever goes wrong is an outcome in it."""


@define(eq=False)
class RelayedRequest:
    """One login, as the one who decides about it sees it.

    :ivar domain: of the DC that relays it, as its certificate says.
    :ivar source: address of the device, as that DC says.
    """

    number: int
    domain: str
    source: str
    _link: Link
    _inner: InnerSession
    _timer: IDelayedCall | None = None
    _asked: bool = False

    async def assign(self, user: str, device: str, binding: bytes) -> AssignmentResponse:
        """Have the DC compare the binding, and name the device and its addresses.

        :raises Unreachable: the DC does not answer.
        """
        answer = await self._link.request(AssignmentRequest(self.number, user, device, binding))
        if not isinstance(answer, AssignmentResponse):
            raise Unreachable("the coordinator does not keep to the protocol")
        return answer

    async def tell_outcome(self, certificate: DeviceCertificate, lifetime: float) -> None:
        """Tell the DC who logged in, and until when.

        :raises Unreachable: the DC does not answer, or did not take it.
        """
        message = LoginOutcome(self.number, certificate.fqdn, certificate.der, int(lifetime))
        answer = await self._link.request(message)
        if not isinstance(answer, LinkAcknowledgement) or answer.outcome:
            detail = getattr(answer, "detail", "") or "no reason given"
            raise Unreachable(f"the coordinator did not admit the device: {detail}")


@define(eq=False)
class AccountDesk:
    """The inner sessions of the logins on one DC's link.

    :ivar domain: of that DC.
    """

    domain: str
    _link: Link
    _tls: ServerTLS
    _registrar: Registrar
    _clock: IReactorTime
    _logins: dict[int, RelayedRequest] = field(factory=dict, init=False)
    _highest: int = field(default=-1, init=False)

    def __len__(self) -> int:
        return len(self._logins)

    def take(self, message: LoginData) -> None:
        """Records that the DC relays; none at all means that the device is gone."""
        login = self._logins.get(message.login)
        if not message.data:
            if login is not None:
                self._forget(login)
            return
        if login is None:
            login = self._begin(message)
        if login is not None:
            self._records(login, message.data)

    def _begin(self, message: LoginData) -> RelayedRequest | None:
        """A new login; numbers grow, so records of one that is over begin nothing."""
        if message.login <= self._highest:
            return None
        self._highest = message.login
        if len(self._logins) >= CAPACITY:
            log.warn("too many logins through {domain}", domain=self.domain)
            self._link.tell(LoginData(message.login, b""))
            return None
        inner = InnerSession(self._tls, REQUEST_LIMIT)
        login = RelayedRequest(message.login, self.domain, message.source, self._link, inner)
        login._timer = self._clock.callLater(PATIENCE, self._over, login)
        self._logins[login.number] = login
        return login

    def _records(self, login: RelayedRequest, data: bytes) -> None:
        try:
            messages, answer = login._inner.feed(data)
            if len(messages) > 1 or (messages and login._asked):
                raise AuthenticationError("more than one request in a login")
        except NTMobileError as problem:
            log.info(
                "a login from {source} through {domain} failed: {problem}",
                source=login.source,
                domain=self.domain,
                problem=str(problem),
            )
            self._send(login, login._inner.close())
            self._over(login)
            return
        self._send(login, answer)
        if messages:
            login._asked = True
            deciding = Deferred.fromCoroutine(self._registrar.decide(messages[0], login))
            deciding.addCallback(self._decided, login)
            deciding.addErrback(lambda failure: log.failure("a login failed", failure))
            deciding.addBoth(lambda _: self._over(login))

    def _decided(self, response: LoginResponse, login: RelayedRequest) -> None:
        if login.number in self._logins and login._inner.open:
            self._send(login, login._inner.send(response))

    def _send(self, login: RelayedRequest, records: list[bytes]) -> None:
        for piece in records:
            self._link.tell(LoginData(login.number, piece))

    def _over(self, login: RelayedRequest) -> None:
        """Tell the DC that all was said."""
        if self._forget(login):
            self._link.tell(LoginData(login.number, b""))

    def _forget(self, login: RelayedRequest) -> bool:
        if login._timer is not None and login._timer.active():
            login._timer.cancel()
        return self._logins.pop(login.number, None) is not None

    def close(self) -> None:
        """The link is gone: forget its logins."""
        for login in tuple(self._logins.values()):
            self._forget(login)
