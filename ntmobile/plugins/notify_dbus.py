"""The ``dbus`` presenter: what comes is shown on the desktop (org.freedesktop.Notifications).

Desktop Notifications Specification, version 1.2. Each sender has one notification, which is
replaced. Where there is no bus, or nobody who shows anything, it is tried again; the newest of each
sender is kept meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from txdbus.error import RemoteError
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, NTMobileError, Unreachable
from ntmobile.interfaces import (
    Announcement,
    INotificationPresenter,
    INotificationPresenterProvider,
)
from ntmobile.plugins.cards import Board, Card
from ntmobile.plugins.section import reject_unknown
from ntmobile.protocols.desktop_bus import (
    BUS,
    BusConnection,
    connect_bus,
    parse_address,
    session_bus_paths,
)
from ntmobile.wire.text import printable

log = Logger()

NAME: Final = "org.freedesktop.Notifications"
PATH: Final = "/org/freedesktop/Notifications"
#: Pauses before it is tried again, in seconds: the first, and the longest.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: "It is up to the server when it goes away."
_DEFAULT_EXPIRY: Final = -1


@implementer(INotificationPresenter)
class DesktopPresenter:
    """Shows cards by the session bus.

    :param paths: sockets of the bus; None: where the environment says, each time.
    :param messages: whether senders' messages are shown, or only that something came.
    :ivar shown: how many notifications the desktop took.
    """

    def __init__(
        self, reactor: Any, paths: tuple[str, ...] | None = None, *, messages: bool = True
    ) -> None:
        self.shown = 0
        self._reactor = reactor
        self._paths = paths
        self._board = Board(messages)
        self._connection: BusConnection | None = None
        self._markup: bool | None = None
        self._numbers: dict[str, int] = {}
        self._pause = FIRST_PAUSE
        self._problem = ""
        self._later: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._stopped = True

    # -- INotificationPresenter

    def start(self) -> None:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""
        self._stopped = False
        self._work()

    def show(self, announcement: Announcement) -> None:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""
        self._board.add(announcement, self._reactor.seconds())
        if self._later is None:
            self._work()

    def stop(self) -> Deferred[None]:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""
        self._stopped = True
        self._cancel()
        connection, self._connection = self._connection, None
        if self._working is not None:
            self._working.cancel()
        if connection is None:
            return succeed(None)
        connection.transport.abortConnection()
        return connection.over

    # -- one thing after the other

    def _work(self) -> None:
        """Show what is to be shown, unless that is being done."""
        if self._working is not None or self._stopped:
            return
        working = Deferred.fromCoroutine(self._show_all())
        self._working = working
        working.addBoth(self._worked)

    def _worked(self, result: object) -> None:
        self._working = None
        if self._stopped:
            return
        wait = self._board.wait(self._reactor.seconds())
        if wait is None:
            return  # also where nothing can be shown: it is tried when there is something
        if self._connection is None or self._markup is None:
            wait = max(wait, self._pause)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._cancel()
        self._later = self._reactor.callLater(wait, self._again)

    def _again(self) -> None:
        self._later = None
        self._work()

    def _cancel(self) -> None:
        if self._later is not None and self._later.active():
            self._later.cancel()
        self._later = None

    async def _show_all(self) -> None:
        try:
            connection = await self._connected()
            while (card := self._board.take(self._reactor.seconds())) is not None:
                try:
                    await self._show(connection, card)
                except BaseException:
                    self._board.put_back(card)
                    raise
        except (NTMobileError, RemoteError) as problem:
            self._markup = None
            self._trouble(printable(str(problem))[:200])
        except CancelledError:
            pass
        except Exception:
            self._markup = None
            log.failure("showing a notification failed")
        else:
            self._pause = FIRST_PAUSE
            self._well()

    def _trouble(self, problem: str) -> None:
        """Say it once, until something else is wrong or all is well."""
        if problem != self._problem:
            self._problem = problem
            log.info("nothing can be shown on the desktop: {problem}", problem=problem)

    def _well(self) -> None:
        if self._problem:
            self._problem = ""
            log.info("the desktop shows notifications")

    # -- the bus

    async def _connected(self) -> BusConnection:
        connection = self._connection
        if connection is None:
            paths = session_bus_paths() if self._paths is None else self._paths
            connection = await connect_bus(self._reactor, paths)
            self._connection = connection
            connection.over.addCallback(self._lost, connection)
            try:
                await self._subscribe(connection)
            except BaseException:
                connection.transport.abortConnection()
                raise
        if self._markup is None:
            self._markup = "body-markup" in await self._capabilities(connection)
        return connection

    async def _subscribe(self, connection: BusConnection) -> None:
        await connection.subscribe(
            self._closed,
            sender=NAME,
            interface=NAME,
            member="NotificationClosed",
            clock=self._reactor,
        )
        await connection.subscribe(
            self._owner_changed,
            sender=BUS,
            interface=BUS,
            member="NameOwnerChanged",
            argument=NAME,
            clock=self._reactor,
        )

    async def _capabilities(self, connection: BusConnection) -> tuple[str, ...]:
        found = await connection.call(PATH, "GetCapabilities", interface=NAME, clock=self._reactor)
        if not isinstance(found, list):
            raise Unreachable("the desktop's notification service answers something else")
        return tuple(str(one) for one in found)

    async def _show(self, connection: BusConnection, card: Card) -> None:
        body = escape(card.body, quote=False) if self._markup else card.body
        number = await connection.call(
            PATH,
            "Notify",
            interface=NAME,
            signature="susssasa{sv}i",
            body=(
                "ntmobile",
                self._numbers.get(card.slot, 0),
                "",
                card.title,
                body,
                [],
                {"category": "im.received"},
                _DEFAULT_EXPIRY,
            ),
            clock=self._reactor,
        )
        self.shown += 1
        if isinstance(number, int):
            self._numbers.pop(card.slot, None)
            self._numbers[card.slot] = number
            while len(self._numbers) > 64:
                del self._numbers[next(iter(self._numbers))]

    def _lost(self, result: None, connection: BusConnection) -> None:
        """The bus is gone; notifications of a next one have other numbers."""
        if self._connection is not connection:
            return
        self._connection, self._markup = None, None
        self._numbers.clear()
        self._trouble("the session bus closed the connection")
        if self._later is None and self._working is None:
            self._worked(None)

    def _owner_changed(self, body: list[Any]) -> None:
        """Another notification service: it knows nothing of our numbers."""
        _, _, owner = body
        self._markup = None
        self._numbers.clear()
        if owner:
            self._pause = FIRST_PAUSE
            self._cancel()
            self._work()

    def _closed(self, body: list[Any]) -> None:
        """A notification is not shown any more: its number may be another's soon."""
        number = body[0]
        for slot in [one for one, known in self._numbers.items() if known == number]:
            del self._numbers[slot]
            self._board.closed(slot)


@implementer(IPlugin, INotificationPresenterProvider)
class DesktopPresenterProvider:
    """Makes a :class:`DesktopPresenter`. Keys: ``address`` of the bus, ``messages``."""

    name = "dbus"

    def configure(self, section: Mapping[str, object], reactor: object) -> DesktopPresenter:
        """See :class:`~ntmobile.interfaces.INotificationPresenterProvider`."""
        reject_unknown("notify", section, ("address", "messages"))
        address, messages = section.get("address"), section.get("messages", True)
        if not isinstance(messages, bool):
            raise ConfigurationError("notify.messages: expected true or false")
        if address is None:
            return DesktopPresenter(reactor, messages=messages)
        if not isinstance(address, str):
            raise ConfigurationError("notify.address: expected a D-Bus address")
        try:
            paths = parse_address(address)
        except ConfigurationError as problem:
            raise ConfigurationError(f"notify.address: {problem}") from None
        return DesktopPresenter(reactor, paths, messages=messages)


desktop = DesktopPresenterProvider()
