from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import (
    Announcement,
    INotificationPresenter,
    INotificationPresenterProvider,
)
from ntmobile.plugins import find, notify_dbus
from ntmobile.plugins.notify_dbus import NAME, DesktopPresenter
from ntmobile.protocols import desktop_bus
from ntmobile.protocols.desktop_bus import connect_bus
from ntmobile.wire.messages.realtime import Reason
from tests.buses import BusTestCase

LAPTOP, DESK = "laptop.bob.dc2.ntm.example", "desk.bob.dc2.ntm.example"
HOSTILE = (
    '<b>bold</b> <a href="file:///etc/passwd">click</a> &amp; <img src="x"/>'
    "\x1b[31m\x00\r\nhidden\u202egnp.exe\u200b" + "a\u0301\u0301\u0301\u0301\u0301" + "x" * 5000
)


def item(message: str = "", sender: str = LAPTOP, *, verified: bool = True) -> Announcement:
    """That an item has come."""
    return Announcement(Reason.ITEM, sender, message, verified=verified)


class PresenterCase(BusTestCase):
    def setUp(self) -> None:
        """A presenter for the bus, not started."""
        super().setUp()
        self.patch(notify_dbus, "FIRST_PAUSE", 0.05)
        self.patch(notify_dbus, "LONGEST_PAUSE", 0.2)
        self.presenter = DesktopPresenter(reactor, (str(self.bus.socket),))
        self.presenter._pause = 0.05
        self.addCleanup(self.presenter.stop)
        self._events = self.enterContext(capturedLogs())

    @property
    def said(self) -> list[str]:
        """The problems that the presenter logs for people."""
        ours = [one for one in self._events if one.get("log_namespace") == notify_dbus.__name__]
        return [one["problem"] for one in ours if "problem" in one]

    async def quiet(self, seconds: float = 0.3) -> None:
        """Let something happen, if it does."""
        await deferLater(reactor, seconds, lambda: None)


class ShowingTests(PresenterCase):
    async def test_shown(self) -> None:
        """R33: the owner sees who has sent something, and its public message."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("lunch?"))
        (shown,) = await self.shows(1)
        self.assertEqual((shown.replaces, shown.title, shown.body), (0, f"From {LAPTOP}", "lunch?"))
        self.assertEqual(self.said, [])

    async def test_not_verified(self) -> None:
        """R29: what only the coordinator says is not shown as if it were the sender's word."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("lunch?", verified=False))
        (shown,) = await self.shows(1)
        self.assertEqual(shown.title, f"Said to be from {LAPTOP}")

    async def test_without_messages(self) -> None:
        """Where the owner wants it so, no message is shown."""
        await self.start()
        await self.presenter.stop()
        self.presenter = DesktopPresenter(reactor, (str(self.bus.socket),), messages=False)
        self.addCleanup(self.presenter.stop)
        self.presenter.start()
        self.presenter.show(item("the secret party"))
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "An item")

    async def test_hostile(self) -> None:
        """Markup, controls, directions and length of a message come to nothing."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item(HOSTILE))
        (shown,) = await self.shows(1)
        self.assertIn("&lt;b&gt;bold&lt;/b&gt;", shown.body)
        self.assertIn("&amp;amp;", shown.body)
        self.assertNotIn("<", shown.body)
        for char in "\x1b\x00\r\n\u202e\u200b":
            self.assertNotIn(char, shown.body)
        self.assertNotIn("\u0301" * 3, shown.body)
        self.assertLess(len(shown.body), 400)
        self.assertTrue(shown.body.endswith("…"))

    async def test_without_markup(self) -> None:
        """A desktop that shows bodies as they are gets them as they are."""
        await self.start("body")
        self.presenter.start()
        self.presenter.show(item("1 < 2 & 3"))
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "1 < 2 & 3")

    async def test_replaced(self) -> None:
        """A sender has one notification, which says how many there are; others have theirs."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.shows(1)
        self.presenter.show(item("other", DESK))
        await self.shows(2)
        self.presenter.show(item("two"))
        first, second, third = await self.shows(3)
        self.assertEqual((first.replaces, second.replaces, third.replaces), (0, 0, 1))
        self.assertEqual(third.body, "2 items; the last one: two")

    async def test_closed(self) -> None:
        """After its owner closed it, the next one is a new one, and counts from the start."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.shows(1)
        await self.ask("CloseNotification", 1, interface=NAME, signature="i")
        await self.eventually(lambda: not self.presenter._numbers, "it is closed")
        self.presenter.show(item("two"))
        _, second = await self.shows(2)
        self.assertEqual((second.replaces, second.body), (0, "two"))

    async def test_flood(self) -> None:
        """A flood of one sender's items is a handful of notifications, all in one place."""
        await self.start()
        self.presenter.start()
        for number in range(1000):
            self.presenter.show(item(f"number {number}"))
            if number % 100 == 0:
                await self.quiet(0.01)
        await self.quiet(1.0)
        shown = await self.shown()
        self.assertIn(len(shown), range(2, 7))
        self.assertEqual([one.replaces for one in shown], [0, *[1] * (len(shown) - 1)])

    async def test_many_senders(self) -> None:
        """Of very many senders at once the owner sees a few, and that there are many."""
        await self.start()
        self.presenter.start()
        for number in range(1000):
            self.presenter.show(item("ad", f"d{number}.eve.dc9.example"))
        await self.quiet(1.0)
        shown = await self.shown()
        self.assertIn(len(shown), range(5, 7))
        self.assertLessEqual(len(self.presenter._board._slots), 32)


