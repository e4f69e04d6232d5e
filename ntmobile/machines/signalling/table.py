"""A DC's table of signalling sessions (rules R7 to R10): one machine for very many clients."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.login.sources import source_network
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.signalling.requests import Answered, Asked, TimedOut
from ntmobile.machines.signalling.session import HELLO_SIZE, CoordinatorSession
from ntmobile.wire.codec import DATAGRAM_LIMIT, Message
from ntmobile.wire.headers import HEADER, HEADER_SIZE, Flag, Header, Kind


@frozen(slots=True)
class ClientHeard:
    """The newest authentic datagram of a session came from this address (R9)."""

    index: bytes
    remote: Address


@frozen(slots=True)
class ClientAsked:
    """A client's request; answer with :meth:`SessionTable.answer`."""

    index: bytes
    asked: Asked


@frozen(slots=True)
class ClientAnswered:
    """A client's answer to a request of ours. ``message`` is None when none came in time."""

    index: bytes
    tag: object
    message: Message | None


_SEALED: Final = int(Kind.SIGNAL_SEALED)
_HELLO: Final = int(Kind.SIGNAL_HELLO)
_FROM_COORDINATOR: Final = int(Flag.FROM_COORDINATOR)

Effect: TypeAlias = Transmit | ClientHeard | ClientAsked | ClientAnswered


@define
class SessionTable:
    """Sessions by index. What a peer sends can raise nothing here; it is counted in ``dropped``.

    :ivar hellos: of one session from one network: who forges hellos of another's session leaves it
        its own. :ivar indices: of one session from everywhere, which bounds the cryptography.
    """

    _random: Callable[[int], bytes]
    hellos: RateLimiter = field(factory=lambda: RateLimiter(rate=2, burst=6, capacity=100_000))
    indices: RateLimiter = field(factory=lambda: RateLimiter(rate=50, burst=100, capacity=100_000))
    hints: RateLimiter = field(factory=lambda: RateLimiter(rate=2, burst=4, capacity=20_000))
    dropped: int = field(default=0, init=False)
    _sessions: dict[bytes, CoordinatorSession] = field(factory=dict, init=False)
    _timers: list[tuple[float, bytes]] = field(factory=list, init=False)
    _due: dict[bytes, float] = field(factory=dict, init=False)
    _effects: list[Effect] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, index: bytes, key: bytes) -> None:
        """A session from a login, or from the durable store after a restart."""
        self._sessions[index] = CoordinatorSession(index, key, self._random)

    def remove(self, index: bytes) -> None:
        """The session is over: revoked, replaced or expired."""
        self._sessions.pop(index, None)
        self._due.pop(index, None)

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """A signalling datagram from anywhere. Length, type, index and rate come first (R8)."""
        # Nothing can be answered to port 0, nor can it be named to anybody.
        if not HEADER_SIZE <= len(datagram) <= DATAGRAM_LIMIT or not remote[1]:
            self.dropped += 1
            return
        kind, flags, reserved, index, _ = HEADER.unpack_from(datagram)
        if reserved or flags & _FROM_COORDINATOR:
            self.dropped += 1
            return
        session = self._sessions.get(index)
        try:
            if kind == _SEALED:
                self._sealed_received(session, index, datagram, remote, now)
            elif kind == _HELLO and len(datagram) == HELLO_SIZE:
                self._hello_received(session, index, datagram, remote, now)
            else:
                self.dropped += 1
        except (MalformedMessage, AuthenticationError):
            self.dropped += 1

    def _hello_received(
        self,
        session: CoordinatorSession | None,
        index: bytes,
        datagram: bytes,
        remote: Address,
        now: float,
    ) -> None:
        if session is None:
            self._hint(index, remote, now)
        elif self._allows_hello(index, remote, now):
            welcome = session.hello_received(datagram, remote)
            if welcome is not None:
                self._effects.append(welcome)

    def _allows_hello(self, index: bytes, remote: Address, now: float) -> bool:
        source = index, source_network(remote[0].partition("%")[0])
        return self.hellos.allow(source, now) and self.indices.allow(index, now)

    def _sealed_received(
        self,
        session: CoordinatorSession | None,
        index: bytes,
        datagram: bytes,
        remote: Address,
        now: float,
    ) -> None:
        if session is None or not session.has_keys:
            self._hint(index, remote, now)
            return
        if session.sealed_received(datagram, remote, now):
            self._effects.append(ClientHeard(index, remote))
        self._settle(session)

    def _hint(self, index: bytes, remote: Address, now: float) -> None:
        """A bare header back, never larger than what came, never often to one address (R8)."""
        if self.hints.allow(remote[0], now):
            head = Header(Kind.SIGNAL_UNKNOWN, Flag.FROM_COORDINATOR, index, 0)
            self._effects.append(Transmit(head.pack(), remote))

    def request(
        self, index: bytes, message: Message, tag: object, now: float, timeout: float = 5.0
    ) -> None:
        """Ask a client; ends in :class:`ClientAnswered` with this tag."""
        session = self._sessions.get(index)
        if session is None or not session.open:
            self._effects.append(ClientAnswered(index, tag, None))
            return
        session.request(message, tag, now, timeout)
        self._settle(session)

    def withdraw(self, index: bytes, tag: object) -> None:
        """Forget a request to a client; it ends in nothing any more."""
        session = self._sessions.get(index)
        if session is not None and session.conversation is not None:
            session.conversation.withdraw(tag)

    def nudge(self, index: bytes, remotes: tuple[Address, ...], now: float) -> None:
        """Hint to a client that its DC has restarted and knows it, where it last was (R7).

        Nothing is sent where there are keys. What comes of it is a hello, at most.
        """
        session = self._sessions.get(index)
        if session is not None and not session.has_keys:
            for remote in remotes:
                self._hint(index, remote, now)

    def answer(self, index: bytes, asked: Asked, message: Message) -> None:
        """Answer a :class:`ClientAsked`, to the address it came from."""
        session = self._sessions.get(index)
        if session is not None and session.conversation is not None:
            session.conversation.answer(asked.identifier, message, asked.remote)
            self._settle(session)

    def handle_timer(self, now: float) -> None:
        """Retransmit what is due."""
        while self._timers and self._timers[0][0] <= now:
            due, index = heapq.heappop(self._timers)
            session = self._sessions.get(index)
            if self._due.get(index) != due or session is None or session.conversation is None:
                continue
            del self._due[index]
            session.conversation.handle_timer(now)
            self._settle(session)

    def tick(self, now: float) -> None:
        """Forget who is no longer rationed; to be called every few seconds."""
        self.hellos.expire(now)
        self.indices.expire(now)
        self.hints.expire(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` may have something to do."""
        return self._timers[0][0] if self._timers else None

    def effects(self) -> list[Effect]:
        """Drain what is to be done."""
        drained, self._effects = self._effects, []
        return drained

    def _settle(self, session: CoordinatorSession) -> None:
        """Collect what the session has to say and note its next timer."""
        conversation, index = session.conversation, session.index
        if conversation is None:
            return
        for event in conversation.events():
            match event:
                case Asked():
                    self._effects.append(ClientAsked(index, event))
                case Answered(tag, message):
                    self._effects.append(ClientAnswered(index, tag, message))
                case TimedOut(tag):
                    self._effects.append(ClientAnswered(index, tag, None))
        self._effects += session.transmissions()
        due = conversation.next_timer()
        if due is not None and due < self._due.get(index, float("inf")):
            self._due[index] = due
            heapq.heappush(self._timers, (due, index))
