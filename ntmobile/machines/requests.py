"""Requests and answers over datagrams (rule R10).

An envelope is ``flags(1) | identifier(4) | encoded message``; bit 0 of the flags marks a response.
Requests are retransmitted with back-off from 100 ms until they are answered or time out. A request
that comes again gets the same answer again, and its action is not repeated: it is remembered for
longer than anybody repeats it. Who asks more than can be remembered has to wait.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ntmobile.errors import MalformedMessage
from ntmobile.machines.effects import Address
from ntmobile.wire.codec import DATAGRAM_LIMIT, Message, decode, encode
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE

_ENVELOPE: Final = struct.Struct("!BI")
_RESPONSE: Final = 1
#: Largest encoded message in an envelope, so that its datagram keeps within 1200 bytes (R10).
MESSAGE_LIMIT: Final = DATAGRAM_LIMIT - HEADER_SIZE - TAG_SIZE - _ENVELOPE.size
FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 2.0
#: No request is repeated for longer, in seconds.
LONGEST_TIMEOUT: Final = 60.0
#: Requests, and their answers, are remembered for so many seconds.
REMEMBERED: Final = LONGEST_TIMEOUT + 5.0
#: Requests remembered in one conversation.
ANSWERS: Final = 256


@frozen(slots=True)
class Answered:
    """A request was answered. ``tag`` is what its sender gave."""

    tag: object
    message: Message
    remote: Address
    seconds: float


@frozen(slots=True)
class TimedOut:
    """A request got no answer in its time."""

    tag: object


@frozen(slots=True)
class Asked:
    """The other end asks; answer with :meth:`Conversation.answer` and the same identifier."""

    identifier: int
    message: Message
    remote: Address


Event: TypeAlias = Answered | TimedOut | Asked


@frozen(slots=True)
class Envelope:
    """Bytes to seal and send.

    :ivar remote: None where any address of the other end will do.
    :ivar attempt: the how manieth transmission of a request it is; 0 for an answer.
    """

    data: bytes = field(repr=False)
    remote: Address | None
    attempt: int = 0


@define
class _Pending:
    """A request of ours that is not answered yet."""

    data: bytes = field(repr=False)  # it may carry keys (R6)
    tag: object
    remote: Address | None
    asked: float
    deadline: float
    due: float
    wait: float = FIRST_RETRY
    attempts: int = 1


@define
class _Known:
    """A request of the other end, until it is forgotten; ``answer`` is None before it is given."""

    until: float
    answer: bytes | None = field(default=None, repr=False)


@define
class Conversation:
    """The requests of both ends over one session; knows neither keys nor sockets.

    :ivar next_identifier: starts anywhere; unguessable is not needed, the session is sealed.
    """

    next_identifier: int = 1
    _pending: dict[int, _Pending] = field(factory=dict, init=False)
    _answers: dict[int, _Known] = field(factory=dict, init=False)
    _outgoing: list[Envelope] = field(factory=list, init=False)
    _events: list[Event] = field(factory=list, init=False)

    def request(
        self,
        message: Message,
        tag: object,
        now: float,
        *,
        timeout: float = 5.0,
        remote: Address | None = None,
    ) -> None:
        """Ask the other end; ends in :class:`Answered` or :class:`TimedOut` with this ``tag``.

        :param timeout: seconds, at most :data:`LONGEST_TIMEOUT`.
        :param remote: where to send it; None: wherever the other end is.
        """
        identifier = self.next_identifier & 0xFFFFFFFF
        self.next_identifier = identifier + 1
        data = _ENVELOPE.pack(0, identifier) + encode(message, MESSAGE_LIMIT)
        self._pending[identifier] = _Pending(
            data, tag, remote, now, now + min(timeout, LONGEST_TIMEOUT), now + FIRST_RETRY
        )
        self._outgoing.append(Envelope(data, remote, 1))

    def withdraw(self, tag: object) -> None:
        """Forget a request; it ends in no event any more."""
        for identifier in [i for i, p in self._pending.items() if p.tag == tag]:
            del self._pending[identifier]

    def answer(self, identifier: int, message: Message, remote: Address | None = None) -> None:
        """Answer an :class:`Asked`, once; the answer is repeated, should the request come again."""
        data = _ENVELOPE.pack(_RESPONSE, identifier) + encode(message, MESSAGE_LIMIT)
        known = self._answers.get(identifier)
        if known is not None:
            if known.answer is not None:
                return
            known.answer = data
        self._outgoing.append(Envelope(data, remote))

    def received(self, plaintext: bytes, remote: Address, now: float) -> None:
        """An opened envelope. :raises MalformedMessage: if it is none."""
        if len(plaintext) < _ENVELOPE.size:
            raise MalformedMessage("an envelope is shorter than its head")
        flags, identifier = _ENVELOPE.unpack_from(plaintext)
        if flags & _RESPONSE:
            pending = self._pending.get(identifier)
            if pending is None:
                return
            message = decode(plaintext[_ENVELOPE.size :], MESSAGE_LIMIT)
            del self._pending[identifier]
            # Only an answer to the first transmission measures a round trip (Karn's rule).
            seconds = now - pending.asked if pending.attempts == 1 else -1.0
            self._events.append(Answered(pending.tag, message, remote, seconds))
            return
        self._forget(now)
        known = self._answers.get(identifier)
        if known is not None:
            if known.answer is not None:
                self._outgoing.append(Envelope(known.answer, remote))
        elif len(self._answers) < ANSWERS:
            message = decode(plaintext[_ENVELOPE.size :], MESSAGE_LIMIT)
            self._answers[identifier] = _Known(now + REMEMBERED)
            self._events.append(Asked(identifier, message, remote))

    def _forget(self, now: float) -> None:
        """Forget requests that are not repeated any more; the oldest come first."""
        while self._answers:
            oldest = next(iter(self._answers))
            if now < self._answers[oldest].until:
                return
            del self._answers[oldest]

    def resend(self, now: float) -> None:
        """Send all open requests again at once, as after new keys or a new address."""
        for pending in self._pending.values():
            pending.wait = FIRST_RETRY
            pending.due = now + FIRST_RETRY
            pending.attempts += 1
            self._outgoing.append(Envelope(pending.data, pending.remote, pending.attempts))

    def handle_timer(self, now: float) -> None:
        """Retransmit what is due, give up what is over."""
        for identifier, pending in list(self._pending.items()):
            if now >= pending.deadline:
                del self._pending[identifier]
                self._events.append(TimedOut(pending.tag))
            elif now >= pending.due:
                pending.wait = min(pending.wait * 2, LAST_RETRY)
                pending.due = now + pending.wait
                pending.attempts += 1
                self._outgoing.append(Envelope(pending.data, pending.remote, pending.attempts))

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        if not self._pending:
            return None
        return min(min(p.due, p.deadline) for p in self._pending.values())

    def outgoing(self) -> list[Envelope]:
        """Drain the envelopes to be sealed and sent."""
        drained, self._outgoing = self._outgoing, []
        return drained

    def events(self) -> list[Event]:
        """Drain what happened."""
        drained, self._events = self._events, []
        return drained

    @property
    def idle(self) -> bool:
        """No request of ours is open."""
        return not self._pending
