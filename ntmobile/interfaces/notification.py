# ruff: noqa: N805  (methods of an interface have no self)
"""How devices that are off are woken."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ntmobile.wire.messages.realtime import NotificationRequest


class INotifier(Interface):
    """Wakes a client that is off (paper, V-A: transmission of notification)."""

    def notify(
        request: NotificationRequest,
    ) -> Deferred[None]:
        """Tell the client's device that something waits. Best effort; the client may never hear."""


class INotifierProvider(Interface):
    """A plugin that makes an :class:`INotifier` from a DC's ``[notify]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says")

    def configure(section: Mapping[str, object], reactor: object) -> INotifier:
        """Make a notifier.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
