"""The AS's decisions about logins: who may have a certificate (rules R1 to R5; paper, V-A).

Nothing is recorded before the DC has compared the binding, and nothing is told to the device before
it is recorded. What breaks on the way leaves at most a recorded certificate that nobody has; the
device then logs in again, with the same keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    InvalidName,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
    UnknownName,
    Unreachable,
)
from ntmobile.interfaces import Device, IAccountStore, User
from ntmobile.machines.login.attempts import Attempts
from ntmobile.machines.login.proofs import is_proven_enrolment, is_proven_login, verify_signature
from ntmobile.protocols.accounts import RelayedRequest
from ntmobile.servers.authority import Signer, issue_device
from ntmobile.servers.passwords import verify_password
from ntmobile.servers.workers import Workers
from ntmobile.wire import names, virtual
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    AssignmentResponse,
    EnrolmentRequest,
    LoginOutcomeCode,
    LoginRequest,
    LoginResponse,
    Trusted,
    succession_statement,
)

log = Logger()

#: Devices that one user may have at once: as many as a device list names.
DEVICES_LIMIT: Final = 64
WRONG: Final = "the user name or the password is wrong"
#: Outcomes for errors, the first that fits.
_OUTCOMES: Final[tuple[tuple[type[NTMobileError], int], ...]] = (
    (AlreadyExists, LoginOutcomeCode.EXISTS),
    (QuotaExceeded, LoginOutcomeCode.LIMITED),
    (AccessDenied, LoginOutcomeCode.DENIED),
    (UnknownName, LoginOutcomeCode.DENIED),
    (StorageFailed, LoginOutcomeCode.UNAVAILABLE),
    (Unreachable, LoginOutcomeCode.UNAVAILABLE),
    (InvalidName, LoginOutcomeCode.REFUSED),
    (AuthenticationError, LoginOutcomeCode.REFUSED),
)


@frozen
class _Keys:
    """What a certificate shall hold beside name and addresses."""

    identity: bytes
    x25519: bytes
    xwing_hash: bytes


@define(eq=False)
class AccountRegistrar:
    """Decides about logins in one realm.

    :ivar sign: the device-CA. :ivar trust: verifies device certificates.
    :ivar bundle: the realm's ca.pem. :ivar trusted: foreign authorities, for the devices.
    :ivar lifetime: of device certificates, seconds.
    :ivar storage: one thread for the store. :ivar hashing: threads for Argon2.
    :ivar unix_time: :ivar clock: wall clock, and monotonic time.
    :ivar changed: called when something was revoked or a token made, so that it is pushed at once.
    :ivar verify: compares a password with a hash, in a thread.
    """

    store: IAccountStore
    sign: Signer
    trust: TrustStore
    bundle: bytes
    trusted: tuple[Trusted, ...]
    lifetime: float
    storage: Workers
    hashing: Workers
    unix_time: Callable[[], float]
    clock: IReactorTime
    changed: Callable[[], object]
    verify: Callable[[str | None, str], bool] = verify_password
    attempts: Attempts = field(factory=Attempts)
    random: Callable[[int], bytes] = os.urandom

    async def decide(self, request: Message, login: RelayedRequest) -> LoginResponse:
        """The answer to a device's request; whatever goes wrong is an outcome in it."""
        try:
            match request:
                case EnrolmentRequest():
                    certificate: DeviceCertificate | None = await self._enrol(request, login)
                case LoginRequest():
                    certificate = await self._log_in(request, login)
                case _:
                    raise AuthenticationError("not a request that a device makes")
            return await self._success(certificate)
        except NTMobileError as problem:
            return self._failure(problem, request, login)
        except Exception:
            log.failure("a login failed")
            detail = "the account server failed; its log has the reason"
            return self._response(LoginOutcomeCode.UNAVAILABLE, detail)

    # -- enrolment

    async def _enrol(self, request: EnrolmentRequest, login: RelayedRequest) -> DeviceCertificate:
        name = f"{names.check_user(request.user)}.{names.check_domain(request.domain)}"
        fqdn = names.check_fqdn(f"{request.device}.{name}")
        self._check_domain(request.domain, login)
        if not is_proven_enrolment(request):
            raise AuthenticationError("the device does not prove its keys")
        await self._check_password(name, request.password, login)
        device = await self._check_device(fqdn, name, request)
        succession = self._succession(fqdn, device, request)
        keys = _Keys(request.identity, request.x25519, sha256(request.xwing).digest())
        certificate = await self._certify(
            request.user, request.device, request.binding, keys, login
        )
        await self.storage.run(
            self.store.enroll,
            certificate,
            self.unix_time(),
            replace=request.replace,
            succession=succession,
        )
        self.changed()
        log.info(
            "{fqdn} enrolled from {source}, certificate {serial:x}{replaced}",
            fqdn=fqdn,
            source=login.source,
            serial=certificate.serial,
            replaced=" in place of another" if device is not None else "",
        )
        await login.tell_outcome(certificate, self.lifetime)
        return certificate

    async def _check_password(self, name: str, password: str, login: RelayedRequest) -> User:
        """The user, if the password is right; an unknown one takes the same time (R2)."""
        self.attempts.password(name, login.source, self.clock.seconds())
        user: User | None = await self.storage.run(self.store.user, name)
        stored = user.password_hash if user is not None else None
        right = await self.hashing.run(self.verify, stored, password)
        if user is None or not right:
            raise AccessDenied(WRONG)
        self.attempts.password_right(name, login.source)
        if user.disabled:
            raise AccessDenied(f"the user {name} is disabled; ask who runs the realm")
        return user

    async def _check_device(self, fqdn: str, user: str, request: EnrolmentRequest) -> Device | None:
        """The device of that name that is replaced, if there is one."""
        devices = [
            device
            for device in await self.storage.run(self.store.devices, user)
            if not device.removed
        ]
        for device in devices:
            if device.fqdn == fqdn:
                same = device.certificate.identity == request.identity
                if not same and not request.replace:
                    raise AlreadyExists(f"{fqdn} is enrolled already; --replace takes its place")
                return None if same else device
        if len(devices) >= DEVICES_LIMIT:
            raise QuotaExceeded(f"{user} has {DEVICES_LIMIT} devices; remove one first")
        return None

    def _succession(self, fqdn: str, device: Device | None, request: EnrolmentRequest) -> bytes:
        """The former identity's signature over the new one, if there is one (R5)."""
        if device is None or not request.succession:
            return b""
        former = device.certificate.identity
        statement = succession_statement(fqdn, former, request.identity)
        if not verify_signature(former, request.succession, statement):
            return b""  # of an identity before that one: worth nothing, and no harm
        return request.succession

    # -- certificate login

    async def _log_in(
        self, request: LoginRequest, login: RelayedRequest
    ) -> DeviceCertificate | None:
        """A login with a certificate, expired or not; None after a logout."""
        try:
            shown = self.trust.verify_device(request.certificate, None)
            self._check_domain(names.domain_of(shown.fqdn), login)
            if not is_proven_login(request, shown):
                raise AuthenticationError("the device does not prove its identity")
        except AuthenticationError:
            self.attempts.certificate_wrong(login.source, self.clock.seconds())
            raise
        self.attempts.certificate(shown.fqdn, self.clock.seconds())
        device = await self._check_enrolled(shown)
        if request.logout:
            await self.storage.run(self.store.remove, shown.fqdn, self.unix_time())
            self.changed()
            log.info("{fqdn} logged out", fqdn=shown.fqdn)
            return None
        known = device.certificate
        keys = _Keys(known.identity, known.x25519, known.xwing_hash)
        user, label = device.user.partition(".")[0], names.device_of(shown.fqdn)
        certificate = await self._certify(user, label, request.binding, keys, login)
        await self.storage.run(self.store.renew, certificate)
        log.info(
            "{fqdn} renewed from {source}, certificate {serial:x}",
            fqdn=shown.fqdn,
            source=login.source,
            serial=certificate.serial,
        )
        await login.tell_outcome(certificate, self.lifetime)
        return certificate

    async def _check_enrolled(self, shown: DeviceCertificate) -> Device:
        device: Device | None = await self.storage.run(self.store.device, shown.fqdn)
        if device is None:
            raise AccessDenied(f"{shown.fqdn} was removed; enrol it again")
        if device.certificate.identity != shown.identity:
            raise AccessDenied(f"{shown.fqdn} was replaced by another device; enrol it again")
        user: User | None = await self.storage.run(self.store.user, device.user)
        if user is None or user.disabled:
            raise AccessDenied(f"the user {device.user} is disabled; ask who runs the realm")
        return device

    # -- both

    def _check_domain(self, domain: str, login: RelayedRequest) -> None:
        """A DC relays only for its own domain (R1)."""
        if domain != login.domain:
            raise AuthenticationError(
                f"{login.domain} is not the coordinator of {domain}; check --dc"
            )

    async def _certify(
        self, user: str, device: str, binding: bytes, keys: _Keys, login: RelayedRequest
    ) -> DeviceCertificate:
        """Have the DC name the device, and certify that."""
        answer = await login.assign(user, device, binding)
        ipv6, ipv4 = check_assignment(answer, f"{device}.{user}.{login.domain}", login.domain)
        return issue_device(
            self.sign,
            fqdn=answer.fqdn,
            identity=keys.identity,
            x25519=keys.x25519,
            xwing_hash=keys.xwing_hash,
            ipv6=ipv6,
            ipv4=ipv4,
            now=self.unix_time(),
            lifetime=self.lifetime,
        )

    async def _success(self, certificate: DeviceCertificate | None) -> LoginResponse:
        if certificate is None:
            return self._response(LoginOutcomeCode.OK, "")
        user: User | None = await self.storage.run(self.store.user, names.user_of(certificate.fqdn))
        return LoginResponse(
            LoginOutcomeCode.OK,
            int(self.unix_time() * 1000),
            certificate=certificate.der,
            bundle=self.bundle,
            trusted=self.trusted,
            cache_key=await self._token(certificate),
            version=user.version if user is not None else 0,
        )

    async def _token(self, certificate: DeviceCertificate) -> bytes:
        """A new authentication token with its key, which cache servers are told of (R28)."""
        made = self.random(16 + 32)
        await self.storage.run(self.store.add_token, certificate, made[:16], made[16:])
        self.changed()
        return made

    def _failure(
        self, problem: NTMobileError, request: Message, login: RelayedRequest
    ) -> LoginResponse:
        outcome = next(
            (code for kind, code in _OUTCOMES if isinstance(problem, kind)),
            LoginOutcomeCode.UNAVAILABLE,
        )
        text = str(problem)
        log.warn(
            "refused {request!r} from {source} through {domain}: {problem}",
            request=request if isinstance(request, EnrolmentRequest) else type(request).__name__,
            source=login.source,
            domain=login.domain,
            problem=text,
        )
        if isinstance(problem, StorageFailed):
            text = "the account server cannot store anything now; nothing was changed"
        return self._response(outcome, text)

    def _response(self, outcome: int, detail: str) -> LoginResponse:
        return LoginResponse(outcome, int(self.unix_time() * 1000), detail[:200])


def check_assignment(
    answer: AssignmentResponse, fqdn: str, domain: str
) -> tuple[IPv6Address, IPv4Address]:
    """The virtual addresses that a DC assigned, if they can be this device's (R1, R22).

    :raises AuthenticationError: it refused, or named another device or foreign addresses.
    """
    if answer.outcome == LoginOutcomeCode.UNAVAILABLE:
        raise Unreachable(answer.detail or "the coordinator cannot take the device now")
    if answer.outcome != LoginOutcomeCode.OK:
        raise AuthenticationError(f"the coordinator refused: {answer.detail or 'no reason given'}")
    if answer.fqdn != fqdn or len(answer.ipv6) != 16 or len(answer.ipv4) != 4:
        raise AuthenticationError("the coordinator named another device than the one that asked")
    ipv6, ipv4 = IPv6Address(answer.ipv6), IPv4Address(answer.ipv4)
    if not virtual.is_virtual_of(domain, ipv6):
        raise AuthenticationError("the coordinator assigned an address of another domain")
    return ipv6, ipv4
