"""The DC's memory of logins that it relays without being able to read them (rule R2).

A login begins with the first records on a client's connection, gets a number for the link to the
AS, and ends when the AS says so or its time is over. On the way the AS asks for an assignment,
which the DC gives only for the connection it was asked on, and tells the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import define, field

from ntmobile.errors import (
    AuthenticationError,
    CertificateError,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
)
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    AssignmentResponse,
    LoginData,
    LoginOutcome,
    LoginOutcomeCode,
)

#: Logins under way at once; more are refused.
CAPACITY: Final = 4096
#: Seconds that a login may take.
PATIENCE: Final = 60.0
#: Bytes a client may send to the AS, and the AS to a client, in one login.
UPWARD: Final = 32768
DOWNWARD: Final = 262144

Assigned = tuple[str, IPv6Address, IPv4Address]
#: User and device label to FQDN and virtual addresses.
Assign = Callable[[str, str], Assigned]


@define(eq=False)
class RelayedLogin:
    """One login under way.

    :ivar number: on the link to the AS. :ivar client: stands for the client's connection.
    :ivar source: numeric address of the client. :ivar binding: SHA-256 of the exporter of its
        connection. :ivar deadline: monotonic seconds. :ivar certificate: told by the outcome.
    """

    number: int
    client: object
    source: str
    binding: bytes = field(repr=False)
    deadline: float
    assigned: Assigned | None = None
    certificate: DeviceCertificate | None = None
    lifetime: float = 0.0
    upward: int = 0
    downward: int = 0


@define(eq=False)
class RelayedLogins:
    """All logins that one DC relays."""

    domain: str
    _by_number: dict[int, RelayedLogin] = field(factory=dict, init=False)
    _by_client: dict[object, RelayedLogin] = field(factory=dict, init=False)
    _next: int = field(default=1, init=False)

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[RelayedLogin]:
        return iter(tuple(self._by_number.values()))

    def begin(self, client: object, source: str, binding: bytes, now: float) -> RelayedLogin:
        """A new login. :raises QuotaExceeded: too many are under way."""
        if len(self._by_number) >= CAPACITY:
            raise QuotaExceeded("too many logins are under way; try again in a minute")
        login = RelayedLogin(self._next, client, source, binding, now + PATIENCE)
        self._next += 1
        self._by_number[login.number] = login
        self._by_client[client] = login
        return login

    def of_client(self, client: object) -> RelayedLogin | None:
        """The login on a client's connection."""
        return self._by_client.get(client)

    def of_number(self, number: int) -> RelayedLogin | None:
        """The login of a number, while it is under way."""
        return self._by_number.get(number)

    def end(self, login: RelayedLogin) -> None:
        """It is over, however it ended."""
        self._by_number.pop(login.number, None)
        self._by_client.pop(login.client, None)

    def expired(self, now: float) -> list[RelayedLogin]:
        """Those whose time is over."""
        return [login for login in self if login.deadline <= now]

    def next_timer(self) -> float | None:
        """When the first one's time is over: they all have the same patience."""
        first = next(iter(self._by_number.values()), None)
        return None if first is None else first.deadline

    def upward(self, login: RelayedLogin, data: bytes) -> LoginData:
        """Records from the client. :raises AuthenticationError: more than any login needs."""
        first = not login.upward
        login.upward += len(data)
        if login.upward > UPWARD:
            raise AuthenticationError("a login that is too long")
        return LoginData(login.number, data, login.source if first else "")

    def downward(self, login: RelayedLogin, data: bytes) -> bytes:
        """Records from the AS. :raises AuthenticationError: more than any login needs."""
        login.downward += len(data)
        if login.downward > DOWNWARD:
            raise AuthenticationError("the account server sends too much for a login")
        return data

    def assignment(self, request: AssignmentRequest, assign: Assign) -> AssignmentResponse:
        """Name the device, if the login was made for this DC's very connection (R2)."""
        login = self._by_number.get(request.login)
        if login is None:
            return _refused("the device is no longer connected")
        if not compare_digest(login.binding, request.binding):
            return _refused("the login was made for another connection")
        try:
            login.assigned = assign(request.user, request.device)
        except QuotaExceeded as problem:
            return AssignmentResponse(LoginOutcomeCode.UNAVAILABLE, detail=str(problem)[:200])
        except StorageFailed:  # where it keeps its files is not the device's business
            text = "the coordinator cannot store anything now; nothing was changed"
            return AssignmentResponse(LoginOutcomeCode.UNAVAILABLE, detail=text)
        except NTMobileError as problem:
            return _refused(str(problem)[:200])
        fqdn, ipv6, ipv4 = login.assigned
        return AssignmentResponse(LoginOutcomeCode.OK, fqdn, ipv6.packed, ipv4.packed)

    def outcome(self, message: LoginOutcome, trust: TrustStore, at: float) -> RelayedLogin | None:
        """Who logged in, and until when; None if the login is no longer under way.

        :param at: unix seconds.
        :raises AuthenticationError: not the device and addresses that were assigned.
        """
        login = self._by_number.get(message.login)
        if login is None:
            return None
        if not names.is_device_of(message.fqdn, self.domain):
            raise CertificateError(f"{message.fqdn} is no device of {self.domain}")
        certificate = trust.verify_device(message.certificate, at)
        if (certificate.fqdn, certificate.ipv6, certificate.ipv4) != login.assigned or (
            certificate.fqdn != message.fqdn
        ):
            raise CertificateError(f"the certificate of {certificate.fqdn} is not as assigned")
        login.certificate = certificate
        login.lifetime = min(float(message.lifetime), certificate.not_after - at)
        return login


def _refused(detail: str) -> AssignmentResponse:
    return AssignmentResponse(LoginOutcomeCode.REFUSED, detail=detail)
