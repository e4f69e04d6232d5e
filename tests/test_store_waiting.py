"""What waits at a DC, in its file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import (
    IWaitingStore,
    IWaitingStoreProvider,
    Kept,
    KnownDevice,
    WaitingKey,
)
from ntmobile.lab.supervision import ROOT
from ntmobile.plugins import find
from ntmobile.plugins.store_waiting_sqlite import SQLiteWaitingStore
from ntmobile.testing.waiting import MemoryWaitingStore
from ntmobile.wire.messages.exchange import CacheEntry, PreKey
from ntmobile.wire.messages.fields import Endpoint

PHONE, LAPTOP, TABLET = (
    "phone.alice.dc1.ntm.example",
    "laptop.bob.dc2.ntm.example",
    "tablet.carol.dc2.ntm.example",
)
AT = 1_800_000_000.0


def a_key(number: int, fqdn: str = LAPTOP, sender: str = PHONE, life: float = 100.0) -> WaitingKey:
    """A temporal key that waits."""
    key = number.to_bytes(32, "big")
    return WaitingKey(fqdn, sender, "mail", sha256(key).digest(), key, AT + life)


def an_entry(number: int, application: str = "mail", sender: str = PHONE) -> CacheEntry:
    """Something that waits at a cache server."""
    return CacheEntry(
        "cs1.dc1.ntm.example",
        (Endpoint.of(("192.0.2.1", 4332)),),
        "data",
        number.to_bytes(32, "big"),
        bytes(32),
        sender,
        application,
        "",
        "",
        "",
        int(AT) + 100,
    )


class WaitingStoreCase(SynchronousTestCase):
    """A store in a file; subclasses have it in memory."""

    store: IWaitingStore

    def setUp(self) -> None:
        self.file = Path(self.mktemp()) / "waiting.sqlite"
        self.store = self.open()
        self.addCleanup(lambda: self.store.close())

    def open(self) -> IWaitingStore:
        """Open it."""
        return SQLiteWaitingStore(self.file)

    def reopen(self) -> None:
        """As after a restart."""
        self.store.close()
        self.store = self.open()

    def keep(self, *keys: WaitingKey, each: int = 10, all_: int = 100) -> list[Kept]:
        return self.store.keep_keys(keys, each, all_)

    def identifiers(self, fqdn: str = LAPTOP, after: bytes = b"", at: float = AT) -> list[bytes]:
        return self.store.key_identifiers(fqdn, after, at, 100)


class TemporalKeyTests(WaitingStoreCase):
    def test_interface(self) -> None:
        """The store provides what it says."""
        verifyObject(IWaitingStore, self.store)

    def test_download(self) -> None:
        """R31: a key is listed by its hash and given as often as wished, after restarts too."""
        key = a_key(1)
        self.assertEqual(self.keep(key), [Kept.NEW])
        self.reopen()
        self.assertEqual(self.identifiers(), [key.identifier])
        self.assertEqual(self.store.key(LAPTOP, key.identifier, AT), key)
        self.assertEqual(self.store.key(LAPTOP, key.identifier, AT), key)

    def test_expired(self) -> None:
        """R31: what has expired is neither listed nor given, and then erased."""
        key = a_key(1, life=10)
        self.keep(key, a_key(2, life=20))
        self.assertEqual(self.identifiers(at=AT + 10), [a_key(2).identifier])
        self.assertIsNone(self.store.key(LAPTOP, key.identifier, AT + 10))
        self.assertEqual(self.store.expire(AT + 10), 1)

    def test_again(self) -> None:
        """A key that is sent again waits once; another sender cannot take its place."""
        self.keep(a_key(1))
        self.assertEqual(self.keep(a_key(1), a_key(1, sender=TABLET)), [Kept.KNOWN] * 2)
        found = self.store.key(LAPTOP, a_key(1).identifier, AT)
        assert found is not None
        self.assertEqual(found.sender, PHONE)

    def test_others(self) -> None:
        """A device sees only what waits for itself."""
        self.keep(a_key(1))
        self.assertEqual(self.identifiers(TABLET), [])
        self.assertIsNone(self.store.key(TABLET, a_key(1).identifier, AT))
        self.assertFalse(self.store.erase_key(TABLET, a_key(1).identifier))

    def test_bounds(self) -> None:
        """One sender cannot take the room of others, nor all together more than there is."""
        self.assertEqual(self.keep(a_key(1), a_key(2), each=1), [Kept.NEW, Kept.FULL])
        self.assertEqual(self.keep(a_key(3, sender=TABLET), each=1), [Kept.NEW])
        self.assertEqual(self.keep(a_key(4, sender=TABLET), each=9, all_=2), [Kept.FULL])
        self.assertEqual(self.keep(a_key(5, fqdn=TABLET), each=9, all_=2), [Kept.NEW])

    def test_pages(self) -> None:
        """A list goes on after the last one that is known; from the beginning if that is gone."""
        keys = [a_key(number) for number in range(5)]
        self.keep(*keys)
        found = self.store.key_identifiers(LAPTOP, keys[1].identifier, AT, 2)
        self.assertEqual(found, [keys[2].identifier, keys[3].identifier])
        self.store.erase_key(LAPTOP, keys[1].identifier)
        self.assertEqual(len(self.identifiers(after=keys[1].identifier)), 4)

    def test_not_shown(self) -> None:
        """R6: a key is not in what a log would show."""
        self.assertNotIn("key=", repr(a_key(1)).replace("_key=", ""))


class EntryTests(WaitingStoreCase):
    def keep_entry(
        self, entry: CacheEntry, *fqdns: str, each: int = 10, all_: int = 100
    ) -> list[Kept]:
        return self.store.keep_entry(fqdns or (LAPTOP,), entry, each, all_)

    def entries(self, application: str | None = None, at: float = AT) -> list[CacheEntry]:
        return self.store.entries(LAPTOP, application, b"", at, 100)

    def test_list(self) -> None:
        """Entries are listed oldest first, as they were given, until they expire."""
        for number in (3, 1, 2):
            self.keep_entry(an_entry(number))
        self.reopen()
        self.assertEqual(self.entries(), [an_entry(3), an_entry(1), an_entry(2)])
        self.assertEqual(self.entries(at=AT + 100), [])

    def test_applications(self) -> None:
        """Applications do not see each other's."""
        self.keep_entry(an_entry(1, "mail"))
        self.keep_entry(an_entry(2, "photos"))
        self.assertEqual(self.entries("photos"), [an_entry(2, "photos")])
        self.assertEqual(self.entries("none"), [])

    def test_fetched(self) -> None:
        """What was fetched is listed no more; with others it still is."""
        self.assertEqual(self.keep_entry(an_entry(1), LAPTOP, TABLET), [Kept.NEW] * 2)
        self.assertTrue(self.store.erase_entry(LAPTOP, an_entry(1).identifier))
        self.assertEqual(self.entries(), [])
        self.assertEqual(len(self.store.entries(TABLET, None, b"", AT, 9)), 1)

    def test_same_identifier(self) -> None:
        """R32: a sender who takes another's identifier hides and erases nothing of the other."""
        tablet = an_entry(1, sender=TABLET)
        for entry in (an_entry(1), an_entry(2), tablet, an_entry(3)):
            self.keep_entry(entry)
        name = tablet.identifier
        after = [
            self.store.entries(LAPTOP, None, name, AT, 9, sender) for sender in (PHONE, TABLET)
        ]
        self.assertEqual(after, [[an_entry(2), tablet, an_entry(3)], [an_entry(3)]])
        self.assertTrue(self.store.erase_entry(LAPTOP, name, TABLET))
        self.assertFalse(self.store.erase_entry(LAPTOP, name, TABLET))
        self.assertEqual(self.entries(), [an_entry(1), an_entry(2), an_entry(3)])

    def test_again(self) -> None:
        """What a cache server says again replaces what it said, and is nothing new."""
        self.keep_entry(an_entry(1))
        later = replace(an_entry(1), expires=int(AT) + 500)
        self.assertEqual(self.keep_entry(later, each=1), [Kept.KNOWN])
        self.assertEqual(self.entries(), [later])

    def test_bounds(self) -> None:
        """Entries of one sender, and of all, are limited for each device."""
        self.keep_entry(an_entry(1))
        self.assertEqual(self.keep_entry(an_entry(2), each=1), [Kept.FULL])
        self.assertEqual(self.keep_entry(an_entry(3, sender=TABLET), each=1), [Kept.NEW])
        self.assertEqual(self.keep_entry(an_entry(4, sender=TABLET), all_=2), [Kept.FULL])


