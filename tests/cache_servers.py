"""A real cache server on loopback, its account server's word, and devices that send over TLS."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from time import time as wall
from typing import Any

from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor
from twisted.internet.task import deferLater

from ntmobile.machines.exchange.chunks import ChunkSealer
from ntmobile.machines.exchange.manifests import Address, Details, sign_manifest
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.cache import CacheService
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.servers.credentials import key_to_pem
from ntmobile.wire.http_signatures import HmacKey
from ntmobile.wire.messages.exchange import (
    EncryptedDataUploadRequest,
    RequestInfo,
    SignedManifest,
    Token,
    TokenAcknowledgement,
    TokenUpdate,
)
from tests.platforms import HOST, free_port
from tests.realms import MemoryRealm
from tests.web_clients import Answered, WebClient

NAME = "cs1.dc1.ntm.example"
APPLICATION = "org.example.chat"
TEXT = """\
name = "cs1.dc1.ntm.example"
realm = "ntm.example"
addresses = ["127.0.0.1"]
port = {port}
certificate = "cs.pem"
key = "cs.key"
trust = "ca.pem"
[coordinator]
domain = "dc1.ntm.example"
addresses = ["127.0.0.1"]
port = {coordinator}
[lookup]
plugin = "static"
coordinators = {{}}
"""


@define(eq=False)
class CacheWorld:
    """A cache server, run by :meth:`start` in this process.

    :ivar file: its configuration; a process may be run with it instead.
    """

    directory: Path
    realm: MemoryRealm = field(factory=MemoryRealm)
    port: int = field(factory=free_port)
    coordinator: int = field(factory=free_port)
    service: CacheService | None = None
    _sequence: int = 0

    @property
    def file(self) -> Path:
        return self.directory / "cs1.toml"

    def write(self, more: str = "") -> None:
        """Write its files."""
        self.directory.mkdir()
        key, chain = self.realm.server("cs", NAME)
        (self.directory / "cs.key").touch(0o600)
        (self.directory / "cs.key").write_bytes(key_to_pem(key))
        (self.directory / "cs.pem").write_bytes(chain[0].public_bytes(Encoding.PEM))
        (self.directory / "ca.pem").write_bytes(self.realm.authority.to_pem())
        text = TEXT.format(port=self.port, coordinator=self.coordinator)
        self.file.write_text(text + more)

    async def start(self) -> CacheService:
        """Start it, and wait until it serves."""
        self.service = CacheService(load_cache(self.file), reactor)
        self.service.startService()
        end = time.monotonic() + 20
        while not self.service.api.serving:
            assert time.monotonic() < end, "it does not open its storage"
            await deferLater(_reactor(), 0.01)
        return self.service

    async def stop(self) -> None:
        """Stop it."""
        service, self.service = self.service, None
        if service is not None:
            await service.stopService()

    def tls(self, role: str | None = None, name: str = "ntm.example") -> Any:
        """A client's TLS, with the certificate of a role or without."""
        key, chain = self.realm.server(role, name) if role else (None, None)
        return client_context_factory(
            key, chain, self.realm.trust(), "cs", NAME, alpn=(HTTP_PROTOCOL,)
        )

    async def tell(self, *tokens: Token, revoked: tuple[str, ...] = (), time: int = 0) -> Answered:
        """Tell it of tokens, as its AS."""
        update = TokenUpdate(self._sequence + 1, self._sequence, tokens, revoked, time=time)
        client = WebClient("", self.port, self.tls("as"), None, "", wall)
        answer = await client.ask("POST", "/v1/tokens", update)
        self._sequence = answer.document(TokenAcknowledgement).sequence
        return answer

    async def device(self, fqdn: str) -> Device:
        """A device with a token that the server knows."""
        identity, _, certificate = self.realm.device(fqdn)
        token, key = sha256(fqdn.encode()).digest()[:16], sha256(b"key" + fqdn.encode()).digest()
        await self.tell(Token(token, fqdn, key, int(time.time()) + 3600))
        web = WebClient(fqdn, self.port, self.tls(), HmacKey(key), token.hex(), time.time)
        return Device(web, Signer(fqdn, certificate.der, identity))


@define(eq=False)
class Device:
    """A device that sends and receives."""

    web: WebClient
    signer: Signer

    def seal(self, plain: bytes, receivers: tuple[str, ...]) -> tuple[SignedManifest, list[bytes]]:
        """An object: manifest and parts."""
        shared, header = bytes(32), ObjectHeader.create(len(plain))
        sealer = ChunkSealer(shared, header, len(plain))
        parts = []
        for number in range(header.parts):
            begin, size = sealer.extent(number)
            parts.append(sealer.seal_part(number, plain[begin : begin + size]))
        signed = sign_manifest(
            self.signer,
            shared,
            Address(receivers, APPLICATION),
            header,
            sealer.root(),
            Details("x", "", len(plain)),
            int(time.time()) + 86400,
        )
        return signed, parts

    def announcement(
        self, signed: SignedManifest, receivers: tuple[str, ...]
    ) -> EncryptedDataUploadRequest:
        """What announces an object."""
        info = RequestInfo("test", self.web.fqdn, receivers, APPLICATION)
        return EncryptedDataUploadRequest(info, signed)


def _reactor() -> Any:
    return reactor


__all__ = ["HOST", "CacheWorld", "Device"]
