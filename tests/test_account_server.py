"""The account server: whom it serves, what it pushes, what it signs (rules R1, R5, R34)."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs, formatEvent

from ntmobile.errors import AuthenticationError, ConfigurationError, NTMobileError
from ntmobile.interfaces import Change, Revocation
from ntmobile.protocols.link import Link
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.account import AccountServer
from ntmobile.servers.configuration import load_account_server, load_relay
from ntmobile.servers.realm import Realm
from ntmobile.servers.revocations import PUSH_LIMIT, SERIALS_LIMIT, pushes, revoked_by
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    ChangesRequest,
    IdentityRequest,
    RevocationPush,
    SessionProof,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from tests.login_cases import (
    AS_ADDRESS,
    DC1,
    DC2,
    DC2_ADDRESS,
    LoginTestCase,
    identity,
)
from tests.realms import MemoryRealm

FQDN = f"phone.alice.{DC1}"


class AdmissionTests(LoginTestCase):
    """R1: which servers the AS talks to, and about whom."""

    def link(self, key: Any, chain: Any, trust: Any = None) -> Link:
        """A link to the AS with some certificate."""
        reactor = self.phone.reactor
        tls = client_context_factory(key, chain, trust or self.trust, "as", "ntm.example")

        async def asked(message: Message, link: Link) -> Message:
            return LinkAcknowledgement()

        link = Link(reactor, asked, identity)
        endpoint = HostnameEndpoint(reactor, AS_ADDRESS.encode(), 4335)
        self.result(connectProtocol(wrapClientTLS(tls, endpoint), link))
        return link

    def is_refused(self, link: Link) -> bool:
        """Whether the AS closed it, and counted no coordinator."""
        link.ready.addErrback(lambda _: None)
        self.internet.advance(5)
        return not link.alive and len(self.server.feed) == 1

    def test_relay(self) -> None:
        """R1: a relay's certificate is not let in."""
        self.realm.add_relay("r1", DC1, ["203.0.113.30"])
        identity = load_relay(self.realm.directory / "relays" / "r1.toml").identity
        credentials = identity.credentials()
        self.assertTrue(self.is_refused(self.link(credentials.key, credentials.chain)))

    def test_nobody(self) -> None:
        """R1: nor is a peer without a certificate."""
        self.assertTrue(self.is_refused(self.link(None, None)))

    def test_impostor(self) -> None:
        """R1: nor a DC of a realm that calls itself the same."""
        other = MemoryRealm("ntm.example")
        self.assertTrue(self.is_refused(self.link(*other.server("dc", DC1))))

    def test_slow_handshake(self) -> None:
        """A connection that never finishes TLS is closed."""
        silent = Protocol()
        endpoint = HostnameEndpoint(self.phone.reactor, AS_ADDRESS.encode(), 4335)
        self.result(connectProtocol(endpoint, silent))
        self.internet.run_until(lambda: len(self.server._incoming) == 2, limit=1)
        self.internet.advance(30)
        self.assertEqual(len(self.server._incoming), 1)

    def test_identity_of_another_domain(self) -> None:
        """R1: a DC asks about users of its own domain only."""
        link = self.dc.account_server.link
        assert link is not None
        asking = link.request(IdentityRequest(f"bob.{DC2}"))
        self.internet.advance(1)
        self.failureResultOf(asking, NTMobileError)
        self.assertFalse(link.alive)

    def test_no_request_of_a_coordinator(self) -> None:
        """A message that is not a DC's to send closes the link."""
        link = self.dc.account_server.link
        assert link is not None
        link.tell(AssignmentRequest(1, "alice", "phone", bytes(32)))
        self.internet.advance(1)
        self.assertFalse(link.alive)


class StrangerTests(LoginTestCase):
    """What is no TLS at all."""

    def test_told(self) -> None:
        """Who it was and what it spoke is one readable line."""
        endpoint = HostnameEndpoint(self.phone.reactor, AS_ADDRESS.encode(), 4335)
        with capturedLogs() as logs:
            protocol: Any = self.result(connectProtocol(endpoint, Protocol()))
            protocol.transport.write(b"GET / HTTP/1.0\r\n\r\n")
            self.internet.advance(1.0)
        expected = "refused a connection from 203.0.113.50: no TLS connection (http request)"
        self.assertIn(expected, [formatEvent(each) for each in logs])


