"""DCs that attack the logins they relay, each in its own way (rule R2)."""

from __future__ import annotations

from typing import Any

from ntmobile.protocols.link import Link
from ntmobile.protocols.login_inner import InnerSession
from ntmobile.protocols.tls import server_context_factory
from ntmobile.wire.codec import FRAME_LIMIT, Message
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    AssignmentResponse,
    LoginData,
    LoginOutcomeCode,
    LoginRelay,
    SessionGrant,
)
from ntmobile.wire.messages.fields import Endpoint
from tests.login_cases import LoginCoordinator


class Eavesdropper(LoginCoordinator):
    """Keeps all that it relays, in both directions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.upward: list[bytes] = []
        self.downward: list[bytes] = []

    async def account_server_asked(self, message: Message) -> Message | None:
        if isinstance(message, LoginData):
            self.downward.append(message.data)
        return await super().account_server_asked(message)

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        if isinstance(message, LoginRelay):
            self.upward.append(message.data)
        return await self.desk.client_asked(message, link)


class Tamperer(LoginCoordinator):
    """Changes a byte of what carries the device's keys: the one long message of the client."""

    changed = 0

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        # Application data, so not the hello, which may be as long.
        if isinstance(message, LoginRelay) and message.data[0] == 23 and len(message.data) > 1000:
            self.changed += 1
            changed = bytearray(message.data)
            changed[700] ^= 1
            message = LoginRelay(bytes(changed))
        return await self.desk.client_asked(message, link)


class Impostor(LoginCoordinator):
    """Ends the inner session itself, with the only certificate that it has: a DC's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: list[Message] = []
        self.refusals: list[str] = []
        self._inner: InnerSession | None = None

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        assert isinstance(message, LoginRelay)
        if self._inner is None:
            key, chain = self.credentials.key, self.credentials.chain
            side = server_context_factory(key, chain, self.trust, peer_roles=())
            self._inner = InnerSession(side, FRAME_LIMIT)
        messages, records = self._inner.feed(message.data)
        self.read += messages
        for piece in records:
            link.tell(LoginRelay(piece))
        return None


class Renamer(LoginCoordinator):
    """Names another user's device in its assignment."""

    async def account_server_asked(self, message: Message) -> Message | None:
        answer = await super().account_server_asked(message)
        if isinstance(message, AssignmentRequest):
            assert isinstance(answer, AssignmentResponse)
            fqdn = f"{message.device}.bob.{self.domain}"
            return AssignmentResponse(LoginOutcomeCode.OK, fqdn, answer.ipv6, answer.ipv4)
        return answer


class Carrier(LoginCoordinator):
    """Hands what its victims send to another, honest DC, on a connection of its own.

    :ivar onward: the connection to that DC, made by the test.
    """

    onward: Link | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.victim: Link | None = None
        self.granted: list[SessionGrant] = []

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        self.victim = link
        if self.onward is not None:
            self.onward.tell(message)
        return None

    async def heard(self, message: Message, link: Link) -> Message | None:
        if isinstance(message, SessionGrant):
            self.granted.append(message)
        elif self.victim is not None:
            self.victim.tell(message)
        return None


class Granter(LoginCoordinator):
    """Grants a session at once, without any login."""

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        link.tell(SessionGrant(bytes(8), 600, (Endpoint.of((self.host.address(), 4330)),)))
        return None


class Silent(LoginCoordinator):
    """Takes records and does nothing."""

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        return None
