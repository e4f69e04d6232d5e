"""A device's state directory: settings, keys, certificate, trust (rules R4, R6)."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.account import Account, parse_coordinator
from ntmobile.client.identity import (
    DeviceIdentity,
    erase,
    forget_pending,
    home_authority,
    pending_keys,
    read_trust,
    write_trust,
)
from ntmobile.client.keys import PrivateKeys
from ntmobile.client.login import clock_warning
from ntmobile.client.state import DEVICE, PENDING, SETTINGS
from ntmobile.errors import ConfigurationError, InvalidName, NotRegistered
from ntmobile.plugins.section import Section
from ntmobile.servers.authority import issue_device
from ntmobile.wire import virtual
from ntmobile.wire.certificates import DeviceCertificate
from tests.realms import MemoryRealm

DC1 = "dc1.ntm.example"
PHONE = f"phone.alice.{DC1}"


class StateTestCase(SynchronousTestCase):
    """A directory and a realm."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        self.directory = Path(self.mktemp())

    def certify(self, keys: PrivateKeys) -> DeviceCertificate:
        """A certificate for a device's keys."""
        public = keys.public()
        return issue_device(
            self.realm.device_ca,
            fqdn=PHONE,
            identity=public.identity,
            x25519=public.x25519,
            xwing_hash=public.xwing_hash,
            ipv6=virtual.address_of(DC1, PHONE),
            ipv4=virtual.pick_ipv4(virtual.POOL, PHONE, ()),
            now=self.realm.now,
        )

    def save(self) -> DeviceIdentity:
        """An enrolled device."""
        keys = PrivateKeys.generate()
        identity = DeviceIdentity(self.directory, keys, self.certify(keys), self.realm.trust())
        identity.save()
        return identity


class IdentityTests(StateTestCase):
    """Keys and certificate."""

    def test_round_trip(self) -> None:
        """What is saved is loaded again."""
        saved = self.save()
        loaded = DeviceIdentity.load(self.directory)
        self.assertEqual(loaded.certificate, saved.certificate)
        self.assertEqual(loaded.keys.public(), saved.keys.public())
        self.assertEqual((loaded.fqdn, loaded.domain), (PHONE, DC1))

    def test_not_enrolled(self) -> None:
        """A directory without a device says how to get one."""
        problem = self.assertRaises(NotRegistered, DeviceIdentity.load, self.directory)
        self.assertIn("see ntm enroll", str(problem))

    def test_readable_by_everybody(self) -> None:
        """R6: keys that everybody may read are not used."""
        self.save()
        (self.directory / DEVICE).chmod(0o644)
        self.assertRaises(ConfigurationError, DeviceIdentity.load, self.directory)

    def test_renewed(self) -> None:
        """A renewed certificate is on the disk, with the keys that were there."""
        saved = self.save()
        new = saved.renewed(self.certify(saved.keys), saved.trust)
        loaded = DeviceIdentity.load(self.directory)
        self.assertEqual(loaded.certificate, new.certificate)
        self.assertEqual(loaded.keys.public(), saved.keys.public())

    def test_renewed_after_enrolling_anew(self) -> None:
        """A login of the former identity does not overwrite its successor."""
        former, new = self.save(), self.save()
        renew = former.certificate, former.trust
        self.assertRaises(NotRegistered, former.renewed, *renew)
        self.assertEqual(DeviceIdentity.load(self.directory).certificate, new.certificate)

    def test_mixed_up(self) -> None:
        """A certificate for other keys is found out."""
        self.save()
        first = (self.directory / DEVICE).read_bytes()
        self.save()
        second = (self.directory / DEVICE).read_bytes()
        cut = first.index(b"-----BEGIN PRIVATE")
        mixed = first[:cut] + second[second.index(b"-----BEGIN PRIVATE") :]
        (self.directory / DEVICE).write_bytes(mixed)
        problem = self.assertRaises(ConfigurationError, DeviceIdentity.load, self.directory)
        self.assertIn("enrol this device again with --replace", str(problem))

    def test_damaged(self) -> None:
        """A file that is cut anywhere is one line that names it."""
        self.save()
        path = self.directory / DEVICE
        data = path.read_bytes()
        for size in range(0, len(data) - 2, 61):
            path.write_bytes(data[:size])
            problem = self.assertRaises(ConfigurationError, DeviceIdentity.load, self.directory)
            self.assertIn(DEVICE, str(problem))

    def test_erase(self) -> None:
        """A logout removes the secrets; it can be repeated."""
        self.save()
        erase(self.directory)
        erase(self.directory)
        self.assertEqual(
            [path for path in self.directory.iterdir() if b"PRIVATE" in path.read_bytes()], []
        )


