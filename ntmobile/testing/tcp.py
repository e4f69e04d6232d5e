"""The kernel's half of a stream: segments, acknowledgements, retransmission.

Not TCP as RFC 9293 has it, but what a program can notice of it: order, completeness, delay, back
pressure, refusal, reset, half close, and silence that ends in a time-out. Segments cross the same
links, gateways, partitions and taps as datagrams do.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from attrs import define
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, TCPTimedOutError
from twisted.internet.interfaces import IDelayedCall

from ntmobile.testing.datagrams import Address, Datagram, Segment, Signal

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host

#: Payload bytes in one segment.
SEGMENT_SIZE: Final = 16384
#: Segments in flight, and segments a receiver that does not read will hold.
WINDOW: Final = 64
#: Retransmission time-outs in seconds: before anything was measured, least, and most.
FIRST_TIMEOUT: Final = 1.0
LEAST_TIMEOUT: Final = 0.2
MOST_TIMEOUT: Final = 8.0
#: Seconds without any acknowledgement after which a stream is lost.
GIVE_UP: Final = 60.0


class StreamUser(Protocol):
    """What a stream's socket tells its owner."""

    def established(self) -> None:
        """The other side has answered."""

    def arrived(self, data: bytes) -> None:
        """More bytes, in order."""

    def ended(self) -> None:
        """The other side sends no more."""

    def drained(self) -> None:
        """All bytes written so far are on their way."""

    def broke(self, reason: Exception) -> None:
        """The stream is gone: refused, reset or timed out."""


@define
class _Flight:
    signal: Signal
    payload: bytes
    sent: float
    repeated: bool = False


