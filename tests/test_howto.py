"""Examples of the how-tos: plugins, services and measurements, as the pages have them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from ntmobile.lab.supervision import ROOT, SEARCH_PATH, lab_unavailable
from ntmobile.wire.messages.realtime import NotificationRequest, Reason
from tests.exchange_platforms import StoresTestCase
from tests.platforms import PlatformTestCase

HOWTO = ROOT / "docs" / "howto"

#: Finds the page's plugins and uses them, in a process of its own; says what came of it.
USE_PLUGINS = """
import json, sys
from pathlib import Path
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject
from ntmobile import interfaces
from ntmobile.errors import ConfigurationError, UnknownName
from ntmobile.interfaces import VirtualAddresses
from ntmobile.plugins import find
from ntmobile.wire.messages.realtime import NotificationRequest, Reason

said = {}
clock = Clock()
lookup = find(interfaces.ICoordinatorLookupProvider, "file")
verifyObject(interfaces.ICoordinatorLookupProvider, lookup)
Path("coordinators").write_text("dc1.ntm.example 192.0.2.1 4330\\n")
made = lookup.configure({"path": "coordinators"}, clock)
verifyObject(interfaces.ICoordinatorLookup, made)
said["found"] = made.find("dc1.ntm.example").result.servers
missing = made.find("dc2.ntm.example")
missing.addErrback(lambda failure: said.update(missing=failure.type.__name__))
try:
    lookup.configure({"pth": "x"}, clock)
except ConfigurationError as problem:
    said["wrong"] = str(problem)

watching = find(interfaces.INetworkWatcherProvider, "touch")
watcher = watching.configure({"path": "touched"}, clock)
verifyObject(interfaces.INetworkWatcher, watcher)
changes = []
watcher.start(changes.append)
clock.advance(0.1)
before = len(changes)
Path("touched").touch()
clock.advance(0.1)
watcher.stop()
said["changes"] = [before, len(changes)]

attaching = find(interfaces.IAttachmentProvider, "log")
factory = attaching.configure({}, clock)
verifyObject(interfaces.IAttachmentFactory, factory)
addresses = VirtualAddresses("fd00::1", "198.18.0.1")
attachment = factory.open(addresses, Path("."), print, print).result
verifyObject(interfaces.IAttachment, attachment)
attachment.send(b"E packet")
attachment.close()
said["packets"] = Path("packets.log").read_text()

notifying = find(interfaces.INotifierProvider, "lines")
notifier = notifying.configure({"path": "woken"}, clock)
verifyObject(interfaces.INotifier, notifier)
request = NotificationRequest("phone.alice.dc1.ntm.example", Reason.ITEM)
said["outcome"] = notifier.notify(interfaces.Notification(request)).result.outcome.value
said["woken"] = Path("woken").read_text()
blocked = notifying.configure({"path": "nowhere/woken"}, clock)
said["blocked"] = blocked.notify(interfaces.Notification(request)).result.outcome.value
print(json.dumps(said))
"""


def blocks(page: str, kind: str) -> dict[str, str]:
    """The programs on a page that are marked with this kind, by name."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    return dict(re.findall(rf"^<!-- {kind}: (\S+) -->\n```python\n(.*?)^```$", text, re.M | re.S))


def defined(page: str, name: str, kind: str = "example") -> dict[str, Any]:
    """What an example, or a program, of a page defines."""
    names: dict[str, Any] = {"__name__": name}
    exec(compile(blocks(page, kind)[name], f"{page}: {name}", "exec"), names)
    return names


