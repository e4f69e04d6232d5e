"""A DC's part of stored data: temporal keys, cache entries and pre-keys (figures 3 and 4).

What clients ask over HTTPS, and other DCs and CSs over their links, is judged by the
:class:`~ntmobile.machines.exchange.desk.ExchangeDesk` and kept in the waiting store, whose calls
run in a thread of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import (
    AuthenticationError,
    CertificateError,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
    UnknownName,
    Unreachable,
)
from ntmobile.interfaces import IWaitingStore, Kept, KnownDevice, WaitingKey
from ntmobile.machines.exchange.desk import (
    BUSY,
    ENTRIES_ALL,
    ENTRIES_EACH,
    KEYS_ALL,
    KEYS_EACH,
    ExchangeDesk,
    by_domain,
    check_speaks,
    deliver,
    refuse,
)
from ntmobile.machines.exchange.entries import check_cache, data_entry, key_entry
from ntmobile.machines.exchange.shared_keys import temporal_identifier
from ntmobile.machines.rate import RateLimiter
from ntmobile.servers.lasting import LastingProblem
from ntmobile.servers.workers import Workers
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import Revoked
from ntmobile.wire.messages.exchange import (
    LISTED,
    CacheListDownloadResponse,
    Delivery,
    EncryptedDataExchangeRequest,
    EncryptedDataExchangeResponse,
    EncryptionKeyExchangeRequest,
    EncryptionKeyExchangeResponse,
    RequestInfo,
    TemporalKeyDownloadResponse,
    TemporalKeyListDownloadResponse,
    TemporalKeyTransferRequest,
    TemporalKeyTransferResponse,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import NotificationRequest, Outcome, Reason

_P = ParamSpec("_P")
_T = TypeVar("_T")

log = Logger()

#: Seconds between two erasures of what has expired.
EXPIRY_INTERVAL: Final = 60.0
#: Of one device that moves about: how often it is looked what waits, and how often it is reminded,
#: each a second, and at once.
LOOKS: Final = (1 / 10, 20)
REMINDERS: Final = (1 / 300, 2)
FAILS: Final = "the coordinator cannot store anything now; nothing was changed, try again later"
EXPIRED: Final = "it has expired already"
#: Asks the DC of another domain.
Ask = Callable[[str, Message], Awaitable[Message]]
_Exchange = EncryptionKeyExchangeRequest | EncryptedDataExchangeRequest


@define(eq=False)
class Exchange:
    """Serves the devices of one domain, and what comes for them.

    :ivar store: only ever used in the one thread of ``workers``.
    :ivar ask: sends a request to the DC of another domain.
    :ivar tell: tells a device, directly or by notification.
    :ivar accepts: whether new work is done: the AS was heard within the lease (R34).
    :ivar unix_time: seconds of the AS's clock (R12).
    :ivar revoked: what the store is still to be told of.
    """

    desk: ExchangeDesk
    store: IWaitingStore
    workers: Workers
    ask: Ask
    tell: Callable[[NotificationRequest], None]
    accepts: Callable[[], bool]
    unix_time: Callable[[], float]
    clock: IReactorTime
    revoked: list[Revoked] = field(factory=list, init=False)
    failing: LastingProblem = field(init=False)
    looks: RateLimiter = field(factory=lambda: RateLimiter(*LOOKS, capacity=100_000), init=False)
    reminders: RateLimiter = field(
        factory=lambda: RateLimiter(*REMINDERS, capacity=100_000), init=False
    )

    def __attrs_post_init__(self) -> None:
        self.failing = LastingProblem("keeping what waits for devices", self.clock)

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call of the store, for somebody who is told what goes wrong, but not where.

        :raises StorageFailed: it does not work now. :raises Unreachable: too much waits for it.
        """
        try:
            found = await self.workers.run(call, *args, **kwargs)
        except StorageFailed as problem:
            self.failing.failed(problem)
            raise StorageFailed(FAILS) from None
        except QuotaExceeded:
            raise Unreachable(BUSY) from None
        self.failing.succeeded()
        return found

    # -- temporal keys: client and DC_MN

    async def upload_keys(
        self, sender: str, certificate: bytes, request: TemporalKeyUploadRequest
    ) -> TemporalKeyUploadResponse:
        """Bring temporal keys to the DCs of their destinations, each by itself."""
        keys = {one.destination: one for one in request.keys}
        grouped, wrong = by_domain(list(keys))
        results = list(refuse(wrong, Outcome.REFUSED, "not the name of a device"))
        asked = [
            Deferred.fromCoroutine(
                self._transfer(
                    domain,
                    TemporalKeyTransferRequest(
                        sender,
                        certificate,
                        request.info.application,
                        tuple(keys[fqdn] for fqdn in fqdns),
                        request.expires,
                    ),
                )
            )
            for domain, fqdns in grouped.items()
        ]
        for one in asked:
            results += await one
        return TemporalKeyUploadResponse(tuple(results))

    async def _transfer(
        self, domain: str, request: TemporalKeyTransferRequest
    ) -> tuple[Delivery, ...]:
        fqdns = [one.destination for one in request.keys]
        if domain == self.desk.domain:
            return (await self.transferred(domain, request)).results
        answer = await self.ask_abroad(domain, request)
        if isinstance(answer, Delivery):
            return refuse(fqdns, answer.outcome, answer.reason)
        if not isinstance(answer, TemporalKeyTransferResponse):
            return refuse(fqdns, Outcome.UNREACHABLE, f"the coordinator of {domain} failed")
        told = {one.destination: one for one in answer.results}
        return tuple(
            told.get(fqdn) or Delivery(fqdn, Outcome.UNREACHABLE, f"no word of {domain}")
            for fqdn in fqdns
        )

    async def ask_abroad(self, domain: str, message: Message) -> Message | Delivery:
        """Ask another domain's DC; what goes wrong is a Delivery about that domain."""
        try:
            # A domain of no realm could prove nothing, so no client can have us knock there.
            self.desk.trust.authority_for(domain)
            return await self.ask(domain, message)
        except UnknownName as problem:
            return Delivery(domain, Outcome.UNKNOWN, str(problem)[:200])
        except AuthenticationError as problem:
            return Delivery(domain, Outcome.UNTRUSTED, str(problem)[:200])
        except NTMobileError as problem:
            log.info("the coordinator of {domain}: {problem}", domain=domain, problem=str(problem))
            text = f"the coordinator of {domain} cannot be reached; try again later"
            return Delivery(domain, Outcome.UNREACHABLE, text)

    # -- temporal keys: DC_CN

    async def transferred(
        self, domain: str, request: TemporalKeyTransferRequest
    ) -> TemporalKeyTransferResponse:
        """Temporal keys from the DC of ``domain``, for devices of ours (R13).

        :raises AuthenticationError: it does not speak for that sender (R1).
        """
        try:
            return await self._transferred(domain, request)
        except (StorageFailed, Unreachable) as problem:
            fqdns = dict.fromkeys(one.destination for one in request.keys)
            return TemporalKeyTransferResponse(refuse(list(fqdns), Outcome.BUSY, str(problem)))

    async def _transferred(
        self, domain: str, request: TemporalKeyTransferRequest
    ) -> TemporalKeyTransferResponse:
        fqdns = list(dict.fromkeys(one.destination for one in request.keys))
        refused = self._refused("dc", domain, request.sender, request.certificate, fqdns)
        until = self.desk.keeps_until(request.expires, self.unix_time())
        if refused is not None or until is None:
            results = refused or refuse(fqdns, Outcome.REFUSED, EXPIRED)
            return TemporalKeyTransferResponse(results)
        admitted = await self.admitted(request.sender, fqdns)
        sender, application = request.sender, request.application
        keys = [
            WaitingKey(
                one.destination, sender, application, temporal_identifier(one.key), one.key, until
            )
            for one in request.keys
            if one.destination in admitted
        ]
        kept = await self.run(self.store.keep_keys, keys, KEYS_EACH, KEYS_ALL) if keys else []
        full = {key.fqdn for key, one in zip(keys, kept, strict=True) if one is Kept.FULL}
        return TemporalKeyTransferResponse(deliver(fqdns, admitted, full))

    def _refused(
        self, role: str, server: str, sender: str, certificate: bytes, fqdns: Sequence[str]
    ) -> tuple[Delivery, ...] | None:
        """What all destinations are answered, whoever they are; None where it may go on.

        :raises AuthenticationError: the server does not speak for that sender (R1), so that it does
            not count as that sender's request either.
        """
        check_speaks(role, server, sender)
        now, at = self.clock.seconds(), self.unix_time()
        if not self.accepts() or not self.desk.allows(server, sender, now):
            return refuse(fqdns, Outcome.BUSY, BUSY)
        try:
            self.desk.check_sender(role, server, sender, certificate, at)
        except CertificateError as problem:
            return refuse(fqdns, Outcome.UNTRUSTED, str(problem))
        return None

    async def admitted(self, sender: str, fqdns: Sequence[str]) -> set[str]:
        """Those of the destinations that are ours and admit the sender.

        All are looked for in the store, so that it takes the same time for whoever is not admitted
        and whoever is not there.
        """
        known = await self.run(self.store.devices, fqdns)
        # Who is revoked is so before the store has it, and also where it cannot have it now (R34).
        gone = revoked_of(known, self.revoked)
        allow = {fqdn: one.allow for fqdn, one in known.items() if fqdn not in gone}
        return {fqdn for fqdn in fqdns if self.desk.admits(sender, fqdn, allow.get(fqdn))}

    # -- temporal keys: DC_CN and its client

    async def key_list(self, fqdn: str, after: bytes) -> TemporalKeyListDownloadResponse:
        """Hash values of the temporal keys that wait for a device."""
        at = self.unix_time()
        found = await self.run(self.store.key_identifiers, fqdn, after, at, LISTED)
        return TemporalKeyListDownloadResponse(tuple(found))

    async def key(self, fqdn: str, identifier: bytes) -> TemporalKeyDownloadResponse | None:
        """One of them; it stays until it is confirmed (R31)."""
        found = await self.run(self.store.key, fqdn, identifier, self.unix_time())
        return None if found is None else TemporalKeyDownloadResponse(found.sender, found.key)

    async def erase_key(self, fqdn: str, identifier: bytes) -> bool:
        """The device has it: erase it (R31)."""
        return await self.run(self.store.erase_key, fqdn, identifier)

    # -- what waits at cache servers

    async def entries(
        self, fqdn: str, application: str | None, after: bytes, sender: str = ""
    ) -> CacheListDownloadResponse:
        """What waits for a device, after what that sender left under that hash value."""
        at, most = self.unix_time(), LISTED + 1
        found = await self.run(self.store.entries, fqdn, application, after, at, most, sender)
        return CacheListDownloadResponse(tuple(found[:LISTED]), len(found) > LISTED)

    async def erase_entry(self, fqdn: str, identifier: bytes, sender: str = "") -> bool:
        """The device has fetched what that sender, or any, left."""
        return await self.run(self.store.erase_entry, fqdn, identifier, sender)

    async def cache_asked(self, cache: str, message: Message) -> Message:
        """A request of a cache server, which its certificate names.

        :raises AuthenticationError: it is not one that a cache server makes, or it does not speak
            for that sender (R1).
        """
        match message:
            case EncryptionKeyExchangeRequest(server, info):
                check_cache(server, cache)
                return EncryptionKeyExchangeResponse(
                    await self._announced(cache, info, message.certificate, message)
                )
            case EncryptedDataExchangeRequest(server, info, manifest):
                check_cache(server, cache)
                return EncryptedDataExchangeResponse(
                    await self._announced(cache, info, manifest.certificate, message)
                )
            case _:
                raise AuthenticationError("not a request that a cache server makes")

    async def _announced(
        self, cache: str, info: RequestInfo, certificate: bytes, request: _Exchange
    ) -> tuple[Delivery, ...]:
        """Something waits at a CS: keep an entry for each destination, and tell it (R13)."""
        try:
            return await self._announce(cache, info, certificate, request)
        except (StorageFailed, Unreachable) as problem:
            fqdns = dict.fromkeys(info.destinations)
            return refuse(list(fqdns), Outcome.BUSY, str(problem))

    async def _announce(
        self, cache: str, info: RequestInfo, certificate: bytes, request: _Exchange
    ) -> tuple[Delivery, ...]:
        fqdns = list(dict.fromkeys(info.destinations))
        refused = self._refused("cs", cache, info.fqdn, certificate, fqdns)
        if refused is not None:
            return refused
        try:
            sender = DeviceCertificate.parse(certificate)
            if isinstance(request, EncryptionKeyExchangeRequest):
                entry = key_entry(request)
            else:
                entry = data_entry(request, sender, self.unix_time())
        except NTMobileError as problem:
            return refuse(fqdns, Outcome.REFUSED, str(problem))
        until = self.desk.keeps_until(entry.expires, self.unix_time())
        if until is None:
            return refuse(fqdns, Outcome.REFUSED, EXPIRED)
        entry = msgspec.structs.replace(entry, expires=int(until))
        admitted = await self.admitted(info.fqdn, fqdns)
        told = [fqdn for fqdn in fqdns if fqdn in admitted]
        kept = await self.run(self.store.keep_entry, told, entry, ENTRIES_EACH, ENTRIES_ALL)
        outcomes = dict(zip(told, kept, strict=True))
        for fqdn in (one for one, what in outcomes.items() if what is Kept.NEW):
            message = entry.message[:200]
            self.tell(
                NotificationRequest(fqdn, Reason.ITEM, message, entry.sender, entry.application)
            )
        full = {fqdn for fqdn, what in outcomes.items() if what is Kept.FULL}
        return deliver(fqdns, admitted, full)

    # -- its devices

    async def came_back(self, fqdn: str) -> None:
        """A device registered: tell it if something waits, it may have missed that."""
        now = self.clock.seconds()
        if not self.looks.allow(fqdn, now):
            return
        found = await self.run(self.store.entries, fqdn, None, b"", self.unix_time(), 1)
        if found and self.reminders.allow(fqdn, now):
            self.tell(NotificationRequest(fqdn, Reason.ITEM))

    async def note(self, devices: Sequence[KnownDevice], gone: Sequence[str]) -> None:
        """Record devices, so that things can be left for them while they are off; forget others.

        :raises NTMobileError: nothing of it was recorded; give it again.
        """
        await self.workers.run(self.store.note, devices, gone)

    async def tick(self) -> None:
        """Every minute: erase what has expired (R31)."""
        self.desk.expire(self.clock.seconds())
        for limiter in (self.looks, self.reminders):
            limiter.expire(self.clock.seconds())
        await self.run(self.store.expire, self.unix_time())


def revoked_of(known: Mapping[str, KnownDevice], revoked: Iterable[Revoked]) -> set[str]:
    """Those of the devices whose present certificate it is that holds no more."""
    return {
        one.fqdn
        for one in revoked
        if one.fqdn in known and is_of(known[one.fqdn].certificate, one.serial)
    }


def is_of(certificate: bytes, serial: bytes) -> bool:
    """Whether a revocation is about this very certificate; without a serial it is about all."""
    if not serial:
        return True
    return DeviceCertificate.parse(certificate).serial == int.from_bytes(serial, "big")
