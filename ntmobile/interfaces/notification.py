# ruff: noqa: N805  (methods of an interface have no self)
"""How devices that are off are woken, and how their owners are told.

At both ends of the way is a plugin. A DC's *notifier* wakes a device that its own signalling does
not reach, by a service that does: FCM, APNs, Web Push, ntfy. A device's *presenter* shows its owner
what has come. In between, a device that is online is told by its DC directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ntmobile.wire.messages.realtime import NotificationRequest, Reason


@frozen
class Notification:
    """What a notifier is asked to deliver.

    Whoever operates the push service sees all of it that is sent, so that is better nothing than
    the device's registration and :attr:`collapse` (R33).

    :ivar request: receiver, reason, and what its sender made public.
    :ivar count: how many of these it stands for.
    :ivar lifetime: seconds after which it is of no use, for the service's time to live.
    :ivar attempt: 1, or more where former ones failed.
    :ivar registration: what the device gave its DC for this notifier, such as a push token or the
        keys of a subscription; empty if it gave nothing.
    """

    request: NotificationRequest
    count: int = 1
    lifetime: float = 60.0
    attempt: int = 1
    registration: bytes = field(default=b"", repr=False)

    @property
    def receiver(self) -> str:
        """The device."""
        return self.request.receiver

    @property
    def urgent(self) -> bool:
        """Somebody is waiting right now: FCM's high priority, APNs' 10, Web Push's ``high``."""
        return self.request.kind == Reason.REALTIME

    @property
    def collapse(self) -> str:
        """Of those with the same the newest is enough: FCM's collapse key, Web Push's topic."""
        return f"{self.request.kind}"


class NotificationOutcome(Enum):
    """What became of a notification."""

    ACCEPTED = "accepted"  #: by the service; whether the device hears is not known
    LATER = "later"  #: the service cannot now: try again
    REFUSED = "refused"  #: it never will take this one
    GONE = "gone"  #: the device's registration is not valid any more, and is to be forgotten


@frozen
class NotificationResult:
    """A notifier's answer.

    :ivar after: with ``LATER``: not before so many seconds; None where the service said nothing.
    :ivar detail: why, for the log; no secrets (R6).
    """

    outcome: NotificationOutcome = NotificationOutcome.ACCEPTED
    after: float | None = None
    detail: str = ""


class INotifier(Interface):
    """Wakes a client that is off (paper, V-A: transmission of notification).

    It need not care for rates, repeating and coalescing: its DC does, see
    :mod:`ntmobile.machines.signalling.waking`.
    """

    def notify(notification: Notification) -> Deferred[NotificationResult]:
        """Tell the client's device that something waits.

        An :class:`~ntmobile.errors.NTMobileError` is the same as ``LATER``. What takes longer than
        half a minute is given up and tried again.
        """

    def close() -> Deferred[None]:
        """The DC ends: close connections."""


class INotifierProvider(Interface):
    """A plugin that makes an :class:`INotifier` from a DC's ``[notify]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says")

    def configure(section: Mapping[str, object], reactor: object) -> INotifier:
        """Make a notifier.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """


@frozen
class Announcement:
    """What a device's owner may be told.

    :ivar reason: why. :ivar sender: whose it is; empty where that is not known.
    :ivar message: the public notification message (R33), as it came: hostile text, perhaps.
    :ivar application: whose it is for, as its sender says; empty where that is not known.
    :ivar verified: sender and message were verified by the sender's signature (R29); else it is
        only what the own DC says.
    """

    reason: Reason
    sender: str = ""
    message: str = ""
    application: str = ""
    verified: bool = False


class INotificationPresenter(Interface):
    """Shows a device's owner what has come."""

    def start() -> None:
        """Begin; what it needs may be absent, and come later."""

    def show(announcement: Announcement) -> None:
        """Show it, now or as soon as it can be. Neither blocks nor raises.

        What is shown is bounded in number and size, whatever comes.
        """

    def stop() -> Deferred[None]:
        """End. What is shown may stay."""


class INotificationPresenterProvider(Interface):
    """A plugin that makes an :class:`INotificationPresenter` from ``[notify]`` in ``node.toml``."""

    name: str = Attribute("what ``plugin = ...`` in the section says")

    def configure(section: Mapping[str, object], reactor: object) -> INotificationPresenter:
        """Make a presenter.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
