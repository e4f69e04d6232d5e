"""Objects that leave a cache server: read part by part, confirmed, asked about (figure 4; R32)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred

from ntmobile.errors import AccessDenied, MalformedMessage, NoSuchItem
from ntmobile.interfaces import ICacheStorage
from ntmobile.machines.exchange.confirmations import verify_confirmation
from ntmobile.protocols.caching.access import DEVICE, RECEIVER, Caller
from ntmobile.protocols.caching.objects import NOTHING, OBJECT, PART_NUMBER, Objects
from ntmobile.protocols.caching.records import (
    check_info,
    read_confirmation,
    write_confirmation,
)
from ntmobile.protocols.http_routes import OCTETS_TYPE, Answer, Call, Route
from ntmobile.wire import problems
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.http_digests import digest_field
from ntmobile.wire.messages.exchange import (
    DeliveryStatus,
    DeliveryStatusResponse,
    EncryptedDataConfirmationRequest,
    EncryptedDataConfirmationResponse,
    EncryptedDataDownloadResponse,
    EncryptedDataListRequest,
    EncryptedDataListResponse,
    ListedObject,
)
from ntmobile.wire.problems import Problem

#: Bytes that are read of a part at once: at most, at least, and of all parts that are being read,
#: so that many slow downloads need little memory. The next piece is read while one goes out.
PIECE: Final = 1 << 19
SMALLEST: Final = 1 << 14
PIECES: Final = 2 << 20

#: Objects that take about as long to look up as a request of its own.
LOOKED_UP: Final = 8

_RANGE: Final = re.compile(r"bytes=(\d{0,10})-(\d{0,10})")


@define(eq=False)
class Downloads:
    """Serves receivers; and senders who ask how it went.

    :ivar charge: counts what a caller asked as so many requests more.
    """

    storage: ICacheStorage
    objects: Objects
    trust: TrustStore
    charge: Callable[[Caller, float], None]
    _reading: int = field(default=0, init=False)

    def routes(self) -> list[Route]:
        """What can be asked."""
        full = (problems.FULL,)
        return [
            Route(
                "GET",
                "/v1/objects/{object}",
                "Download an object's manifest",
                RECEIVER,
                self.manifest,
                parameters=(OBJECT,),
                answer=EncryptedDataDownloadResponse,
                problems=full,
            ),
            Route(
                "POST",
                "/v1/objects/query",
                "Download the manifests of several objects",
                RECEIVER,
                self.manifests,
                body=EncryptedDataListRequest,
                answer=EncryptedDataListResponse,
                problems=full,
            ),
            Route(
                "GET",
                "/v1/objects/{object}/parts/{part}",
                "Download a part, or a range of it",
                RECEIVER,
                self.part,
                parameters=(OBJECT, PART_NUMBER),
                media=OCTETS_TYPE,
                statuses=(206,),
                problems=(problems.RANGE, problems.FULL),
            ),
            Route(
                "POST",
                "/v1/objects/{object}/confirm",
                "Confirm, as a receiver, that an object has come",
                RECEIVER,
                self.confirm,
                parameters=(OBJECT,),
                body=EncryptedDataConfirmationRequest,
                answer=EncryptedDataConfirmationResponse,
                problems=(problems.DENIED, *full),
            ),
            Route(
                "GET",
                "/v1/objects/{object}/status",
                "Ask, as the sender, how far an object has come",
                DEVICE,
                self.status,
                parameters=(OBJECT,),
                answer=DeliveryStatusResponse,
                problems=full,
            ),
        ]

    async def manifest(self, call: Call) -> Answer:
        """Give a manifest."""
        found = await self.objects.for_receiver(call.caller, call.value("object"))
        return Answer(
            document=EncryptedDataDownloadResponse(found.record.manifest, found.stored.parts)
        )

    async def manifests(self, call: Call) -> Answer:
        """Give the manifests of those that are here for the caller; the others are left out."""
        request: EncryptedDataListRequest = call.message
        check_info(call.caller.fqdn, request.info)
        self.charge(call.caller, len(request.objects) / LOOKED_UP)
        listed = []
        for identifier in dict.fromkeys(request.objects):
            with suppress(NoSuchItem):
                found = await self.objects.for_receiver(call.caller, identifier)
                listed.append(ListedObject(identifier, found.record.manifest, found.stored.parts))
        return Answer(document=EncryptedDataListResponse(tuple(listed)))

    async def part(self, call: Call) -> Answer:
        """Give a part, or a range of it."""
        found = await self.objects.for_receiver(call.caller, call.value("object"))
        number: int = call.value("part")
        part = await self.storage.part(found.stored.identifier, number, self.objects.unix_time())
        if part is None:
            raise NoSuchItem("that part is not here: the object has fewer, or was confirmed by all")
        start, length = _extent(call.head.header("range"), part.size)
        headers = [("Accept-Ranges", "bytes"), ("Repr-Digest", digest_field(part.digest))]
        if length < part.size:
            headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{part.size}"))
        return Answer(
            206 if length < part.size else 200,
            pieces=self._pieces(found.stored.identifier, number, start, length),
            length=length,
            headers=tuple(headers),
        )

    async def _pieces(
        self, identifier: bytes, number: int, start: int, length: int
    ) -> AsyncGenerator[bytes, None]:
        """A piece is read while the one before goes out."""
        at = self.objects.unix_time()
        end = start + length

        def read() -> Deferred[bytes]:
            size = max(SMALLEST, min(PIECE, PIECES // (2 * self._reading)))
            return self.storage.read_part(identifier, number, start, min(size, end - start), at)

        self._reading += 1
        coming = read()
        try:
            while start < end:
                piece = await coming
                start += len(piece)
                if start < end:
                    coming = read()
                yield piece
        finally:
            self._reading -= 1
            coming.addErrback(lambda _: None)

    async def confirm(self, call: Call) -> Answer:
        """Keep a receiver's confirmation, which the sender will verify (R32)."""
        confirmation: EncryptedDataConfirmationRequest = call.message
        caller, identifier = call.caller.fqdn, call.value("object")
        check_info(caller, confirmation.info)
        found = await self.objects.for_receiver(call.caller, identifier)
        if caller not in found.stored.destinations:
            raise NoSuchItem(NOTHING)
        if confirmation.object != identifier:
            raise MalformedMessage("the confirmation is for another object than the path names")
        now = self.objects.unix_time()
        certificate = self.trust.verify_device(confirmation.certificate, now)
        if certificate.fqdn != caller:
            raise AccessDenied(f"a confirmation of {certificate.fqdn}, sent by {caller}")
        verify_confirmation(
            confirmation,
            object=identifier,
            root=found.manifest.root,
            sender=found.stored.sender,
            receiver=caller,
            pin=certificate.identity,
        )
        await self.storage.confirm(identifier, caller, write_confirmation(confirmation), now)
        return Answer(document=EncryptedDataConfirmationResponse(identifier))

    async def status(self, call: Call) -> Answer:
        """Tell a sender how far an object has come."""
        found = await self.objects.of_sender(call.caller, call.value("object"))
        identifier = found.stored.identifier
        deliveries = await self.storage.deliveries(identifier, self.objects.unix_time())
        statuses = tuple(
            DeliveryStatus(
                each.destination,
                each.state,
                each.reason[:200],
                int(each.at),
                read_confirmation(each.confirmation),
            )
            for each in deliveries
        )
        return Answer(document=DeliveryStatusResponse(identifier, statuses))


def _extent(asked: str | None, size: int) -> tuple[int, int]:
    """Start and length of what a Range field asks for (RFC 9110, section 14.1.2).

    A field of another form, or with several ranges, is as if it were not there.

    :raises Problem: there is no such range.
    """
    found = _RANGE.fullmatch(asked or "")
    if found is None or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        length = min(int(found[2]), size)
        start = size - length
    else:
        start = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < start:
            return 0, size
        length = last - start + 1
    if length <= 0:
        raise Problem(
            problems.RANGE,
            f"the part has {size} bytes, numbered from 0",
            (("Content-Range", f"bytes */{size}"),),
        )
    return start, length
