"""The ``none`` notifier: a realm without push notification, the default.

A client that is off then hears of what waits when it comes back and asks (Route Direction Request).
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.interfaces import INotifier, INotifierProvider
from ntmobile.plugins.section import reject_unknown
from ntmobile.wire.messages.realtime import NotificationRequest

log = Logger()


@implementer(INotifier)
class NoNotifier:
    """Notifies nobody, and says so in the log."""

    def notify(self, request: NotificationRequest) -> Deferred[None]:
        """See :class:`~ntmobile.interfaces.INotifier`."""
        log.debug("{receiver} is off; no notification plugin", receiver=request.receiver)
        return succeed(None)


@implementer(IPlugin, INotifierProvider)
class NoNotifierProvider:
    """Makes a :class:`NoNotifier`; has no keys."""

    name = "none"

    def configure(self, section: Mapping[str, object], reactor: object) -> NoNotifier:
        """See :class:`~ntmobile.interfaces.INotifierProvider`."""
        reject_unknown("notify", section, ())
        return NoNotifier()


noNotifier = NoNotifierProvider()
