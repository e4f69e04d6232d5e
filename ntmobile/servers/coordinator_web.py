"""The DC's HTTP API: temporal keys, what waits at cache servers, pre-keys (figures 3 and 4; R31).

A request is signed with a key of the client's session (R28); ``keyid`` is the session's index in
hex. The table of routes is all that can be asked, and is told as OpenAPI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ntmobile.errors import AuthenticationError
from ntmobile.machines.exchange.nonces import NonceMemory
from ntmobile.machines.rate import RateLimiter
from ntmobile.protocols.http_routes import Answer, Call, Head, Route, Table, octets, text
from ntmobile.servers.caches import Caches
from ntmobile.servers.exchange import Exchange
from ntmobile.servers.prekeys import PreKeys
from ntmobile.wire import http_signatures, problems
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.http_digests import CONTENT_DIGEST
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import HmacKey
from ntmobile.wire.messages.exchange import (
    CacheListDownloadResponse,
    CacheServerListResponse,
    PreKeyRequest,
    PreKeyResponse,
    PreKeyUploadRequest,
    TemporalKeyDownloadResponse,
    TemporalKeyListDownloadResponse,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.problems import Problem

#: Requests a second, and at once, of one client.
RATE: Final = (50.0, 500.0)
#: The one kind of caller.
SESSION: Final = "session"
#: How it is known, for the OpenAPI document.
LINES: Final = {
    SESSION: "HTTP Message Signature (RFC 9421), hmac-sha256 with the key that is made from the "
    "session key for 'ntm1 http'; keyid is the session's index in hex"
}

_IDENTIFIER: Final = octets("identifier", 32, "hash value by which it is listed")
_AFTER: Final = octets("after", 32, "hash value of the last one that is known")
_SENDER: Final = text(
    "sender", "[a-z0-9.-]{1,253}", "FQDN of who left it, for others may use its hash value"
)
_APPLICATION: Final = text("application", "[A-Za-z0-9._-]{0,64}", "an application's name")


@define(eq=False)
class CoordinatorWeb:
    """Serves the clients of one domain.

    :ivar session: FQDN and session key of a session index, or None.
    :ivar certificate: the device certificate of a client that has a session.
    :ivar accepts: whether new work is done (R34). :ivar unix_time: of the AS's clock (R12).
    """

    exchange: Exchange
    prekeys: PreKeys
    caches: Caches
    session: Callable[[bytes], tuple[str, bytes] | None]
    certificate: Callable[[str], DeviceCertificate]
    accepts: Callable[[], bool]
    unix_time: Callable[[], float]
    clock: IReactorTime
    _nonces: NonceMemory = field(factory=NonceMemory, init=False)
    _limiter: RateLimiter = field(factory=lambda: RateLimiter(*RATE, capacity=100_000), init=False)

    def access(self) -> dict[str, Callable[[Head], Any]]:
        """Who may ask."""
        return {SESSION: self._authenticate}

    def table(self) -> Table:
        """What may be asked."""
        return Table(self._key_routes() + self._list_routes() + self._prekey_routes())

    def tick(self) -> None:
        """Every minute: forget who is no longer rationed."""
        self._limiter.expire(self.clock.seconds())

    # -- who asks

    def _authenticate(self, head: Head) -> str:
        """The FQDN of the client that signed a request.

        :raises AuthenticationError: it is not signed as it should be.
        :raises Problem: the client asks too much.
        """
        signed = http_signatures.parse(head.request)
        try:
            known = self.session(bytes.fromhex(signed.keyid))
        except ValueError:
            known = None
        # An unknown session costs and says the same as a wrong signature.
        fqdn, key = known or ("", bytes(32))
        required = (CONTENT_DIGEST,) if head.length else ()
        now = self.unix_time()
        signed.verify(HmacKey(coordinator_key(key)), now, required=required)
        if known is None:
            raise AuthenticationError("the signature is not right; log in again and sign anew")
        self._nonces.use(signed.keyid, signed.nonce, signed.created, now)
        if not self._limiter.allow(fqdn, self.clock.seconds()):
            wait = str(int(self._limiter.wait(fqdn, self.clock.seconds())) + 1)
            detail = f"too many requests of this device; try again in {wait} s"
            raise Problem(problems.BUSY, detail, (("Retry-After", wait),))
        return fqdn

    def _check_new_work(self) -> None:
        if not self.accepts():
            raise Problem(
                problems.UNAVAILABLE,
                "the coordinator has not heard its account server for long; try again later",
                (("Retry-After", "30"),),
            )

    # -- temporal keys

    def _key_routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/v1/temporal-keys",
                "Bring temporal keys to the coordinators of their destinations",
                SESSION,
                self._upload_keys,
                body=TemporalKeyUploadRequest,
                answer=TemporalKeyUploadResponse,
                problems=(problems.DENIED, problems.UNAVAILABLE),
            ),
            Route(
                "GET",
                "/v1/temporal-keys",
                "List the temporal keys that wait for this device, oldest first",
                SESSION,
                self._list_keys,
                query=(_AFTER,),
                answer=TemporalKeyListDownloadResponse,
            ),
            Route(
                "GET",
                "/v1/temporal-keys/{identifier}",
                "Download a temporal key; it stays until it is confirmed",
                SESSION,
                self._download_key,
                parameters=(_IDENTIFIER,),
                answer=TemporalKeyDownloadResponse,
                problems=(problems.UNKNOWN,),
            ),
            Route(
                "DELETE",
                "/v1/temporal-keys/{identifier}",
                "Confirm that a temporal key is known: it is erased",
                SESSION,
                self._confirm_key,
                parameters=(_IDENTIFIER,),
                status=204,
            ),
        ]

    async def _upload_keys(self, call: Call) -> Answer:
        self._check_new_work()
        request: TemporalKeyUploadRequest = call.message
        check_caller(call.caller, request.info.fqdn)
        certificate = self.certificate(call.caller).der
        return _document(await self.exchange.upload_keys(call.caller, certificate, request))

    async def _list_keys(self, call: Call) -> Answer:
        after = call.value("after") or b""
        return _document(await self.exchange.key_list(call.caller, after))

    async def _download_key(self, call: Call) -> Answer:
        found = await self.exchange.key(call.caller, call.value("identifier"))
        if found is None:
            raise Problem(problems.UNKNOWN, "no temporal key of that hash value waits here")
        return _document(found)

    async def _confirm_key(self, call: Call) -> Answer:
        await self.exchange.erase_key(call.caller, call.value("identifier"))
        return Answer(204)

    # -- lists

    def _list_routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/caches",
                "List what waits for this device at cache servers, oldest first",
                SESSION,
                self._list_entries,
                query=(_APPLICATION, _AFTER, _SENDER),
                answer=CacheListDownloadResponse,
            ),
            Route(
                "DELETE",
                "/v1/caches/{identifier}",
                "Say that something was fetched: it is listed no more",
                SESSION,
                self._erase_entry,
                parameters=(_IDENTIFIER,),
                query=(_SENDER,),
                status=204,
            ),
            Route(
                "GET",
                "/v1/cache-servers",
                "List the cache servers of the domain, the one with the most room first",
                SESSION,
                self._list_servers,
                answer=CacheServerListResponse,
            ),
        ]

    async def _list_entries(self, call: Call) -> Answer:
        application, after = call.value("application"), call.value("after") or b""
        sender = call.value("sender") or ""
        return _document(await self.exchange.entries(call.caller, application, after, sender))

    async def _erase_entry(self, call: Call) -> Answer:
        sender = call.value("sender") or ""
        await self.exchange.erase_entry(call.caller, call.value("identifier"), sender)
        return Answer(204)

    async def _list_servers(self, call: Call) -> Answer:
        return _document(self.caches.listed())

    # -- pre-keys

    def _prekey_routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/v1/prekeys",
                "Publish pre-keys of this device",
                SESSION,
                self._publish_prekeys,
                body=PreKeyUploadRequest,
                status=204,
                problems=(problems.DENIED, problems.UNAVAILABLE),
            ),
            Route(
                "POST",
                "/v1/prekeys/query",
                "Get the newest pre-keys of devices, of any domain",
                SESSION,
                self._collect_prekeys,
                body=PreKeyRequest,
                answer=PreKeyResponse,
                problems=(problems.DENIED, problems.UNAVAILABLE),
            ),
        ]

    async def _publish_prekeys(self, call: Call) -> Answer:
        self._check_new_work()
        request: PreKeyUploadRequest = call.message
        check_caller(call.caller, request.info.fqdn)
        await self.prekeys.publish(self.certificate(call.caller), request.keys)
        return Answer(204)

    async def _collect_prekeys(self, call: Call) -> Answer:
        self._check_new_work()
        request: PreKeyRequest = call.message
        check_caller(call.caller, request.sender)
        return _document(await self.prekeys.collect(call.caller, request.fqdns))


def check_caller(caller: str, said: str) -> None:
    """Check that a request names as its sender the device that signed it.

    :raises Problem: another one.
    """
    if caller != said:
        raise Problem(problems.DENIED, f"the request names {said}, but {caller} has signed it")


def _document(message: Message) -> Answer:
    return Answer(document=message)
