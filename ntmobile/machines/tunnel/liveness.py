"""What a tunnel's clocks say: silence, keep-alives, idleness (design, section 5).

Plain attributes, because the data path sets them for every packet.
"""

from __future__ import annotations

from ntmobile.machines.tunnel.constants import PASSIVE_KEEPALIVE, SILENCE


class Liveness:
    """Times of one tunnel.

    :ivar used: when an inner packet last went either way.
    :ivar sent: when something was last sent on the active path.
    :ivar heard: when something authentic last came.
    :ivar unanswered: since when something was sent and nothing came; None: it was answered.
    :ivar owed: since when inner packets came and nothing was sent; None: nothing is owed.
    """

    __slots__ = ("_checked", "_idle", "_keepalive", "heard", "owed", "sent", "unanswered", "used")

    def __init__(self, now: float, idle: float, keepalive: float) -> None:
        self.used = self.sent = self.heard = now
        self.unanswered: float | None = None
        self.owed: float | None = None
        self._checked = now
        self._idle = idle
        self._keepalive = keepalive

    def silent(self, now: float) -> bool:
        """Something was sent and nothing came for a second: probe. True once a second."""
        if self.unanswered is None or now < self._silence():
            return False
        self._checked = now
        return True

    def _silence(self) -> float:
        since = self._checked if self.unanswered is None else self.unanswered
        return max(since, self._checked) + SILENCE

    def keepalive(self, now: float) -> bool:
        """A keep-alive is due on the active path: owed to the sender, or to NATs on the way."""
        return now >= self._keepalive_at()

    def _keepalive_at(self) -> float:
        due = self.sent + self._keepalive
        return due if self.owed is None else min(due, self.owed + PASSIVE_KEEPALIVE)

    def over(self, now: float) -> str | None:
        """Why the tunnel ends now: nobody uses it, or the correspondent is gone."""
        if now >= self.used + self._idle:
            return "idle"
        if now >= self.heard + self._idle:
            return "unreachable"
        return None

    def next_timer(self) -> float:
        """When one of these may be true."""
        due = min(self._keepalive_at(), self.used + self._idle, self.heard + self._idle)
        return due if self.unanswered is None else min(due, self._silence())
