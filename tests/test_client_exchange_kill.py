"""Devices and a cache server killed at any moment: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ntmobile.client.state import EXCHANGE
from tests.agents import ALICE, BOB, LAPTOP
from tests.exchange_platforms import Stores, StoresTestCase
from tests.server_processes import NTM, PATIENCE, TWISTD, environment

#: Items, and how often something is killed while they are sent, and while they are fetched.
ITEMS = 8
KILLS = 5
#: Seconds from the beginning of a transfer until something is killed, at most; one of the large
#: items takes about as long.
LATER = 0.25
#: Bytes of the items.
SIZES = (10, 100_000, 25_000_000)


@define(eq=False)
class Killed:
    """A twistd that is killed and started again."""

    words: list[str]
    log: Path
    process: Any = field(default=None, init=False)

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.process is None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", *self.words],
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def kill(self) -> None:
        """``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None


class ClientKillTests(StoresTestCase):
    """Alice's phone sends to Bob's laptop, and one of them or the cache server is killed."""

    timeout = 180

    async def world(self) -> tuple[Stores, Path, Path, list[Killed]]:
        """Servers, both state directories, and what is killed: phone, laptop, cache server."""
        stores = await self.stores()
        await stores.stop()
        states = []
        for account, device in ((ALICE, "phone"), (BOB, "laptop")):
            settings = {"attachment": '{ plugin = "datagram" }'}
            states.append(await stores.first.enroll(account, device, None, **settings))
        directory = stores.first.directory
        killed = [
            Killed(["ntm-client", f"--state={state}"], directory / f"agent-{number}.log")
            for number, state in enumerate(states)
        ]
        killed.append(Killed(["ntm-cache", f"--config={stores.file}"], directory / "cache.log"))
        for one in killed:
            self.addCleanup(one.kill)
            one.start()
        for state in states:
            await self.until_up(state)
        return stores, states[0], states[1], killed

    async def ntm(self, command: str, state: Path, *words: object) -> tuple[int, Any, str]:
        """Run a command with ``--json``: status, what it says, and its errors."""
        argv = [sys.executable, "-c", NTM, command, "--state", str(state), "--json"]

        def run() -> tuple[int, Any, str]:
            ran = subprocess.run(
                [*argv, *map(str, words)],
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=90,
                check=False,
                text=True,
            )
            self.assertNotIn("Traceback", ran.stderr)
            said = json.loads(ran.stdout) if ran.returncode == 0 else None
            return ran.returncode, said, ran.stderr

        return await deferToThread(run)

    async def until_up(self, state: Path) -> None:
        """Wait until an agent is registered."""
        end = reactor.seconds() + PATIENCE
        while True:
            status, said, _ = await self.ntm("status", state)
            if status == 0 and said["registered"]:
                return
            self.assertLess(reactor.seconds(), end, f"the agent of {state} came up")

    async def kill_now_and_then(
        self, chosen: list[Killed], under_way: Callable[[], bool], dice: random.Random
    ) -> int:
        """Kill one of them after the other in the middle of transfers, and start it again.

        :return: how often it was in the middle of one.
        """
        hits = 0
        for number in range(KILLS):
            end = reactor.seconds() + 5
            while not under_way() and reactor.seconds() < end:
                await deferLater(reactor, 0.005, lambda: None)
            await deferLater(reactor, dice.uniform(0, LATER), lambda: None)
            hits += under_way()
            one = chosen[number % len(chosen)]
            await deferToThread(one.kill)
            one.start()
        return hits

    def uploading(self, state: Path) -> Callable[[], bool]:
        """Whether a device has something to upload."""

        def look() -> bool:
            with closing(sqlite3.connect(f"file:{state / EXCHANGE}?mode=ro", uri=True)) as database:
                query = "SELECT count(*) FROM outgoing WHERE state = 'uploading'"
                return bool(database.execute(query).fetchone()[0])

        return look

    async def test_killed(self) -> None:
        """R30, R32: what was announced comes, whole and once, whoever is killed whenever."""
        dice = random.Random(self.id())
        _, phone, laptop, (phone_agent, laptop_agent, cache) = await self.world()
        contents = {
            f"item-{number}": dice.randbytes(SIZES[number % len(SIZES)]) for number in range(ITEMS)
        }
        files = self.place()
        files.mkdir()
        for name, content in contents.items():
            (files / name).write_bytes(content)

        chosen, under_way = [phone_agent, cache], self.uploading(phone)
        killing = self.kill_in_background(chosen, under_way, dice)
        for name in contents:
            await self.send_somehow(phone, files / name)
        hits = await killing
        await self.eventually_sent(phone, set(contents))

        target = self.place()
        target.mkdir()
        chosen = [laptop_agent, cache]
        killing = self.kill_in_background(chosen, lambda: any(target.glob(".*.part")), dice)
        await self.fetch_all(laptop, target, set(contents))
        hits += await killing
        self.assertGreater(hits, 0, "nothing was killed in the middle of a transfer")
        got = {one.name: sha256(one.read_bytes()).digest() for one in target.iterdir()}
        expected = {name: sha256(content).digest() for name, content in contents.items()}
        self.assertEqual(got, expected)

        end = reactor.seconds() + 2 * PATIENCE
        while True:
            status, said, errors = await self.ntm("sent", phone)
            if status == 0 and all(one["state"] == "confirmed" for one in said):
                break
            self.assertLess(reactor.seconds(), end, f"{said} {errors}")
        self.assertEqual(sorted(one["name"] for one in said), sorted(contents))
        self.assertEqual(said[0]["destinations"][0]["destination"], LAPTOP)
        _, waiting, _ = await self.ntm("inbox", laptop)
        self.assertEqual(waiting, [])

    def kill_in_background(
        self, chosen: list[Killed], under_way: Callable[[], bool], dice: random.Random
    ) -> Deferred[int]:
        """:meth:`kill_now_and_then`, while other things happen."""
        return Deferred.fromCoroutine(self.kill_now_and_then(chosen, under_way, dice))

    async def send_somehow(self, phone: Path, file: Path) -> None:
        """Send a file; where the agent was killed, look whether it knows of it before another try.

        As somebody would who reads what the command says.
        """
        end = reactor.seconds() + 2 * PATIENCE
        while True:
            status, _, errors = await self.ntm("send", phone, LAPTOP, file)
            if status == 0:
                return
            self.assertLess(reactor.seconds(), end, errors)
            await self.until_up(phone)
            _, said, _ = await self.ntm("sent", phone)
            if said and any(one["name"] == file.name for one in said):
                return

    async def eventually_sent(self, phone: Path, names: set[str]) -> None:
        """The agent goes on by itself until all is stored; each was announced once."""
        end = reactor.seconds() + 2 * PATIENCE
        while True:
            await self.until_up(phone)
            status, said, errors = await self.ntm("sent", phone)
            if status == 0 and all(one["state"] == "stored" for one in said):
                break
            self.assertLess(reactor.seconds(), end, f"{said} {errors}")
        self.assertEqual(sorted(one["name"] for one in said), sorted(names))

    async def fetch_all(self, laptop: Path, target: Path, names: set[str]) -> None:
        """Fetch until nothing waits; what was delivered is not delivered again."""
        end = reactor.seconds() + 3 * PATIENCE
        while {one.name for one in target.glob("item-*")} != names:
            self.assertLess(reactor.seconds(), end, sorted(target.iterdir()))
            await self.until_up(laptop)
            _, waiting, _ = await self.ntm("inbox", laptop)
            for one in waiting or []:
                self.assertFalse((target / one["name"]).exists(), "delivered, and listed again")
                status, *_ = await self.ntm("get", laptop, one["id"], "-o", target)
                if status:
                    break
