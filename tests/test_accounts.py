"""The account database: users, devices, revocations, and what other processes notice."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile import plugins
from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigurationError,
    StorageFailed,
    UnknownName,
)
from ntmobile.interfaces import IAccountStore, IAccountStoreProvider
from ntmobile.plugins.store_accounts_sqlite import SQLiteAccounts, sqlite_account_store
from ntmobile.wire.certificates import DeviceCertificate
from tests.realms import MemoryRealm

ALICE, PHONE = "alice.dc1.ntm.example", "phone.alice.dc1.ntm.example"
NOW = 1_800_000_000.0
#: Opens a store, goes on as a child, writes, and says what it sees after a line of input.
DAEMON = """
import os, sys
from pathlib import Path
from ntmobile.plugins.store_accounts_sqlite import SQLiteAccounts
store = SQLiteAccounts(Path(sys.argv[1]))
if os.fork():
    os._exit(0)
store.add_user("alice", "hash")
print("alice", flush=True)
sys.stdin.readline()
store.add_user("dave", "hash")
print(*[user.name for user in store.users()], flush=True)
sys.stdin.readline()
"""


class StoreTestCase(SynchronousTestCase):
    """A store in a temporary file, and a realm to make devices."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = SQLiteAccounts(self.path)
        self.addCleanup(self.store.close)
        self.realm = MemoryRealm(now=NOW)

    def device(self, fqdn: str = PHONE) -> DeviceCertificate:
        """A certificate for a new identity."""
        return self.realm.device(fqdn)[2]

    def renewed(self, old: DeviceCertificate) -> DeviceCertificate:
        """The next certificate for the same identity."""
        return self.realm.certify(old)


class UserTests(StoreTestCase):
    """Users come, change and are disabled."""

    def test_added(self) -> None:
        """A user that was added is there, and listed by name."""
        self.store.add_user("bob.dc1.ntm.example", "hash of bob")
        self.store.add_user(ALICE, "hash of alice")
        user = self.store.user(ALICE)
        assert user is not None
        self.assertEqual(
            (user.password_hash, user.disabled, user.version), ("hash of alice", False, 0)
        )
        self.assertEqual([each.name for each in self.store.users()], [ALICE, "bob.dc1.ntm.example"])

    def test_unknown(self) -> None:
        """A user that was not added is None to look up, and an error to change."""
        self.assertIsNone(self.store.user(ALICE))
        self.assertRaises(UnknownName, self.store.set_password, ALICE, "new")
        self.assertRaises(UnknownName, self.store.set_disabled, ALICE, True, NOW)

    def test_twice(self) -> None:
        """Adding a user again is an error, and its password stays."""
        self.store.add_user(ALICE, "old")
        self.assertRaises(AlreadyExists, self.store.add_user, ALICE, "new")
        user = self.store.user(ALICE)
        self.assertEqual(user and user.password_hash, "old")

    def test_password(self) -> None:
        """The password can be changed."""
        self.store.add_user(ALICE, "old")
        self.store.set_password(ALICE, "new")
        user = self.store.user(ALICE)
        self.assertEqual(user and user.password_hash, "new")

    def test_hash_is_not_shown(self) -> None:
        """R6: the hash does not appear where a user is printed."""
        self.store.add_user(ALICE, "secret hash")
        self.assertNotIn("secret", repr(self.store.user(ALICE)))

    def test_disabled(self) -> None:
        """R34: disabling revokes the certificates of all devices of that user, once."""
        self.store.add_user(ALICE, "hash")
        self.store.add_user("bob.dc1.ntm.example", "hash")
        phone, laptop = self.device(), self.device("laptop.alice.dc1.ntm.example")
        for each in (phone, laptop, self.device("phone.bob.dc1.ntm.example")):
            self.store.enroll(each, NOW, replace=False)
        revoked = self.store.set_disabled(ALICE, True, NOW)
        self.assertEqual({each.serial for each in revoked}, {phone.serial, laptop.serial})
        self.assertEqual(self.store.set_disabled(ALICE, True, NOW), ())
        self.assertRaises(AccessDenied, self.store.renew, self.renewed(phone))
        self.assertRaises(AccessDenied, self.store.enroll, self.device(), NOW, replace=True)

    def test_enabled_again(self) -> None:
        """A user that is enabled again renews its devices, but old certificates stay revoked."""
        self.store.add_user(ALICE, "hash")
        phone = self.device()
        self.store.enroll(phone, NOW, replace=False)
        self.store.set_disabled(ALICE, True, NOW)
        self.assertEqual(self.store.set_disabled(ALICE, False, NOW), ())
        fresh = self.renewed(phone)
        self.store.renew(fresh)
        self.assertEqual([each.serial for each in self.store.revocations(NOW)], [phone.serial])


