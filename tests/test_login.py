"""Enrolling, logging in and logging out through a DC (rules R2 to R5, R12)."""

from __future__ import annotations

import stat
import time
from typing import Any

from twisted.internet.defer import Deferred

from ntmobile.client import identity as identity_module
from ntmobile.client.account import Account
from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.login import enroll
from ntmobile.client.state import DEVICE, PENDING, SETTINGS
from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    CertificateNotCurrent,
    NotRegistered,
    QuotaExceeded,
    StorageFailed,
    Unreachable,
)
from ntmobile.machines.login.attempts import PAIR_BURST, SOURCE_BURST
from ntmobile.machines.login.proofs import verify_signature
from ntmobile.plugins.section import Section
from ntmobile.protocols.accounts import RelayedRequest
from ntmobile.servers import registrar
from ntmobile.wire.messages.account import succession_statement
from tests.login_cases import DC1, DC1_ADDRESS, DC2, PASSWORD, LoginTestCase
from tests.realms import MemoryRealm

FQDN = f"phone.alice.{DC1}"


class EnrolmentTests(LoginTestCase):
    """The first login of a device."""

    def test_enrol(self) -> None:
        """R3, R4: a device gets a certificate for its keys, and its directory can be loaded."""
        enrolled = self.enroll()
        identity = DeviceIdentity.load(self.root / "phone")
        self.assertEqual(identity.fqdn, FQDN)
        self.assertEqual(identity.certificate, enrolled.identity.certificate)
        self.assertEqual(enrolled.warning, "")
        self.assertEqual(self.device(FQDN).certificate, identity.certificate)

    def test_private(self) -> None:
        """R6: the directory is of mode 0700, what is in it of mode 0600."""
        self.enroll()
        directory = self.root / "phone"
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        for path in directory.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    def test_settings(self) -> None:
        """The directory has a node.toml that names the account and the coordinator."""
        self.enroll()
        found = Account.read(Section.read(self.root / "phone" / SETTINGS))
        self.assertEqual(found, Account("alice", DC1, "phone", (DC1_ADDRESS, 4330)))

    def test_session(self) -> None:
        """R3: device and DC have the same session key; the lifetime is the certificate's."""
        identity = self.enroll().identity
        certificate, _, lifetime = self.dc.admitted[-1]
        self.assertEqual(certificate, identity.certificate)
        self.assertTrue(86390 < lifetime <= 86400, lifetime)

    def test_wrong_password(self) -> None:
        """R2: a wrong password is one line, and nothing is left behind on either side."""
        problem = self.assertRaises(AuthenticationError, self.enroll, password="wrong")
        self.assertEqual(str(problem), "the user name or the password is wrong")
        self.assertFalse((self.root / "phone").exists())
        self.assertEqual(self.server.store.devices(f"alice.{DC1}"), [])
        self.assertEqual(self.dc.admitted, [])

    def test_unknown_user(self) -> None:
        """R2: an unknown user is answered like a wrong password, after the same work."""
        compared: list[object] = []

        def compare(stored: str | None, password: str) -> bool:
            compared.append(stored)
            return False

        self.server.registrar.verify = compare
        wrong = self.assertRaises(AuthenticationError, self.enroll, password="wrong")
        unknown = self.assertRaises(AuthenticationError, self.enroll, user="mallory")
        self.assertEqual(str(wrong), str(unknown))
        self.assertEqual(compared, [f"plain:{PASSWORD}", None])

    def test_disabled_user(self) -> None:
        """A disabled user is told so, but only to who knows the password."""
        self.server.store.set_disabled(f"alice.{DC1}", True, time.time())
        problem = self.assertRaises(AuthenticationError, self.enroll)
        self.assertIn("is disabled", str(problem))
        problem = self.assertRaises(AuthenticationError, self.enroll, password="wrong")
        self.assertEqual(str(problem), "the user name or the password is wrong")

    def test_existing_name(self) -> None:
        """R3: a device name that exists is not taken over by itself."""
        first = self.enroll()
        problem = self.assertRaises(AlreadyExists, self.enroll, state="other")
        self.assertIn("--replace", str(problem))
        self.assertFalse((self.root / "other").exists())
        self.assertEqual(self.device(FQDN).certificate, first.identity.certificate)

    def test_replace(self) -> None:
        """R3: with --replace it is, and the old certificate is revoked within a second (R34)."""
        old = self.enroll().identity
        new = self.enroll(state="other", replace=True).identity
        self.internet.advance(1.0)
        revoked = [(each.fqdn, int.from_bytes(each.serial, "big")) for each in self.dc.revoked]
        self.assertEqual(revoked, [(FQDN, old.certificate.serial)])
        problem = self.assertRaises(AuthenticationError, self.log_in, old)
        self.assertIn("was replaced", str(problem))
        self.log_in(new)

    def test_succession(self) -> None:
        """R5: an identity that is still there signs its successor, and the AS keeps that."""
        old = self.enroll().identity
        new = self.enroll(former=old, replace=True).identity
        device = self.device(FQDN)
        self.assertEqual(device.former, old.certificate.identity)
        statement = succession_statement(FQDN, device.former, new.certificate.identity)
        self.assertTrue(verify_signature(device.former, device.succession, statement))
        self.assertNotEqual(old.certificate.identity, new.certificate.identity)
        self.assertFalse((self.root / "phone" / PENDING).exists())

    def test_succession_of_a_stranger(self) -> None:
        """R5: a signature of another identity than the replaced one is not kept."""
        stranger = self.enroll("laptop").identity
        self.enroll()
        self.enroll(state="other", former=stranger, replace=True)
        self.assertEqual(self.device(FQDN).succession, b"")

    def test_too_many_devices(self) -> None:
        """A user has as many devices as a device list names."""
        self.patch(registrar, "DEVICES_LIMIT", 1)
        self.enroll()
        problem = self.assertRaises(QuotaExceeded, self.enroll, "laptop")
        self.assertIn("remove one first", str(problem))

    def test_wrong_domain(self) -> None:
        """R1: the DC of one domain enrols nobody of another."""
        self.add_user("bob", DC2)
        problem = self.assertRaises(CertificateError, self.enroll, user="bob", domain=DC2)
        self.assertIn("dc:dc2.ntm.example", str(problem))