class RefusedCoordinatorTests(LoginTestCase):
    """R1, R12: a DC whose certificate the AS does not accept."""

    def test_told(self) -> None:
        """It was never linked, its log says why, and it dials ever more seldom."""
        self.wall = lambda: time.time() + 6 * 365 * 86400
        with capturedLogs() as logs:
            dc2 = self.start_coordinator(DC2, "dc2", DC2_ADDRESS)
            self.internet.advance(60.0)
        self.assertIsNone(dc2.account_server.link)
        said = [formatEvent(each) for each in logs]
        self.assertNotIn("linked to the account server", said)
        told = [text for text in said if text.startswith("no link to the account server: ")]
        self.assertIn("the other side refused this certificate", told[0])
        self.assertEqual(len(told), 1)
        refused = [
            text for text in said if text.startswith(f"refused a connection from {DC2_ADDRESS}: ")
        ]
        self.assertIn("expired at", refused[0])
        self.assertLess(len(refused), 20)


class RevocationTests(LoginTestCase):
    """R34: who is revoked, and that the AS lives."""

    def test_lease(self) -> None:
        """R34: a DC gets a lease at once, and a new one every minute."""
        self.assertEqual(self.dc.leases, [600.0])
        self.internet.advance(121)
        self.assertEqual(self.dc.leases, [600.0] * 3)

    def test_change_by_a_command(self) -> None:
        """R34: what another process changes in the store is pushed within a second."""
        self.enroll()
        other = self.realm.accounts()
        self.addCleanup(other.close)
        other.set_disabled(f"alice.{DC1}", True, time.time())
        self.internet.advance(1.0)
        self.assertEqual([each.fqdn for each in self.dc.revoked], [FQDN])

    def test_only_whom_it_concerns(self) -> None:
        """R34: the DC of another domain hears nothing of it."""
        dc2 = self.start_coordinator(DC2, "dc2", DC2_ADDRESS)
        self.internet.run_until(lambda: bool(dc2.leases))
        self.enroll()
        self.server.store.remove(FQDN, time.time())
        self.internet.advance(1.0)
        self.assertEqual(len(self.dc.revoked), 1)
        self.assertEqual(dc2.revoked, [])

    def test_catch_up(self) -> None:
        """R34: a DC that was away hears at connection what it missed."""
        self.enroll()
        self.dc.account_server.stop()
        self.internet.advance(1)
        self.server.store.remove(FQDN, time.time())
        self.internet.advance(5)
        self.assertEqual(self.dc.revoked, [])
        again = self.dc.link_to_account_server(self.dc.account_server.sequence)
        again.start()
        self.addCleanup(again.stop)
        self.internet.advance(2)
        self.assertEqual([each.fqdn for each in self.dc.revoked], [FQDN])
        self.assertEqual(again.sequence, self.server.store.last_change())

    def test_account_server_restarts(self) -> None:
        """R34: after a restart of the AS the DC is linked again, and nothing is lost."""
        self.enroll()
        self.result(self.server.stopService())
        accounts = self.realm.accounts()
        accounts.remove(FQDN, time.time())
        accounts.close()
        self.internet.advance(3)
        self.server = self.start_account_server()
        self.internet.advance(20)
        self.assertEqual([each.fqdn for each in self.dc.revoked], [FQDN])
        self.assertGreater(len(self.dc.leases), 1)

    def test_gap(self) -> None:
        """R34: a push that comes before what was missed does not count as all."""
        link = self.dc.account_server
        link.sequence = 0
        self.enroll()
        self.server.store.remove(FQDN, time.time())
        self.internet.advance(1)
        push = RevocationPush(90, (), since=80)
        self.result(self.asked(push))
        self.assertEqual(link.sequence, self.server.store.last_change())

    async def asked(self, message: Message) -> Message | None:
        link = self.dc.account_server.link
        assert link is not None
        return await self.dc.account_server._handle(message, link)

    def test_unresponsive_coordinator(self) -> None:
        """R34: a DC that does not acknowledge is cut off, so that it begins afresh."""

        async def deaf(message: Message, link: Link) -> Message | None:
            return await Deferred()

        self.patch(self.dc.account_server, "_handle", deaf)
        link = self.dc.account_server.link
        assert link is not None
        link._handler = deaf
        self.internet.advance(75)
        self.assertFalse(link.alive)