class DeviceTests(StoreTestCase):
    """Devices are enrolled, renewed, replaced and removed (R3)."""

    def setUp(self) -> None:
        super().setUp()
        self.store.add_user(ALICE, "hash")

    def version(self) -> int:
        """The version of alice's device list."""
        user = self.store.user(ALICE)
        assert user is not None
        return user.version

    def test_enrolled(self) -> None:
        """A device that was enrolled is there, with its certificate, and the list has a version."""
        phone = self.device()
        self.assertEqual(self.store.enroll(phone, NOW, replace=False), ())
        device = self.store.device(PHONE)
        assert device is not None
        self.assertEqual(device.certificate, phone)
        self.assertEqual((device.user, device.enrolled_at, device.removed), (ALICE, NOW, False))
        self.assertEqual(self.store.devices(ALICE), [device])
        self.assertEqual(self.version(), 1)

    def test_no_such_user(self) -> None:
        """A device of nobody is not enrolled."""
        stranger = self.device("phone.mallory.dc1.ntm.example")
        self.assertRaises(UnknownName, self.store.enroll, stranger, NOW, replace=True)

    def test_same_name(self) -> None:
        """R3: another device under the same name is an error unless it shall replace the first."""
        phone, other = self.device(), self.device()
        self.store.enroll(phone, NOW, replace=False)
        self.assertRaises(AlreadyExists, self.store.enroll, other, NOW, replace=False)
        device = self.store.device(PHONE)
        self.assertEqual(device and device.certificate, phone)
        self.assertEqual(self.store.revocations(NOW), [])
        self.assertEqual(self.version(), 1)

    def test_replaced(self) -> None:
        """R3: replacing revokes every certificate of the old device that has not expired."""
        phone, other = self.device(), self.device()
        self.store.enroll(phone, NOW, replace=False)
        again = self.renewed(phone)
        self.store.renew(again)
        revoked = self.store.enroll(other, NOW, replace=True)
        self.assertEqual({each.serial for each in revoked}, {phone.serial, again.serial})
        self.assertEqual({each.identity for each in revoked}, {phone.identity})
        device = self.store.device(PHONE)
        self.assertEqual(device and device.certificate, other)
        self.assertEqual(self.version(), 2)
        self.assertRaises(UnknownName, self.store.renew, self.renewed(phone))

    def test_enrolled_again_after_a_lost_answer(self) -> None:
        """The same identity enrols again without replacing anything."""
        phone = self.device()
        self.store.enroll(phone, NOW, replace=False)
        self.assertEqual(self.store.enroll(self.renewed(phone), NOW, replace=False), ())
        self.assertEqual(self.version(), 1)

    def test_renewed(self) -> None:
        """A renewed certificate is the latest, and the device list is as it was."""
        phone = self.device()
        self.store.enroll(phone, NOW, replace=False)
        again = self.renewed(phone)
        self.store.renew(again)
        device = self.store.device(PHONE)
        self.assertEqual(device and device.certificate, again)
        self.assertEqual(self.version(), 1)

    def test_removed(self) -> None:
        """A device that was removed is gone, revoked, and listed as removed."""
        phone = self.device()
        self.store.enroll(phone, NOW, replace=False)
        revoked = self.store.remove(PHONE, NOW)
        self.assertEqual([each.serial for each in revoked], [phone.serial])
        self.assertIsNone(self.store.device(PHONE))
        self.assertTrue(self.store.devices(ALICE)[0].removed)
        self.assertRaises(UnknownName, self.store.remove, PHONE, NOW)
        self.assertRaises(UnknownName, self.store.renew, self.renewed(phone))
        self.assertEqual(self.version(), 2)

    def test_name_of_a_removed_device(self) -> None:
        """A removed device's name is free."""
        self.store.enroll(self.device(), NOW, replace=False)
        self.store.remove(PHONE, NOW)
        self.assertEqual(self.store.enroll(self.device(), NOW, replace=False), ())
        self.assertIsNotNone(self.store.device(PHONE))

    def test_expired_revocations(self) -> None:
        """A certificate that has expired is neither revoked nor listed any more."""
        self.store.enroll(self.device(), NOW, replace=False)
        late = NOW + 86401
        self.assertEqual(self.store.remove(PHONE, late), ())
        self.assertEqual(self.store.revocations(late), [])