class PluginTests(SynchronousTestCase):
    """The plugins of the page are found, and do what their interfaces say."""

    def test_plugins(self) -> None:
        """A lookup, a watcher and an attachment from a directory of somebody else's."""
        place = Path(self.mktemp()).resolve()
        directory = place / "ntmobile" / "plugins"
        directory.mkdir(parents=True)
        for name, text in blocks("plugins.md", "plugin").items():
            (directory / name).write_text(text)
        paths = os.pathsep.join([str(place), str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", USE_PLUGINS],
            cwd=place,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(
            json.loads(done.stdout),
            {
                "found": [["192.0.2.1", 4330]],
                "missing": "UnknownName",
                "wrong": "unknown key lookup.pth; known: path",
                "changes": [0, 1],
                "packets": b"E packet".hex() + "\n",
                "outcome": "accepted",
                "woken": "soon phone.alice.dc1.ntm.example 1\n",
                "blocked": "later",
            },
        )


class ListenerTests(SynchronousTestCase):
    """The listener of the page on being told."""

    def test_told(self) -> None:
        """It tells of items, whoever they are from, and of nothing else."""
        said: list[str] = []
        told = defined("being-told.md", "told")["listener"](said.append)
        told(NotificationRequest("phone.alice.dc1.ntm.example", Reason.ITEM, "lunch?", "a.b.c"))
        told(NotificationRequest("phone.alice.dc1.ntm.example", Reason.ITEM))
        told(NotificationRequest("phone.alice.dc1.ntm.example", Reason.REALTIME))
        told(object())
        self.assertEqual(said, ["a.b.c: lunch?", "somebody: "])


class ServiceTests(PlatformTestCase):
    """The service of the page."""

    async def test_service(self) -> None:
        """It opens a node when it starts, hands it over, and closes it when it stops."""
        platform = await self.platform()
        state = await platform.enroll("alice@dc1.ntm.example", "phone")
        ready: Deferred[Any] = Deferred()
        service = defined("services.md", "service")["NodeService"](reactor, state, ready.callback)
        service.startService()
        node = await ready
        self.assertTrue(node.registering.registered)
        await maybeDeferred(service.stopService)
        clients = platform.services["dc1"].domain.clients
        await self.eventually(lambda: not any(one.registered for one in clients), "it is off")


class SendingTests(StoresTestCase):
    """The programs of the page on stored data."""

    async def test_programs(self) -> None:
        """One leaves a file for a device that is off; the other, started later, fetches it."""
        stores = await self.stores()
        platform = stores.first
        phone = await platform.enroll("alice@dc1.ntm.example", "phone")
        laptop = await platform.enroll("bob@dc2.ntm.example", "laptop")
        node = await platform.open(laptop)
        await self.eventually(lambda: node.exchange.published, "it can be written to")
        await node.stop()
        place = self.place()
        place.mkdir()
        (place / "letter.txt").write_text("see you at eight")
        send = defined("sending.md", "sender.py", "file")["send"]
        sent = await send(reactor, phone, "laptop.bob.dc2.ntm.example", place / "letter.txt")
        receive = defined("sending.md", "receiver.py", "file")["receive"]
        fetched: list[Any] = []
        receiving = Deferred.fromCoroutine(
            receive(reactor, laptop, place, lambda *both: fetched.append(both))
        )
        await self.eventually(lambda: bool(fetched), "it is fetched")
        ((item, file),) = fetched
        self.assertEqual((sent, "a letter"), (item.object, item.details.note))
        self.assertEqual(file, place / f"{sent.hex()[:8]}-letter.txt")
        self.assertEqual(file.read_text(), "see you at eight")
        await deferLater(reactor, 0.5, lambda: None)  # until it waits for the next one
        receiving.addErrback(lambda ended: ended.trap(CancelledError))
        receiving.cancel()
        await receiving
        clients = platform.services["dc2"].domain.clients
        await self.eventually(lambda: not any(one.registered for one in clients), "it is off")


class MeasuringTests(TestCase):
    """The measurements of the page."""

    timeout = 120

    def test_simulation(self) -> None:
        """A client that moves is without answers for as long as the moves take, and no longer."""
        longest_gap = defined("measuring.md", "simulate")["longest_gap"]
        self.assertLess(longest_gap(moves=20, loss=0.0), 0.2)
        self.assertEqual(longest_gap(moves=20, loss=0.2), longest_gap(moves=20, loss=0.2))

    def test_handover(self) -> None:
        """The program for the lab moves a laptop under a probe, and says how long the gap was."""
        reason = lab_unavailable()
        if reason is not None:
            raise SkipTest(reason)
        place = Path(self.mktemp()).resolve()
        place.mkdir()
        (place / "handover.py").write_text(blocks("measuring.md", "file")["handover.py"])
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "handover.py"],
            cwd=place,
            env={**os.environ, "PATH": SEARCH_PATH, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        report = json.loads(done.stdout)
        self.assertLess(report["longest_gap_ms"], 2000)
        self.assertGreaterEqual(report["handovers"], 1)
