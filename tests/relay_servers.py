"""A relay server's files, and a coordinator that is only its link, for the tests of the RS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.redial import abort
from ntmobile.protocols.tls import server_context_factory
from ntmobile.servers.credentials import key_to_pem
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayRegistration,
    RelayRegistrationResponse,
    RelayReport,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.realms import MemoryRealm

DOMAIN = "dc1.ntm.example"
RELAY = f"rs1.{DOMAIN}"

reactor: Any = installed


class FakeCoordinator:
    """Answers an RS as a DC does, and keeps what it says.

    :ivar registrations: :ivar reports: with the link they came on.
    """

    def __init__(self, realm: MemoryRealm, role: str = "dc", name: str = DOMAIN) -> None:
        self.registrations: DeferredQueue[tuple[RelayRegistration, Link]] = DeferredQueue()
        self.reports: DeferredQueue[RelayReport] = DeferredQueue()
        self.refused: DeferredQueue[str] = DeferredQueue()
        self.outcome = Outcome.OK
        self.port = 0
        self._listening: Any = None
        self._links: list[Link] = []
        key, chain = realm.server(role, name)
        self._tls = server_context_factory(key, chain, realm.trust(), peer_roles=("rs",))

    def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        plain = Factory.forProtocol(self._accept)
        factory = TLSMemoryBIOFactory(self._tls, False, plain)
        self._listening = reactor.listenTCP(self.port, factory, interface="127.0.0.1")
        self.port = self._listening.getHost().port

    async def vanish(self) -> None:
        """Stop listening and drop all links."""
        if self._listening is not None:
            await self._listening.stopListening()
            self._listening = None
        for link in self._links:
            if not link.closed.called:
                gone: Deferred[Any] = Deferred()
                link.closed.chainDeferred(gone)
                abort(link)
                await gone
        self._links.clear()

    async def registered(self) -> tuple[RelayRegistration, Link]:
        """The next registration."""
        return await self.registrations.get().addTimeout(15, reactor)

    def _accept(self) -> Link:
        link = Link(reactor, self._asked, verify_peer(("rs", RELAY)))
        link.ready.addErrback(lambda failure: self.refused.put(str(failure.value)))
        self._links.append(link)
        return link

    async def _asked(self, message: Message, link: Link) -> Message | None:
        match message:
            case RelayRegistration():
                self.registrations.put((message, link))
                return RelayRegistrationResponse(self.outcome, 1)
            case RelayReport():
                self.reports.put(message)
                return LinkAcknowledgement()
        raise AssertionError(f"an RS does not send {message}")


def write_relay(
    directory: Path,
    realm: MemoryRealm,
    coordinator: int,
    port: int,
    *,
    role: str = "rs",
    name: str = RELAY,
    more: str = "",
    change: Callable[[str], str] = str,
) -> Path:
    """Write an RS's TOML, key, certificate and trust; the TOML's path."""
    directory.mkdir(parents=True, exist_ok=True)
    key, chain = realm.server(role, name)
    (directory / "rs.key").write_bytes(key_to_pem(key))
    (directory / "rs.key").chmod(0o600)
    (directory / "rs.pem").write_bytes(chain[0].public_bytes(Encoding.PEM))
    (directory / "ca.pem").write_bytes(realm.authority.to_pem())
    text = f'''
realm = "{realm.domain}"
name = "{name}"
certificate = "rs.pem"
key = "rs.key"
trust = "ca.pem"
addresses = ["127.0.0.1"]
port = {port}
{more}

[coordinator]
domain = "{DOMAIN}"
addresses = ["127.0.0.1"]
port = {coordinator}
'''
    file = directory / "rs1.toml"
    file.write_text(change(text), encoding="utf-8")
    return file