class DeviceTests(WaitingStoreCase):
    def a_device(self, identity: bytes = bytes(32), allow: str = "*") -> KnownDevice:
        return KnownDevice(LAPTOP, b"certificate", identity, (allow,))

    def fill(self) -> None:
        self.store.note([self.a_device()], [])
        self.keep(a_key(1))
        self.store.keep_entry([LAPTOP], an_entry(1), 9, 9)
        self.store.keep_prekeys(LAPTOP, [a_prekey(0)])

    def counts(self) -> list[int]:
        keys = self.store.key_identifiers(LAPTOP, b"", AT, 9)
        entries = self.store.entries(LAPTOP, None, b"", AT, 9)
        return [len(keys), len(entries), len(self.store.prekeys([LAPTOP], AT))]

    def test_known(self) -> None:
        """Devices are known, with whom they admit, although they are off; others are not."""
        self.store.note([self.a_device(allow="*.ntm.example")], [])
        self.reopen()
        found = self.store.devices([LAPTOP, TABLET])
        self.assertEqual(found, {LAPTOP: self.a_device(allow="*.ntm.example")})

    def test_renewed(self) -> None:
        """Another certificate of the same identity changes nothing of what waits."""
        self.fill()
        self.store.note([self.a_device(allow="nobody")], [])
        self.assertEqual(self.counts(), [1, 1, 1])

    def test_replaced(self) -> None:
        """R3: what waits for a device that was replaced is forgotten: it cannot be opened."""
        self.fill()
        self.store.note([self.a_device(identity=b"\1" * 32)], [])
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertIn(LAPTOP, self.store.devices([LAPTOP]))

    def test_revoked(self) -> None:
        """R34: a revoked device is not known any more, and nothing waits for it."""
        self.fill()
        self.store.note([], [LAPTOP])
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertEqual(self.store.devices([LAPTOP]), {})