class LimitTests(LoginTestCase):
    """R2: attempts are limited by user and by source."""

    def test_by_user(self) -> None:
        """Too many passwords for one user are refused before they are looked at."""
        for _ in range(PAIR_BURST):
            self.assertRaises(AuthenticationError, self.enroll, password="wrong")
        problem = self.assertRaises(QuotaExceeded, self.enroll)
        self.assertRegex(str(problem), r"for this user; try again in \d+ s")
        self.internet.advance(31)
        self.enroll()

    def test_by_source(self) -> None:
        """Too many passwords from one network are refused, whoever's; another one goes on."""
        for number in range(SOURCE_BURST):
            self.assertRaises(AuthenticationError, self.enroll, user=f"user{number}")
        problem = self.assertRaises(QuotaExceeded, self.enroll)
        self.assertIn("from this network", str(problem))
        self.phone = self.internet.host("elsewhere", "203.0.113.77")
        self.enroll()

    def test_success_clears(self) -> None:
        """The user's own mistakes are forgotten once the password was right."""
        for round_ in range(2):
            for _ in range(PAIR_BURST - 1):
                self.assertRaises(AuthenticationError, self.enroll, password="wrong")
            self.enroll(f"device{round_}")


class CertificateLoginTests(LoginTestCase):
    """Later logins."""

    def test_renews(self) -> None:
        """R3: each login gives a fresh certificate for the same keys, which is on the disk."""
        identity = self.enroll().identity
        result = self.log_in(identity)
        self.assertNotEqual(result.certificate.serial, identity.certificate.serial)
        self.assertEqual(result.certificate.identity, identity.certificate.identity)
        self.assertEqual(result.certificate.ipv4, identity.certificate.ipv4)
        on_disk = DeviceIdentity.load(self.root / "phone")
        self.assertEqual(on_disk.certificate, result.certificate)

    def test_session(self) -> None:
        """R3: device and DC share the exporter of their own connection, as session key."""
        result = self.log_in(self.enroll().identity)
        certificate, key, _ = self.dc.admitted[-1]
        self.assertEqual(certificate, result.certificate)
        self.assertEqual(key, result.session_key)
        self.assertEqual(len({key for _, key, _ in self.dc.admitted}), 2)
        self.assertEqual(result.endpoints[0].pair(), (DC1_ADDRESS, 4330))

    def test_expired_certificate(self) -> None:
        """R3: a device that was off for long logs in with its expired certificate."""
        identity = self.enroll().identity
        self.pass_wall_time(40 * 86400.0)
        result = self.log_in(identity)
        self.assertGreater(result.certificate.not_before, identity.certificate.not_after)

    def pass_wall_time(self, seconds: float) -> None:
        """All clocks go on."""
        self.wall = lambda: time.time() + seconds
        self.dc.wall = self.wall

    def test_removed(self) -> None:
        """A device that was removed is told so."""
        identity = self.enroll().identity
        self.server.store.remove(FQDN, time.time())
        problem = self.assertRaises(AuthenticationError, self.log_in, identity)
        self.assertIn("was removed; enrol it again", str(problem))

    def test_disabled(self) -> None:
        """The devices of a disabled user do not log in; when it is enabled again they do."""
        identity = self.enroll().identity
        self.server.store.set_disabled(f"alice.{DC1}", True, time.time())
        problem = self.assertRaises(AuthenticationError, self.log_in, identity)
        self.assertIn("is disabled", str(problem))
        self.server.store.set_disabled(f"alice.{DC1}", False, time.time())
        self.log_in(identity)

    def test_foreign_certificate(self) -> None:
        """R1: a certificate of another realm's device authority is refused."""
        identity = self.enroll().identity
        key, _, certificate = MemoryRealm("ntm.example").device(FQDN)
        stranger = self.with_certificate(identity, certificate, key)
        self.assertRaises(AccessDenied, self.log_in, stranger)

    def with_certificate(self, identity: DeviceIdentity, certificate: Any, key: Any) -> Any:
        keys = type(identity.keys)(key, identity.keys.x25519, identity.keys.xwing_seed)
        return type(identity)(identity.directory, keys, certificate, identity.trust)

    def test_logout(self) -> None:
        """R3: a logout revokes the device and removes its secrets, but not its settings."""
        identity = self.enroll().identity
        self.log_out(identity)
        self.internet.advance(1.0)
        self.assertEqual([each.fqdn for each in self.dc.revoked], [FQDN])
        self.assertFalse((self.root / "phone" / DEVICE).exists())
        self.assertTrue((self.root / "phone" / SETTINGS).exists())
        self.assertRaises(NotRegistered, DeviceIdentity.load, self.root / "phone")

    def test_enrol_after_logout(self) -> None:
        """After a logout the name is free again, without --replace."""
        self.log_out(self.enroll().identity)
        self.enroll()

    def test_login_after_logout(self) -> None:
        """A login that was under way does not bring the secrets back."""
        identity = self.enroll().identity
        (self.root / "phone" / DEVICE).unlink()
        self.assertRaises(NotRegistered, self.log_in, identity)
        self.assertFalse((self.root / "phone" / DEVICE).exists())


