"""The DC's desk: what it takes from clients, and how it refuses (rules R2, R3)."""

from __future__ import annotations

from typing import Any

from ntmobile.errors import AuthenticationError, QuotaExceeded, StorageFailed, Unreachable
from ntmobile.machines.login.relaying import PATIENCE, UPWARD
from ntmobile.machines.rate import RateLimiter
from ntmobile.protocols.device_link import connect_device
from ntmobile.protocols.link import Link
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    IdentityRequest,
    LoginOutcomeCode,
    LoginRelay,
    SessionGrant,
    SessionRefusal,
)
from tests.login_cases import DC1, DC1_ADDRESS, LoginTestCase


class DeskTests(LoginTestCase):
    """A desk and clients that do as they like."""

    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Message] = []

    def connect(self) -> Link:
        """A client's link."""

        async def heard(message: Message, link: Link) -> Message | None:
            self.heard.append(message)
            return None

        link, _ = self.result(
            connect_device(
                self.phone.reactor, [(DC1_ADDRESS, 4330)], self.trust, DC1, heard, lambda: None
            )
        )
        return link

    def refusal(self) -> SessionRefusal:
        """The one refusal that was heard."""
        (found,) = [each for each in self.heard if isinstance(each, SessionRefusal)]
        return found

    def test_not_a_login(self) -> None:
        """A frame that is not of a login closes the connection."""
        link = self.connect()
        link.tell(IdentityRequest(f"alice.{DC1}"))
        self.internet.advance(1)
        self.assertFalse(link.alive)

    def test_garbage(self) -> None:
        """Records that are not TLS end the login at the AS, and the DC says so."""
        link = self.connect()
        link.tell(LoginRelay(b"GET / HTTP/1.0\r\n\r\n"))
        self.internet.advance(1)
        self.assertEqual(self.refusal().outcome, LoginOutcomeCode.REFUSED)
        self.assertFalse(link.alive)
        self.assertTrue(self.dc.account_server.link)

    def test_silence(self) -> None:
        """A login that does not go on is ended after a minute, on both links."""
        link = self.connect()
        link.tell(LoginRelay(b"\x16\x03\x01"))
        self.internet.advance(PATIENCE + 2)
        self.assertIn("took too long", self.refusal().detail)
        self.assertFalse(link.alive)
        self.assertEqual(len(self.dc.desk._logins), 0)

    def test_flood(self) -> None:
        """R2: a client that sends more than any login needs is cut off; the AS stays linked."""
        link = self.connect()
        for _ in range(UPWARD // 8192 + 1):
            link.tell(LoginRelay(b"\x16\x03\x01\x40\x00" + bytes(8187)))
        self.internet.advance(1)
        self.assertFalse(link.alive)
        self.assertEqual(len(self.dc.desk._logins), 0)
        self.assertTrue(self.dc.account_server.link)

    def test_one_login_a_connection(self) -> None:
        """R3: a connection has one login, because its exporter is the session key."""
        link = self.connect()
        link.tell(LoginRelay(b"not TLS"))
        self.internet.advance(0.5)
        self.heard.clear()
        again = self.dc.links[-1]
        if again.alive:  # the client may close as late as it likes
            self.result(self.dc.desk.client_asked(LoginRelay(b"more"), again))
            self.internet.advance(1)
        self.assertEqual(len(self.dc.desk._logins), 0)

    def test_limit(self) -> None:
        """R2: a network that logs in too often is told when to come again."""
        self.dc.desk._limiter = RateLimiter(0.1, 1)
        identity = self.enroll().identity
        problem = self.assertRaises(QuotaExceeded, self.log_in, identity)
        self.assertRegex(str(problem), r"too many logins from 203\.0\.113\.50; try again in \d+ s")
        self.internet.advance(11)
        self.log_in(identity)

    def test_full(self) -> None:
        """A DC that cannot admit says why; the device keeps its certificate and tries again."""
        admit = self.dc.admit

        def full(*_: Any) -> bytes:
            raise QuotaExceeded("this coordinator has as many clients as it may have")

        self.dc.desk.admit = full
        identity = self.enroll().identity
        problem = self.assertRaises(Unreachable, self.log_in, identity)
        self.assertIn("as many clients", str(problem))
        self.dc.desk.admit = admit
        self.log_in(identity)

    def test_full_disk(self) -> None:
        """A DC that cannot store whom it names says so, and not in which file; nothing is lost."""
        assign = self.dc.assign

        def full(*_: Any) -> Any:
            raise StorageFailed("/var/lib/locations.sqlite: database or disk is full")

        self.dc.desk.assign = full
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("the coordinator cannot store anything now", str(problem))
        self.assertNotIn("sqlite", str(problem))
        self.dc.desk.assign = assign
        self.enroll()

    def test_unwanted_grant(self) -> None:
        """A client that goes away while it is admitted breaks nothing."""
        original = self.dc.admit

        def vanish(*arguments: Any) -> bytes:
            for link in self.dc.links:
                link.close()
            return original(*arguments)

        self.dc.desk.admit = vanish
        self.enroll()
        self.assertFalse(any(isinstance(each, SessionGrant) for each in self.heard))

    def test_account_server_refuses_requests_of_others(self) -> None:
        """The desk takes from the AS what belongs to a login, and nothing else."""
        asked = self.dc.desk.account_server_asked(IdentityRequest(f"alice.{DC1}"))
        self.assertRaises(AuthenticationError, self.result, asked)
