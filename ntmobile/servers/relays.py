"""A DC's relay servers: their links, joined to the registry of relays (R25, R26)."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import AuthenticationError, NTMobileError, Unreachable
from ntmobile.machines.direction.relays import INTERVAL, RelayRegistry
from ntmobile.protocols.link import Link
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayDirection,
    RelayEnd,
    RelayRegistration,
    RelayRegistrationResponse,
    RelayReport,
    RelayResponse,
)
from ntmobile.wire.messages.realtime import Outcome

log = Logger()

#: Seconds in which an RS answers a Relay Direction; then the next one is tried.
ANSWER_TIMEOUT: Final = 2.0


class Relays:
    """Answers the RSs' requests and directs them."""

    def __init__(self, domain: str, clock: IReactorTime) -> None:
        self.registry = RelayRegistry()
        self._domain = domain
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._under_way: dict[object, tuple[str, ...]] = {}

    async def asked(self, message: Message, link: Link) -> Message | None:
        """A request of an RS, whose certificate names it."""
        assert link.peer is not None
        name = link.peer[1]
        now = self._clock.seconds()
        match message:
            case RelayRegistration():
                if message.name != name or name.partition(".")[2] != self._domain:
                    raise AuthenticationError(f"{name} is no relay server of {self._domain}")
                again: list[RelayDirection | RelayEnd] = [*self.registry.register(message, now)]
                again += self.registry.ends(name)
                if self._links.get(name) is not link:
                    self._links[name] = link
                    link.closed.addCallback(lambda _: self._gone(name, link))
                log.info("relay server {name} is here", name=name)
                self._direct_again(name, again)
                return RelayRegistrationResponse(Outcome.OK, int(INTERVAL))
            case RelayReport():
                self.registry.report(name, message, now)
                self._end(name, self.registry.ends(name))  # what it did not acknowledge
                return LinkAcknowledgement()
            case _:
                raise AuthenticationError("not a request that a relay server makes")

    def _gone(self, name: str, link: Link) -> None:
        if self._links.get(name) is link:
            del self._links[name]
            self.registry.gone(name, self._clock.seconds())
            log.warn("relay server {name} is gone", name=name)

    def _direct_again(self, name: str, messages: list[RelayDirection | RelayEnd]) -> None:
        link = self._links[name]

        async def repeat() -> None:
            for message in messages:
                if self._links.get(name) is not link:
                    return  # it gets them again when it registers, or has registered, again
                try:
                    await self._order(name, message)
                except NTMobileError as problem:
                    log.warn("relay {name}: {problem}", name=name, problem=str(problem))

        if messages:
            log.info("{count} orders again for {name}", count=len(messages), name=name)
            Deferred.fromCoroutine(repeat())

    async def direct(
        self, relay: str, message: RelayDirection, devices: tuple[str, ...] = ()
    ) -> Message:
        """Send a Relay Direction to an RS, and note what became of it.

        :param devices: the two ends of the tunnel. It ends at once where :meth:`end` was called for
            one of them meanwhile.
        :raises Unreachable: it is not here, or does not answer.
        """
        order = object()
        self._under_way[order] = devices
        try:
            answer = await self._order(relay, message)
        except NTMobileError:
            self.registry.busy(relay, self._clock.seconds())
            raise
        finally:
            ended = self._under_way.pop(order, None) is None
        if isinstance(answer, RelayResponse) and answer.outcome == Outcome.OK:
            self.registry.placed(relay, message, self._clock.seconds(), devices)
            if ended and self.registry.end(message.direction):
                self._end(relay, [RelayEnd(message.direction)])
        else:
            self.registry.busy(relay, self._clock.seconds())
        return answer

    def end(self, device: str) -> None:
        """Have the RSs forget the tunnels of a device (R34).

        Who does not acknowledge is told again with its next report, or when it registers again.
        """
        for order in [one for one, devices in self._under_way.items() if device in devices]:
            del self._under_way[order]
        for name, end in self.registry.end_of(device):
            self._end(name, [end])

    def _end(self, name: str, ends: list[RelayEnd]) -> None:
        async def tell(end: RelayEnd) -> None:
            try:
                await self._order(name, end)
            except NTMobileError as problem:
                log.warn("relay {name} was not told: {problem}", name=name, problem=str(problem))

        for end in ends:
            Deferred.fromCoroutine(tell(end))

    async def _order(self, relay: str, message: RelayDirection | RelayEnd) -> Message:
        link = self._links.get(relay)
        if link is None:
            raise Unreachable(f"relay server {relay} is not here")
        answer = await link.request(message, ANSWER_TIMEOUT)
        if isinstance(message, RelayEnd):
            self.registry.acknowledged(relay, message)
        return answer

    def tick(self) -> None:
        """Every second: give up RSs that do not come back."""
        for lost in self.registry.handle_timer(self._clock.seconds()):
            log.warn(
                "relay server {name} is given up, with {count} tunnels",
                name=lost.name,
                count=len(lost.directions),
            )
