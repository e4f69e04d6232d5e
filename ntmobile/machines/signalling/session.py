"""The sealed signalling session of a client and its DC (rules R7 to R10).

The session key comes from the login and seals nothing itself. At each start of either side fresh
nonces are exchanged and the AEAD keys derived from session key, both nonces and direction:

* ``SIGNAL_HELLO`` client to DC: client nonce (16), MAC (16), padded to the size of the answer
* ``SIGNAL_WELCOME`` DC to client: client nonce (16), DC nonce (16), MAC (16)
* ``SIGNAL_SEALED`` both ways: an envelope of :mod:`ntmobile.machines.signalling.requests`
* ``SIGNAL_UNKNOWN`` DC to client: a bare header, unauthenticated, only ever a hint

A DC answers each new hello with a fresh nonce, and one that comes again with the same welcome. It
keeps its old keys until a datagram under the new ones arrives, so that a recorded hello achieves
nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.requests import Conversation
from ntmobile.wire.codec import Message
from ntmobile.wire.headers import HEADER, HEADER_SIZE, TAG_SIZE, Flag, Header, Kind
from ntmobile.wire.replay import ReplayWindow
from ntmobile.wire.sealing import COUNTER_LIMIT, derive, expand

NONCE_SIZE: Final = 16
MAC_SIZE: Final = 16
#: Counters behind the highest one that are still told apart.
WINDOW: Final = 1024
_SEALED: Final = int(Kind.SIGNAL_SEALED)
_NONCE: Final = struct.Struct("!IQ")
_COUNTER: Final = struct.Struct("!12xQ")
#: Questions whether the DC can be reached that may be open at once.
KNOCKS: Final = 8
#: Hellos whose keys a DC keeps until one of them is used.
STARTS: Final = 4
WELCOME_SIZE: Final = HEADER_SIZE + 2 * NONCE_SIZE + MAC_SIZE
#: A hello is as large as its answer (R8).
HELLO_SIZE: Final = WELCOME_SIZE


def _mac(key: bytes, data: bytes) -> bytes:
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(data)
    return mac.finalize()[:MAC_SIZE]


class Keys(ReplayWindow):
    """The AEAD keys of one start: what this side seals with and what it opens with.

    It is also the window of the counters that it has opened: a DC holds very many of these, and
    one object costs less memory, and less of the garbage collector's time, than four.

    :ivar counter: of what is sealed next.
    """

    __slots__ = ("_opens", "_seals", "counter")

    def __init__(self, seals: bytes, opens: bytes) -> None:
        super().__init__(WINDOW)
        self._seals, self._opens = seals, opens
        self.counter = 0

    @classmethod
    def of(cls, session_key: bytes, client: bytes, dc: bytes, *, is_client: bool) -> Keys:
        """Derive both directions' keys from session key and nonces (R7)."""
        up = derive(session_key, client + dc, "ntm1 signalling client to DC")
        down = derive(session_key, client + dc, "ntm1 signalling DC to client")
        return cls(up, down) if is_client else cls(down, up)

    def seal(self, flags: int, index: bytes, plaintext: bytes) -> bytes:
        """A SIGNAL_SEALED datagram, under the next counter."""
        counter = self.counter
        if counter >= COUNTER_LIMIT:
            raise AuthenticationError("the counter of a session is used up; say hello again")
        self.counter = counter + 1
        head = HEADER.pack(_SEALED, flags, 0, index, counter)
        return head + AESGCM(self._seals).encrypt(_NONCE.pack(0, counter), plaintext, head)

    def open(self, datagram: bytes) -> bytes:
        """The plaintext of an authentic, new datagram.

        :raises MalformedMessage: too short.
        :raises AuthenticationError: replayed, or not sealed with these keys.
        """
        if len(datagram) < HEADER_SIZE + TAG_SIZE:
            raise MalformedMessage("a sealed datagram is shorter than its tag")
        (counter,) = _COUNTER.unpack_from(datagram)
        if counter >= COUNTER_LIMIT or not self.acceptable(counter):
            raise AuthenticationError("a datagram came twice or far too late")
        nonce, head = _NONCE.pack(0, counter), datagram[:HEADER_SIZE]
        try:
            plaintext = AESGCM(self._opens).decrypt(nonce, datagram[HEADER_SIZE:], head)
        except InvalidTag:
            raise AuthenticationError("a datagram is not sealed with the session's key") from None
        self.mark(counter)
        return plaintext


