from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.interfaces import ILocationStore, ILocationStoreProvider, StoredClient
from ntmobile.plugins import find
from ntmobile.plugins.store_locations_sqlite import SQLiteLocationStore, sqliteLocations
from ntmobile.servers.configuration import load_coordinator
from ntmobile.servers.coordinator import CoordinatorService
from tests.platforms import PlatformTestCase, make_realm

ROOT = Path(__file__).resolve().parent.parent


def client(number: int, order: int = 0) -> StoredClient:
    """A client as a DC stores it."""
    return StoredClient(
        f"d{number}.alice.dc1.ntm.example",
        number.to_bytes(8, "big"),
        bytes([number % 256]) * 32,
        b"certificate",
        1_790_000_000.25,
        b"location",
        b"policy",
        order or number,
        b"correspondents",
    )


class LocationStoreTests(TestCase):
    def setUp(self) -> None:
        """A store in a directory of its own."""
        self.directory = Path(self.mktemp())
        self.store = self.open()
        self.opened = [self.store]
        self.addCleanup(lambda: gatherResults([store.close() for store in self.opened]))

    def open(self, directory: Path | None = None) -> SQLiteLocationStore:
        """Open the store, as a DC does that starts."""
        where = str(directory or self.directory)
        return sqliteLocations.configure({}, where, IReactorFromThreads(reactor))

    def again(self) -> SQLiteLocationStore:
        """Open it a second time."""
        self.opened.append(self.open())
        return self.opened[-1]

    def test_interfaces(self) -> None:
        """It is found by its name, and provides what it says."""
        self.assertIs(find(ILocationStoreProvider, "sqlite"), sqliteLocations)
        verifyObject(ILocationStoreProvider, sqliteLocations)
        verifyObject(ILocationStore, self.store)

    async def test_written_and_read(self) -> None:
        """What was written is there at the next start, field by field, in order of registration."""
        clients = [client(3, 30), client(1, 10), client(2, 20)]
        await self.store.write(clients, [], 7)
        again = self.again()
        self.assertEqual(list(again.load()), sorted(clients, key=lambda one: one.order))
        self.assertEqual(again.sequence(), 7)

    async def test_changed_and_removed(self) -> None:
        """A batch changes, adds and removes; removing nobody is no error."""
        await self.store.write([client(1), client(2)], [], 1)
        moved = evolve(client(1), location=b"elsewhere")
        await self.store.write([moved, client(3)], [client(2).fqdn, "nobody.alice.example"], 2)
        self.assertEqual(list(self.store.load()), [moved, client(3)])

    async def test_removed_and_changed(self) -> None:
        """A client that left and came back within one batch is there."""
        await self.store.write([client(1)], [], 1)
        await self.store.write([client(1, 5)], [client(1).fqdn], 1)
        self.assertEqual(list(self.store.load()), [client(1, 5)])

    async def test_sequence_only_grows(self) -> None:
        """R34: what was carried out of the AS's changes is never forgotten."""
        self.assertEqual(self.store.sequence(), 0)
        await self.store.write([], [], 9)
        await self.store.write([], [], 4)
        self.assertEqual(self.again().sequence(), 9)

    async def test_many_at_once(self) -> None:
        """Batches that are given while one is written are written in turn."""
        batches = [self.store.write([client(1, n)], [], n) for n in range(1, 30)]
        await gatherResults(batches)
        self.assertEqual(list(self.store.load()), [client(1, 29)])

    async def test_assignments(self) -> None:
        """Virtual addresses are there as soon as they were assigned."""
        self.store.assign("a.alice.dc1.ntm.example", b"6" * 16, b"4444")
        self.store.assign("b.alice.dc1.ntm.example", b"7" * 16, b"5555")
        self.assertEqual(
            self.again().assignments(),
            {
                "a.alice.dc1.ntm.example": (b"6" * 16, b"4444"),
                "b.alice.dc1.ntm.example": (b"7" * 16, b"5555"),
            },
        )

    def test_one_address_each(self) -> None:
        """An address that a device has is never taken from it."""
        self.store.assign("a.alice.dc1.ntm.example", b"6" * 16, b"4444")
        for ipv6, ipv4 in ((b"6" * 16, b"5555"), (b"7" * 16, b"4444")):
            with self.assertRaises(StorageFailed):
                self.store.assign("b.alice.dc1.ntm.example", ipv6, ipv4)
        self.assertEqual(list(self.store.assignments()), ["a.alice.dc1.ntm.example"])
        self.store.assign("a.alice.dc1.ntm.example", b"8" * 16, b"8888")
        self.assertEqual(
            self.store.assignments(), {"a.alice.dc1.ntm.example": (b"8" * 16, b"8888")}
        )

    async def test_all_or_nothing(self) -> None:
        """A batch that cannot be stored leaves nothing behind, and the next one is stored."""
        await self.store.write([client(1)], [], 1)
        broken = evolve(client(2), order=1 << 70)
        for bad in (broken, evolve(client(2), location=cast(bytes, None))):
            await self.caught(self.store.write([client(3), bad], [client(1).fqdn], 5))
        self.assertEqual(list(self.store.load()), [client(1)])
        self.assertEqual(self.store.sequence(), 1)
        await self.store.write([client(4)], [], 6)
        self.assertEqual(list(self.store.load()), [client(1), client(4)])

    async def caught(self, deferred: Deferred[None]) -> str:
        """What a failure of the storage says."""
        try:
            await deferred
        except StorageFailed as problem:
            return str(problem)
        raise self.failureException("it succeeded")

    async def test_private(self) -> None:
        """R6: the session keys in it are for their owner's eyes only, journal included."""
        await self.store.write([client(1)], [], 1)
        found = sorted(self.directory.iterdir())
        self.assertIn("locations.sqlite-wal", [one.name for one in found])
        for file in found:
            self.assertEqual(stat.S_IMODE(file.stat().st_mode) & 0o077, 0, file.name)
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_loose_permissions(self) -> None:
        """R6: a file that others could read is made private when it is opened."""
        directory = Path(self.mktemp())
        directory.mkdir(mode=0o700)
        (directory / "locations.sqlite").touch(mode=0o644)
        self.opened.append(self.open(directory))
        mode = (directory / "locations.sqlite").stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_not_a_database(self) -> None:
        """A file that is no database is a clear error, and is left as it is."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "locations.sqlite").write_bytes(b"not a database at all" * 100)
        with self.assertRaisesRegex(ConfigurationError, "move it away and devices log in"):
            self.open(directory)
        self.assertTrue((directory / "locations.sqlite").read_bytes().startswith(b"not a"))

    def test_keys(self) -> None:
        """Its one key is the file; others are fatal, named exactly."""
        where = str(self.directory)
        other = sqliteLocations.configure({"file": "x.sqlite"}, where, IReactorFromThreads(reactor))
        self.opened.append(other)
        self.assertTrue((self.directory / "x.sqlite").exists())
        for section in ({"fil": "x"}, {"file": 3}, {"file": ""}):
            with self.assertRaises(ConfigurationError):
                sqliteLocations.configure(section, where, IReactorFromThreads(reactor))

    async def test_a_full_disk(self) -> None:
        """A disk that is full is told as such, and the store goes on when there is room again."""
        database = self.store._database.connection
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 1}")
        many = [evolve(client(n), location=bytes(20_000)) for n in range(50)]
        self.assertIn("full", await self.caught(self.store.write(many, [], 1)))
        database.execute("PRAGMA max_page_count = 100000")
        await self.store.write(many, [], 1)
        self.assertEqual(len(list(self.store.load())), 50)


class DaemonTests(PlatformTestCase):
    async def test_opened_when_started(self) -> None:
        """A DC, which may fork after it was made, keeps the file open from its start on only."""
        platform = make_realm(self.place(), "ntm.example", ())
        file = platform.directory / "dc1.ntm.example" / "dc.toml"
        service = CoordinatorService(load_coordinator(file), reactor)
        store: Any = service._store  # the default plugin's
        database = store._database
        self.assertIsNone(database._kept)
        service.startService()
        self.assertIsNotNone(database._kept)
        await service.stopService()


class CrashTests(TestCase):
    """A DC that is killed at any moment."""

    SCRIPT = dedent(
        """
        import sys
        from twisted.internet import reactor
        from ntmobile.interfaces import StoredClient
        from ntmobile.plugins.store_locations_sqlite import sqliteLocations

        store = sqliteLocations.configure({}, sys.argv[1], reactor)

        def batch(number):
            clients = [
                StoredClient(f"d{n}.alice.dc1.example", bytes(8), bytes(32), b"c", 1.0,
                             str(number).encode(), b"p", n + 1)
                for n in range(200)
            ]
            print(number, flush=True)
            store.assign(f"d{number}.bob.dc1.example", number.to_bytes(16, "big"),
                         number.to_bytes(4, "big"))
            store.write(clients, [], number).addCallback(lambda _: batch(number + 1))

        reactor.callWhenRunning(batch, 1)
        reactor.run()
        """
    )

    #: Says how often the file is open before and after a fork.
    DAEMON = dedent(
        """
        import os, sys
        from twisted.internet import reactor
        from ntmobile.plugins.store_locations_sqlite import sqliteLocations

        def connections():
            links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            there = [os.readlink(each) for each in links if os.path.lexists(each)]
            return sum(each.endswith("locations.sqlite") for each in there)

        store = sqliteLocations.configure({}, sys.argv[1], reactor)
        assert (store.assignments(), store.sequence()) == ({}, 0)
        print(connections(), flush=True)
        child = os.fork()
        if child:
            sys.exit(os.waitpid(child, 0)[1])
        before = connections()
        list(store.load())
        store.assign("a.bob.dc1.example", bytes(16), bytes(4))
        print(before, connections())
        """
    )

    async def test_killed(self) -> None:
        """After SIGKILL amid writing the store opens, with whole batches only and every address."""
        directory = Path(self.mktemp())
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for round_number in range(3):
            with subprocess.Popen(
                [sys.executable, "-c", self.SCRIPT, str(directory)],
                stdout=subprocess.PIPE,
                env=environment,
            ) as process:
                assert process.stdout is not None
                last = 0
                for line in process.stdout:
                    last = int(line)
                    if last >= 5 + 7 * round_number:
                        break
                process.send_signal(signal.SIGKILL)
                process.wait(10)
            store = sqliteLocations.configure({}, str(directory), IReactorFromThreads(reactor))
            try:
                found = list(store.load())
                self.assertEqual(len(found), 200)
                batches = {one.location for one in found}
                self.assertEqual(len(batches), 1)
                self.assertGreaterEqual(store.sequence(), last - 1)
                self.assertEqual(store.sequence(), int(batches.pop()))
                self.assertGreaterEqual(len(store.assignments()), last - 1)
            finally:
                await store.close()

    def test_across_a_fork(self) -> None:
        """A daemon that forks once it has asked has no connection yet, and then one of its own."""
        directory = Path(self.mktemp())
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", self.DAEMON, str(directory)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.stdout, ran.stderr), ("0\n0 1\n", ""))

    async def test_durable(self) -> None:
        """What is told to be durable is on the disk, not only handed to the system."""
        store = sqliteLocations.configure({}, self.mktemp(), IReactorFromThreads(reactor))
        synchronous = store._database.connection.execute("PRAGMA synchronous").fetchone()[0]
        self.assertEqual(synchronous, 2)  # FULL
        await store.close()
        with self.assertRaises(sqlite3.ProgrammingError):
            store._database.connection.execute("SELECT 1")