def a_prekey(number: int, expires: int = int(AT) + 100) -> PreKey:
    """A pre-key of the laptop."""
    return PreKey(LAPTOP, number, bytes([number]) * 1216, expires, bytes(64))


class PreKeyTests(WaitingStoreCase):
    def test_newest(self) -> None:
        """R31: the newest pre-key is given; older ones but the identity's are forgotten."""
        self.store.keep_prekeys(LAPTOP, [a_prekey(0), a_prekey(1)])
        self.store.keep_prekeys(LAPTOP, [a_prekey(2)])
        self.reopen()
        self.assertEqual(self.store.prekeys([LAPTOP, TABLET], AT), {LAPTOP: a_prekey(2)})
        self.store.keep_prekeys(LAPTOP, [a_prekey(1)])
        self.assertEqual(self.store.prekeys([LAPTOP], AT), {LAPTOP: a_prekey(2)})

    def test_expired(self) -> None:
        """R31: where the newest has expired, the identity's own is given."""
        self.store.keep_prekeys(LAPTOP, [a_prekey(0), a_prekey(1, int(AT) + 5)])
        self.assertEqual(self.store.prekeys([LAPTOP], AT + 5), {LAPTOP: a_prekey(0)})


#: Stores keys one by one, and says after each one that it is stored.
_WRITER = """
import sys
from pathlib import Path
from ntmobile.plugins.store_waiting_sqlite import SQLiteWaitingStore
from tests.test_store_waiting import a_key
store = SQLiteWaitingStore(Path(sys.argv[1]))
for number in range(100000):
    store.keep_keys([a_key(number)], 10**6, 10**6)
    print(number, flush=True)
"""


class InMemory:
    """The same behaviour, without a file."""

    def open(self) -> IWaitingStore:
        """Open it."""
        return MemoryWaitingStore()

    def reopen(self) -> None:
        """It knows no restarts."""


class MemoryTemporalKeyTests(InMemory, TemporalKeyTests):
    """Temporal keys in memory."""


class MemoryEntryTests(InMemory, EntryTests):
    """Entries in memory."""


class MemoryPreKeyTests(InMemory, PreKeyTests):
    """Pre-keys in memory."""


class MemoryDeviceTests(InMemory, DeviceTests):
    """Devices in memory."""


class FileTests(WaitingStoreCase):
    def test_erased(self) -> None:
        """R31: a confirmed key is erased, and no byte of it is left in the files."""
        key = WaitingKey(
            LAPTOP, PHONE, "mail", bytes(32), b"\xa7never to be seen again, 32 byte", AT
        )
        self.keep(key)
        self.assertTrue(self.store.erase_key(LAPTOP, key.identifier))
        self.assertFalse(self.store.erase_key(LAPTOP, key.identifier))
        self.store.expire(AT - 1)
        stored = b"".join(one.read_bytes() for one in self.file.parent.iterdir())
        self.assertNotIn(key.key, stored)

    def test_private(self) -> None:
        """R6: only the owner may read the files."""
        self.keep(a_key(1))
        modes = {one.stat().st_mode & 0o777 for one in self.file.parent.iterdir()}
        self.assertEqual(modes, {0o600})

    def test_killed(self) -> None:
        """R31: what was said to be stored is there after kill -9 at any moment."""
        command = [sys.executable, "-c", _WRITER, str(self.file.resolve())]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        last = 0
        for _ in range(20):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        last = int(rest[-1]) if rest else last
        found = self.store.key_identifiers(LAPTOP, b"", AT, 10**6)
        self.assertEqual(found[: last + 1], [a_key(one).identifier for one in range(last + 1)])

    def test_unusable(self) -> None:
        """A file that is no database is told in words, and left alone."""
        file = Path(self.mktemp())
        file.write_bytes(b"no database" * 1000)
        with self.assertRaises(ConfigurationError) as caught:
            SQLiteWaitingStore(file)
        self.assertIn(str(file), str(caught.exception))
        self.assertEqual(file.read_bytes(), b"no database" * 1000)

    def test_fails(self) -> None:
        """A storage that does not work is an error of ours, and nothing was done."""
        with sqlite3.connect(self.file) as database:
            database.execute("DROP TABLE temporal_key")
        with self.assertRaises(StorageFailed):
            self.keep(a_key(1))

    def test_section(self) -> None:
        """The plugin's section knows the file's name, and nothing else."""
        provider: IWaitingStoreProvider = find(IWaitingStoreProvider, "sqlite")
        verifyObject(IWaitingStoreProvider, provider)
        directory = self.mktemp()
        provider.configure({"file": "x.sqlite"}, directory).close()
        self.assertTrue((Path(directory) / "x.sqlite").exists())
        for section in ({"fil": "x"}, {"file": 3}):
            with self.assertRaises(ConfigurationError):
                provider.configure(section, directory)
