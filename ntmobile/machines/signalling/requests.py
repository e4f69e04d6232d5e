"""Requests and answers over datagrams (rule R10).

An envelope is ``flags(1) | identifier(4) | encoded message``; bit 0 of the flags marks a response.
Requests are retransmitted with back-off from 100 ms until they are answered or time out. A request
that comes again gets the same answer again, and its action is not repeated: it is remembered for
longer than anybody repeats it. Who asks more than can be remembered has to wait.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
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


#: A request of the other end: when it is forgotten, and its answer, once that is given. A tuple of
#: such is none of the garbage collector's business, and a DC holds very many.
_Known: TypeAlias = tuple[float, bytes | None]


@define
class Conversation:
    """The requests of both ends over one session; knows neither keys nor sockets.

    :ivar next_identifier: starts anywhere; unguessable is not needed, the session is sealed.
    """

    next_identifier: int = 1
    # Each is None or empty while there is nothing in it: a DC holds very many conversations.
    _pending: dict[int, _Pending] | None = field(default=None, init=False)
    _answers: dict[int, _Known] | None = field(default=None, init=False)
    _outgoing: Sequence[Envelope] = field(default=(), init=False)
    _events: Sequence[Event] = field(default=(), init=False)

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
        if self._pending is None:
            self._pending = {}
        self._pending[identifier] = _Pending(
            data, tag, remote, now, now + min(timeout, LONGEST_TIMEOUT), now + FIRST_RETRY
        )
        self._send(Envelope(data, remote, 1))

    def _send(self, envelope: Envelope) -> None:
        self._outgoing = [*self._outgoing, envelope]

    def _happened(self, event: Event) -> None:
        self._events = [*self._events, event]

    def withdraw(self, tag: object) -> None:
        """Forget a request; it ends in no event any more."""
        for identifier in [i for i, p in self._open() if p.tag == tag]:
            self._end(identifier)

    def _open(self) -> list[tuple[int, _Pending]]:
        return list(self._pending.items()) if self._pending else []

    def _end(self, identifier: int) -> None:
        if self._pending:
            self._pending.pop(identifier, None)
            if not self._pending:
                self._pending = None

    def answer(self, identifier: int, message: Message, remote: Address | None = None) -> None:
        """Answer an :class:`Asked`, once; the answer is repeated, should the request come again."""
        data = _ENVELOPE.pack(_RESPONSE, identifier) + encode(message, MESSAGE_LIMIT)
        answers = self._answers
        if answers and identifier in answers:
            until, given = answers[identifier]
            if given is not None:
                return
            answers[identifier] = (until, data)
        self._send(Envelope(data, remote))

    def received(self, plaintext: bytes, remote: Address, now: float) -> None:
        """An opened envelope. :raises MalformedMessage: if it is none."""
        if len(plaintext) < _ENVELOPE.size:
            raise MalformedMessage("an envelope is shorter than its head")
        flags, identifier = _ENVELOPE.unpack_from(plaintext)
        if flags & _RESPONSE:
            pending = self._pending.get(identifier) if self._pending else None
            if pending is None:
                return
            message = decode(plaintext[_ENVELOPE.size :], MESSAGE_LIMIT)
            self._end(identifier)
            # Only an answer to the first transmission measures a round trip (Karn's rule).
            seconds = now - pending.asked if pending.attempts == 1 else -1.0
            self._happened(Answered(pending.tag, message, remote, seconds))
            return
        self._forget(now)
        answers = self._answers
        if answers is None:
            answers = self._answers = {}
        known = answers.get(identifier)
        if known is not None:
            if known[1] is not None:
                self._send(Envelope(known[1], remote))
        elif len(answers) < ANSWERS:
            message = decode(plaintext[_ENVELOPE.size :], MESSAGE_LIMIT)
            answers[identifier] = (now + REMEMBERED, None)
            self._happened(Asked(identifier, message, remote))

    def _forget(self, now: float) -> None:
        """Forget requests that are not repeated any more; the oldest come first."""
        while self._answers:
            oldest = next(iter(self._answers))
            if now < self._answers[oldest][0]:
                return
            del self._answers[oldest]
        self._answers = None

    def resend(self, now: float) -> None:
        """Send all open requests again at once, as after new keys or a new address."""
        for _, pending in self._open():
            pending.wait = FIRST_RETRY
            pending.due = now + FIRST_RETRY
            pending.attempts += 1
            self._send(Envelope(pending.data, pending.remote, pending.attempts))

    def handle_timer(self, now: float) -> None:
        """Retransmit what is due, give up what is over."""
        for identifier, pending in self._open():
            if now >= pending.deadline:
                self._end(identifier)
                self._happened(TimedOut(pending.tag))
            elif now >= pending.due:
                pending.wait = min(pending.wait * 2, LAST_RETRY)
                pending.due = now + pending.wait
                pending.attempts += 1
                self._send(Envelope(pending.data, pending.remote, pending.attempts))

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        if not self._pending:
            return None
        return min(min(p.due, p.deadline) for p in self._pending.values())

    def outgoing(self) -> list[Envelope]:
        """Drain the envelopes to be sealed and sent."""
        drained, self._outgoing = self._outgoing, ()
        return list(drained)

    def events(self) -> list[Event]:
        """Drain what happened."""
        drained, self._events = self._events, ()
        return list(drained)

    @property
    def idle(self) -> bool:
        """No request of ours is open."""
        return not self._pending