class ClockTests(LoginTestCase):
    """R12: certificates are judged by the AS's time."""

    def test_wrong_clock(self) -> None:
        """R12: a device whose clock is wrong is told, and logs in all the same."""
        enrolled = self.enroll(wall=lambda: time.time() - 3 * 3600)
        self.assertEqual(
            enrolled.warning,
            "this device's clock is 3 h behind; "
            "certificates are judged by the account server's time",
        )
        result = self.log_in(enrolled.identity, wall=lambda: time.time() + 86400 * 365 * 30)
        self.assertAlmostEqual(result.time_offset, -86400 * 365 * 30, -2)

    def test_server_certificate_expired(self) -> None:
        """R12: a server's certificate that has expired by the AS's time is refused."""
        self.wall = self.dc.wall = lambda: time.time() + 86400 * 365 * 6
        problem = self.assertRaises(CertificateNotCurrent, self.enroll)
        self.assertIn("expired", str(problem))


class InterruptionTests(LoginTestCase):
    """What breaks on the way leaves nothing half done."""

    def test_no_account_server(self) -> None:
        """A DC without its AS says so at once."""
        self.result(self.server.stopService())
        self.internet.advance(1)
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("account server; try again", str(problem))
        self.assertFalse((self.root / "phone").exists())

    def test_nobody_there(self) -> None:
        """A coordinator that cannot be reached is named, with what was tried."""
        problem = self.assertRaises(Unreachable, self.enroll, address="203.0.113.200")
        self.assertIn("cannot reach the coordinator of dc1.ntm.example", str(problem))
        self.assertIn("203.0.113.200:4330", str(problem))

    def test_account_server_dies_before_its_answer(self) -> None:
        """An AS that dies between recording and answering: the device simply tries again."""
        original = RelayedRequest.tell_outcome

        async def die(login: RelayedRequest, *args: Any) -> None:
            for link in self.server._incoming:
                link.close()
            await original(login, *args)

        self.patch(RelayedRequest, "tell_outcome", die)
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("try again", str(problem))
        recorded = self.device(FQDN)
        self.assertEqual(self.dc.admitted, [])
        self.patch(RelayedRequest, "tell_outcome", original)
        self.internet.advance(2)
        identity = self.enroll().identity
        self.assertEqual(identity.certificate.identity, recorded.certificate.identity)

    def test_account_server_lost(self) -> None:
        """Logins under way end when the AS is lost, with one line."""
        self.server.registrar.verify = self.lose_account_server
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("lost its account server; try again", str(problem))

    def lose_account_server(self, *_: object) -> bool:
        for link in self.server._incoming:
            link.close()
        return True

    def test_storage_fails_at_the_account_server(self) -> None:
        """A full disk at the AS is told without its path, and nobody is admitted."""

        def full(*_: Any, **__: Any) -> None:
            raise StorageFailed("/var/lib/secret/accounts.db: database or disk is full")

        self.patch(self.server.store, "enroll", full)
        problem = self.assertRaises(Unreachable, self.enroll)
        self.assertIn("cannot store anything now", str(problem))
        self.assertNotIn("/var", str(problem))
        self.assertEqual(self.dc.admitted, [])

    def test_storage_fails_at_the_device(self) -> None:
        """A full disk at the device: a login still gives a session, with the old file kept."""
        identity = self.enroll().identity

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        self.patch(identity_module, "write_file", full)
        result = self.log_in(identity)
        self.assertEqual(result.identity.certificate, identity.certificate)
        self.assertEqual(DeviceIdentity.load(self.root / "phone").certificate, identity.certificate)

    def test_device_vanishes(self) -> None:
        """A device that vanishes in the middle is forgotten by DC and AS."""

        def partition(*_: Any) -> bool:
            self.internet.partition(self.phone, self.dc.host)
            return True

        self.server.registrar.verify = partition
        account = Account("alice", DC1, "phone", (DC1_ADDRESS, 4330))
        reactor, state = self.phone.reactor, self.root / "phone"
        enrolling = Deferred.fromCoroutine(enroll(reactor, state, account, self.trust, PASSWORD))
        self.internet.advance(130)
        self.failureResultOf(enrolling, Unreachable)
        self.assertEqual(len(self.dc.desk._logins), 0)
        desks = list(self.server._desks.values())
        self.assertEqual([len(desk) for desk in desks], [0])
