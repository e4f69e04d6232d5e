"""``ntm send``, ``sent``, ``inbox`` and ``get`` with agents of two domains and a cache server."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from ntmobile.client.agent import Agent
from ntmobile.client.state import SETTINGS
from tests.agents import (
    ALICE,
    BOB,
    LAPTOP,
    PHONE,
    AnyAgentTestCase,
    Ran,
    Running,
    ntm,
    state_of,
)
from tests.exchange_platforms import Stores, StoresTestCase
from tests.server_processes import NTM, environment

TEXT = b"nobody between the two reads this. " * 150000  # two parts
DATAGRAM = '{ plugin = "datagram" }'


class ExchangeCommandTests(StoresTestCase, AnyAgentTestCase):
    """Alice's phone and Bob's laptop, which is of another domain."""

    async def pair_with_stores(self) -> tuple[Stores, Agent, Path]:
        """The phone's agent, and the state of the laptop, whose agent has run and is off."""
        stores = await self.stores()
        phone = await self.agent(stores.first, ALICE, "phone", attachment=DATAGRAM)
        laptop = await self.agent(stores.first, BOB, "laptop", attachment=DATAGRAM)
        state = state_of(laptop)
        prekeys = laptop.node.exchange
        await self.eventually(lambda: prekeys.published, "the laptop has published its pre-key")
        await self.end_agent(laptop)
        return stores, phone, state

    async def ask(self, state: Path, command: str, *words: object) -> Ran:
        """Run a command; nothing that it prints is wider than a terminal."""
        ran = await ntm(command, "--state", state, *words)
        for line in ran.output.splitlines() if "--json" not in words else ():
            if not line.startswith("/"):  # a path is as long as it is
                self.assertLessEqual(len(line), 80, line)
        self.assertNotIn("Traceback", ran.errors)
        return ran

    async def json(self, state: Path, command: str, *words: object) -> Any:
        """The same with ``--json``."""
        ran = await self.ask(state, command, "--json", *words)
        self.assertEqual("", ran.errors)
        return json.loads(ran.output)

    def write(self, data: bytes, name: str = "letter.txt") -> Path:
        """A file in a directory of its own."""
        directory = self.place()
        directory.mkdir()
        file = directory / name
        file.write_bytes(data)
        return file

    async def test_through(self) -> None:
        """Sent while the laptop is off, listed, fetched; the sender hears of it (R32)."""
        _, phone, laptop = await self.pair_with_stores()
        file = self.write(TEXT)
        ran = await self.ask(state_of(phone), "send", LAPTOP, file, "--note", "for you")
        self.assertEqual(("", 0), (ran.errors, ran.status))
        self.assertRegex(ran.output, rf"^\w{{8}}  letter.txt  5.0 MiB\n +{LAPTOP}: waits there")
        agent = await self.start_agent(laptop)
        (item,) = await self.json(laptop, "inbox")
        self.assertEqual(
            (PHONE, "letter.txt", "for you", "text/plain", len(TEXT)),
            tuple(item[each] for each in ("sender", "name", "note", "type", "length")),
        )
        shown = (await self.ask(laptop, "inbox")).output
        self.assertRegex(shown, rf"^{item['id'][:8]}  letter.txt  5.0 MiB\n +from +{PHONE}\n")
        target = self.place()
        target.mkdir()
        ran = await self.ask(laptop, "get", item["id"][:8], "-o", target)
        self.assertEqual(("", 0), (ran.errors, ran.status))
        got = target / "letter.txt"
        self.assertEqual(TEXT, got.read_bytes())
        self.assertEqual(0, got.stat().st_mode & 0o077)
        self.assertEqual("Nothing waits.\n", (await self.ask(laptop, "inbox")).output)
        outgoing = phone.node.exchange.outgoing
        await self.eventually(lambda: outgoing()[0].state == "confirmed", "it is confirmed")
        (sent,) = await self.json(state_of(phone), "sent")
        self.assertEqual("confirmed", sent["state"])
        self.assertEqual("confirmed", sent["destinations"][0]["state"])
        self.assertIn(f"{LAPTOP}: has it since", (await self.ask(state_of(phone), "sent")).output)
        self.assertEqual([], agent.node.exchange.waiting_confirmations())

    async def test_pipes(self) -> None:
        """Standard input is sent, and an item fetched to standard output, byte by byte."""
        _, phone, laptop = await self.pair_with_stores()
        data = os.urandom(100000)
        file = self.write(data)
        ran = await self.ntm_with(file, "send", "--state", state_of(phone), LAPTOP, "-")
        self.assertEqual((b"", 0), (ran[1], ran[2]))
        self.assertEqual([], list((state_of(phone) / "outbox").iterdir()))
        await self.start_agent(laptop)
        (item,) = await self.json(laptop, "inbox")
        self.assertEqual("", item["name"])
        ran = await self.ntm_with(file, "get", "--state", laptop, item["id"], "-o", "-")
        self.assertEqual((data, b"", 0), ran)
        self.assertEqual([], list((laptop / "received").iterdir()))

    async def test_pipe_without_room(self) -> None:
        """What comes by a pipe and finds no room, or no pipe at all, is one line; nothing stays."""
        _, phone, _ = await self.pair_with_stores()
        state, file = state_of(phone), self.write(TEXT)
        said = await self.ntm_with(file, "send", "--state", state, LAPTOP, "-", most=1000)
        closed = await self.ntm_with(None, "send", "--state", state, LAPTOP, "-")
        out = await self.ntm_with(None, "get", "--state", state, "-o", "-")
        for (_, errors, status), expected in (
            (said, b"cannot be kept until it is sent: File too large"),
            (closed, b"standard input is closed"),
            (out, b"standard output is closed"),
        ):
            self.assertEqual(1, status)
            self.assertEqual(1, len(errors.splitlines()), errors)
            self.assertIn(expected, errors)
        self.assertEqual([], list((state / "outbox").iterdir()))
        self.assertEqual([], phone.node.exchange.outgoing())

    async def ntm_with(
        self, stdin: Path | None, *words: object, most: int | None = None
    ) -> tuple[bytes, bytes, int]:
        """Run a command with standard input from a file: output, errors, status.

        :param stdin: None: neither standard input nor output is open.
        :param most: bytes of a file that it can write.
        """

        def prepare() -> None:
            if most is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            if stdin is None:
                os.close(0)
                os.close(1)

        def run() -> tuple[bytes, bytes, int]:
            with (stdin or Path(os.devnull)).open("rb") as stream:
                ran = subprocess.run(
                    [sys.executable, "-c", NTM, *map(str, words)],
                    preexec_fn=prepare,
                    env=environment(),
                    stdin=stream,
                    capture_output=True,
                    timeout=30,
                    check=False,
                )
            return ran.stdout, ran.stderr, ran.returncode

        return await deferToThread(run)

    async def test_elsewhere(self) -> None:
        """A relative state directory means the same wherever the agent runs (R6: nothing left)."""
        _, phone, laptop = await self.pair_with_stores()
        file = self.write(b"hello")
        here = Path.cwd()
        self.addCleanup(os.chdir, here)
        os.chdir(state_of(phone).parent)
        relative = Path(state_of(phone).name)
        ran = await self.ntm_with(file, "send", "--state", relative, LAPTOP, "-")
        os.chdir(here)
        self.assertEqual((b"", 0), (ran[1], ran[2]))
        self.assertEqual([], list((state_of(phone) / "outbox").iterdir()))
        await self.start_agent(laptop)
        ran = await self.ntm_with(file, "get", "--state", laptop, "-o", "-")
        self.assertEqual((b"hello", b"", 0), ran)
        ran = await self.ntm_with(file, "get", "--state", laptop)
        self.assertEqual(1, ran[2])
        self.assertIn(b"name one; waiting: none", ran[1])

    async def test_withdrawn(self) -> None:
        """What was taken back is not fetched any more, and its sender sees that."""
        _, phone, laptop = await self.pair_with_stores()
        sent = await self.json(state_of(phone), "send", LAPTOP, self.write(b"oops"))
        ran = await self.ask(state_of(phone), "withdraw", sent["id"][:8])
        self.assertEqual(
            (f"{sent['id'][:8]}  letter.txt  4 bytes, withdrawn\n", 0), (ran.output, ran.status)
        )
        (one,) = await self.json(state_of(phone), "sent")
        self.assertEqual("withdrawn", one["state"])
        ran = await self.ask(state_of(phone), "withdraw", sent["id"])
        self.assertIn("it cannot be withdrawn any more: withdrawn", ran.errors)
        await self.start_agent(laptop)
        self.assertEqual([], await self.json(laptop, "inbox"))

    async def test_waits(self) -> None:
        """A download goes on by itself when its cache server is back; not longer than asked."""
        stores, phone, laptop = await self.pair_with_stores()
        sent = await self.json(state_of(phone), "send", LAPTOP, self.write(TEXT))
        agent = await self.start_agent(laptop)
        (item,) = await self.json(laptop, "inbox")
        await stores.stop()
        target = self.place()
        target.mkdir()
        ran = await self.ask(laptop, "get", sent["id"], "-o", target, "--wait", "1")
        self.assertEqual(1, ran.status)
        self.assertIn("waiting: cs1.dc1.ntm.example: ", ran.errors)
        getting = Running("get", "--state", laptop, item["id"], "-o", target)
        self.addCleanup(getting.end)
        self.assertIn("waiting: cs1.dc1.ntm.example: ", await getting.complains())
        stores.start()
        await getting.says("letter.txt")
        self.assertEqual(TEXT, (target / "letter.txt").read_bytes())
        ran = await self.ask(laptop, "get", sent["id"])
        self.assertIn(f"it was fetched before, as {target / 'letter.txt'}", ran.errors)
        self.assertTrue(agent.running)

    async def test_user(self) -> None:
        """A user stands for all devices of that user."""
        _, phone, laptop = await self.pair_with_stores()
        ran = await self.ask(state_of(phone), "send", "bob.dc2.ntm.example", self.write(b"hi"))
        self.assertEqual(("", 0), (ran.errors, ran.status))
        self.assertIn(LAPTOP, ran.output)
        await self.start_agent(laptop)
        self.assertEqual(1, len(await self.json(laptop, "inbox")))

    async def test_applications(self) -> None:
        """Items of an application are not among those of another; ``--all`` shows both."""
        _, phone, laptop = await self.pair_with_stores()
        for application in ("chat", "mail"):
            words = (LAPTOP, self.write(b"hi", application), "--application", application)
            self.assertEqual(0, (await self.ask(state_of(phone), "send", *words)).status)
        await self.start_agent(laptop)
        self.assertEqual([], await self.json(laptop, "inbox"))
        (item,) = await self.json(laptop, "inbox", "--application", "chat")
        self.assertEqual(("chat", "chat"), (item["application"], item["name"]))
        every = await self.json(laptop, "inbox", "--all")
        self.assertEqual({"chat", "mail"}, {one["application"] for one in every})

    async def test_wrong(self) -> None:
        """What cannot be is one line that says what to do; nothing is left of it."""
        stores, phone, laptop = await self.pair_with_stores()
        file, state = self.write(b"hi"), state_of(phone)
        nobody = "nobody.bob.dc2.ntm.example"
        cases: tuple[tuple[tuple[object, ...], str], ...] = (
            (("send", nobody, file), f"{nobody} is not known, was never online, or does not admit"),
            (("send", "laptop.bob.other.test", file), "laptop.bob.other.test: no authority"),
            (("send", "Not A Name", file), "'not a name': write DEVICE.USER.DOMAIN, or USER.DOM"),
            (("send", "laptop", file), "'laptop': write DEVICE.USER.DOMAIN, or USER.DOMAIN"),
            (("send", "no.dc1.ntm.example", file), "no.dc1.ntm.example is known to its coord"),
            (("send", "alice.dc1.ntm.example", file), "alice.dc1.ntm.example has no other device"),
            (("send", PHONE, file), f"{PHONE} is this device itself"),
            (("send", LAPTOP, file.parent), "is a directory; pack it first"),
            (("send", LAPTOP, file.with_name("no")), "is not there"),
            (("send", LAPTOP, file, "--application", "a/../b"), "letters, digits"),
            (("send", LAPTOP, file, "--note", "n" * 201), "a note of 201 characters; 200 at most"),
            (("inbox", "--application", "a/b"), "letters, digits"),
            (("get", "abcdef"), "no item 'abcdef' is waiting; see ntm inbox"),
            (("get", "abcdef", "-o", "no/where"), "no: is no directory"),
            (("sent", "abcdef"), "no item 'abcdef' is sent from here"),
        )
        for words, expected in cases:
            ran = await self.ask(state, str(words[0]), *words[1:])
            self.assertEqual((1, ""), (ran.status, ran.output), words)
            self.assertEqual(1, len(ran.errors.splitlines()), ran.errors)
            self.assertIn(expected, ran.errors)
        self.assertEqual([], phone.node.exchange.outgoing())
        self.assertEqual(0, (await self.ask(state, "send", LAPTOP, file)).status)
        await stores.stop()
        agent = await self.start_agent(laptop)
        ran = await self.ask(laptop, "inbox")
        self.assertEqual((0, "Nothing can be shown now.\n"), (ran.status, ran.output))
        self.assertIn(f"Note: what waits from {PHONE} is not shown: cs1.dc1", ran.errors)
        await self.end_agent(agent)
        ran = await self.ask(state, "send", LAPTOP, file, "--wait", "1")
        self.assertEqual(1, ran.status)
        self.assertRegex(ran.errors, "Error: not sent yet: .*dc1.*; it goes on in the background")
        for command in (["inbox"], ["send", LAPTOP, file], ["get", "ab"], ["sent"]):
            ran = await self.ask(laptop, *map(str, command))
            self.assertIn("no agent is running", ran.errors)
        self.assertTrue((laptop / SETTINGS).exists())

    async def test_exists(self) -> None:
        """A file is not overwritten; a hostile name becomes a harmless one."""
        _, phone, laptop = await self.pair_with_stores()
        words = (LAPTOP, self.write(b"hi"), "--name", "../../.profile")
        self.assertEqual(0, (await self.ask(state_of(phone), "send", *words)).status)
        await self.start_agent(laptop)
        (item,) = await self.json(laptop, "inbox")
        self.assertEqual(f"item-{item['id'][:8]}", item["file_name"])
        target = self.write(b"mine")
        ran = await self.ask(laptop, "get", item["id"], "-o", target)
        self.assertEqual(1, ran.status)
        self.assertIn("exists already; choose another name", ran.errors)
        self.assertEqual(b"mine", target.read_bytes())
        ran = await self.ask(laptop, "get", item["id"], "-o", target.parent)
        self.assertEqual(0, ran.status, ran.errors)
        self.assertEqual(b"hi", (target.parent / item["file_name"]).read_bytes())

    async def test_no_room(self) -> None:
        """What standard output does not take is kept, and the command says where."""
        _, phone, laptop = await self.pair_with_stores()
        await self.ask(state_of(phone), "send", LAPTOP, self.write(b"hi"))
        await self.start_agent(laptop)
        (item,) = await self.json(laptop, "inbox")
        command = [sys.executable, "-c", NTM, "get", "--state", laptop, item["id"], "-o", "-"]
        with open("/dev/full", "wb") as full:
            run = partial(subprocess.run, command, env=environment(), check=False, timeout=30)
            ran = await deferToThread(run, stdout=full, stderr=subprocess.PIPE)
        (kept,) = (laptop / "received").iterdir()
        self.assertEqual((1, b"hi"), (ran.returncode, kept.read_bytes()))
        self.assertIn(
            f"No space left on device; all of the item is in {kept}\n".encode(), ran.stderr
        )
        self.assertNotIn(b"Traceback", ran.stderr)

    async def test_expired(self) -> None:
        """A destination that did not come in time is not said to have something waiting."""
        _, phone, _ = await self.pair_with_stores()
        state = state_of(phone)
        words = (LAPTOP, self.write(b"hi"), "--days", 1e-5)
        self.assertEqual(0, (await self.ask(state, "send", *words)).status)
        outgoing = phone.node.exchange.outgoing
        await self.eventually(lambda: outgoing()[0].state == "expired", "it is expired")
        self.assertIn(f"{LAPTOP}: did not fetch it\n", (await self.ask(state, "sent")).output)
