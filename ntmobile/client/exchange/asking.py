"""Signed requests to the own DC and to cache servers (R28)."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
from attrs import field, frozen
from twisted.internet.task import deferLater

from ntmobile import __version__
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import LoginResult
from ntmobile.errors import (
    AccessDenied,
    AuthenticationError,
    ContentChanged,
    ItemExpired,
    MalformedMessage,
    NoSuchItem,
    NotRegistered,
    NTMobileError,
    QuotaExceeded,
    StorageFull,
    Unreachable,
)
from ntmobile.machines.exchange.objects import SEALED_PART
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.http_asking import HttpServerAt, NetworkChanged
from ntmobile.protocols.tls import client_context_factory
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import ANSWER_LIMIT, read_document, write_document
from ntmobile.wire.http_digests import CONTENT_DIGEST, content_digest
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import (
    CERTIFICATE_FIELD,
    SERVER_FIELD,
    Ed25519Signer,
    HmacKey,
    Request,
    Signer,
    sign,
)
from ntmobile.wire.messages.exchange import RequestInfo
from ntmobile.wire.messages.fields import Address

_M = TypeVar("_M", bound=Message)
#: Seconds in which nothing of a request may move.
PATIENCE: Final = 30.0
#: Moves of this device during one request.
MOVES: Final = 8
#: Seconds until a cache server is asked again that says one of :data:`_SOON`.
PAUSES: Final = (0.25, 0.75, 1.5, 3.0)
#: Largest answer: a part, or a list.
_LARGEST: Final = max(SEALED_PART, ANSWER_LIMIT)
#: The AS is just pushing the token of this login (R28), or there were too many requests at once.
_SOON: Final = (401, 429)
_ERRORS: Final[Mapping[int, type[NTMobileError]]] = {
    400: MalformedMessage,
    401: AuthenticationError,
    403: AccessDenied,
    404: NoSuchItem,
    409: ContentChanged,
    410: ItemExpired,
    413: QuotaExceeded,
    422: MalformedMessage,
    507: StorageFull,
}


@frozen
class Session:
    """With what requests are signed: that of a login.

    :ivar identity: the device. :ivar index: :ivar key: of the session with the DC.
    :ivar token: authentication token and client-CS key; None if the AS gave none.
    :ivar coordinator: addresses of the DC's TCP port.
    :ivar time_offset: AS's time less this device's wall clock, seconds (R12).
    """

    identity: DeviceIdentity
    index: bytes
    key: bytes = field(repr=False)
    token: tuple[bytes, bytes] | None = field(repr=False)
    coordinator: Sequence[Address]
    time_offset: float = 0.0

    @classmethod
    def of(cls, login: LoginResult, coordinator: Sequence[Address]) -> Session:
        """What a login gave."""
        return cls(
            login.identity,
            login.index,
            login.session_key,
            login.token,
            coordinator,
            login.time_offset,
        )


class SignedServer:
    """One server, asked under the device's signature; close it after use.

    :param places: its addresses. :param role: ``dc`` or ``cs``. :param name: its full name.
    :param headers: of each request, under the signature where the server wants them there.
    """

    def __init__(
        self,
        reactor: Any,
        session: Session,
        places: Sequence[Address],
        role: str,
        name: str,
        key: tuple[str, Signer],
        headers: Mapping[str, str],
        time: Callable[[], float],
    ) -> None:
        trust = session.identity.trust
        tls = client_context_factory(
            None, None, trust, role, name, alpn=(HTTP_PROTOCOL,), clock=time
        )
        self.name = name
        self.info = RequestInfo(__version__[:32], session.identity.fqdn)
        self._http = HttpServerAt(reactor, name, places, tls, PATIENCE, _LARGEST)
        self._keyid, self._signer = key
        self._headers = headers
        self._time = time
        self._reactor = reactor
        self._ended = False
        #: Only a token can be one that the server is about to hear of.
        self._pauses = PAUSES if role == "cs" else ()

    async def ask(self, method: str, target: str, body: Message | bytes = b"") -> bytes:
        """Send a request: the body of its answer.

        :raises Unreachable: there is no answer, or the server cannot do it now.
        :raises NTMobileError: what its problem document says, by status.
        """
        octets = isinstance(body, bytes)
        data = body if isinstance(body, bytes) else write_document(body)
        fields = dict(self._headers)
        if data:
            fields[CONTENT_DIGEST] = content_digest(data)
            fields["content-type"] = "application/octet-stream" if octets else "application/json"
        for pause in (*self._pauses, None):
            status, answer = await self._ask_again(method, target, data, fields)
            if 200 <= status < 300:
                return answer
            if pause is None or status not in _SOON:
                break
            await deferLater(self._reactor, pause, lambda: None)
        kind = _ERRORS.get(status, Unreachable)
        raise kind(f"{self.name}: {_detail(answer) or f'HTTP status {status}'}")

    async def _ask_again(
        self, method: str, target: str, data: bytes, fields: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request, and again after a move: whatever it asks for happens once."""
        for _ in range(MOVES):
            if self._ended:
                break
            with suppress(NetworkChanged):
                return await self._ask(method, target, data, fields)
        raise Unreachable(f"{self.name}: the request was ended before there was an answer")

    async def _ask(
        self, method: str, target: str, data: bytes, fields: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request once, under a signature of its own."""
        path, _, query = target.partition("?")
        request = Request(method, path, query, fields={name: [fields[name]] for name in fields})
        signature = sign(
            request,
            self._signer,
            keyid=self._keyid,
            created=int(self._time()),
            nonce=os.urandom(16),
        )
        return await self._http.ask(method, target, data, {**fields, **signature})

    async def document(
        self, kind: type[_M], method: str, target: str, body: Message | bytes = b""
    ) -> _M:
        """Send a request, and read its answer; raises as :meth:`ask` does."""
        return read_document(kind, await self.ask(method, target, body), ANSWER_LIMIT)

    def end(self) -> None:
        """The device goes down: what is under way fails, and nothing else is asked."""
        self._ended = True
        self._http.abort()

    def abort(self) -> None:
        """The network changed: what is under way is asked again, on another connection."""
        self._http.abort()

    async def close(self) -> None:
        """Close the connection that is kept."""
        await self._http.close()


def _detail(answer: bytes) -> str:
    try:
        found = msgspec.json.decode(answer)
        return str(found.get("detail") or found.get("title") or "")[:300]
    except (msgspec.MsgspecError, AttributeError, ValueError, RecursionError):
        return ""


def coordinator(reactor: Any, session: Session, time: Callable[[], float]) -> SignedServer:
    """The own DC, with the key of the session there."""
    key = session.index.hex(), HmacKey(coordinator_key(session.key))
    domain = session.identity.domain
    return SignedServer(reactor, session, session.coordinator, "dc", domain, key, {}, time)


def cache_server(
    reactor: Any, session: Session, name: str, places: Sequence[Address], time: Callable[[], float]
) -> SignedServer:
    """A CS: one of the own realm knows this device's token, another one its certificate.

    :raises NotRegistered: the AS gave no token.
    """
    identity = session.identity
    key: tuple[str, Signer]
    headers: dict[str, str] = {}
    if identity.trust.is_home(name):
        if session.token is None:
            raise NotRegistered("the account server gave no token for cache servers; log in again")
        key = session.token[0].hex(), HmacKey(session.token[1])
    else:
        certificate = identity.certificate
        key = certificate.fingerprint.hex(), Ed25519Signer(identity.keys.identity)
        der = base64.b64encode(certificate.der).decode("ascii")
        headers = {CERTIFICATE_FIELD: der, SERVER_FIELD: name}
    return SignedServer(reactor, session, places, "cs", name, key, headers, time)
