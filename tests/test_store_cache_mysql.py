"""The ``mysql`` storage, on a real MariaDB server."""

from __future__ import annotations

import re
import signal
import textwrap
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile import plugins
from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import ICacheStorageProvider, Quotas, Usage
from ntmobile.lab.supervision import ROOT
from ntmobile.plugins.caches import mysql
from ntmobile.plugins.section import Section
from tests import cache_delivery_cases, cache_storage_cases
from tests.cache_storage_cases import NOW, announced, key, part
from tests.mariadb import MISSING, MariaDB, make_certificate

PASSWORD = "correct horse %s ' battery"


class _MySQL(cache_storage_cases.StorageCases):
    """Makes the storage in an empty database of the test."""

    skip = MISSING

    def setUp(self) -> None:
        self.server = MariaDB.running()
        self.name = self.server.database(PASSWORD.replace("'", "''"))
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.password = self.directory / "mysql.password"
        self.password.touch(0o600)
        self.password.write_text(PASSWORD + "\n")
        self.provider = plugins.find(ICacheStorageProvider, "mysql")

    def make(self, quotas: Quotas, capacity: int, **section: object) -> Any:
        """A storage there."""
        section = {
            "socket": str(self.server.socket),
            "user": self.name,
            "database": self.name,
            "capacity": capacity,
            **section,
        }
        return self.provider.configure(section, str(self.directory), quotas, reactor)

    def pieces(self) -> int:
        """How many rows the blobs are in."""
        return int(self.server.ask(f"SELECT COUNT(*) FROM {self.name}.cache_blobs")[0][0])


class MySQLKeyTests(_MySQL, cache_storage_cases.KeyCases):
    """Sealed keys."""


class MySQLObjectTests(_MySQL, cache_storage_cases.ObjectCases):
    """Objects and their parts."""


class MySQLDurableTests(_MySQL, cache_storage_cases.DurableCases):
    """What outlives the storage that is open."""


class MySQLDeliveryTests(_MySQL, cache_delivery_cases.DeliveryCases):
    """Who is told, and who has confirmed."""


class MySQLRoomTests(_MySQL, cache_delivery_cases.RoomCases):
    """Quotas, and what there is room for."""


