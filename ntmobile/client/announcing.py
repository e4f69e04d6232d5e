"""What the agent tells its owner: what the DC and the inbox say, handed to the presenter."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ntmobile.client.exchange import Arrived
from ntmobile.interfaces import Announcement, INotificationPresenter
from ntmobile.wire.messages.realtime import NotificationRequest, Reason
from ntmobile.wire.text import printable

log = Logger()

_KNOWN: Final = frozenset(int(reason) for reason in Reason)


class Announcing:
    """Listens to a node, and has shown what concerns people.

    :param fqdn: the device. :param presenter: shows it.
    """

    def __init__(self, fqdn: str, presenter: INotificationPresenter) -> None:
        self._fqdn = fqdn
        self._presenter = presenter

    def start(self) -> None:
        """Begin."""
        self._presenter.start()

    def stop(self) -> Deferred[None]:
        """End."""
        return self._presenter.stop()

    def told(self, event: object) -> None:
        """An event of the node: what its DC says, what has arrived, or an Announcement."""
        match event:
            case NotificationRequest(receiver, kind) if receiver == self._fqdn and kind in _KNOWN:
                # The DC's own words: it could say anything. Who has verified the item says so.
                self.show(
                    Announcement(Reason(kind), event.sender, event.message, event.application)
                )
            case Arrived(item):
                text = item.manifest.message
                self.show(
                    Announcement(Reason.ITEM, item.sender, text, item.application, verified=True)
                )
            case Announcement():
                self.show(event)

    def show(self, announcement: Announcement) -> None:
        """Have something shown."""
        log.debug(
            "{reason} of {sender}",
            reason=announcement.reason.name.lower(),
            sender=printable(announcement.sender) or "somebody",
        )
        try:
            self._presenter.show(announcement)
        except Exception:  # a plugin's fault is not the node's
            log.failure("the presenter failed")
