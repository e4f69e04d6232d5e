"""A cache server in memory, and devices that ask it in bytes."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ntmobile.errors import NTMobileError, Unreachable
from ntmobile.interfaces import Quotas
from ntmobile.machines.exchange.manifests import verify_manifest
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.caching.api import Cache
from ntmobile.testing.caches import MemoryStorage
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import ANSWER_LIMIT, read_document, write_document
from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.http_signatures import Ed25519Signer, HmacKey, Request, sign
from ntmobile.wire.messages.exchange import (
    CacheServer,
    Delivery,
    EncryptedDataExchangeRequest,
    EncryptedDataExchangeResponse,
    EncryptedDataUploadRequest,
    EncryptionKeyExchangeRequest,
    EncryptionKeyExchangeResponse,
    EncryptionKeyUploadRequest,
    Manifest,
    RequestInfo,
    Token,
    TokenUpdate,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Outcome
from tests.http_bytes import NoThreads, Transport, answers
from tests.realms import MemoryRealm
from tests.stored_data import APPLICATION, NOW, Device, Item, realm, send, share

_M = TypeVar("_M", bound=Message)
NAME = "cs1.dc1.ntm.example"
SERVER = CacheServer(NAME, (Endpoint.of(("192.0.2.9", 4332)),))
ALICE, BOB, CAROL = (
    "phone.alice.dc1.ntm.example",
    "laptop.bob.dc1.ntm.example",
    "desk.carol.dc2.ntm.example",
)


@define
class Answered:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def document(self, kind: type[_M]) -> _M:
        """The document in it."""
        assert self.status == 200, self.body
        return read_document(kind, self.body, ANSWER_LIMIT)

    @property
    def detail(self) -> str:
        """The line of the problem document in it."""
        found: str = json.loads(self.body)["detail"]
        return found


@define(eq=False)
class Client:
    """A device, as one that asks."""

    fqdn: str
    fields: dict[str, str]
    key: Any
    keyid: str

    @property
    def info(self) -> RequestInfo:
        """What its requests say."""
        return RequestInfo("test", self.fqdn)


def run_at_once(call: Callable[[], bytes]) -> Awaitable[bytes]:
    """Runs what a thread would."""
    return succeed(call())


def _shared(said: Deferred[Message]) -> Deferred[Message]:
    """The same for one of several who wait for it."""
    own: Deferred[Message] = Deferred()

    def tell(result: Any) -> Any:
        if isinstance(result, Failure):
            own.errback(result)
        else:
            own.callback(result)
        return result

    said.addBoth(tell)
    return own


@define(eq=False)
class World:
    """A cache server, its account server's word, and the coordinators that it asks.

    :ivar asked: what coordinators were asked. :ivar says: domain → what its coordinator says, one
        outcome for all or an error that it fails with; OK by default.
    """

    quotas: Quotas = field(factory=Quotas)
    capacity: int = 0
    largest: int = 1 << 40
    foreign: MemoryRealm = field(factory=lambda: MemoryRealm("else.example", NOW))
    clock: NoThreads = field(factory=NoThreads)
    asked: list[tuple[str, Any]] = field(factory=list)
    says: dict[str, Outcome | NTMobileError | Deferred[Message]] = field(factory=dict)
    _waited_for: list[Deferred[Message]] = field(factory=list, init=False)
    storage: MemoryStorage = field(init=False)
    cache: Cache = field(init=False)
    api: Any = field(init=False)
    _numbers: Any = field(factory=lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self.storage = MemoryStorage(self.quotas, self.capacity)
        self.storage.open()
        self.restart()

    def restart(self) -> None:
        """Make the server anew on the same storage."""
        self.cache = Cache(
            SERVER,
            "ntm.example",
            self.storage,
            realm().trust(self.foreign),
            self._ask,
            self.clock,
            self.unix_time,
            run_at_once,
            self.largest,
        )
        self.api = self.cache.api(self.clock)

    def unix_time(self) -> float:
        return NOW + self.clock.seconds()

    async def _ask(self, domain: str, message: Message) -> Message:
        self.asked.append((domain, message))
        said = self.says.get(domain, Outcome.OK)
        if isinstance(said, NTMobileError):
            raise said
        if isinstance(said, Deferred):
            self._waited_for.append(said)
            return await _shared(said)
        assert isinstance(message, EncryptionKeyExchangeRequest | EncryptedDataExchangeRequest)
        results = tuple(Delivery(each, said, "") for each in message.info.destinations)
        if isinstance(message, EncryptionKeyExchangeRequest):
            return EncryptionKeyExchangeResponse(results)
        return EncryptedDataExchangeResponse(results)

    def end(self) -> None:
        """Stop telling; what coordinators were asked and have not said, they never will."""
        self.cache.exchanges.stop()
        for said in self._waited_for:
            if not said.called:
                said.errback(Unreachable("the test is over"))
            said.addErrback(lambda _: None)

    def client(self, fqdn: str) -> Client:
        """A device with a token that the AS has told."""
        number = next(self._numbers)
        token, key = bytes([number]) * 16, sha256(bytes([number])).digest()
        told = Token(token, fqdn, key, int(self.unix_time()) + 86400)
        tokens = self.cache.tokens
        # The first of a server that has started anew is from the beginning.
        update = TokenUpdate(tokens.sequence + 1, tokens.sequence, (told,))
        assert tokens.apply(update, self.clock.seconds())
        return Client(fqdn, {}, HmacKey(key), token.hex())

    def stranger(self, fqdn: str = "phone.dora.dc9.else.example") -> tuple[Client, Signer]:
        """A device of another realm, that signs with its identity."""
        identity, _, certificate = self.foreign.device(fqdn)
        der = base64.b64encode(certificate.der).decode()
        fields = {"ntm-certificate": der, "ntm-server": NAME}
        client = Client(fqdn, fields, Ed25519Signer(identity), certificate.fingerprint.hex())
        return client, Signer(fqdn, certificate.der, identity)

    def ask(
        self,
        client: Client | None,
        method: str,
        path: str,
        body: Message | bytes = b"",
        **fields: str,
    ) -> Answered:
        """Send a request on a connection of its own; the answer."""
        return self.send(*self.signed(client, method, path, body, **fields))

    def signed(
        self,
        client: Client | None,
        method: str,
        path: str,
        body: Message | bytes = b"",
        **fields: str,
    ) -> tuple[Request, bytes]:
        """A request of a client, and its body."""
        data = body if isinstance(body, bytes) else write_document(body)
        given = {"host": "x", "content-length": str(len(data)), **fields}
        if data:
            media = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            given = {"content-type": media, "content-digest": content_digest(data)} | given
        target, _, query = path.partition("?")
        if client is None:
            return _request(method, target, query, given), data
        given = client.fields | given
        request = _request(method, target, query, given)
        signature = sign(
            request,
            client.key,
            keyid=client.keyid,
            created=int(self.unix_time()),
            nonce=next(self._numbers).to_bytes(16, "big"),
        )
        return _request(method, target, query, given | signature), data

    def send(self, request: Request, body: bytes = b"") -> Answered:
        """Send a request as it is; the answer."""
        sent, transport = self.begin(request, body)
        [found] = [Answered(*each) for each in answers(transport.value())]
        sent.connectionLost()
        return found

    def begin(self, request: Request, body: bytes = b"") -> tuple[Any, Transport]:
        """Send a request as it is; connection and transport."""
        connection, transport = self.api.buildProtocol(None), Transport()
        connection.makeConnection(transport)
        query = f"?{request.query}" if request.query else ""
        lines = [f"{request.method} {request.path}{query} HTTP/1.1"]
        lines += [f"{name}: {values[0]}" for name, values in request.fields.items()]
        connection.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return connection, transport

    # -- What devices send

    def upload_key(self, client: Client, sender: Device, receivers: Sequence[Device]) -> Answered:
        """Share a key with receivers."""
        sealed = share(sender, receivers).sealed
        info = msgspec.structs.replace(
            client.info,
            destinations=tuple(each.fqdn for each in receivers),
            application=APPLICATION,
        )
        return self.ask(client, "POST", "/v1/keys", EncryptionKeyUploadRequest(info, sealed))

    def announcement(self, client: Client, item: Item) -> EncryptedDataUploadRequest:
        """What announces an item."""
        manifest = read_manifest(item)
        info = msgspec.structs.replace(
            client.info,
            destinations=manifest.destinations,
            application=manifest.application,
            service=manifest.service,
            item=manifest.item,
            message=manifest.message,
        )
        return EncryptedDataUploadRequest(info, item.signed)

    def upload(self, client: Client, item: Item, complete: bool = True) -> Answered:
        """Announce an item, upload its parts, complete it."""
        path = f"/v1/objects/{read_manifest(item).object.hex()}"
        found = self.ask(client, "POST", "/v1/objects", self.announcement(client, item))
        for number, part in enumerate(item.parts):
            sent = self.ask(client, "PUT", f"{path}/parts/{number}", part)
            assert sent.status == 204, sent.body
        return self.ask(client, "POST", f"{path}/complete") if complete else found


def _request(method: str, path: str, query: str, fields: dict[str, str]) -> Request:
    return Request(method, path, query, "x", {name: [value] for name, value in fields.items()})


def altered(request: Request, **fields: str) -> Request:
    """A request with other fields, its signature being as it was."""
    listed = {name.replace("_", "-"): [value] for name, value in fields.items()}
    return evolve(request, fields={**request.fields, **listed})


def read_manifest(item: Item) -> Manifest:
    """An item's manifest."""
    return msgspec.msgpack.decode(item.signed.manifest, type=Manifest)


def an_item(
    sender: Device, receivers: Sequence[str] = (BOB, CAROL), plain: bytes = b"hello"
) -> Item:
    """An item, sealed with some key."""
    item = send(sender, bytes(range(32)), receivers, plain)
    verify_manifest(item.signed, pin=sender.pin, now=NOW)
    return item
