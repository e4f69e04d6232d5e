"""The ``files`` storage: what every storage does, and what a crash leaves."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile import plugins
from ntmobile.errors import (
    AlreadyExists,
    ConfigurationError,
    NoSuchItem,
    StorageFailed,
    StorageFull,
)
from ntmobile.interfaces import ICacheStorageProvider, Quotas, Usage
from ntmobile.plugins.caches import files, keys
from ntmobile.plugins.caches.blobs import BlobName
from ntmobile.plugins.caches.objects import record_part, remove
from ntmobile.plugins.caches.sqlite import SQLiteDatabase
from tests import cache_delivery_cases, cache_storage_cases
from tests.cache_storage_cases import ALICE, BOB, NOW, announced, key, part


class _Files(cache_storage_cases.StorageCases):
    """Makes the storage in a directory of the test."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.provider = plugins.find(ICacheStorageProvider, "files")

    def make(self, quotas: Quotas, capacity: int, **section: object) -> Any:
        """A storage there."""
        section = {"capacity": capacity, "keep_free": 0, **section}
        return self.provider.configure(section, str(self.directory), quotas, reactor)

    def found(self) -> list[Path]:
        """The files of parts."""
        return [each for each in (self.directory / "cache/parts").rglob("*") if each.is_file()]


class FilesKeyTests(_Files, cache_storage_cases.KeyCases):
    """Sealed keys."""


class FilesObjectTests(_Files, cache_storage_cases.ObjectCases):
    """Objects and their parts."""


class FilesDurableTests(_Files, cache_storage_cases.DurableCases):
    """What outlives the storage that is open."""


class FilesDeliveryTests(_Files, cache_delivery_cases.DeliveryCases):
    """Who is told, and who has confirmed."""


class FilesRoomTests(_Files, cache_delivery_cases.RoomCases):
    """Quotas, and what there is room for."""