class StreamSocket:
    """One end of a stream.

    :ivar local: our address. :ivar remote: the other's, as we see it.
    :ivar user: whom to tell; ``None`` once the owner has closed it.
    :ivar unsent: bytes that wait for the window.
    """

    def __init__(self, host: Host, local: Address, remote: Address) -> None:
        self.host = host
        self.local = local
        self.remote = remote
        self.user: StreamUser | None = None
        self.unsent = bytearray()
        self.opened = False
        self.gone = False
        self._flight: dict[int, _Flight] = {}
        self._next = 0
        self._room = 1
        self._ending = False
        self._end_sent = False
        self._expected = 0
        self._early: dict[int, Datagram] = {}
        self._inbox: deque[bytes | None] = deque()
        self._paused = False
        self._remote_ended = False
        self._smooth: float | None = None
        self._backoff = 1
        self._progress = host.internet.clock.seconds()
        self._timer: IDelayedCall | None = None
        host.join(local, remote, self)

    # What the owner does.

    def open(self) -> None:
        """Ask the other side for a stream."""
        self._transmit(Signal.OPEN, b"")

    def accept(self, datagram: Datagram) -> None:
        """Answer the other side's OPEN."""
        self._expected = 1
        assert datagram.segment is not None
        self._room = datagram.segment.room
        self._transmit(Signal.ACCEPT, b"")

    def write(self, data: bytes) -> None:
        """Send more bytes."""
        self.unsent += data
        self._pump()

    def end(self) -> None:
        """Send no more after what was written."""
        self._ending = True
        self._pump()

    def pause(self) -> None:
        """Keep what arrives, and in the end let the other side wait."""
        self._paused = True

    def resume(self) -> None:
        """Hand over what was kept."""
        if self._paused:
            self._paused = False
            self.host.timers.callLater(0, self._read, True)

    def reset(self) -> None:
        """End at once, and tell the other side so."""
        if not self.gone:
            self._emit(Segment(Signal.RESET, self._next, self._expected))
            self._finish()

    # What arrives.

    def received(self, datagram: Datagram) -> None:
        """Take a segment."""
        segment = datagram.segment
        if segment is None:
            return
        if segment.signal is Signal.RESET:
            refused = not self.opened and 0 in self._flight
            self._break(ConnectionRefusedError() if refused else ConnectionLost("reset by peer"))
        elif segment.signal is Signal.OPEN:
            self._repeat()
        elif segment.signal is Signal.ACCEPT and not self.opened:
            self._expected = 1
            self._acknowledged(segment)
            self._acknowledge()
        else:
            self._acknowledged(segment)
            if segment.signal in (Signal.DATA, Signal.END):
                self._take(segment.number, datagram)
            if segment.signal is not Signal.ACK:
                self._acknowledge()
            self._read()

    def _acknowledged(self, segment: Segment) -> None:
        if self.gone:
            return
        now = self.host.internet.clock.seconds()
        self._room = segment.room
        self._progress = now
        for number in [one for one in self._flight if one < segment.acknowledged]:
            flight = self._flight.pop(number)
            self._backoff = 1
            if not flight.repeated:
                took = now - flight.sent
                self._smooth = took if self._smooth is None else 0.875 * self._smooth + took / 8
        if not self.opened and segment.acknowledged > 0:
            self.opened = True
            if self.user is not None:
                self.user.established()
        self._rearm()
        self._pump()
        self._settle()

    def _take(self, number: int, datagram: Datagram) -> None:
        if self.gone or number < self._expected or number in self._early:
            return
        if len(self._inbox) + len(self._early) >= 2 * WINDOW:
            return
        self._early[number] = datagram
        while (ready := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            assert ready.segment is not None
            self._inbox.append(ready.payload if ready.segment.signal is Signal.DATA else None)

    def _read(self, announce: bool = False) -> None:
        while self._inbox and not self._paused and not self.gone:
            data = self._inbox.popleft()
            if data is None:
                self._remote_ended = True
                if self.user is not None:
                    self.user.ended()
            elif self.user is not None:
                self.user.arrived(data)
            else:
                # Nobody will ever read this: the owner has closed the stream.
                self.reset()
        if announce and not self.gone:
            self._acknowledge()
        self._settle()

    # What is sent.

    def _pump(self) -> None:
        if self.gone or not self.opened:
            return
        had_unsent = bool(self.unsent)
        while self.unsent and len(self._flight) < min(WINDOW, self._room):
            piece = bytes(self.unsent[:SEGMENT_SIZE])
            del self.unsent[:SEGMENT_SIZE]
            self._transmit(Signal.DATA, piece)
        if self._ending and not self.unsent and not self._end_sent:
            self._end_sent = True
            self._transmit(Signal.END, b"")
        if had_unsent and not self.unsent and self.user is not None:
            self.user.drained()
        self._rearm()

    def _transmit(self, signal: Signal, payload: bytes) -> None:
        number, self._next = self._next, self._next + 1
        now = self.host.internet.clock.seconds()
        if not self._flight:
            self._progress = now
        self._flight[number] = _Flight(signal, payload, now)
        self._emit(self._segment(signal, number), payload)
        self._rearm()

    def _acknowledge(self) -> None:
        if not self.gone:
            self._emit(self._segment(Signal.ACK, self._next))

    def _segment(self, signal: Signal, number: int) -> Segment:
        room = max(0, WINDOW - len(self._inbox)) if self._paused else WINDOW
        return Segment(signal, number, self._expected, room)

    def _emit(self, segment: Segment, payload: bytes = b"") -> None:
        datagram = Datagram(self.local, self.remote, payload, segment, origin=self.host)
        try:
            self.host.send(datagram)
        except OSError:
            # The address has left us; like a kernel, go on trying until the time-out.
            self.host.internet.dropped(datagram, self.host.name, "no route")

    # Time.

    @property
    def _timeout(self) -> float:
        base = FIRST_TIMEOUT if self._smooth is None else max(LEAST_TIMEOUT, 2 * self._smooth)
        return min(base * self._backoff, max(base, MOST_TIMEOUT))

    def _rearm(self) -> None:
        waiting = bool(self._flight) or bool(self.unsent and self.opened)
        if self.gone or not waiting:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.host.timers.callLater(self._timeout, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        now = self.host.internet.clock.seconds()
        if now - self._progress >= GIVE_UP:
            self._break(TCPTimedOutError() if not self.opened else ConnectionLost("timed out"))
            return
        oldest = min((one.sent for one in self._flight.values()), default=None)
        if oldest is None:
            self._emit(self._segment(Signal.PROBE, self._next))
        elif now - oldest >= self._timeout - 1e-9:
            self._backoff *= 2
            self._repeat()
        self._rearm()

    def _repeat(self) -> None:
        now = self.host.internet.clock.seconds()
        for number, flight in sorted(self._flight.items()):
            flight.repeated = True
            flight.sent = now
            self._emit(self._segment(flight.signal, number), flight.payload)

    # The end.

    def _settle(self) -> None:
        """Leave when both sides have ended and all of ours was acknowledged."""
        if self._end_sent and self._remote_ended and not self._flight:
            self._finish()

    def _break(self, reason: Exception) -> None:
        if not self.gone:
            self._finish()
            if self.user is not None:
                self.user.broke(reason)

    def vanish(self) -> None:
        """The host has crashed."""
        self.user = None
        self._finish()

    def _finish(self) -> None:
        self.gone = True
        self.host.part(self.local, self.remote)
        self._rearm()
