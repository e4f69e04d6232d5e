"""Identity Requests: signed device lists that a DC can neither forge nor roll back (rule R5)."""

from __future__ import annotations

import os
import time
from typing import Any

from ntmobile.client import devices
from ntmobile.client.devices import ask_devices
from ntmobile.client.pins import PinStore
from ntmobile.errors import AuthenticationError, NTMobileError, UnknownName
from ntmobile.machines.login.identities import Devices, session_proof, verify_devices
from ntmobile.protocols.device_link import connect_device
from ntmobile.protocols.identity import IdentityDesk
from ntmobile.protocols.link import Link
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import IdentityRequest, IdentityResponse
from ntmobile.wire.messages.realtime import Outcome
from tests.login_cases import DC1, DC1_ADDRESS, DC2, DC2_ADDRESS, LoginCoordinator, LoginTestCase

FQDN = f"phone.alice.{DC1}"


class IdentityCoordinator(LoginCoordinator):
    """A DC that also answers Identity Requests of clients and of other DCs.

    :ivar others: other DCs by domain. :ivar lie: what it answers instead.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.others: dict[str, IdentityCoordinator] = {}
        self.lie: IdentityResponse | None = None
        self.sessions: dict[bytes, tuple[str, bytes]] = {}
        self.identities = IdentityDesk(
            domain=self.domain,
            account_link=lambda: self.account_server.link,
            session=self.sessions.get,
            ask_coordinator=self.ask_coordinator,
            clock=self.host.reactor,
            trust=self.trust,
        )
        self.asked: list[str] = []

    def admit(self, certificate: Any, key: bytes, lifetime: float) -> bytes:
        index = super().admit(certificate, key, lifetime)
        self.sessions[index] = (certificate.fqdn, key)
        return index

    async def ask_coordinator(self, domain: str, message: Message) -> Message:
        self.asked.append(domain)
        if domain not in self.others:
            raise UnknownName(f"no coordinator of {domain}")
        assert isinstance(message, IdentityRequest)
        return await self.others[domain].identities.coordinator_asked(self.domain, message)

    async def client_asked(self, message: Message, link: Link) -> Message | None:
        if not self.identities.takes(message):
            return await super().client_asked(message, link)
        answer = await self.identities.client_asked(message, link)
        if self.lie is not None and isinstance(answer, IdentityResponse):
            return self.lie
        return answer


class IdentityTests(LoginTestCase):
    """R5: the signed device list, from the AS through the DCs to a device."""

    make_coordinator = IdentityCoordinator
    dc: IdentityCoordinator

    def setUp(self) -> None:
        super().setUp()
        self.session = self.log_in(self.enroll().identity)
        self.pins = PinStore(self.root / "phone" / "pins.db")
        self.addCleanup(self.pins.close)

    def ask(self, user: str, session: tuple[bytes, bytes] | None = None) -> Devices:
        return self.result(
            ask_devices(
                self.phone.reactor,
                [(DC1_ADDRESS, 4330)],
                DC1,
                self.trust,
                session or (self.session.index, self.session.session_key),
                user,
                time.time(),
            )
        )

    def test_own_user(self) -> None:
        """R5: a device learns its user's devices, with their certificates."""
        other = self.enroll("laptop").identity
        found = self.ask(f"alice.{DC1}")
        self.assertEqual(set(found.listed), {FQDN, f"laptop.alice.{DC1}"})
        self.assertEqual(found.certificates[other.fqdn], other.certificate)
        self.assertEqual(found.version, 2)

    def test_abroad(self) -> None:
        """R5: the devices of a user of another domain come through that domain's DC."""
        dc2 = self.start_coordinator(DC2, "dc2", DC2_ADDRESS)
        assert isinstance(dc2, IdentityCoordinator)
        self.internet.run_until(lambda: bool(dc2.leases))
        self.dc.others[DC2] = dc2
        self.add_user("bob", DC2)
        bob = self.enroll(user="bob", domain=DC2, address=DC2_ADDRESS, state="bob").identity
        found = self.ask(f"bob.{DC2}")
        self.assertEqual(found.certificates[bob.fqdn].identity, bob.certificate.identity)

    def test_domain_of_no_realm(self) -> None:
        """R1, R14: no client makes its DC look up or dial a domain that no realm is trusted for."""
        for user in ("bob.dc9.ntm.example", "bob.dc1.elsewhere.test", "bob.com"):
            self.assertRaises(NTMobileError, self.ask, user)
        self.assertEqual(self.dc.asked, ["dc9.ntm.example"])

    def test_unknown_user(self) -> None:
        """An unknown user, one without devices and one who is disabled are answered alike."""
        self.add_user("bob")
        problems = [
            self.assertRaises(UnknownName, self.ask, f"{user}.{DC1}") for user in ("bob", "eve")
        ]
        self.server.store.set_disabled(f"alice.{DC1}", True, time.time())
        problems.append(self.assertRaises(UnknownName, self.ask, f"alice.{DC1}"))
        self.assertEqual(len({str(problem).split(".", 1)[1] for problem in problems}), 1)

    def test_without_session(self) -> None:
        """A client must prove a session: neither another key nor an unknown index does."""
        index, key = self.session.index, self.session.session_key
        for session in ((index, bytes(32)), (os.urandom(8), key)):
            problem = self.assertRaises(AuthenticationError, self.ask, f"alice.{DC1}", session)
            self.assertIn("log in again", str(problem))

    def test_proof_of_another_connection(self) -> None:
        """A session's proof holds on the connection that it was made for, and no other."""
        proofs: list[bytes] = []
        original = session_proof

        def stale(key: bytes, exported: bytes) -> bytes:
            proofs.append(original(key, exported))
            return proofs[0]

        self.patch(devices, "session_proof", stale)
        self.ask(f"alice.{DC1}")
        self.assertRaises(AuthenticationError, self.ask, f"alice.{DC1}")

    def test_request_without_proof(self) -> None:
        """A request before any proof closes the connection."""

        async def heard(message: Message, link: Link) -> Message | None:
            return None

        async def ask() -> Message:
            link, _ = await connect_device(
                self.phone.reactor, [(DC1_ADDRESS, 4330)], self.trust, DC1, heard, time.time
            )
            return await link.request(IdentityRequest(f"alice.{DC1}"))

        self.assertRaises(NTMobileError, self.result, ask())

    def test_forged_list(self) -> None:
        """R5: a list that the DC made itself is refused."""
        honest = self.answer()
        changed = honest.signed.replace(b"phone", b"phono")
        self.dc.lie = IdentityResponse(
            Outcome.OK, changed, honest.signature, honest.issuer, honest.certificates
        )
        self.assertRaises(AuthenticationError, self.ask, f"alice.{DC1}")

    def answer(self) -> IdentityResponse:
        return self.result(self.server.lists.of(f"alice.{DC1}"))

    def test_rollback(self) -> None:
        """R5: a DC that shows an old list, to hide that a device was replaced, is found out."""
        old = self.answer()
        self.enroll("laptop")
        self.pins.learn(self.ask(f"alice.{DC1}"))
        self.dc.lie = old
        problem = self.assertRaises(AuthenticationError, self.pins.learn, self.ask(f"alice.{DC1}"))
        self.assertIn("version 2 was seen before", str(problem))

    def test_list_of_another_user(self) -> None:
        """R5: the list of one user is not taken for another's."""
        response = self.answer()
        self.assertRaises(AuthenticationError, verify_devices, response, f"bob.{DC1}", self.trust)

    def test_limit(self) -> None:
        """One client cannot keep the AS busy with Identity Requests."""
        for _ in range(30):
            self.ask(f"alice.{DC1}")
        self.assertRaises(NTMobileError, self.ask, f"alice.{DC1}")

    def test_foreign_question(self) -> None:
        """R1: another DC gets answers about users of this domain only."""
        answer = self.result(
            self.dc.identities.coordinator_asked(DC2, IdentityRequest(f"bob.{DC2}"))
        )
        self.assertEqual(answer.outcome, Outcome.UNKNOWN)