class ProviderTests(_Files):
    """The plugin."""

    def test_interfaces(self) -> None:
        """It is a plugin that provides cache storages."""
        verifyObject(ICacheStorageProvider, self.provider)
        self.assertTrue(IPlugin.providedBy(self.provider))

    def test_wrong_section(self) -> None:
        """What is wrong is named."""
        for section, line in (
            ({"pth": "x"}, "storage.pth: unknown key; did you mean 'path'?"),
            ({"capacity": -1}, "storage.capacity: expected a whole number"),
            ({"keep_free": "1 GiB"}, "storage.keep_free: expected a whole number"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                self.provider.configure(section, "nowhere", Quotas(), reactor)
            self.assertIn(line, str(caught.exception))


class DirectoryTests(_Files):
    """What is in the directory, and what happens to it."""

    async def test_private(self) -> None:
        """R6: nobody else may read what is stored, or even its names."""
        storage = await self.opened()
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        await self.filled(storage, announced())
        await storage.add_keys([key()], NOW)
        root = self.directory / "cache"
        for each in [root, *root.rglob("*")]:
            mode = each.stat().st_mode & 0o777
            self.assertEqual(oct(mode), oct(0o700 if each.is_dir() else 0o600), str(each))

    async def test_readable_to_others(self) -> None:
        """R6: records that others may read are not used."""
        await (await self.opened()).close()
        (self.directory / "cache/records.sqlite").chmod(0o640)
        storage = self.make(Quotas(), 0)
        self.addCleanup(storage.close)
        line = await self.refused(ConfigurationError, storage.open())
        self.assertIn("chmod 600", line)

    async def test_opened_later(self) -> None:
        """What could not be opened may be opened when the cause has gone."""
        (self.directory / "cache").write_text("in the way")
        storage = self.make(Quotas(), 0)
        self.addCleanup(storage.close)
        await self.refused(StorageFailed, storage.open())
        await self.refused(StorageFailed, storage.usage())
        (self.directory / "cache").unlink()
        await storage.open()
        self.assertTrue(await self.filled(storage, announced()))

    async def test_names(self) -> None:
        """Names of files have nothing of what clients call their things."""
        storage = await self.opened()
        each = announced(b"../../../../tmp/", application="../x")
        await self.filled(storage, each)
        names = {file.relative_to(self.directory / "cache/parts") for file in self.found()}
        self.assertEqual(len(names), 3)
        for name in names:
            self.assertRegex(str(name), r"\A[0-9a-f]{2}/[0-9a-f]{32}/[0-9]+\.[0-9a-f]{64}\Z")

    async def test_emptied(self) -> None:
        """Nothing is left of an object that is removed, confirmed by all, or expired."""
        storage = await self.opened()
        for number in range(3):
            await self.filled(storage, announced(bytes([number]) * 16, destinations=("x.y.z",)))
        self.assertEqual(len(self.found()), 9)
        await storage.remove(b"\0" * 16)
        await storage.confirm(b"\1" * 16, "x.y.z", b"", NOW)
        self.assertEqual(len(self.found()), 3)
        await storage.expire(NOW + 2e5, 1)
        self.assertEqual(self.found(), [])

    async def test_rival_leaves_nothing(self) -> None:
        """A part that is refused because another came first leaves no file."""
        storage = await self.opened()
        await storage.add_object(announced(), NOW)
        put = storage._blobs.put

        def late(name: Any, data: bytes) -> None:
            put(name, data)
            rival = BlobName(name.place, 0, part(1)[1])
            put(rival, part(1)[0])
            storage._database.write(lambda t: record_part(t, b"o" * 16, rival, 1000, NOW))

        storage._blobs.put = late
        await self.refused(AlreadyExists, storage.put_part(b"o" * 16, 0, *part(0), NOW))
        self.assertEqual([each.name for each in self.found()], [f"0.{part(1)[1].hex()}"])

    async def test_removed_meanwhile(self) -> None:
        """A part whose object goes while it is written leaves no file, and says so."""
        storage = await self.opened()
        await storage.add_object(announced(), NOW)
        put = storage._blobs.put

        def late(name: Any, data: bytes) -> None:
            storage._clear(storage._database.write(lambda t: remove(t, b"o" * 16)))
            put(name, data)

        storage._blobs.put = late
        await self.refused(NoSuchItem, storage.put_part(b"o" * 16, 0, *part(0), NOW))
        self.assertEqual(self.found(), [])

    async def test_dropped(self) -> None:
        """A part in pieces that is not kept leaves no file, nor one that comes at the end."""
        storage = await self.opened()
        await storage.add_object(announced(), NOW)
        for number in (0, 1):
            coming = await storage.begin_part(b"o" * 16, ALICE, number, 1000, part(number)[1], NOW)
            await coming.write(b"some")
            self.assertEqual(len(self.found()), 1)
            if not number:
                await coming.drop()
                self.assertEqual(self.found(), [])
        await storage.close()
        self.assertEqual(self.found(), [])

    async def test_swept(self) -> None:
        """What a crash leaves is removed at start, and accounts are made right again."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0, 1])
        kept = set(self.found())
        place = next(iter(kept)).parent
        storage._database.write(lambda t: t.change("UPDATE cache_usage SET size = 1, items = 99"))
        await storage.close()
        for rubbish in (place / ".new-x", place / f"2.{'0' * 64}", place / "1"):
            rubbish.write_bytes(b"x")
        (self.directory / f"cache/parts/ab/{'ab' * 16}").mkdir(parents=True)
        (self.directory / f"cache/parts/ab/{'ab' * 16}/0.{'1' * 64}").write_bytes(b"x")
        (self.directory / f"cache/parts/cd/{'cd' * 16}").mkdir(parents=True)
        storage = await self.opened()
        self.assertEqual(set(self.found()), kept)
        directories = (self.directory / "cache/parts").glob("*/*")
        self.assertEqual([each.name for each in directories], [place.name])
        self.assertEqual(await storage.usage(), Usage(2500 + len(announced().document), 1))
        self.assertEqual((await storage.standing(b"o" * 16, NOW)).missing, (2,))

    async def test_one_server(self) -> None:
        """A second server on the same directory is refused, and does no harm."""
        self.patch(files, "PATIENCE", 0.0)
        storage = await self.opened()
        other = self.make(Quotas(), 0)
        line = await self.refused(StorageFailed, other.open())
        self.assertIn("another cache server uses it", line)
        await other.close()
        self.assertTrue(await self.filled(storage, announced()))

    async def test_lost_part(self) -> None:
        """A file that somebody removed is a failure of the storage, not of the client."""
        storage = await self.opened()
        await self.filled(storage, announced())
        for each in self.found():
            each.unlink()
        await self.refused(StorageFailed, storage.read_part(b"o" * 16, 0, 0, 1, NOW))

    async def test_disk_full(self) -> None:
        """A part for which the disk has no room after all is refused, and leaves nothing."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0])
        before = self.found()

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched = self.patch(os, "fsync", full)
        line = await self.refused(StorageFull, storage.put_part(b"o" * 16, 1, *part(1), NOW))
        self.assertIn("No space left on device", line)
        self.assertNotIn(str(self.directory), line)  # clients hear it
        patched.restore()
        self.assertEqual(self.found(), before)
        self.assertFalse(await storage.put_part(b"o" * 16, 1, *part(1), NOW))

    async def test_free(self) -> None:
        """Room is what the file system has, less what is announced and what is left to others."""
        left = shutil.disk_usage(self.directory).free
        storage = await self.opened(capacity=0)
        length = left // 2
        await storage.add_object(announced(length=length, part_size=length), NOW)
        free = await storage.free()
        self.assertLess(abs(left - length - free), 1 << 30)
        asked = storage.add_object(announced(b"p" * 16, length=length + (1 << 30)), NOW)
        await self.refused(StorageFull, asked)
        await storage.close()
        storage = self.make(Quotas(), 0, keep_free=1 << 60)
        await storage.open()
        self.addCleanup(storage.close)
        self.assertEqual(await storage.free(), 0)


class RecordTests(SynchronousTestCase):
    """The SQLite file."""

    def test_full(self) -> None:
        """Records for which there is no room are refused, and those before stay."""
        database = SQLiteDatabase(Path(self.mktemp()).absolute())
        database.open()
        self.addCleanup(database.close)
        database.write(lambda t: keys.add(t, [key()], Quotas(), 1 << 30, NOW))
        database.read(lambda t: t.rows("PRAGMA max_page_count = 1"))
        large = key(b"x" * 32, document=bytes(1 << 20))
        with self.assertRaises(StorageFull) as full:
            database.write(lambda t: keys.add(t, [large], Quotas(), 1 << 30, NOW))
        self.assertNotIn("/", str(full.exception))  # clients hear it
        self.assertIsNone(database.read(lambda t: keys.find(t, b"x" * 32, BOB, NOW)))
        self.assertEqual(database.read(lambda t: keys.find(t, b"k" * 32, BOB, NOW)), key())

    def test_newer(self) -> None:
        """A file of a newer version is left alone."""
        path = Path(self.mktemp()).absolute()
        database = SQLiteDatabase(path)
        database.open()
        database.read(lambda t: t.rows("PRAGMA user_version = 99"))
        database.close()
        self.addCleanup(database.close)
        with self.assertRaises(ConfigurationError) as caught:
            database.open()
        self.assertIn("made by a newer ntmobile", str(caught.exception))
