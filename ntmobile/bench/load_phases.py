"""What the clients of ``ntm bench load`` do: begin, register, keep alive, ask for directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from attrs import define, field

from ntmobile.bench.load_clients import LoadClient
from ntmobile.bench.load_driver import Load
from ntmobile.errors import MalformedMessage
from ntmobile.wire.codec import Message
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.realtime import (
    DirectionResponse,
    KeepAliveResponse,
    Outcome,
    RegistrationResponse,
    RouteDirection,
    RouteDirectionAcknowledgement,
)


@define(eq=False)
class First:
    """Hello, welcome, and the first registration of each client, once."""

    _left: Iterator[LoadClient]

    def begin(self, load: Load) -> bool:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        client = next(self._left, None)
        if client is None:
            return False
        load.started(client)
        load.wire.send(client, client.hello())
        return True

    def received(self, load: Load, client: LoadClient, kind: int, datagram: bytes) -> None:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        if kind == Kind.SIGNAL_WELCOME:
            client.welcomed(datagram)
            load.wire.send(client, client.register())
        else:
            check_registered(load, client, client.open(datagram)[2])


@define(eq=False)
class _TakingTurns(ABC):
    """Something that one client after the other does. Who inherits says what."""

    _turn: Iterator[tuple[LoadClient, ...]]

    @abstractmethod
    def asks(self, client: LoadClient) -> bytes:
        """The datagram that a client sends."""

    def begin(self, load: Load) -> bool:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        client = _free(load, self._turn)
        if client is None:
            return False
        load.started(client[0])
        load.wire.send(client[0], self.asks(client[0]))
        return True


class Registering(_TakingTurns):
    """Registrations at new locations, by one client after the other."""

    def asks(self, client: LoadClient) -> bytes:
        """A registration."""
        return client.register()

    def received(self, load: Load, client: LoadClient, kind: int, datagram: bytes) -> None:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        check_registered(load, client, client.open(datagram)[2])


class KeepingAlive(_TakingTurns):
    """Keep-alives, by one client after the other."""

    def asks(self, client: LoadClient) -> bytes:
        """A keep-alive."""
        return client.keep_alive()

    def received(self, load: Load, client: LoadClient, kind: int, datagram: bytes) -> None:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        answer = client.open(datagram)[2]
        if not isinstance(answer, KeepAliveResponse) or answer.observed != client.here:
            raise MalformedMessage("not the answer to a keep-alive")
        load.finished(client)


@define
class _Asking:
    """A direction under way: who asked for whom, and what has come of it."""

    mn: LoadClient
    cn: LoadClient
    missing: set[str] = field(factory=lambda: {"response", "mn", "cn"})


@define(eq=False)
class Directing:
    """Directions between pairs of clients of the DC.

    One is done when MN has its Direction Response, and both have their Route Direction, which they
    acknowledge.

    :ivar relay: each names a relay. :ivar repeated: Route Directions that came again.
    """

    _turn: Iterator[tuple[LoadClient, ...]]
    relay: bool
    repeated: int = 0
    _open: dict[str, _Asking] = field(factory=dict)

    def begin(self, load: Load) -> bool:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        pair = _free(load, self._turn)
        if pair is None:
            return False
        mn, cn = pair
        self._open[mn.fqdn] = _Asking(mn, cn)
        load.started(mn)
        load.wire.send(mn, mn.direct(cn.fqdn))
        return True

    def received(self, load: Load, client: LoadClient, kind: int, datagram: bytes) -> None:
        """See :class:`~ntmobile.bench.load_driver.Phase`."""
        _, identifier, message = client.open(datagram)
        match message:
            case RouteDirection() if self.relay and message.relay is None:
                raise MalformedMessage("a direction without a relay")
            case RouteDirection():
                word = RouteDirectionAcknowledgement(message.direction, message.generation)
                load.wire.send(client, client.answer(identifier, word))
                asking = self._open.get(message.requester)
                if asking is None:
                    self.repeated += 1
                else:
                    self._have(load, asking, "mn" if client is asking.mn else "cn")
            case DirectionResponse(Outcome.OK):
                asking = self._open.get(client.fqdn)
                if asking is not None:
                    self._have(load, asking, "response")
            case DirectionResponse(outcome):
                self._open.pop(client.fqdn, None)
                load.finished(client, f"answered {Outcome(outcome).name}")
            case _:
                raise MalformedMessage("not a word of a direction")

    def _have(self, load: Load, asking: _Asking, what: str) -> None:
        self.repeated += what not in asking.missing
        asking.missing.discard(what)
        if not asking.missing:
            del self._open[asking.mn.fqdn]
            load.finished(asking.mn)


def check_registered(load: Load, client: LoadClient, answer: Message) -> None:
    """Take the answer to the newest registration. :raises MalformedMessage: it is none."""
    if (
        not isinstance(answer, RegistrationResponse)
        or answer.generation != client.generation
        or answer.observed != client.here
    ):
        raise MalformedMessage("not the answer to a registration")
    load.finished(client)


def _free(load: Load, turn: Iterator[tuple[LoadClient, ...]]) -> tuple[LoadClient, ...] | None:
    """The next clients that are not busy."""
    for clients in turn:
        if not any(load.is_busy(one) for one in clients):
            return clients
    return None
