"""A malicious DC learns neither password nor secrets, and gets no certificate (rule R2)."""

from __future__ import annotations

from typing import cast

from ntmobile.errors import (
    AccessDenied,
    CertificateError,
    NTMobileError,
    Unreachable,
)
from ntmobile.machines.login.proofs import certificate_login
from ntmobile.protocols.device_link import connect_device
from ntmobile.protocols.link import Link
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import LoginData, LoginRelay, LoginRequest
from tests.login_cases import DC1, DC1_ADDRESS, DC2, DC2_ADDRESS, PASSWORD, LoginTestCase
from tests.malicious_coordinators import (
    Carrier,
    Eavesdropper,
    Granter,
    Impostor,
    Renamer,
    Silent,
    Tamperer,
)


class EavesdropperTests(LoginTestCase):
    """A DC that keeps everything."""

    make_coordinator = Eavesdropper

    def test_reads_nothing(self) -> None:
        """R2: neither password nor keys nor certificate are in what the DC relayed."""
        enrolled = self.enroll()
        dc = cast(Eavesdropper, self.dc)
        seen = b"".join(dc.upward + dc.downward)
        self.assertGreater(len(seen), 3000)
        keys = enrolled.identity.keys
        for secret in (
            PASSWORD.encode(),
            keys.identity.private_bytes_raw(),
            keys.x25519.private_bytes_raw(),
            keys.xwing_seed,
            keys.public().xwing[:64],
            enrolled.identity.certificate.der[:64],
        ):
            self.assertNotIn(secret, seen)

    def test_replay_on_another_connection(self) -> None:
        """R2: a login that was recorded and is sent again, on another connection, is none."""
        self.enroll()
        dc = cast(Eavesdropper, self.dc)
        admitted, recorded = len(dc.admitted), list(dc.upward)
        devices = self.server.store.devices(f"alice.{DC1}")
        answers: list[Message] = []

        async def heard(message: Message, link: Link) -> Message | None:
            answers.append(message)
            return None

        async def replay() -> Link:
            reactor = self.phone.reactor
            link, _ = await connect_device(
                reactor, [(DC1_ADDRESS, 4330)], self.trust, DC1, heard, lambda: None
            )
            for data in recorded:
                link.tell(LoginRelay(data))
            return link

        link = self.result(replay())
        self.internet.advance(5)
        self.assertEqual(len(dc.admitted), admitted)
        self.assertEqual(self.server.store.devices(f"alice.{DC1}"), devices)
        self.assertFalse(link.alive)

    def test_replay_to_the_account_server(self) -> None:
        """R2: nor does the AS take the records again from the DC itself."""
        self.enroll()
        dc = cast(Eavesdropper, self.dc)
        link = dc.account_server.link
        assert link is not None
        before = self.server.store.devices(f"alice.{DC1}")
        for data in list(dc.upward):
            link.tell(LoginData(1000, data))
        self.internet.advance(5)
        self.assertEqual(self.server.store.devices(f"alice.{DC1}"), before)
        self.assertTrue(link.alive)


class TampererTests(LoginTestCase):
    """A DC that swaps what it relays."""

    make_coordinator = Tamperer

    def test_swap(self) -> None:
        """R2: a DC that changes the device's keys on the way breaks the login, and no more."""
        self.assertRaises(NTMobileError, self.enroll)
        self.assertEqual(cast(Tamperer, self.dc).changed, 1)
        self.assertIsNone(self.server.store.device(f"phone.alice.{DC1}"))
        self.assertEqual(self.dc.admitted, [])


class ImpostorTests(LoginTestCase):
    """A DC that plays the AS."""

    make_coordinator = Impostor

    def test_is_recognized(self) -> None:
        """R1, R2: a DC's certificate is not that of the AS, so the request is never sent."""
        problem = self.assertRaises(CertificateError, self.enroll)
        self.assertIn("expected as:ntm.example", str(problem))
        self.assertEqual(cast(Impostor, self.dc).read, [])
        self.assertFalse((self.root / "phone").exists())


