"""Shared keys at a cache server: sealed for each destination, kept, and given to it (figure 3)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from ntmobile.errors import AccessDenied, MalformedMessage, NoSuchItem
from ntmobile.interfaces import ICacheStorage
from ntmobile.machines.exchange.shared_keys import verify_key
from ntmobile.protocols.caching.access import DEVICE, RECEIVER
from ntmobile.protocols.caching.exchanging import Exchanges, check_destinations, check_sender
from ntmobile.protocols.caching.records import check_info, read_key, stored_key
from ntmobile.protocols.http_routes import Answer, Call, Route, octets
from ntmobile.wire import problems
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.messages.exchange import (
    EncryptionKeyDownloadResponse,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
    SealedKey,
)

KEY = octets("identifier", 32, "identifier of a shared key")


@define(eq=False)
class Keys:
    """Serves what is asked of shared keys."""

    storage: ICacheStorage
    exchanges: Exchanges
    trust: TrustStore
    unix_time: Callable[[], float]

    def routes(self) -> list[Route]:
        """What can be asked."""
        return [
            Route(
                "POST",
                "/v1/keys",
                "Upload a shared key, sealed for each destination",
                DEVICE,
                self.upload,
                body=EncryptionKeyUploadRequest,
                answer=EncryptionKeyUploadResponse,
                problems=(problems.DENIED, problems.CONFLICT, problems.EXPIRED, problems.FULL),
            ),
            Route(
                "GET",
                "/v1/keys/{identifier}",
                "Download the shared key that was sealed for this device",
                RECEIVER,
                self.download,
                parameters=(KEY,),
                answer=EncryptionKeyDownloadResponse,
                problems=(problems.FULL,),
            ),
        ]

    async def upload(self, call: Call) -> Answer:
        """Keep the keys, and tell the coordinators of their destinations."""
        request: EncryptionKeyUploadRequest = call.message
        sender, info = call.caller.fqdn, request.info
        check_info(sender, info)
        check_sender(self.exchanges.server.name, sender)
        destinations = tuple(each.destination for each in request.keys)
        check_destinations(destinations)
        if set(destinations) != set(info.destinations):
            raise MalformedMessage("the request names other destinations than its keys are for")
        first = request.keys[0]
        self._verify(sender, info.application, first, request.keys)
        stored = [stored_key(info, each) for each in request.keys]
        await self.storage.add_keys(stored, self.unix_time())
        results = await self.exchanges.tell_soon(
            "key", first.identifier, stored[0].document, destinations
        )
        return Answer(document=EncryptionKeyUploadResponse(results))

    def _verify(
        self, sender: str, application: str, first: SealedKey, keys: tuple[SealedKey, ...]
    ) -> None:
        """See that the sender has signed all of them, and that they are one shared key (R29)."""
        now = self.unix_time()
        certificate = self.trust.verify_device(first.certificate, now)
        if certificate.fqdn != sender:
            raise AccessDenied(f"a key with the certificate of {certificate.fqdn}, not {sender}")
        for each in keys:
            if (each.sender, each.application) != (sender, application):
                raise MalformedMessage("a key of another sender or application than the request")
            if each.identifier != first.identifier:
                raise MalformedMessage("keys of different identifiers; upload each by itself")
            verify_key(each, pin=certificate.identity, now=now)

    async def download(self, call: Call) -> Answer:
        """Give the caller what was sealed for it, and nobody else's."""
        found = await self.storage.key(call.value("identifier"), call.caller.fqdn, self.unix_time())
        if found is None:
            raise NoSuchItem("no key of that identifier waits here for this device")
        return Answer(document=EncryptionKeyDownloadResponse(read_key(found.document).key))