class PushTests(LoginTestCase):
    """How revocations are put into messages."""

    def change(self, sequence: int, domain: str, devices: int, serials: int) -> Change:
        user = f"alice.{domain}"
        revoked = tuple(
            Revocation(1 << 62 | number << 8 | device, f"d{device}.{user}", bytes(32), number)
            for device in range(devices)
            for number in range(serials)
        )
        return Change(sequence, "user", user, revoked)

    def test_split(self) -> None:
        """Many changes are told in several messages, each with its sequence, none too long."""
        changes = [self.change(1 + number, DC1, 1, 10) for number in range(60)]
        found = list(pushes(changes, DC1, 0))
        self.assertEqual(sum(len(push.revoked) for push in found), 600)
        self.assertTrue(all(len(push.revoked) <= PUSH_LIMIT for push in found))
        self.assertEqual([push.since for push in found[1:]], [push.sequence for push in found[:-1]])
        self.assertEqual((found[0].since, found[-1].sequence), (0, 60))

    def test_others(self) -> None:
        """Changes elsewhere move the sequence on, and tell nothing."""
        found = list(pushes([self.change(5, DC2, 2, 2)], DC1, 3))
        self.assertEqual(found, [RevocationPush(5, (), 3)])

    def test_many_certificates(self) -> None:
        """Of one device those that expire last are told; of very many devices, all at once."""
        few = revoked_by(self.change(1, DC1, 1, 100))
        self.assertEqual(len(few), SERIALS_LIMIT)
        many = revoked_by(self.change(1, DC1, 64, 20))
        self.assertEqual(len(many), 64)
        self.assertTrue(all(each.serial == b"" for each in many))

    def test_missed_in_parts(self) -> None:
        """A DC that missed much asks until it has everything."""
        changes = [self.change(1 + number, DC1, 1, 10) for number in range(60)]
        self.patch(self.server.store, "changes_since", lambda sequence: changes[sequence:])
        told, sequence = 0, 0
        for _ in range(10):
            push = self.result(self.server.feed.missed(sequence, DC1))
            told, sequence = told + len(push.revoked), push.sequence
        self.assertEqual((told, sequence), (600, 60))


class ConfigurationTests(LoginTestCase):
    """What is wrong with a configuration is one exact line."""

    def problem(self, realm: Realm) -> str:
        configuration = load_account_server(realm.directory / "as.toml")
        error = self.assertRaises(
            ConfigurationError, AccountServer, configuration, self.phone.reactor
        )
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_wrong_device_authority(self) -> None:
        """A device authority that the realm's bundle does not name is refused at the start."""
        other = Realm.create(self.root / "other", "ntm.example", [AS_ADDRESS], 4335)
        for name in ("device-ca.pem", "device-ca.key"):
            data = (other.directory / "as" / name).read_bytes()
            (self.realm.directory / "as" / name).write_bytes(data)
        self.assertIn("not in the trust bundle", self.problem(self.realm))

    def test_wrong_key(self) -> None:
        """A key that is not the certificate's is refused at the start."""
        key = (self.realm.directory / "as" / "device-ca.key").read_bytes()
        (self.realm.directory / "as" / "as.key").write_bytes(key)
        self.assertIn("not for the key", self.problem(self.realm))

    def test_no_accounts(self) -> None:
        """A missing account database is not made anew."""
        path = self.realm.directory / "as" / "accounts.sqlite"
        path.rename(path.with_suffix(".away"))
        self.assertIn("there is no account database", self.problem(self.realm))
        self.assertFalse(path.exists())


class UnusedTests(LoginTestCase):
    """Messages that nobody sends to an AS or DC."""

    def test_changes_of_the_future(self) -> None:
        """A DC that knows more than the AS is told that there is nothing."""
        link = self.dc.account_server.link
        assert link is not None
        answer = self.result(link.request(ChangesRequest(1 << 40)))
        self.assertEqual(answer, RevocationPush(1 << 40, (), 1 << 40))

    def test_proof_on_a_login_link(self) -> None:
        """A login desk takes nothing but the records of logins."""
        self.assertRaises(
            AuthenticationError,
            self.result,
            self.dc.desk.client_asked(SessionProof(bytes(8), bytes(32)), Link.__new__(Link)),
        )