class PendingTests(StateTestCase):
    """Keys of an enrolment whose end is not known."""

    def test_same_keys_again(self) -> None:
        """The next attempt for the same device uses the same keys, another one others."""
        first = pending_keys(self.directory, PHONE).public()
        self.assertEqual(pending_keys(self.directory, PHONE).public(), first)
        other = pending_keys(self.directory, f"laptop.alice.{DC1}").public()
        self.assertNotEqual(other, first)

    def test_damaged(self) -> None:
        """Damaged ones are made anew."""
        pending_keys(self.directory, PHONE)
        (self.directory / PENDING).write_bytes(b"# " + PHONE.encode() + b"\nrubbish")
        pending_keys(self.directory, PHONE)

    def test_forget(self) -> None:
        """Forgetting them removes the directory, unless it holds something else."""
        pending_keys(self.directory, PHONE)
        forget_pending(self.directory)
        self.assertFalse(self.directory.exists())
        pending_keys(self.directory, PHONE)
        (self.directory / SETTINGS).write_text("")
        forget_pending(self.directory)
        self.assertEqual([path.name for path in self.directory.iterdir()], [SETTINGS])


class TrustTests(StateTestCase):
    """Whom a device trusts."""

    def test_round_trip(self) -> None:
        """Authorities are written and read; one that is no longer trusted goes."""
        self.directory.mkdir()
        other = MemoryRealm("else.example")
        write_trust(self.directory, self.realm.trust(other))
        self.assertEqual(read_trust(self.directory), self.realm.trust(other))
        write_trust(self.directory, self.realm.trust())
        self.assertEqual(read_trust(self.directory), self.realm.trust())

    def test_given(self) -> None:
        """R1: the bundle that a user gives is of the account's realm, or refused."""
        pem = self.realm.authority.to_pem()
        self.assertEqual(home_authority(pem, DC1, "ca.pem"), self.realm.trust())
        self.assertRaises(ConfigurationError, home_authority, pem, "dc1.else.example", "ca.pem")
        self.assertRaises(ConfigurationError, home_authority, b"rubbish", DC1, "ca.pem")


class AccountTests(SynchronousTestCase):
    """The first lines of node.toml."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.mkdir()
        self.file /= SETTINGS
        self.account = Account.parse(f"alice@{DC1}", "phone", ("203.0.113.1", 4330))

    def read(self) -> Account:
        return Account.read(Section.read(self.file))

    def test_round_trip(self) -> None:
        """What is written is read, with and without an address."""
        for dc in (("203.0.113.1", 4330), ("2001:db8::1", 1), ("dc1.ntm.example", 99), None):
            account = Account("alice", DC1, "phone", dc)
            self.file.unlink(missing_ok=True)
            account.write(self.file)
            self.assertEqual(self.read(), account)

    def test_settings_stay(self) -> None:
        """Enrolling anew leaves a user's settings as they are."""
        self.account.write(self.file)
        with self.file.open("a") as stream:
            stream.write('allow = ["*"]\n[attachment]\nplugin = "datagram"\n')
        moved = Account("alice", DC1, "tablet", None)
        moved.write(self.file)
        self.assertEqual(self.read(), moved)
        section = Section.read(self.file)
        self.assertEqual(section["allow"], ["*"])
        self.assertEqual(section["attachment"], {"plugin": "datagram"})
        self.account.write(self.file)
        self.assertEqual(self.read(), self.account)

    def test_names(self) -> None:
        """An account or device that can be none is refused."""
        for account, device in (("alice", "x"), ("a@b", "X"), ("dc@b.example", "x")):
            self.assertRaises(InvalidName, Account.parse, account, device)

    def test_wrong_file(self) -> None:
        """What is wrong in the file is named with its key."""
        self.file.write_text(f'account = "alice@{DC1}"\ndevice = "phone"\ndc = "a b"\n')
        problem = self.assertRaises(ConfigurationError, self.read)
        self.assertIn("node.toml: dc: ", str(problem))

    def test_addresses(self) -> None:
        """The forms in which a coordinator's address may be written."""
        for text, found in (
            ("203.0.113.1", ("203.0.113.1", 4330)),
            ("203.0.113.1:99", ("203.0.113.1", 99)),
            ("2001:db8::1", ("2001:db8::1", 4330)),
            ("[2001:db8::1]:99", ("2001:db8::1", 99)),
            ("[2001:db8::1]", ("2001:db8::1", 4330)),
            ("dc1.ntm.example:99", ("dc1.ntm.example", 99)),
        ):
            self.assertEqual(parse_coordinator(text), found)

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """Whatever is typed is an address or one error."""
        try:
            host, port = parse_coordinator(text)
        except ConfigurationError as problem:
            self.assertIn("write HOST:PORT", str(problem))
        else:
            self.assertTrue(host.isascii() and 0 < port < 65536)


class ClockTests(SynchronousTestCase):
    """R12: what is said of a wrong clock."""

    def test_warning(self) -> None:
        """A clock that is a little off is nobody's concern; more is told in fitting units."""
        self.assertEqual(clock_warning(29.0), "")
        for offset, text in (
            (45.0, "45 s behind"),
            (-600.0, "10 min ahead"),
            (3 * 3600.0, "3 h behind"),
            (-400 * 86400.0, "400 days ahead"),
        ):
            self.assertIn(text, clock_warning(offset))
