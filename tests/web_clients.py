"""Clients of the HTTP interfaces, for tests: over real TLS, signed as R28 says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, TypeVar

import msgspec
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.coordinator import CoordinatorService
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import ANSWER_LIMIT, read_document, write_document
from ntmobile.wire.http_digests import CONTENT_DIGEST, content_digest
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import HmacKey, Request, Signer, sign
from ntmobile.wire.messages.exchange import RequestInfo

_M = TypeVar("_M", bound=Message)
HOST = "127.0.0.1"


@implementer(IPolicyForHTTPS)
@define
class Policy:
    """Always the same TLS, whatever the address says."""

    tls: IOpenSSLClientConnectionCreator

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return self.tls


@define
class Answered:
    """A response."""

    status: int
    body: bytes

    def document(self, kind: type[_M]) -> _M:
        """The document in it."""
        return read_document(kind, self.body, ANSWER_LIMIT)

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document in it."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


@define(eq=False)
class WebClient:
    """Asks one server.

    :ivar fqdn: who asks. :ivar signer: signs. :ivar keyid: names its key.
    :ivar time: unix seconds, as this client sees it.
    """

    fqdn: str
    port: int
    tls: IOpenSSLClientConnectionCreator
    signer: Signer | None
    keyid: str
    time: Callable[[], float]
    random: Callable[[int], bytes] = os.urandom
    headers: dict[str, str] = field(factory=dict)

    @property
    def info(self) -> RequestInfo:
        """What each request with a document says of itself."""
        return RequestInfo("test", self.fqdn, application="mail")

    async def ask(
        self, method: str, target: str, document: Message | bytes | None = None
    ) -> Answered:
        """Send a signed request."""
        body = b""
        if document is not None:
            body = document if isinstance(document, bytes) else write_document(document)
        path, _, query = target.partition("?")
        fields: dict[str, str] = dict(self.headers)
        if body:
            fields.setdefault(CONTENT_DIGEST, content_digest(body))
            fields.setdefault("content-type", "application/json")
        if self.signer is not None:
            listed: Mapping[str, list[str]] = {name: [value] for name, value in fields.items()}
            request = Request(method, path, query, fields=listed)
            fields |= sign(
                request,
                self.signer,
                keyid=self.keyid,
                created=int(self.time()),
                nonce=self.random(16),
            )
        return await self.send(method, target, fields, body)

    async def send(
        self, method: str, target: str, fields: Mapping[str, str], body: bytes = b""
    ) -> Answered:
        """Send a request as it is."""
        pool = HTTPConnectionPool(reactor, persistent=False)
        agent = Agent(reactor, Policy(self.tls), connectTimeout=10, pool=pool)
        headers = Headers({name: [value] for name, value in fields.items()})
        producer = FileBodyProducer(BytesIO(body)) if body else None
        url = f"https://{HOST}:{self.port}{target}"
        response = await agent.request(method.encode(), url.encode(), headers, producer)
        data = b"" if response.code == 204 else await readBody(response)
        return Answered(response.code, data)


def coordinator_client(
    service: CoordinatorService, port: int, trust: TrustStore, fqdn: str
) -> WebClient:
    """A client of a DC's HTTP API with the session that the device has there."""
    domain = service.domain
    client = domain.clients.find(fqdn)
    assert client is not None
    tls = client_context_factory(None, None, trust, "dc", domain.name, alpn=(HTTP_PROTOCOL,))
    signer = HmacKey(coordinator_key(domain.keys[fqdn]))
    return WebClient(fqdn, port, tls, signer, client.index.hex(), domain.unix_time)
