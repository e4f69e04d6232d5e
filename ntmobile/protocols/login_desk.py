"""The DC's part of a login: it carries records, assigns, and admits whom the AS lets in (R2, R3).

It joins the clients' links to the link with the AS. It learns who logged in, with which device
certificate and until when, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, MalformedMessage, NTMobileError
from ntmobile.machines.login.proofs import binding_of
from ntmobile.machines.login.relaying import Assign, RelayedLogin, RelayedLogins
from ntmobile.machines.login.sources import source_network
from ntmobile.machines.rate import RateLimiter
from ntmobile.protocols.link import Link
from ntmobile.protocols.login_inner import pieces
from ntmobile.protocols.timing import MachineTimer
from ntmobile.protocols.tls import connection_of, exporter
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    BINDING_LABEL,
    SESSION_LABEL,
    AssignmentRequest,
    LoginData,
    LoginOutcome,
    LoginOutcomeCode,
    LoginRelay,
    SessionGrant,
    SessionRefusal,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.fields import Endpoint

log = Logger()

#: Logins a second, and at once, from one network (an IPv4 address, an IPv6 /64): many devices may
#: stand behind one NAT.
RATE: Final = 10.0
BURST: Final = 100.0

#: Opens a session for a device: certificate, session key, lifetime in seconds; gives its index.
Admit = Callable[[DeviceCertificate, bytes, float], bytes]


@define(eq=False)
class LoginDesk:
    """Relays the logins of one DC's clients.

    :ivar account_link: the link to the AS, None while there is none.
    :ivar assign: names a device and its virtual addresses.
    :ivar admit: opens its session. :ivar endpoints: the DC's UDP ports.
    :ivar unix_time: seconds of the AS's clock (R12).
    """

    account_link: Callable[[], Link | None]
    assign: Assign
    admit: Admit
    endpoints: Callable[[], tuple[Endpoint, ...]]
    trust: TrustStore
    unix_time: Callable[[], float]
    domain: str
    clock: IReactorTime
    _logins: RelayedLogins = field(init=False)
    _limiter: RateLimiter = field(factory=lambda: RateLimiter(RATE, BURST), init=False)
    _served: WeakSet[Link] = field(factory=WeakSet, init=False)
    _timer: MachineTimer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._logins = RelayedLogins(self.domain)
        self._timer = MachineTimer(self.clock, self._expire)

    # -- from clients

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        """A frame of a client that has no certificate: records for the AS.

        :raises AuthenticationError: anything else.
        """
        if not isinstance(message, LoginRelay):
            raise AuthenticationError("not a request of a client that logs in")
        login = self._logins.of_client(link)
        upstream = self.account_link()
        if upstream is None:
            detail = f"the coordinator of {self.domain} cannot reach its account server; try again"
            self._refuse(link, login, LoginOutcomeCode.UNAVAILABLE, detail)
            return None
        if login is None:
            login = self._begin(link)
        if login is not None:
            upstream.tell(self._logins.upward(login, message.data))
        return None

    def _begin(self, link: Link) -> RelayedLogin | None:
        if link in self._served:  # one login a connection: its exporter is the session key
            self._refuse(link, None, LoginOutcomeCode.REFUSED, "this connection had its login")
            return None
        source, now = _source(link), self.clock.seconds()
        network = source_network(source)
        if not self._limiter.allow(network, now):
            wait = int(self._limiter.wait(network, now)) + 1
            detail = f"too many logins from {network}; try again in {wait} s"
            self._refuse(link, None, LoginOutcomeCode.LIMITED, detail)
            return None
        binding = binding_of(exporter(connection_of(link.transport), BINDING_LABEL))
        try:
            login = self._logins.begin(link, source, binding, now)
        except NTMobileError as problem:
            self._refuse(link, None, LoginOutcomeCode.UNAVAILABLE, str(problem))
            return None
        self._served.add(link)
        self._timer.set(self._logins.next_timer())
        return login

    def _refuse(self, link: Link, login: RelayedLogin | None, outcome: int, detail: str) -> None:
        if login is not None:
            self._end(login)
        link.tell(SessionRefusal(outcome, detail[:200]))
        link.close()

    def _end(self, login: RelayedLogin) -> None:
        self._logins.end(login)
        self._timer.set(self._logins.next_timer())

    def client_gone(self, link: Link) -> None:
        """A client's connection closed; the AS is told if its login was under way."""
        login = self._logins.of_client(link)
        if login is not None:
            self._end(login)
            self._tell_over(login)

    def _tell_over(self, login: RelayedLogin) -> None:
        upstream = self.account_link()
        if upstream is not None:
            upstream.tell(LoginData(login.number, b""))

    # -- from the AS

    async def account_server_asked(self, message: Message) -> Message | None:
        """What the AS sends during a login.

        :raises AuthenticationError: a request that it may not make.
        """
        match message:
            case LoginData(number, data):
                login = self._logins.of_number(number)
                if login is not None:
                    self._relay_down(login, data)
                return None
            case AssignmentRequest():
                return self._logins.assignment(message, self.assign)
            case LoginOutcome():
                return self._take_outcome(message)
            case _:
                raise AuthenticationError("not a request that an account server makes of a login")

    def _relay_down(self, login: RelayedLogin, data: bytes) -> None:
        link = _link(login)
        if not data:
            self._finish(login, link)
            return
        try:
            for piece in pieces(self._logins.downward(login, data)):
                link.tell(LoginRelay(piece))
        except AuthenticationError as problem:
            self._tell_over(login)
            self._refuse(link, login, LoginOutcomeCode.UNAVAILABLE, str(problem))

    def _take_outcome(self, message: LoginOutcome) -> LinkAcknowledgement:
        """Remember whom to admit; it happens when the client has been told (see _finish)."""
        try:
            login = self._logins.outcome(message, self.trust, self.unix_time())
        except NTMobileError as problem:
            log.error("the account server's outcome: {problem}", problem=str(problem))
            return LinkAcknowledgement(LoginOutcomeCode.REFUSED, str(problem)[:200])
        if login is None:
            detail = "the device is no longer connected"
            return LinkAcknowledgement(LoginOutcomeCode.UNAVAILABLE, detail)
        return LinkAcknowledgement()

    def _finish(self, login: RelayedLogin, link: Link) -> None:
        """The AS has said all: admit the device, if it logged in."""
        self._end(login)
        if login.certificate is None:
            # What was wrong the client has read inside, where the DC cannot.
            link.tell(SessionRefusal(LoginOutcomeCode.REFUSED, "the account server said no"))
            link.close()
            return
        key = exporter(connection_of(link.transport), SESSION_LABEL)
        try:
            index = self.admit(login.certificate, key, login.lifetime)
            grant = SessionGrant(index, max(1, int(login.lifetime)), self.endpoints())
        except NTMobileError as problem:
            link.tell(SessionRefusal(LoginOutcomeCode.UNAVAILABLE, str(problem)[:200]))
            link.close()
            return
        link.tell(grant)

    def account_server_lost(self) -> None:
        """The link to the AS closed: every login under way has failed."""
        detail = f"the coordinator of {self.domain} lost its account server; try again"
        for login in self._logins:
            self._refuse(_link(login), login, LoginOutcomeCode.UNAVAILABLE, detail)

    def _expire(self, now: float) -> None:
        for login in self._logins.expired(now):
            self._tell_over(login)
            detail = "the login took too long; try again"
            self._refuse(_link(login), login, LoginOutcomeCode.UNAVAILABLE, detail)
        self._timer.set(self._logins.next_timer())


def _link(login: RelayedLogin) -> Link:
    assert isinstance(login.client, Link)  # what _begin put there
    return login.client


def _source(link: Link) -> str:
    """The numeric address of a client, without a zone."""
    if link.transport is None:
        raise MalformedMessage("a link without a transport")
    host = getattr(link.transport.getPeer(), "host", "")
    return str(host).partition("%")[0]
