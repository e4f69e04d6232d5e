"""Does what :mod:`ntmobile.machines.signalling.waking` wants: by signalling, or the notifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import INotifier, Notification, NotificationOutcome, NotificationResult
from ntmobile.machines.signalling.clients import ClientTable
from ntmobile.machines.signalling.waking import PATIENCE, Effect, Push, Tell, Waking
from ntmobile.protocols import trace
from ntmobile.protocols.signalling import Signalling
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.realtime import NotificationRequest

log = Logger()

#: Seconds that a notifier has for one notification.
NOTIFIER_TIMEOUT: Final = 30.0


@define(eq=False)
class Notifying:
    """One domain's notifications.

    :ivar domain: its name. :ivar signalling: the clients' sessions.
    """

    domain: str
    clients: ClientTable
    notifier: INotifier
    clock: IReactorTime
    signalling: Callable[[], Signalling]
    machine: Waking = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.machine = Waking(self._online)

    def _online(self, fqdn: str, now: float) -> bool:
        client = self.clients.find(fqdn)
        return client is not None and client.fqdn == fqdn and client.online(now)

    def wanted(self, request: NotificationRequest, *, unheard: bool = False) -> None:
        """A device of ours shall be told.

        :param unheard: it is known not to hear us at present.
        """
        self._perform(self.machine.wanted(request, self.clock.seconds(), unheard=unheard))

    def answered(self, request: NotificationRequest, answer: Message | None) -> None:
        """A device acknowledged; None: it did not in time."""
        now = self.clock.seconds()
        settle = self.machine.unheard if answer is None else self.machine.acknowledged
        self._perform(settle(request, now))

    def registered(self, fqdn: str) -> None:
        """A device came back."""
        self._perform(self.machine.registered(fqdn, self.clock.seconds()))

    def tick(self) -> None:
        """Every second: say what is due."""
        self._perform(self.machine.handle_timer(self.clock.seconds()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(request):
                    self._tell(request)
                case Push():
                    self._push(effect)

    def _tell(self, request: NotificationRequest) -> None:
        client, signalling = self.clients.find(request.receiver), self.signalling()
        if client is None:
            self.machine.forget(request.receiver)
            return
        if trace.switch.on:
            trace.trace(request, self.domain, client.fqdn)
        now = self.clock.seconds()
        signalling.table.request(client.index, request, request, now, PATIENCE)
        signalling.flush()

    def _push(self, push: Push) -> None:
        notification = Notification(push.request, push.count, push.lifetime, push.attempt)
        asked: Deferred[NotificationResult] = maybeDeferred(self.notifier.notify, notification)
        asked.addTimeout(NOTIFIER_TIMEOUT, self.clock)
        asked.addCallbacks(
            lambda result: self._delivered(push, result),
            lambda failure: self._failed(push, failure),
        )
        asked.addErrback(lambda failure: log.failure("a notification was not served", failure))

    def _delivered(self, push: Push, result: NotificationResult) -> None:
        if result.outcome is NotificationOutcome.LATER:
            self._again(push, result.after, result.detail)
            return
        if result.outcome is not NotificationOutcome.ACCEPTED:
            log.warn(
                "{receiver} was not notified: {detail}",
                receiver=push.request.receiver,
                detail=result.detail or result.outcome.value,
            )
        self._perform(self.machine.delivered(push.request, self.clock.seconds()))

    def _failed(self, push: Push, failure: Failure) -> None:
        if failure.check(NTMobileError):
            self._again(push, None, failure.getErrorMessage())
        elif failure.check(CancelledError, NoAnswer):
            self._again(push, None, f"no answer within {NOTIFIER_TIMEOUT:g} s")
        else:  # a fault of the plugin: it would be the same again
            log.failure("the notifier failed", failure)
            self._perform(self.machine.delivered(push.request, self.clock.seconds()))

    def _again(self, push: Push, after: float | None, detail: str) -> None:
        again = self.machine.failed(push.request, after, self.clock.seconds())
        log.warn(
            "{receiver} was not notified: {detail}; {then}",
            receiver=push.request.receiver,
            detail=detail or "the service cannot now",
            then="it is tried again" if again else "it is given up",
        )