class ChangeTests(StoreTestCase):
    """R34: another process hears of every change."""

    def setUp(self) -> None:
        super().setUp()
        self.other = SQLiteAccounts(self.path)
        self.addCleanup(self.other.close)

    def test_none(self) -> None:
        """There are no changes at first."""
        self.assertEqual((self.other.last_change(), self.other.changes_since(0)), (0, []))

    def test_sequence(self) -> None:
        """Changes are numbered in order, say whose they are, and carry what they revoked."""
        phone = self.device()
        self.store.add_user(ALICE, "hash")
        self.store.enroll(phone, NOW, replace=False)
        self.store.renew(self.renewed(phone))
        self.store.remove(PHONE, NOW)
        changes = self.other.changes_since(0)
        self.assertEqual([each.sequence for each in changes], [1, 2, 3])
        self.assertEqual([each.kind for each in changes], ["user", "devices", "devices"])
        self.assertEqual({each.user for each in changes}, {ALICE})
        self.assertEqual([len(each.revoked) for each in changes], [0, 0, 2])
        self.assertEqual(self.other.changes_since(2), changes[2:])
        self.assertEqual(self.other.last_change(), 3)

    def test_failure_changes_nothing(self) -> None:
        """What was refused leaves no change behind."""
        self.store.add_user(ALICE, "hash")
        self.assertRaises(AlreadyExists, self.store.add_user, ALICE, "hash")
        self.assertEqual(self.other.last_change(), 1)

    def test_two_writers(self) -> None:
        """Two processes' worth of writers lose nothing."""

        def add(store: SQLiteAccounts, letter: str) -> None:
            for number in range(20):
                store.add_user(f"{letter}{number}.dc1.ntm.example", "hash")

        threads = [
            threading.Thread(target=add, args=(store, letter))
            for store, letter in ((self.store, "a"), (self.other, "b"))
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        self.assertEqual(len(self.store.users()), 40)
        self.assertEqual(self.store.last_change(), 40)


class FileTests(StoreTestCase):
    """The file itself."""

    def test_private(self) -> None:
        """R6: the database and what SQLite puts beside it are for their owner only."""
        self.store.add_user(ALICE, "hash")
        files = [
            each for each in self.path.parent.iterdir() if each.name.startswith(self.path.name)
        ]
        self.assertGreater(len(files), 1)
        for each in files:
            self.assertEqual(stat.S_IMODE(each.stat().st_mode), 0o600, each)

    def test_readable_by_everybody(self) -> None:
        """R6: a database that everybody may read is refused, with the remedy."""
        self.path.chmod(0o644)
        error = self.assertRaises(ConfigurationError, SQLiteAccounts, self.path)
        self.assertIn("chmod 600", str(error))

    def test_durable(self) -> None:
        """What was written is there after opening again."""
        self.store.add_user(ALICE, "hash")
        self.store.close()
        again = SQLiteAccounts(self.path)
        self.addCleanup(again.close)
        self.assertIsNotNone(again.user(ALICE))

    def test_no_database(self) -> None:
        """Another file is refused and left as it is."""
        path = Path(self.mktemp())
        path.write_bytes(b"something else" * 100)
        path.chmod(0o600)
        self.assertRaises(ConfigurationError, SQLiteAccounts, path)
        self.assertEqual(path.read_bytes(), b"something else" * 100)

    def test_no_directory(self) -> None:
        """A path that cannot be opened is one error that names it."""
        path = Path(self.mktemp()) / "accounts.sqlite"
        error = self.assertRaises(ConfigurationError, SQLiteAccounts, path)
        self.assertIn(str(path), str(error))

    def test_newer(self) -> None:
        """A database of a later version is not touched."""
        path = Path(self.mktemp())
        SQLiteAccounts(path).close()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 1000")
        db.close()
        error = self.assertRaises(ConfigurationError, SQLiteAccounts, path)
        self.assertIn("upgrade", str(error))

    def test_daemon(self) -> None:
        """What is made before a fork, as twistd does it, shares the file with others after it."""
        self.store.close()
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(self.path.resolve())],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(daemon.communicate)
        assert daemon.stdin is not None and daemon.stdout is not None
        self.assertEqual(daemon.stdout.readline(), "alice\n")
        for name in ("bob", "carol"):
            command = SQLiteAccounts(self.path)
            self.assertIsNotNone(command.user("alice"))
            command.add_user(name, "hash")
            command.close()
        daemon.stdin.write("go on\n")
        daemon.stdin.flush()
        self.assertEqual(daemon.stdout.readline(), "alice bob carol dave\n")
        command = SQLiteAccounts(self.path)
        self.addCleanup(command.close)
        self.assertIsNotNone(command.user("dave"))

    def test_full_disk(self) -> None:
        """A full disk is one error, nothing is half done, and it goes on when there is room."""
        self.store.add_user(ALICE, "hash")
        database = self.store._connected()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        before = self.store.users()
        with self.assertRaises(StorageFailed) as caught:
            for number in range(1000):
                self.store.add_user(f"u{number}.dc1.ntm.example", "h" * 1000)
                before = self.store.users()
        self.assertIn("full", str(caught.exception))
        self.assertEqual(self.store.users(), before)
        self.assertEqual(len(self.store.changes_since(0)), len(before))
        database.execute("PRAGMA max_page_count = 100000")
        self.store.add_user("bob.dc1.ntm.example", "hash")


class PluginTests(SynchronousTestCase):
    """The plugin that the account server finds."""

    def test_found(self) -> None:
        """It is found by its name and keeps its interfaces."""
        found = plugins.find(IAccountStoreProvider, "sqlite")
        self.assertEqual(found.name, sqlite_account_store.name)
        verifyObject(IPlugin, found)
        verifyObject(IAccountStoreProvider, found)

    def test_made(self) -> None:
        """It makes the file that the section names, where told to make one."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.assertRaises(
            ConfigurationError,
            sqlite_account_store.open,
            {"path": "a.sqlite"},
            directory,
            make=False,
        )
        self.assertEqual(os.listdir(directory), [])
        store = sqlite_account_store.open({"path": "a.sqlite"}, directory, make=True)
        self.addCleanup(store.close)
        verifyObject(IAccountStore, store)
        self.assertTrue((directory / "a.sqlite").exists())

    def test_unknown_key(self) -> None:
        """A key that it does not know is an exact error."""
        error = self.assertRaises(
            ConfigurationError,
            sqlite_account_store.open,
            {"path": "a.sqlite", "pth": 1},
            Path("."),
            make=True,
        )
        self.assertIn("store.pth: unknown key; did you mean 'path'?", str(error))
