from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ntmobile.client.agent import Agent
from ntmobile.client.announcing import Announcing
from ntmobile.client.exchange import Arrived, Item
from ntmobile.client.state import SETTINGS
from ntmobile.client.tap import make_agent
from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import Announcement, INotificationPresenter
from ntmobile.machines.direction.records import Notify
from ntmobile.wire.messages.exchange import Manifest
from ntmobile.wire.messages.realtime import Deregistration, NotificationRequest, Reason
from tests.buses import BusTestCase
from tests.exchange_platforms import StoresTestCase
from tests.platforms import PlatformTestCase

PHONE, LAPTOP = "phone.alice.dc1.ntm.example", "laptop.bob.dc2.ntm.example"
ITEM = NotificationRequest(PHONE, Reason.ITEM, "lunch?", LAPTOP, "chat")


@implementer(INotificationPresenter)
@define
class Recorder:
    """Writes down what it is to show. ``fault``: raises instead."""

    shown: list[Announcement] = field(factory=list)
    fault: Exception | None = None

    def start(self) -> None:
        """Nothing to do."""

    def show(self, announcement: Announcement) -> None:
        """Write it down."""
        if self.fault is not None:
            raise self.fault
        self.shown.append(announcement)

    def stop(self) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)


class AnnouncingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A phone's."""
        self.recorder = Recorder()
        self.announcing = Announcing(PHONE, self.recorder)

    def test_request(self) -> None:
        """R29: what the DC says is shown as what nobody has verified."""
        self.announcing.told(ITEM)
        shown = Announcement(Reason.ITEM, LAPTOP, "lunch?", "chat", verified=False)
        self.assertEqual(self.recorder.shown, [shown])

    def test_announcement(self) -> None:
        """What the inbox has verified is shown so."""
        verified = Announcement(Reason.ITEM, LAPTOP, "lunch?", "chat", verified=True)
        self.announcing.told(verified)
        self.assertEqual(self.recorder.shown, [verified])

    def test_arrived(self) -> None:
        """R29: an item is announced in its sender's words once these are verified."""
        nothing: Any = None
        manifest = Manifest(
            label="ntm1 manifest",
            sender=LAPTOP,
            destinations=(PHONE,),
            application="chat",
            service="",
            item="",
            key=bytes(32),
            object=bytes(16),
            header=bytes(64),
            length=0,
            root=bytes(32),
            expires=0,
            message="lunch?",
            details=bytes(300),
        )
        self.announcing.told(Arrived(Item(nothing, manifest, nothing)))
        verified = Announcement(Reason.ITEM, LAPTOP, "lunch?", "chat", verified=True)
        self.assertEqual(self.recorder.shown, [verified])

    def test_others(self) -> None:
        """Other events, other devices' notifications and reasons of later versions are not."""
        self.announcing.told(NotificationRequest(LAPTOP, Reason.ITEM))
        self.announcing.told(NotificationRequest(PHONE, 77))
        self.announcing.told(object())
        self.assertEqual(self.recorder.shown, [])

    def test_fault(self) -> None:
        """A fault of a plugin is logged, and is not the node's."""
        self.recorder.fault = ZeroDivisionError()
        self.announcing.told(ITEM)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AgentTests(BusTestCase, PlatformTestCase):
    """The whole way: a coordinator tells a device, whose agent has the desktop show it."""

    async def state(self, notify: str) -> Path:
        """The state directory of a phone with such a section ``[notify]``."""
        self.served = await self.platform()
        state = await self.served.enroll("alice@dc1.ntm.example", "phone")
        with (state / SETTINGS).open("a", encoding="utf-8") as file:
            file.write(f'[attachment]\nplugin = "datagram"\n[notify]\n{notify}\n')
        return state

    async def agent(self) -> Agent:
        """Its agent, registered."""
        agent = make_agent(
            await self.state(f'plugin = "dbus"\naddress = "{self.bus.address}"'), reactor
        )
        agent.startService()
        self.addCleanup(agent.stopService)
        await agent.node.when_registered(20.0)
        return agent

    async def test_online(self) -> None:
        """A device that is online is told by its own coordinator, and its owner by the desktop."""
        await self.start()
        await self.agent()
        self.served.services["dc1"].domain.perform([Notify(ITEM)])
        (shown,) = await self.shows(1)
        self.assertEqual((shown.title, shown.body), (f"Said to be from {LAPTOP}", "lunch?"))
        machine = self.served.services["dc1"].domain.notifying.machine
        await self.eventually(lambda: not len(machine), "it is acknowledged")

    async def test_comes_back(self) -> None:
        """What could not be said to a device that is off is said when it registers again."""
        await self.start()
        agent = await self.agent()
        domain = self.served.services["dc1"].domain
        await agent.node.registering.request(Deregistration(0))
        for _ in range(6):  # the last one is over the rate of pushes, and waits
            domain.perform([Notify(ITEM)])
        self.assertEqual(len(domain.notifying.machine), 1)
        agent.node.registering.network_changed()
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "lunch?")

    async def test_configuration(self) -> None:
        """An unknown plugin, or a mistake in its section, is a clear error."""
        state = await self.state('plugin = "dbus"\nadress = "x"')
        with self.assertRaisesRegex(ConfigurationError, "notify.adress"):
            make_agent(state, reactor)
        text = (state / SETTINGS).read_text("utf-8")
        (state / SETTINGS).write_text(text.replace('"dbus"', '"smoke"'), "utf-8")
        with self.assertRaisesRegex(ConfigurationError, "smoke"):
            make_agent(state, reactor)


class StoredDataTests(BusTestCase, StoresTestCase):
    """The whole way of an item: from a sender's program to the desktop of who was off."""

    async def test_comes_back(self) -> None:
        """What was sent while a device was off is on its desktop, verified, when it is back."""
        await self.start()
        stores = await self.stores()
        settings = {"attachment": '{ plugin = "datagram" }'}
        table = f'{{ plugin = "dbus", address = "{self.bus.address}" }}'
        accounts = (("alice@dc1.ntm.example", "phone"), ("bob@dc2.ntm.example", "laptop"))
        phone, laptop = [
            await stores.first.enroll(account, device, None, notify=table, **settings)
            for account, device in accounts
        ]
        agent = make_agent(laptop, reactor)
        agent.startService()
        await self.eventually(lambda: agent.node.exchange.published, "it can be written to")
        await agent.stopService()
        node = await stores.first.open(phone)
        await node.exchange.send([LAPTOP], b"At eight?", application="chat", message="dinner?")
        agent = make_agent(laptop, reactor)
        agent.startService()
        self.addCleanup(agent.stopService)
        title = f"From {PHONE}"
        shown = await self.shows(1)
        while shown[-1].title != title:
            shown = await self.shows(len(shown) + 1)
        self.assertEqual(shown[-1].body, "dinner?")
