"""Objects that come to a cache server: announced, uploaded part by part, completed (figure 4)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from attrs import define

from ntmobile.errors import AccessDenied, MalformedMessage, NoSuchItem, StorageFailed
from ntmobile.interfaces import ICacheStorage
from ntmobile.machines.exchange.manifests import verify_manifest
from ntmobile.machines.exchange.objects import SEALED_PART
from ntmobile.protocols.caching.access import DEVICE, Caller
from ntmobile.protocols.caching.exchanging import Exchanges, check_destinations, check_sender
from ntmobile.protocols.caching.incoming import PartReceiver, find_part
from ntmobile.protocols.caching.objects import OBJECT, PART_NUMBER, Found, Objects
from ntmobile.protocols.caching.records import ObjectRecord, check_info, stored_object
from ntmobile.protocols.caching.roots import Roots
from ntmobile.protocols.http_routes import Answer, Call, Head, Route
from ntmobile.wire import problems
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.http_digests import CONTENT_DIGEST, parse_content_digest
from ntmobile.wire.messages.exchange import (
    LISTED,
    Deliveries,
    Delivery,
    EncryptedDataUploadRequest,
    EncryptedDataUploadResponse,
    Manifest,
    RequestInfo,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.problems import Problem

#: Fields that a request and its manifest both have, and have to have alike.
_ALIKE: Final = ("application", "service", "item", "message")


@define(eq=False)
class Uploads:
    """Serves senders.

    :ivar largest: bytes that one object may have.
    """

    storage: ICacheStorage
    objects: Objects
    exchanges: Exchanges
    roots: Roots
    trust: TrustStore
    largest: int

    def routes(self) -> list[Route]:
        """What can be asked."""
        return [
            Route(
                "POST",
                "/v1/objects",
                "Announce an object, or ask again which of its parts are missing",
                DEVICE,
                self.announce,
                body=EncryptedDataUploadRequest,
                answer=EncryptedDataUploadResponse,
                problems=(problems.DENIED, problems.CONFLICT, problems.EXPIRED, problems.FULL),
            ),
            Route(
                "PUT",
                "/v1/objects/{object}/parts/{part}",
                "Upload a part",
                DEVICE,
                self.part,
                parameters=(OBJECT, PART_NUMBER),
                octets=SEALED_PART,
                receive=self._receive,
                status=204,
                problems=(problems.CONFLICT, problems.FULL),
            ),
            Route(
                "POST",
                "/v1/objects/{object}/complete",
                "Have the coordinators of the destinations told, once all parts are there",
                DEVICE,
                self.complete,
                parameters=(OBJECT,),
                answer=EncryptedDataUploadResponse,
                problems=(problems.CONFLICT, problems.CONTENT, problems.FULL),
            ),
            Route(
                "DELETE",
                "/v1/objects/{object}",
                "Withdraw an object",
                DEVICE,
                self.withdraw,
                parameters=(OBJECT,),
                status=204,
                problems=(problems.FULL,),
            ),
        ]

    async def announce(self, call: Call) -> Answer:
        """Take room for an object, after its manifest was verified (R29)."""
        request: EncryptedDataUploadRequest = call.message
        sender, now = call.caller.fqdn, self.objects.unix_time()
        check_info(sender, request.info)
        check_sender(self.exchanges.server.name, sender)
        known = await self._known(call.caller, request)
        if known is not None:
            return await self._standing(known)
        certificate = self.trust.verify_device(request.manifest.certificate, now)
        if certificate.fqdn != sender:
            raise AccessDenied(f"a manifest of {certificate.fqdn}, sent by {sender}")
        manifest = verify_manifest(request.manifest, pin=certificate.identity, now=now)
        _check_alike(request.info, manifest)
        check_destinations(manifest.destinations)
        if manifest.length > self.largest:
            raise Problem(
                problems.LARGE,
                f"an object of {manifest.length} bytes; this server takes {self.largest} at most",
            )
        announced = stored_object(request.info, request.manifest, manifest)
        standing = await self.storage.add_object(announced, now)
        if not standing.complete:  # another one of that identifier may have been, and expired
            self.roots.incomplete(manifest.object)
        return await self._standing(await self.objects.of_sender(call.caller, manifest.object))

    async def _known(self, caller: Caller, request: EncryptedDataUploadRequest) -> Found | None:
        """What is announced by the very same request, which was verified then.

        So an upload goes on although the certificate in it, which lasts a day, has ended since.
        """
        record = ObjectRecord(request.info, request.manifest)
        try:
            found = await self.objects.of_sender(caller, record.read().object)
        except (NoSuchItem, StorageFailed):
            return None
        return found if found.record == record else None

    async def part(self, call: Call) -> Answer:
        """Keep a part, if it is of the size that it must have."""
        number: int = call.value("part")
        if isinstance(call.receiver, PartReceiver):
            manifest, hashes, complete = await call.receiver.keep()
        else:
            manifest, hashes, complete = await self._short(call, number)
        self.roots.came(manifest, number, hashes)
        if complete:
            self.exchanges.wake()
        return Answer(204)

    def _receive(self, head: Head, caller: Caller) -> PartReceiver:
        """Take a long part as it comes."""
        return PartReceiver(self.storage, self.objects, self.roots.offload, head, caller)

    async def _short(self, call: Call, number: int) -> tuple[Manifest, bytes, bool]:
        """Keep a part that came at once."""
        identifier, size = call.value("object"), len(call.body)
        found = await find_part(self.objects, call.caller, identifier, number, size)
        promised = call.head.header(CONTENT_DIGEST)
        digest = parse_content_digest(promised) if promised else sha256(call.body).digest()
        hashes = await self.roots.hash_part(found.manifest, number, call.body)
        complete = await self.storage.put_part(
            identifier, number, call.body, digest, self.objects.unix_time()
        )
        return found.manifest, hashes, complete

    async def complete(self, call: Call) -> Answer:
        """Tell the coordinators of the destinations, and the sender what they say."""
        found = await self.objects.of_sender(call.caller, call.value("object"))
        identifier = found.stored.identifier
        if not found.standing.complete:
            listed = ", ".join(str(each) for each in found.standing.missing[:10])
            raise Problem(problems.CONFLICT, f"parts are missing: {listed}; upload them first")
        at = self.objects.unix_time()
        if not found.standing.released and not await self.roots.is_right(found.manifest, at):
            await self._remove(identifier)
            raise Problem(
                problems.CONTENT,
                "the parts are not what the manifest signed; the object is removed, send it anew",
            )
        waiting = await self._untold(identifier)
        if waiting:
            results = await self.exchanges.tell_soon(
                "data", identifier, found.stored.document, waiting
            )
        else:
            results = ()
        return await self._standing(found, {each.destination: each for each in results})

    async def withdraw(self, call: Call) -> Answer:
        """Remove an object."""
        found = await self.objects.of_sender(call.caller, call.value("object"))
        await self._remove(found.stored.identifier)
        return Answer(204)

    async def _remove(self, identifier: bytes) -> None:
        await self.storage.remove(identifier)
        self.roots.forget(identifier)

    async def _untold(self, identifier: bytes) -> list[str]:
        found = await self.storage.deliveries(identifier, self.objects.unix_time())
        return [each.destination for each in found if each.state == "not told"]

    async def _standing(self, found: Found, said: dict[str, Delivery] | None = None) -> Answer:
        """How an object stands, and what is known of its destinations once it is complete."""
        results: Deliveries = ()
        if found.standing.complete:
            at = self.objects.unix_time()
            deliveries = await self.storage.deliveries(found.stored.identifier, at)
            results = tuple(
                (said or {}).get(each.destination)
                or Delivery(
                    each.destination,
                    Outcome.UNREACHABLE if each.state == "not told" else Outcome.OK,
                    each.reason[:200],
                )
                for each in deliveries
            )
        return Answer(
            document=EncryptedDataUploadResponse(
                found.stored.identifier,
                found.stored.parts,
                found.standing.missing[:LISTED],
                results,
            )
        )


def _check_alike(info: RequestInfo, manifest: Manifest) -> None:
    """See that a request says of its item what the sender has signed.

    :raises MalformedMessage: it says something else.
    """
    for name in _ALIKE:
        if getattr(info, name) != getattr(manifest, name):
            raise MalformedMessage(f"the request and its manifest have another {name}")
    if set(info.destinations) != set(manifest.destinations):
        raise MalformedMessage("the request and its manifest have other destinations")