def hello(index: bytes, session_key: bytes, nonce: bytes) -> bytes:
    """A SIGNAL_HELLO datagram."""
    head = Header(Kind.SIGNAL_HELLO, 0, index, 0).pack()
    body = head + nonce + bytes(NONCE_SIZE)
    return body + _mac(expand(session_key, "ntm1 signalling hello"), body)


def check_hello(datagram: bytes, session_key: bytes) -> bytes:
    """The client nonce of an authentic hello. :raises AuthenticationError: else."""
    if len(datagram) != HELLO_SIZE:
        raise MalformedMessage(f"a hello of {len(datagram)} bytes")
    body, mac = datagram[:-MAC_SIZE], datagram[-MAC_SIZE:]
    if not bytes_eq(mac, _mac(expand(session_key, "ntm1 signalling hello"), body)):
        raise AuthenticationError("a hello with a wrong MAC")
    return datagram[HEADER_SIZE : HEADER_SIZE + NONCE_SIZE]


def welcome(index: bytes, session_key: bytes, client: bytes, dc: bytes) -> bytes:
    """A SIGNAL_WELCOME datagram."""
    body = Header(Kind.SIGNAL_WELCOME, Flag.FROM_COORDINATOR, index, 0).pack() + client + dc
    return body + _mac(expand(session_key, "ntm1 signalling welcome"), body)


def check_welcome(datagram: bytes, session_key: bytes, client: bytes) -> bytes:
    """The DC nonce of an authentic welcome to this nonce. :raises AuthenticationError: else."""
    if len(datagram) != WELCOME_SIZE:
        raise MalformedMessage(f"a welcome of {len(datagram)} bytes")
    body, mac = datagram[:-MAC_SIZE], datagram[-MAC_SIZE:]
    if not bytes_eq(mac, _mac(expand(session_key, "ntm1 signalling welcome"), body)):
        raise AuthenticationError("a welcome with a wrong MAC")
    if not bytes_eq(datagram[HEADER_SIZE : HEADER_SIZE + NONCE_SIZE], client):
        raise AuthenticationError("a welcome to another hello")
    return datagram[HEADER_SIZE + NONCE_SIZE : HEADER_SIZE + 2 * NONCE_SIZE]


@frozen(slots=True)
class _Start:
    """A hello that was answered: whoever sends something under its keys knows the session key."""

    nonce: bytes
    welcome: bytes
    keys: Keys


@define
class CoordinatorSession:
    """The DC's half of one client's session; small, since a DC holds very many.

    :ivar index: the session index in the headers. :ivar key: the session key.
    :ivar conversation: the requests of both sides. :ivar remotes: newest address a family (R9).
    """

    index: bytes
    key: bytes = field(repr=False)
    _random: Callable[[int], bytes]
    conversation: Conversation | None = None
    remotes: tuple[Address, ...] = ()
    _current: Keys | None = None
    _nonce: bytes = b""
    _starting: tuple[_Start, ...] = ()

    @property
    def open(self) -> bool:
        """Keys are agreed, requests can be sent."""
        return self._current is not None and bool(self.remotes)

    def hello_received(self, datagram: bytes, remote: Address) -> Transmit | None:
        """Answer an authentic hello; None where its welcome has evidently arrived.

        A hello goes to all addresses of the DC and is repeated: all get the same welcome, since
        the client goes by the first that it receives.

        :raises AuthenticationError: it is not authentic.
        """
        client = check_hello(datagram, self.key)
        if client == self._nonce:
            return None
        start = next((one for one in self._starting if one.nonce == client), None)
        if start is None:
            nonce = self._random(NONCE_SIZE)
            keys = Keys.of(self.key, client, nonce, is_client=False)
            start = _Start(client, welcome(self.index, self.key, client, nonce), keys)
            self._starting = (start, *self._starting[: STARTS - 1])
        return Transmit(start.welcome, remote)

    @property
    def has_keys(self) -> bool:
        """Whether a sealed datagram could be opened at all."""
        return self._current is not None or bool(self._starting)

    def sealed_received(self, datagram: bytes, remote: Address, now: float) -> bool:
        """Open a sealed datagram into the conversation; ``True`` if it is the newest (R9).

        :raises AuthenticationError: replayed or under no key of the session.
        """
        newest = False
        plaintext = None
        if self._current is not None:
            before = self._current.highest
            try:
                plaintext = self._current.open(datagram)
                newest = self._current.highest > before
            except AuthenticationError:
                if not self._starting:
                    raise
        if plaintext is None:
            for start in self._starting:
                try:
                    plaintext = start.keys.open(datagram)
                except AuthenticationError:
                    continue
                self._current, self._nonce = start.keys, start.nonce
                self._starting, newest = (), True
                break
            else:
                raise AuthenticationError("a sealed datagram under no key of its session")
        if newest:
            family = ":" in remote[0]
            self.remotes = (remote, *(r for r in self.remotes if (":" in r[0]) != family))
        self.conversing().received(plaintext, remote, now)
        return newest

    def conversing(self) -> Conversation:
        """The conversation, made when first needed."""
        if self.conversation is None:
            start = int.from_bytes(self._random(4), "big")
            self.conversation = Conversation(start)
        return self.conversation

    def request(self, message: Message, tag: object, now: float, timeout: float = 5.0) -> None:
        """Ask the client; see :meth:`Conversation.request`."""
        self.conversing().request(message, tag, now, timeout=timeout)

    def transmissions(self) -> list[Transmit]:
        """Seal and drain what is to be sent; nothing while there are no keys."""
        keys = self._current
        if keys is None or self.conversation is None or not self.remotes:
            return []
        flags, result = int(Flag.FROM_COORDINATOR), []
        for envelope in self.conversation.outgoing():
            known = envelope.remote in self.remotes
            targets = (envelope.remote,) if known and envelope.remote else self.remotes[:1]
            if envelope.attempt > 2:
                targets = self.remotes
            seal, index = keys.seal, self.index
            result += [Transmit(seal(flags, index, envelope.data), to) for to in targets]
        return result


