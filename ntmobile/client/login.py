"""Enrolling, logging in and logging out, with what a state directory holds (rules R3, R5, R12)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen
from twisted.logger import Logger

from ntmobile.client.account import Account
from ntmobile.client.identity import (
    DeviceIdentity,
    erase,
    forget_pending,
    pending_keys,
    unwritable,
)
from ntmobile.client.state import SETTINGS
from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
    Unreachable,
)
from ntmobile.interfaces import Coordinator, ICoordinatorLookup, ICoordinatorLookupProvider
from ntmobile.machines.login.proofs import (
    accept_certificate,
    accept_trust,
    certificate_login,
    check_typed,
    enrolment,
)
from ntmobile.plugins import find
from ntmobile.protocols.login import Answer, LoginClient
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.messages.account import EnrolmentRequest
from ntmobile.wire.messages.fields import Address, Endpoint

log = Logger()

_SAID_NO: Final = (AlreadyExists, AuthenticationError, AccessDenied, QuotaExceeded)
#: A clock further off than this is told, in seconds.
CLOCK_TOLERANCE: Final = 30.0


@frozen
class LoginResult:
    """What a login gave.

    :ivar index: of the signalling session. :ivar session_key: of it (R3).
    :ivar endpoints: UDP ports of the DC. :ivar lifetime: of the session, seconds.
    :ivar certificate: the device's new one. :ivar trust: whom the device trusts now.
    :ivar time_offset: AS's time less this device's wall clock, seconds (R12).
    :ivar version: of the user's device list (R5). :ivar identity: as it is on the disk now.
    :ivar token: for cache servers: token and client-CS key (R28); None if the AS gave none.
    """

    index: bytes
    session_key: bytes = field(repr=False)
    endpoints: tuple[Endpoint, ...]
    lifetime: float
    certificate: DeviceCertificate
    trust: TrustStore = field(repr=False)
    time_offset: float
    version: int
    identity: DeviceIdentity
    token: tuple[bytes, bytes] | None = field(default=None, repr=False)


@frozen
class Enrolled:
    """What an enrolment gave. ``warning``: about this device's clock, or empty."""

    identity: DeviceIdentity
    time_offset: float
    warning: str


async def find_coordinator(reactor: Any, domain: str, dc: Address | None) -> Sequence[Address]:
    """The addresses of a domain's DC: the one that is configured, or what DNS says.

    :raises UnknownName: DNS knows none. :raises Unreachable: DNS does not answer.
    """
    if dc is not None:
        return [dc]
    provider: ICoordinatorLookupProvider = find(ICoordinatorLookupProvider, "dns")
    lookup: ICoordinatorLookup = provider.configure({}, reactor)
    try:
        coordinator: Coordinator = await lookup.find(domain)
    except NTMobileError as problem:
        raise type(problem)(f"{problem}; --dc HOST:PORT says where it is") from None
    return coordinator.servers


async def enroll(
    reactor: Any,
    directory: Path,
    account: Account,
    trust: TrustStore,
    password: str,
    *,
    former: DeviceIdentity | None = None,
    replace: bool = False,
    wall: Callable[[], float] = time.time,
) -> Enrolled:
    """Make a device of a user, and write its state directory (R3).

    :param trust: the realm's authority, as the user was given it.
    :param former: the identity of this very device so far; it signs its successor (R5).
    :raises NTMobileError: it did not succeed; nothing was written but keys for another attempt,
        where it is not known whether the AS recorded them.
    """
    check_typed(password)
    addresses = await find_coordinator(reactor, account.domain, account.dc)
    keys = pending_keys(directory, account.fqdn)
    public = keys.public()
    asked = False

    def make(binding: bytes) -> EnrolmentRequest:
        nonlocal asked
        asked = True
        return enrolment(
            keys.identity,
            public,
            (account.user, account.domain),
            account.device,
            password,
            binding,
            replace=replace,
            former=former.keys.identity if former is not None else None,
        )

    try:
        answer = await LoginClient(reactor, trust, account.domain).log_in(addresses, make)
    except NTMobileError as problem:
        # The AS said no, or was never asked: otherwise it may have recorded these keys.
        said_no = isinstance(problem, _SAID_NO) and not isinstance(problem, CertificateError)
        if said_no or not asked:
            forget_pending(directory)
        raise
    trusted = accept_trust(answer.response, trust)
    certificate = accept_certificate(answer.response, account.fqdn, public, trusted)
    identity = DeviceIdentity(directory, keys, certificate, trusted)
    try:
        account.write(directory / SETTINGS)
    except OSError as problem:
        raise unwritable(directory, problem) from None
    identity.save()
    offset = answer.response.time / 1000 - wall()
    return Enrolled(identity, offset, clock_warning(offset))


async def log_in(
    reactor: Any,
    identity: DeviceIdentity,
    addresses: Sequence[Address],
    *,
    wall: Callable[[], float] = time.time,
) -> LoginResult:
    """Log in with the certificate, which renews it; the new one is on the disk afterwards (R3).

    :param addresses: of the DC, to be tried in turn; see :func:`find_coordinator`.
    :raises AuthenticationError: the device was removed or replaced, or the user disabled.
    :raises Unreachable: DC or AS do not answer; try again later.
    :raises NTMobileError: anything else; the device is as it was.
    """
    answer = await _log_in(reactor, identity, addresses, logout=False)
    offset = answer.response.time / 1000 - wall()
    warning = clock_warning(offset)
    if warning:
        log.warn("{problem}", problem=warning)
    trust = accept_trust(answer.response, identity.trust)
    certificate = accept_certificate(answer.response, identity.fqdn, identity.keys.public(), trust)
    try:
        identity = identity.renewed(certificate, trust)
    except StorageFailed as problem:  # the session stands; the disk may have room next time
        log.error("{problem}; the new certificate is not kept", problem=str(problem))
    if answer.grant is None:
        raise answer.problem or Unreachable("the coordinator opened no session; try again")
    return LoginResult(
        answer.grant.index,
        answer.session_key,
        answer.grant.endpoints,
        float(answer.grant.lifetime),
        certificate,
        trust,
        offset,
        answer.response.version,
        identity,
        answer.response.token,
    )


async def log_out(reactor: Any, identity: DeviceIdentity, addresses: Sequence[Address]) -> None:
    """Revoke this device at the AS, then remove its secrets.

    :raises AuthenticationError: the AS knows the device no more; its secrets are removed too.
    :raises Unreachable: nothing was done; try again.
    """
    await _log_in(reactor, identity, addresses, logout=True)
    erase(identity.directory)


async def _log_in(
    reactor: Any, identity: DeviceIdentity, addresses: Sequence[Address], *, logout: bool
) -> Answer:
    client = LoginClient(reactor, identity.trust, identity.domain)
    return await client.log_in(
        addresses,
        lambda binding: certificate_login(
            identity.keys.identity, identity.certificate, binding, logout=logout
        ),
        grant=not logout,
    )


def clock_warning(offset: float) -> str:
    """The line about a wrong clock, if it is wrong (R12).

    :param offset: the AS's time less this device's, seconds.
    """
    if abs(offset) <= CLOCK_TOLERANCE:
        return ""
    way = "behind" if offset > 0 else "ahead"
    return (
        f"this device's clock is {_duration(abs(offset))} {way}; "
        "certificates are judged by the account server's time"
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
