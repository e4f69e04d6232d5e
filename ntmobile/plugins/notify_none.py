"""The two ``none`` of notification, the defaults: nobody is woken, and nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.interfaces import (
    Announcement,
    INotificationPresenter,
    INotificationPresenterProvider,
    INotifier,
    INotifierProvider,
    Notification,
    NotificationResult,
)
from ntmobile.plugins.section import reject_unknown

log = Logger()


@implementer(INotifier)
class NoNotifier:
    """Notifies nobody, and says so in the log."""

    def notify(self, notification: Notification) -> Deferred[NotificationResult]:
        """See :class:`~ntmobile.interfaces.INotifier`."""
        log.debug("{receiver} is off; no notification plugin", receiver=notification.receiver)
        return succeed(NotificationResult())

    def close(self) -> Deferred[None]:
        """See :class:`~ntmobile.interfaces.INotifier`."""
        return succeed(None)


@implementer(IPlugin, INotifierProvider)
class NoNotifierProvider:
    """Makes a :class:`NoNotifier`; has no keys."""

    name = "none"

    def configure(self, section: Mapping[str, object], reactor: object) -> NoNotifier:
        """See :class:`~ntmobile.interfaces.INotifierProvider`."""
        reject_unknown("notify", section, ())
        return NoNotifier()


@implementer(INotificationPresenter)
class NoPresenter:
    """Shows nothing; programs and commands hear all the same."""

    def start(self) -> None:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""

    def show(self, announcement: Announcement) -> None:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""

    def stop(self) -> Deferred[None]:
        """See :class:`~ntmobile.interfaces.INotificationPresenter`."""
        return succeed(None)


@implementer(IPlugin, INotificationPresenterProvider)
class NoPresenterProvider:
    """Makes a :class:`NoPresenter`; has no keys."""

    name = "none"

    def configure(self, section: Mapping[str, object], reactor: object) -> NoPresenter:
        """See :class:`~ntmobile.interfaces.INotificationPresenterProvider`."""
        reject_unknown("notify", section, ())
        return NoPresenter()


noNotifier = NoNotifierProvider()
noPresenter = NoPresenterProvider()