class RenamerTests(LoginTestCase):
    """A DC that names another device."""

    make_coordinator = Renamer

    def test_other_user(self) -> None:
        """R1: the AS certifies only the device of the user whose password it has seen."""
        self.add_user("bob")
        problem = self.assertRaises(AccessDenied, self.enroll)
        self.assertIn("named another device", str(problem))
        self.assertEqual(self.server.store.devices(f"bob.{DC1}"), [])
        self.assertEqual(self.server.store.devices(f"alice.{DC1}"), [])


class CarrierTests(LoginTestCase):
    """A login that is carried to another connection."""

    def carry(self, domain: str, address: str, victim_domain: str) -> Carrier:
        """A victim logs in at a carrier, which hands all on to the DC of ``domain``."""
        host = self.internet.host(
            "carrier", DC2_ADDRESS if address == DC1_ADDRESS else "203.0.113.99"
        )
        carrier = Carrier(self.realm.directory, victim_domain, host)
        carrier.start()
        self.addCleanup(carrier.stop)
        onward, _ = self.result(
            connect_device(
                host.reactor, [(address, 4330)], self.trust, domain, carrier.heard, lambda: None
            )
        )
        carrier.onward = onward
        return carrier

    def test_another_domain(self) -> None:
        """R1: the login of a user of dc2, carried to dc1, is refused by the AS."""
        self.add_user("bob", DC2)
        carrier = self.carry(DC1, DC1_ADDRESS, DC2)
        problem = self.assertRaises(
            AccessDenied, self.enroll, user="bob", domain=DC2, address=DC2_ADDRESS
        )
        self.assertIn("is not the coordinator of dc2", str(problem))
        self.assertEqual(carrier.granted, [])
        self.assertEqual(self.dc.admitted, [])

    def test_the_same_domain(self) -> None:
        """R2: carried between two connections of one domain, the binding does not compare."""
        carrier = self.carry(DC1, DC1_ADDRESS, DC1)
        problem = self.assertRaises(AccessDenied, self.enroll, address=DC2_ADDRESS)
        self.assertIn("another connection", str(problem))
        self.assertEqual(carrier.granted, [])
        self.assertEqual(self.dc.admitted, [])
        self.assertIsNone(self.server.store.device(f"phone.alice.{DC1}"))


class GranterTests(LoginTestCase):
    """A DC that grants what the AS did not."""

    make_coordinator = Granter

    def test_no_login(self) -> None:
        """R2: a session without the AS's answer is no login."""
        self.assertRaises(Unreachable, self.enroll)


class SilentTests(LoginTestCase):
    """A DC that does not do its work."""

    make_coordinator = Silent

    def test_gives_up(self) -> None:
        """A client waits a bounded time, and says what it waited for."""
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("too long", str(problem))


class OwnProofTests(LoginTestCase):
    """What a login proves (R3)."""

    def test_other_identity(self) -> None:
        """R3: a certificate is no use without its identity key."""
        thief = self.enroll("laptop").identity
        victim = self.enroll("phone").identity
        admitted = len(self.dc.admitted)
        stolen = type(victim)(self.root / "thief", thief.keys, victim.certificate, victim.trust)
        problem = self.assertRaises(AccessDenied, self.log_in, stolen)
        self.assertIn("does not prove its identity", str(problem))
        self.assertEqual(len(self.dc.admitted), admitted)

    def test_binding_of_another_connection(self) -> None:
        """R2: a proof that was made for another connection is refused by the DC."""
        identity = self.enroll().identity
        from ntmobile.client import login

        def make(
            key: object, certificate: object, binding: bytes, *, logout: bool = False
        ) -> LoginRequest:
            return certificate_login(identity.keys.identity, identity.certificate, bytes(32))

        self.patch(login, "certificate_login", make)
        admitted = len(self.dc.admitted)
        problem = self.assertRaises(AccessDenied, self.log_in, identity)
        self.assertIn("another connection", str(problem))
        self.assertEqual(len(self.dc.admitted), admitted)