class ProviderTests(SynchronousTestCase):
    """The plugin."""

    def test_interfaces(self) -> None:
        """It is a plugin that provides cache storages."""
        provider = plugins.find(ICacheStorageProvider, "mysql")
        verifyObject(ICacheStorageProvider, provider)
        self.assertTrue(IPlugin.providedBy(provider))

    def test_wrong_section(self) -> None:
        """What is wrong is named; R6: a password has no place in a configuration."""
        provider = plugins.find(ICacheStorageProvider, "mysql")
        for section, line in (
            ({"password": "secret"}, "storage.password: unknown key; did you mean"),
            ({"port": 0}, "storage.port: expected a whole number from 1 to 65535"),
            ({"capacity": 0}, "storage.capacity: expected a whole number"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                provider.configure(section, "nowhere", Quotas(), reactor)
            self.assertIn(line, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))


class PageTests(_MySQL):
    """The page that tells how to set it up."""

    async def test_page(self) -> None:
        """Its SQL and its section make a storage that works."""
        page = (ROOT / "docs/howto/mariadb.md").read_text(encoding="utf-8")
        blocks = re.findall(r"<!-- mariadb: \w+ -->\n *```\w+\n(.*?)```", page, re.S)
        sql, toml = (textwrap.dedent(block) for block in blocks)
        for statement in sql.strip().rstrip(";").split(";"):
            self.server.ask(statement)
        self.addCleanup(self.server.ask, "DROP USER ntm@localhost")
        self.addCleanup(self.server.ask, "DROP DATABASE ntm")
        self.password.write_text("a password of your own\n")
        file = self.directory / "cache.toml"
        file.write_text(toml)
        name, section = Section.read(file).plugin("storage", "files")
        self.assertEqual(name, "mysql")
        values = {**section, "socket": str(self.server.socket)}
        section = Section(file, section.name, values)
        storage = self.provider.configure(section, "elsewhere", Quotas(), reactor)
        await storage.open()
        self.addCleanup(storage.close)
        self.assertTrue(await self.filled(storage, announced()))


class RowTests(_MySQL):
    """What is in the database."""

    async def test_emptied(self) -> None:
        """Nothing is left of an object that is removed, confirmed by all, or expired."""
        storage = await self.opened()
        for number in range(3):
            await self.filled(storage, announced(bytes([number]) * 16, destinations=("x.y.z",)))
        self.assertEqual(self.pieces(), 9)
        await storage.remove(b"\0" * 16)
        await storage.confirm(b"\1" * 16, "x.y.z", b"", NOW)
        self.assertEqual(self.pieces(), 3)
        await storage.expire(NOW + 2e5, 1)
        self.assertEqual(self.pieces(), 0)

    async def test_swept(self) -> None:
        """What a crash leaves is removed at start, and accounts are made right again."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0, 1])
        await storage.close()
        table = f"{self.name}.cache_blobs"
        columns = f"{table} (place, part, digest, piece, data)"
        self.server.ask(f"INSERT INTO {columns} SELECT place, 2, digest, 0, '' FROM {table}")
        self.server.ask(
            f"INSERT INTO {columns} VALUES ('ab', 0, 'x', 0, ''), ('ab', 0, 'x', 1, '')"
        )
        self.server.ask(f"UPDATE {self.name}.cache_usage SET size = 1, items = 99")
        storage = await self.opened()
        self.assertEqual(self.pieces(), 2)
        self.assertEqual(await storage.usage(), Usage(2500 + len(announced().document), 1))
        self.assertEqual(await storage.read_part(b"o" * 16, 1, 0, 1000, NOW), part(1)[0])

    async def test_made_in_part(self) -> None:
        """Tables that were being made when it was killed are made to the end."""
        storage = await self.opened()
        await storage.close()
        self.server.ask(f"UPDATE {self.name}.cache_state SET version = 0")
        self.server.ask(f"DROP TABLE {self.name}.cache_usage")
        storage = await self.opened()
        self.assertTrue(await self.filled(storage, announced()))

    async def test_one_server(self) -> None:
        """A second server on the same database is refused, and does no harm."""
        self.patch(mysql, "PATIENCE", 0.0)
        storage = await self.opened()
        line = await self.refused(StorageFailed, self.make(Quotas(), 1).open())
        self.assertIn("another cache server uses it", line)
        self.assertTrue(await self.filled(storage, announced()))


class ConnectionTests(_MySQL):
    """Connections that are refused or lost."""

    async def test_wrong_password(self) -> None:
        """R6: a password that is refused is said so in a line that has it not."""
        self.password.write_text("another")
        line = await self.refused(StorageFailed, self.make(Quotas(), 1).open())
        self.assertIn("Access denied", line)
        self.assertIn(f"database {self.name} of {self.name} at", line)
        self.assertNotIn("another", line)

    async def test_opened_later(self) -> None:
        """What could not be opened may be opened when the cause has gone."""
        self.password.write_text("another")
        storage = self.make(Quotas(), 1 << 20)
        self.addCleanup(storage.close)
        await self.refused(StorageFailed, storage.open())
        self.password.write_text(PASSWORD)
        await storage.open()
        self.assertTrue(await self.filled(storage, announced()))

    async def test_password_file(self) -> None:
        """R6: a password that everybody may read, or that is nowhere, is not used."""
        self.password.chmod(0o644)
        line = await self.refused(ConfigurationError, self.make(Quotas(), 1).open())
        self.assertIn("chmod 600", line)
        self.password.unlink()
        line = await self.refused(ConfigurationError, self.make(Quotas(), 1).open())
        self.assertIn("mysql.password: cannot be read", line)

    async def test_authority(self) -> None:
        """With an authority the connection is TLS with the server that it vouches for, or none."""
        self.patch(mysql, "PATIENCE", 0.3)
        wrong = self.directory / "wrong.pem"
        make_certificate(wrong, self.directory / "wrong.key")
        refused = self.make(Quotas(), 1, ca=str(wrong))
        line = await self.refused(StorageFailed, refused.open())
        self.assertIn("certificate verify failed", line)
        absent = self.make(Quotas(), 1, ca="absent.pem")
        self.assertIn("absent.pem", await self.refused(ConfigurationError, absent.open()))
        storage = self.make(Quotas(), 1 << 20, ca=str(self.server.certificate))
        await storage.open()
        self.addCleanup(storage.close)
        ((_, cipher),) = storage._database.read(lambda t: t.rows("SHOW STATUS LIKE 'Ssl_cipher'"))
        self.assertNotEqual(cipher, "")

    async def test_no_database(self) -> None:
        """A database that there is not is named."""
        line = await self.refused(StorageFailed, self.make(Quotas(), 1, database="x1").open())
        self.assertIn("x1", line)

    async def test_no_server(self) -> None:
        """A server that does not answer is said to be so, after some patience."""
        self.patch(mysql, "PATIENCE", 0.3)
        nowhere = str(self.directory / "nowhere")
        line = await self.refused(StorageFailed, self.make(Quotas(), 1, socket=nowhere).open())
        self.assertIn("Can't connect", line)

    async def test_lost(self) -> None:
        """Connections that are cut are made again, and who asked does not notice."""
        storage = await self.opened()
        await gatherResults([storage.usage() for _ in range(8)])
        for number in range(3):
            self.assertGreaterEqual(self.server.disconnect(self.name), 1)
            self.assertTrue(await self.filled(storage, announced(bytes([number]) * 16)))
        self.assertEqual((await storage.usage()).items, 3)

    async def test_killed_server(self) -> None:
        """What a server took is there after it was killed; meanwhile a line says that it is not."""
        storage = await self.opened()
        await storage.add_keys([key()], NOW)
        await self.filled(storage, announced(), [0, 1])
        self.server.stop(signal.SIGKILL)
        self.addCleanup(self.server.start)
        self.patch(mysql, "PATIENCE", 0.3)
        asked = storage.put_part(b"o" * 16, 2, *part(2, 500), NOW)
        line = await self.refused(StorageFailed, asked)
        self.assertIn("nothing was changed", line)
        self.server.start()
        self.assertEqual(await storage.key(b"k" * 32, key().destination, NOW), key())
        self.assertTrue(await storage.put_part(b"o" * 16, 2, *part(2, 500), NOW))
        self.assertEqual(await storage.read_part(b"o" * 16, 1, 0, 1000, NOW), part(1)[0])
        self.assertEqual(self.pieces(), 3)

    async def test_server_comes_back(self) -> None:
        """Who asks while the server starts again waits, and has the answer."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0, 1])
        self.server.stop()
        self.addCleanup(self.server.start)
        asked = storage.put_part(b"o" * 16, 2, *part(2, 500), NOW)
        self.server.start()
        self.assertTrue(await asked)

    async def test_closed_while_lost(self) -> None:
        """Closing does not wait for a server that is away."""
        storage = await self.opened()
        self.server.stop()
        self.addCleanup(self.server.start)
        asked = storage.usage()
        closed = storage.close()
        await self.refused(StorageFailed, asked)
        await closed
