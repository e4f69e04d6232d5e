"""The examples for programs that embed a node, or use the agent's endpoints, from their page."""

from __future__ import annotations

import re
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ntmobile.lab.node import Node
from ntmobile.lab.supervision import ROOT
from tests.console import Session, Typed
from tests.exchange_platforms import StoresTestCase
from tests.lab.case import LabTestCase
from tests.platforms import PlatformTestCase
from tests.test_tutorial import TWO_DEVICES, prepare_programs

PAGE = (ROOT / "docs" / "tutorial" / "embedding.md").read_text(encoding="utf-8")
LAPTOP = "laptop.bob.dc2.ntm.example"


def example(name: str) -> dict[str, Any]:
    """What a block of the page defines."""
    found = re.search(rf"^<!-- example: {name} -->\n```python\n(.*?)^```$", PAGE, re.M | re.S)
    assert found is not None, name
    names: dict[str, Any] = {}
    exec(compile(found[1], f"embedding.md: {name}", "exec"), names)
    return names


class NodeTests(PlatformTestCase):
    """Programs that are devices of their own."""

    async def test_send_and_receive(self) -> None:
        """One program sends by name, the other knows who it was and answers."""
        platform = await self.platform()
        phone = await platform.enroll("alice@dc1.ntm.example", "phone")
        laptop = await platform.enroll("bob@dc2.ntm.example", "laptop")
        receiving = Deferred.fromCoroutine(example("receive")["receive"](reactor, laptop))
        clients = platform.services["dc2"].domain.clients
        await self.eventually(lambda: any(one.registered for one in clients), "the receiver is up")
        said = await example("send")["send"](reactor, phone, LAPTOP, "hello")
        self.assertEqual(said, "thank you")
        self.assertEqual(await receiving, "phone.alice.dc1.ntm.example: hello")

    async def test_nobody(self) -> None:
        """A name that nobody has is told, in one line."""
        platform = await self.platform()
        phone = await platform.enroll("alice@dc1.ntm.example", "phone")
        said = await example("send")["send"](reactor, phone, LAPTOP, "hello")
        self.assertTrue(said.startswith("nobody there: "), said)
        self.assertNotIn("\n", said)

    async def test_watch(self) -> None:
        """A listener hears of tunnels, and a ping takes a while."""
        platform = await self.platform()
        phone = await platform.node("alice@dc1.ntm.example", "phone")
        await platform.node("bob@dc2.ntm.example", "laptop")
        lines: list[str] = []
        seconds = await example("watch")["watch"](phone, LAPTOP, lines.append)
        self.assertTrue(0 < seconds < 5)
        self.assertEqual(lines[-1], f"{LAPTOP}: ended, that was all")
        self.assertIn(f"{LAPTOP}: a tunnel, direct", lines)
        self.assertIn(f"{LAPTOP} by way of direct", lines)


class StoredDataTests(StoresTestCase):
    """Programs that leave something for each other."""

    async def test_leave(self) -> None:
        """A text that one has left is collected by the other, once."""
        stores = await self.stores()
        phone = await stores.first.node("alice@dc1.ntm.example", "phone")
        laptop = await stores.first.node("bob@dc2.ntm.example", "laptop")
        await self.eventually(lambda: laptop.exchange.published, "it can be written to")
        names = example("leave")
        await names["leave"](phone, LAPTOP, "see you at eight")
        said = await names["collect"](laptop)
        self.assertEqual(said, ["phone.alice.dc1.ntm.example: see you at eight"])
        self.assertEqual(await names["collect"](laptop), [])


class EndpointTests(LabTestCase):
    """Programs that use the agent of their machine, as processes."""

    async def test_endpoints(self) -> None:
        """A client reaches a server by name, and both are ordinary Twisted programs."""
        host = await self.new_lab().add(Node, "machine")
        files = re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.M | re.S)
        for name, text in files:
            (host.home / name).write_text(text)
        run = f"{sys.executable} client.py"
        commands = (
            f"({sys.executable} server.py > server.log 2>&1 &)",
            f"for _ in $(seq 50); do {run} > out 2> errors && break; sleep 0.2; done; cat out",
        )
        session = Session(ROOT, tuple(Typed(0, text, ()) for text in commands))
        script = host.home / "session.sh"
        script.write_text(session.script(TWO_DEVICES))
        path = prepare_programs(host)
        process = await host.spawn(["bash", str(script)], env={"PATH": path})
        await process.exited(90)
        self.assertIn("\nhello\n", process.output())
