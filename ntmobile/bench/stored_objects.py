"""Objects for the benchmarks of stored data, sealed and signed, and the requests about them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import frozen
from twisted.internet.utils import getProcessOutputAndValue

from ntmobile.bench.load_realm import environment
from ntmobile.bench.results import NothingTransferred, one_line
from ntmobile.bench.stored_realm import Octets, StoredDevice
from ntmobile.bench.transfer import Ask, Done, Job
from ntmobile.machines.exchange.chunks import ChunkSealer
from ntmobile.machines.exchange.confirmations import sign_confirmation
from ntmobile.machines.exchange.manifests import Address, Details, sign_manifest
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.wire.messages.exchange import (
    EncryptedDataUploadRequest,
    Manifest,
    RequestInfo,
    SignedManifest,
)

#: Seconds for which an object waits.
LIFETIME: Final = 3600


@frozen
class Parcel:
    """A sealed object, whose parts are somewhere in a file.

    :ivar parts: in order. :ivar digest: SHA-256 of all parts, in hexadecimal.
    """

    signed: SignedManifest
    manifest: Manifest
    parts: Sequence[Octets]
    digest: str

    @property
    def target(self) -> str:
        """Where it is at the CS."""
        return f"/v1/objects/{self.manifest.object.hex()}"

    @property
    def length(self) -> int:
        """Bytes of all parts."""
        return sum(part.length for part in self.parts)

    def upload(self, sender: StoredDevice) -> list[Ask]:
        """What its sender asks: announce it, bring its parts, complete it."""
        manifest = self.manifest
        info = RequestInfo("bench", sender.fqdn, manifest.destinations, manifest.application)
        ask = sender.ask_cache
        parts = [
            ask("PUT", f"{self.target}/parts/{number}", 204, part)
            for number, part in enumerate(self.parts)
        ]
        announcement = EncryptedDataUploadRequest(info, self.signed)
        return [
            ask("POST", "/v1/objects", 200, announcement),
            *parts,
            ask("POST", f"{self.target}/complete", 200),
        ]

    def download(self, receiver: StoredDevice) -> list[Ask]:
        """What its receiver asks: manifest and parts."""
        ask = receiver.ask_cache
        parts = [
            ask("GET", f"{self.target}/parts/{number}", 200, keep=True)
            for number in range(len(self.parts))
        ]
        return [ask("GET", self.target, 200), *parts]

    def confirm(self, receiver: StoredDevice) -> Ask:
        """What its receiver says when it has it."""
        info = RequestInfo("bench", receiver.fqdn)
        confirmation = sign_confirmation(receiver.signer, self.manifest, info)
        return receiver.ask_cache("POST", f"{self.target}/confirm", 200, confirmation)

    def withdraw(self, sender: StoredDevice) -> Ask:
        """What its sender asks to have it removed."""
        return sender.ask_cache("DELETE", self.target, 204)


@frozen
class Sealing:
    """With what objects are sealed and signed.

    :ivar key: shared with the receiver. :ivar file: gets their parts, one after the other.
    """

    sender: StoredDevice
    receiver: StoredDevice
    key: bytes
    application: str
    file: Path

    def seal(self, size: int) -> Parcel:
        """Seal an object of random content; ``size``: its bytes."""
        header = ObjectHeader.create(size)
        sealer = ChunkSealer(self.key, header, size)
        whole, parts = sha256(), []
        with self.file.open("ab") as stream:
            for number in range(header.parts):
                sealed = sealer.seal_part(number, os.urandom(sealer.extent(number)[1]))
                parts.append(Octets(stream.tell(), len(sealed), sha256(sealed).digest()))
                stream.write(sealed)
                whole.update(sealed)
        signed = sign_manifest(
            self.sender.signer,
            self.key,
            Address((self.receiver.fqdn,), self.application),
            header,
            sealer.root(),
            Details("bench", "", size),
            int(time.time()) + LIFETIME,
        )
        manifest = msgspec.msgpack.decode(signed.manifest, type=Manifest)
        return Parcel(signed, manifest, parts, whole.hexdigest())


async def drive(job: Job, directory: Path) -> Done:
    """Have :mod:`.transfer` do a job in a process of its own.

    :param directory: a private one, for the job: there are signed requests in it.
    :raises NothingTransferred: it failed.
    """
    file = directory / "job"
    file.write_bytes(msgspec.json.encode(job))
    argv = ["-m", "ntmobile.bench.transfer", str(file)]
    output, errors, status = await getProcessOutputAndValue(sys.executable, argv, environment())
    if status:
        raise NothingTransferred(one_line(Exception(errors.decode("utf-8", "replace"))))
    found: dict[str, Any] = msgspec.json.decode(output)
    if "failed" in found:
        raise NothingTransferred(found["failed"])
    return msgspec.convert(found, Done)
