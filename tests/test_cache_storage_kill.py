"""A storage that is killed at random moments loses nothing that it took, and leaks nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ntmobile import plugins
from ntmobile.interfaces import ICacheStorageProvider, Quotas, Usage
from tests.cache_storage_cases import BOB, DAY, NOW, announced, key, part
from tests.mariadb import MISSING, MariaDB

PROGRAM = Path(__file__).with_name("cache_storage_program.py")


@define
class Told:
    """What the program said of one object."""

    length: int = -1
    steps: set[str] = field(factory=set)
    parts: set[int] = field(factory=set)


def killed_after(words: list[str], seconds: float) -> list[list[str]]:
    """Run the program, kill it so long after it has begun, and give what it said, as words."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        stdout=subprocess.PIPE,
        cwd=PROGRAM.parent.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(b"opened"), first
        killing = threading.Timer(seconds, process.kill)
        killing.start()
        lines = [line.decode().split() for line in process.stdout if line.endswith(b"\n")]
        killing.join()
    assert process.returncode == -9, process.returncode
    return lines


class _Killed(TestCase, ABC):
    """The loop. Who inherits it says which storage, and what is left in it."""

    timeout = 120
    #: For so long it goes on, in seconds, and at least for three kills.
    bound = 7.0
    plugin = ""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.section: dict[str, object] = {"capacity": 1 << 40}
        self.told: dict[bytes, Told] = {}

    @abstractmethod
    def left(self) -> int:
        """How many blobs there are."""

    def hear(self, words: list[str]) -> None:
        """Note a line."""
        step, name, *more = words
        told = self.told.setdefault(bytes.fromhex(name), Told())
        told.steps.add(step)
        if step == "announcing":
            told.length = int(more[0])
        elif step == "part":
            told.parts.add(int(more[0]))

    async def kept(self, storage: Any, identifier: bytes, told: Told) -> int:
        """See that one object is as it was said; gives how many parts it has."""
        if "key" in told.steps:
            expected = key(identifier * 2)
            self.assertEqual(await storage.key(identifier * 2, BOB, NOW), expected)
        found = await storage.find(identifier, NOW)
        if found is None:
            self.assertTrue(not told.parts or "removing" in told.steps, told)
            return 0
        self.assertNotIn("removed", told.steps)
        each = announced(identifier, length=told.length)
        self.assertEqual(found, each)
        standing = await storage.standing(identifier, NOW)
        deliveries = await storage.deliveries(identifier, NOW)
        states = {one.destination: one.state for one in deliveries}
        self.assertTrue("confirming" in told.steps or not standing.released)
        self.assertTrue("confirmed" not in told.steps or standing.released)
        self.assertEqual(standing.released, set(states.values()) == {"confirmed"})
        self.assertTrue("told" not in told.steps or states[BOB] != "not told")
        self.assertTrue("bob" not in told.steps or states[BOB] == "confirmed")
        count = 0
        for number in range(0 if standing.released else each.parts):
            stored = await storage.part(identifier, number, NOW)
            self.assertTrue(stored is not None or number not in told.parts)
            if stored is not None:
                read = await storage.read_part(identifier, number, 0, 1 << 20, NOW)
                self.assertEqual(read, part(number, each.size_of(number))[0])
                count += 1
        self.assertEqual(standing.complete, standing.released or count == each.parts)
        return count

    async def check(self) -> None:
        """See that all that was said is so, that nothing else is there, and remove it."""
        provider = plugins.find(ICacheStorageProvider, self.plugin)
        storage = provider.configure(self.section, str(self.directory), Quotas(), reactor)
        await storage.open()
        try:
            parts = size = items = 0
            for identifier, told in self.told.items():
                parts += await self.kept(storage, identifier, told)
                stored = await storage.key(identifier * 2, BOB, NOW)
                if stored is not None:
                    size, items = size + len(stored.document), items + 1
                found = await storage.find(identifier, NOW)
                if found is not None:
                    released = (await storage.standing(identifier, NOW)).released
                    size += len(found.document) + (0 if released else found.length)
                    items += 1
            self.assertEqual(self.left(), parts)
            self.assertEqual(await storage.usage(), Usage(size, items))
            self.assertEqual(await storage.expire(NOW + 2 * DAY, DAY), items)
            self.assertEqual((self.left(), await storage.usage()), (0, Usage(0, 0)))
        finally:
            await storage.close()
        self.told.clear()

    async def loop(self) -> None:
        """Kill it, look, and begin again."""
        chance = random.Random()
        end = time.monotonic() + self.bound
        kills = steps = 0
        while kills < 3 or time.monotonic() < end:
            section = json.dumps(self.section)
            words = [self.plugin, section, str(self.directory), str(chance.random())]
            lines = await deferToThread(killed_after, words, chance.uniform(0.0, 0.5))
            for line in lines:
                self.hear(line)
            kills, steps = kills + 1, steps + len(lines)
            await self.check()
        self.assertGreater(steps, kills)


class FilesKillTests(_Killed):
    """The ``files`` storage."""

    plugin = "files"

    def setUp(self) -> None:
        super().setUp()
        self.section["keep_free"] = 0

    def left(self) -> int:
        return sum(each.is_file() for each in (self.directory / "cache/parts").rglob("*"))

    async def test_killed(self) -> None:
        """What was taken before a kill -9 is there after it, and nothing but that."""
        await self.loop()


class MySQLKillTests(_Killed):
    """The ``mysql`` storage; its server goes on."""

    skip = MISSING
    plugin = "mysql"

    def setUp(self) -> None:
        super().setUp()
        server = self.server = MariaDB.running()
        name = self.name = server.database("secret")
        self.section |= {"socket": str(server.socket), "user": name, "database": name}
        password = self.directory / "mysql.password"
        password.touch(0o600)
        password.write_text("secret")

    def left(self) -> int:
        return int(self.server.ask(f"SELECT COUNT(*) FROM {self.name}.cache_blobs")[0][0])

    async def test_killed(self) -> None:
        """What was taken before a kill -9 is there after it, and nothing but that."""
        await self.loop()