class TroubleTests(PresenterCase):
    async def test_no_bus(self) -> None:
        """Without a bus nothing fails; it is said once, and shown when there is one."""
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.eventually(lambda: bool(self.said), "the problem is told")
        await self.quiet()
        self.assertEqual(len(self.said), 1)
        self.assertIn(str(self.bus.socket), self.said[0])
        await self.start()
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "one")

    async def test_nothing_to_show(self) -> None:
        """Without a bus and without anything to show nobody is kept awake."""
        self.presenter.start()
        await self.eventually(lambda: bool(self.said), "the problem is told")
        self.assertIs(self.presenter._later, None)

    async def test_no_desktop(self) -> None:
        """A bus on which nobody shows anything is as if there were none, until somebody does."""
        self.bus.start()
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.eventually(lambda: bool(self.said), "the problem is told")
        self.assertIn("ServiceUnknown", self.said[0])
        await self.start_desktop()
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "one")

    async def test_bus_restarts(self) -> None:
        """A bus that ends is connected to again; numbers of former notifications are forgotten."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.shows(1)
        self.bus.end()
        await self.eventually(lambda: self.presenter._connection is None, "it is noticed")
        self.presenter.show(item("two"))
        await self.quiet()
        await self.start()
        (shown,) = await self.shows(1)
        self.assertEqual(shown.replaces, 0)
        self.assertEqual(shown.body, "2 items; the last one: two")

    async def test_desktop_refuses(self) -> None:
        """What the desktop does not take is shown later."""
        await self.start()
        signature = "susssasa{sv}i"
        refuse = "raise dbus.exceptions.DBusException('so many', name='org.example.Excess')"
        await self.ask("AddMethod", NAME, "Notify", signature, "u", refuse, signature="sssss")
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.eventually(lambda: bool(self.said), "the problem is told")
        self.assertIn("org.example.Excess: so many", self.said[0])
        await self.ask("AddMethod", NAME, "Notify", signature, "u", "ret = 7", signature="sssss")
        await self.eventually(lambda: bool(self.presenter.shown), "it is shown")
        self.assertEqual((await self.shown())[-1].body, "one")

    async def test_desktop_is_silent(self) -> None:
        """A notification service that does not answer is waited for a moment, and asked again."""
        self.patch(desktop_bus, "TIMEOUT", 0.3)
        self.bus.start()
        silent = await connect_bus(reactor, [str(self.bus.socket)])
        self.patch(silent, "methodCallReceived", lambda call: None)
        await silent.requestBusName(NAME)
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.eventually(lambda: bool(self.said), "the problem is told")
        self.assertIn("does not answer", self.said[0])
        silent.transport.abortConnection()
        await silent.over
        self.patch(desktop_bus, "TIMEOUT", 5.0)
        await self.start_desktop()
        (shown,) = await self.shows(1)
        self.assertEqual(shown.body, "one")

    async def test_desktop_restarts(self) -> None:
        """Another notification service is not told to replace what it has never shown."""
        await self.start()
        self.presenter.start()
        self.presenter.show(item("one"))
        await self.shows(1)
        self.bus.end_desktop()
        await self.eventually(lambda: self.presenter._markup is None, "it is noticed")
        await self.start_desktop("body")
        self.presenter.show(item("a & b"))
        (shown,) = await self.shows(1)
        self.assertEqual((shown.replaces, shown.body), (0, "2 items; the last one: a & b"))

    async def test_stopped_meanwhile(self) -> None:
        """It ends at any moment, also amid connecting, and shows nothing any more."""
        await self.start()
        for pause in (0.0, 0.001, 0.005, 0.02):
            presenter = DesktopPresenter(reactor, (str(self.bus.socket),))
            presenter.start()
            presenter.show(item("one"))
            await self.quiet(pause)
            await presenter.stop()
            before = presenter.shown
            presenter.show(item("two"))
            await self.quiet(0.05)
            self.assertEqual(presenter.shown, before)

    async def test_environment(self) -> None:
        """By default it is the bus that the environment names."""
        await self.start()
        with mock.patch.dict(os.environ, {"DBUS_SESSION_BUS_ADDRESS": self.bus.address}):
            presenter = DesktopPresenter(reactor)
            self.addCleanup(presenter.stop)
            presenter.start()
            presenter.show(item("one"))
            await self.shows(1)


class ConfigurationTests(SynchronousTestCase):
    def setUp(self) -> None:
        """The plugin."""
        self.provider: INotificationPresenterProvider = find(INotificationPresenterProvider, "dbus")

    def test_provided(self) -> None:
        """Both presenters do what the interface says."""
        none: INotificationPresenterProvider = find(INotificationPresenterProvider, "none")
        for provider in (self.provider, none):
            presenter = provider.configure({}, reactor)
            self.assertTrue(verifyObject(INotificationPresenter, presenter))
            presenter.show(item("nothing runs"))
            self.successResultOf(presenter.stop())

    def test_keys(self) -> None:
        """The address of the bus, and whether messages are shown."""
        section = {"address": "unix:path=/run/bus%20one", "messages": False}
        presenter = self.provider.configure(section, reactor)
        assert isinstance(presenter, DesktopPresenter)
        self.assertEqual(presenter._paths, ("/run/bus one",))
        self.assertFalse(presenter._board.messages)

    def test_mistakes(self) -> None:
        """Each mistake names its key."""
        for section, text in (
            ({"adress": "x"}, "notify.adress"),
            ({"address": 1}, "notify.address"),
            ({"address": "tcp:host=example.com,port=1"}, "notify.address"),
            ({"address": str(Path("/run/bus"))}, "notify.address"),
            ({"messages": "no"}, "notify.messages"),
        ):
            with self.assertRaisesRegex(ConfigurationError, text):
                self.provider.configure(section, reactor)