@frozen(slots=True)
class Opened:
    """The session has keys: requests flow."""


@frozen(slots=True)
class Lost:
    """The session is over, or seems to be.

    :ivar forgotten: the DC knows it no more: log in again. Otherwise the DC never answers.
    """

    reason: str
    forgotten: bool = False


@frozen(slots=True)
class Reached:
    """The DC answered a hello that only asked whether it can be reached; ``tag`` says how."""

    tag: object


HELLO_TIMEOUT: Final = 10.0
#: Bare hints are believed at most this often (R7).
HINT_INTERVAL: Final = 1.0
#: So many hints in a row, unanswered hellos between them, mean that the session is gone.
HINTS_UNTIL_LOST: Final = 3


@define
class ClientSession:
    """The client's half: says hello, keeps the keys, retransmits.

    :ivar remotes: the DC's addresses; the one that answered the hello becomes the first.
    """

    index: bytes
    key: bytes = field(repr=False)
    remotes: tuple[Address, ...]
    _random: Callable[[int], bytes]
    conversation: Conversation = field(init=False)
    _current: Keys | None = field(default=None, init=False)
    _former: Keys | None = field(default=None, init=False)
    _nonce: bytes | None = field(default=None, init=False)
    _hello_due: float = field(default=0.0, init=False)
    _hello_wait: float = field(default=0.1, init=False)
    _hello_deadline: float = field(default=0.0, init=False)
    _hint_at: float = field(default=float("-inf"), init=False)
    _hints: int = field(default=0, init=False)
    _transmissions: list[Transmit] = field(factory=list, init=False)
    _events: list[Opened | Lost | Reached] = field(factory=list, init=False)
    _knocks: dict[bytes, object] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(int.from_bytes(self._random(4), "big"))

    @property
    def open(self) -> bool:
        """Keys are agreed."""
        return self._current is not None

    def start(self, now: float) -> None:
        """Say hello, to all addresses of the DC at once; old keys stay until the answer."""
        self._nonce = self._random(NONCE_SIZE)
        self._hello_wait = 0.1
        self._hello_due = now + self._hello_wait
        self._hello_deadline = now + HELLO_TIMEOUT
        self._say_hello()

    def _say_hello(self) -> None:
        if self._nonce is not None:
            datagram = hello(self.index, self.key, self._nonce)
            self._transmissions += [Transmit(datagram, remote) for remote in self.remotes]

    def knock(self, tag: object, remote: Address) -> Transmit:
        """A hello that only asks whether the DC can be reached; see :class:`Reached`.

        Keys, addresses and the registration stay as they are at both ends, since a DC takes the
        keys of a hello when something comes under them.

        :param tag: hashable; a question with the same tag replaces the former one.
        """
        nonce = next((nonce for nonce, known in self._knocks.items() if known == tag), None)
        if nonce is None:
            nonce = self._random(NONCE_SIZE)
            while len(self._knocks) >= KNOCKS:
                del self._knocks[next(iter(self._knocks))]
            self._knocks[nonce] = tag
        return Transmit(hello(self.index, self.key, nonce), remote)

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """Any signalling datagram for this session.

        :raises MalformedMessage: :raises AuthenticationError: dropped, to be counted.
        """
        header = Header.parse(datagram)
        if header.index != self.index or not header.flags & Flag.FROM_COORDINATOR:
            raise AuthenticationError("a signalling datagram of another session")
        if header.kind is Kind.SIGNAL_SEALED:
            self._sealed_received(datagram, remote, now)
        elif header.kind is Kind.SIGNAL_WELCOME and self._knocks and self._answers(datagram):
            pass
        elif header.kind is Kind.SIGNAL_WELCOME and self._nonce is not None:
            dc = check_welcome(datagram, self.key, self._nonce)
            self._former = self._current
            self._current = Keys.of(self.key, self._nonce, dc, is_client=True)
            self._nonce = None
            self._hints = 0
            self._prefer(remote)
            self._events.append(Opened())
            self.conversation.outgoing()  # sealed under no key yet; all open requests go again
            self.conversation.resend(now)
        elif header.kind is Kind.SIGNAL_UNKNOWN and now - self._hint_at >= HINT_INTERVAL:
            self._hint_at = now
            self._hints += 1
            if self._hints >= HINTS_UNTIL_LOST:
                self._nonce = None
                self._hints = 0
                reason = "the coordinator does not know the session any more"
                self._events.append(Lost(reason, forgotten=True))
            elif self._nonce is None:
                self.start(now)

    def _answers(self, datagram: bytes) -> bool:
        """Whether this welcome answers a question whether the DC can be reached."""
        nonce = datagram[HEADER_SIZE : HEADER_SIZE + NONCE_SIZE]
        if nonce not in self._knocks:
            return False
        check_welcome(datagram, self.key, nonce)
        self._events.append(Reached(self._knocks.pop(nonce)))
        return True

    def _sealed_received(self, datagram: bytes, remote: Address, now: float) -> None:
        if self._current is None:
            raise AuthenticationError("a sealed datagram before there are keys")
        try:
            plaintext = self._current.open(datagram)
            self._former = None
            self._hints = 0
        except AuthenticationError:
            if self._former is None:
                raise
            plaintext = self._former.open(datagram)
        self.conversation.received(plaintext, remote, now)

    def _prefer(self, remote: Address) -> None:
        if remote in self.remotes:
            self.remotes = (remote, *(r for r in self.remotes if r != remote))

    def handle_timer(self, now: float) -> None:
        """Retransmit hello and requests; a hello unanswered for 10 s is :class:`Lost`."""
        if self._nonce is not None:
            if now >= self._hello_deadline:
                self._nonce = None
                self._events.append(Lost("the coordinator does not answer"))
            elif now >= self._hello_due:
                self._hello_wait = min(self._hello_wait * 2, 2.0)
                self._hello_due = now + self._hello_wait
                self._say_hello()
        self.conversation.handle_timer(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        times = [self.conversation.next_timer()]
        if self._nonce is not None:
            times.append(min(self._hello_due, self._hello_deadline))
        due = [time for time in times if time is not None]
        return min(due) if due else None

    def transmissions(self) -> list[Transmit]:
        """Seal and drain what is to be sent."""
        result, self._transmissions = self._transmissions, []
        if self._current is None:
            return result
        for envelope in self.conversation.outgoing():
            if envelope.remote is not None:
                targets: tuple[Address, ...] = (envelope.remote,)
            else:
                targets = self.remotes if envelope.attempt > 2 else self.remotes[:1]
            seal, index = self._current.seal, self.index
            result += [Transmit(seal(0, index, envelope.data), remote) for remote in targets]
        return result

    def events(self) -> list[Opened | Lost | Reached]:
        """Drain what happened to the session itself."""
        drained, self._events = self._events, []
        return drained
