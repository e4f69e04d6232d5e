"""The sessions of one tunnel: one to send under, and others that still or already open (R15, R19).

Two handshakes of crossed directions may both succeed. Both ends then see both sessions, and settle
on the one whose direction the lower FQDN asked for. A session whose handshake began when another
was in proven use is no crossing: the correspondent lost its keys, and the new one replaces the old
as soon as something authentic comes under it.

Loss and delay can make the two ends see that differently. So, whatever was decided: where the
current session is silent and something comes under another one, that other one is taken, soon if it
has precedence and later if not. Hence both ends cannot keep trading places.
"""

from __future__ import annotations

from attrs import define, field

from ntmobile.machines.tunnel.constants import (
    CROSSING_PATIENCE,
    DIRECTION_LIFETIME,
    DIRECTION_LIMIT,
    EPOCH_OVERLAP,
    SETTLE,
)
from ntmobile.machines.tunnel.keys import Epoch
from ntmobile.machines.tunnel.session import Session


@define
class _Waiting:
    session: Session
    until: float


@define(eq=False)
class SessionSet:
    """The sessions of a tunnel.

    :ivar current: what is sent under.
    """

    current: Session | None = None
    _pending: list[_Waiting] = field(factory=list)
    _former: list[_Waiting] = field(factory=list)

    @property
    def pending(self) -> bool:
        """A handshake was answered, and nothing came under its keys yet."""
        return bool(self._pending)

    def pend(self, session: Session, now: float) -> None:
        """As responder: a session that nothing came under yet."""
        self._pending.append(_Waiting(session, now + DIRECTION_LIFETIME))
        del self._pending[:-DIRECTION_LIMIT]

    def open(
        self, datagram: bytes, counter: int, now: float
    ) -> tuple[Session, Epoch, bytes] | None:
        """Open a datagram that the current session does not open."""
        for waiting in (*self._pending, *self._former):
            opened = waiting.session.open(datagram, counter, now)
            if opened is not None:
                return waiting.session, *opened
        return None

    def proven(self, session: Session, now: float) -> bool:
        """Whether to adopt a session, not the current one, that the other side has just used."""
        current = self.current
        if current is None or any(waiting.session is session for waiting in self._pending):
            return True
        quiet = now - max(current.adopted, current.heard or 0.0)
        return quiet >= (SETTLE if session.precedes(current) else 3 * CROSSING_PATIENCE)

    def adopt(self, session: Session, now: float) -> bool:
        """Make it the current one; ``False`` where it crossed the current one and loses (R15)."""
        new = session.adopted == 0.0
        self._pending = [each for each in self._pending if each.session is not session]
        old = self.current
        session.adopted = now
        if old is not None and new and session.crosses(old) and old.precedes(session):
            self._former.append(_Waiting(session, now + EPOCH_OVERLAP))
            return False
        self._former = [each for each in self._former if each.session is not session]
        if old is not None:
            self._former.append(_Waiting(old, now + EPOCH_OVERLAP))
        self.current = session
        return True

    def expire(self, now: float) -> None:
        """Forget what nothing comes under any more."""
        self._pending = [each for each in self._pending if now < each.until]
        self._former = [each for each in self._former if now < each.until]
        if self.current is not None:
            self.current.ring.expire(now)

    def next_timer(self) -> float | None:
        """When :meth:`expire` has something to do."""
        times = [each.until for each in (*self._pending, *self._former)]
        if self.current is not None and self.current.ring.closes is not None:
            times.append(self.current.ring.closes)
        return min(times, default=None)
