"""Paths of one tunnel, and which of them carries the traffic (R17, R21; design, section 5).

A path is proven by a challenge that comes back on it. The initiator of the session controls: it
prefers direct to relay, then the shorter round trip. The other side follows what the controlling
side sends on, unless its own path is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from attrs import define, field

from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.constants import (
    AMPLIFICATION,
    BETTER_RATIO,
    BETTER_SECONDS,
    NOMINATIONS,
    PROBE_RETRY,
    PROBE_RETRY_LIMIT,
    PROBES,
    REPROBES,
    SETTLE,
    SHUN,
    SHUN_LIMIT,
    TRIAL,
)
from ntmobile.machines.tunnel.path_mtu import PathMtu

#: Probes of a path whose answers are still known.
REMEMBERED: Final = 64


class PathState(Enum):
    """What is known of a path."""

    UNKNOWN = "unknown"  #: nothing was sent yet
    PROBING = "probing"  #: challenges are under way, and it is in doubt until one comes back
    VALID = "valid"  #: a challenge came back
    FAILED = "failed"  #: challenges were not answered


@define
class _Probe:
    sent: float
    size: int


@define(eq=False)
class Path:
    """One way for a tunnel's datagrams.

    :ivar identifier: index of the datagrams sent on it: the direction that gave the path.
    :ivar remote: where they are sent. :ivar relay: name of the RS there, None for a direct path.
    :ivar limited: nominated by a datagram from there and not proven: at most three times the bytes
        that came are sent (R21).
    :ivar granted: probes that may still be sent to it, should it never answer (R17).
    :ivar rtt: smoothed seconds, None before the first answer.
    :ivar pmtu: what is known of its MTU (R23).
    :ivar proven: when a challenge last came back. :ivar suspected: since when that is not enough.
    :ivar heard: when an authentic datagram last came on it.
    :ivar failed: when a series last went unanswered.
    :ivar received: :ivar sent: bytes, counted while it is limited.
    :ivar failures: times it failed. :ivar shunned: until when it is not preferred for that.
    :ivar due: when the next probe of the running series goes out, or the series ends.
    """

    identifier: bytes
    remote: Address
    relay: str | None = None
    limited: bool = False
    granted: int = field(default=PROBES, repr=False)
    state: PathState = PathState.UNKNOWN
    rtt: float | None = None
    pmtu: PathMtu = field(factory=PathMtu, repr=False)
    proven: float | None = None
    suspected: float = field(default=0.0, repr=False)
    heard: float | None = None
    due: float | None = field(default=None, repr=False)
    received: int = field(default=0, repr=False)
    sent: int = field(default=0, repr=False)
    failed: float = field(default=float("-inf"), repr=False)
    failures: int = 0
    shunned: float = field(default=0.0, repr=False)
    _left: int = field(default=0, repr=False)
    _wait: float = field(default=PROBE_RETRY, repr=False)
    _began: float = field(default=0.0, repr=False)
    _first: bool = field(default=True, repr=False)
    _probes: dict[bytes, _Probe] = field(factory=dict, repr=False)

    @property
    def kind(self) -> str:
        """``direct`` or ``relay``."""
        return "direct" if self.relay is None else "relay"

    @property
    def mtu(self) -> int:
        """Bytes of the largest inner packet that goes through whole (R23)."""
        return self.pmtu.value

    @property
    def patience(self) -> float:
        """Seconds in which an answer is expected."""
        return max(PROBE_RETRY, 2 * (self.rtt or 0.0))

    @property
    def answers(self) -> bool:
        """Something authentic came from there, or it is a relay's: it is no victim (R17)."""
        known = self.heard is not None or self.proven is not None
        return known or self.relay is not None

    @property
    def doubtful(self) -> bool:
        """It worked, and perhaps does no more."""
        asked = self.state is PathState.PROBING and self.proven is not None
        return asked or self.state is PathState.FAILED

    def waiting(self, now: float) -> bool:
        """A probe is under way, and its answer not overdue."""
        return any(now < probe.sent + self.patience for probe in self._probes.values())

    def affords(self, size: int) -> bool:
        """Whether so many bytes may be sent here (R21)."""
        return not self.limited or self.sent + size <= AMPLIFICATION * self.received

    def begin(self, now: float, probes: int | None = None) -> None:
        """Begin a series of probes at once; at most those granted where nothing ever answered."""
        self._left = REPROBES if probes is None else probes
        if not self.answers:
            self._left = min(self._left, self.granted)
        self._wait, self._began, self._first = self.patience, now, True
        if self._left:
            self.due = now
            if self.state in (PathState.UNKNOWN, PathState.FAILED):
                self.state = PathState.PROBING

    def ensure(self, now: float) -> None:
        """Begin a series unless the path is proven, or one is running."""
        if self.state is not PathState.VALID and self.due is None:
            self.begin(now)

    def suspect(self, now: float) -> None:
        """What was proven before does not count any more: probe."""
        self.suspected = now
        if self.state is PathState.VALID:
            self.state = PathState.PROBING
        self.begin(now)

    def moved(self, now: float) -> None:
        """The own network is another: nothing that was known of the path counts any more."""
        self.pmtu.forget()
        self.suspect(now)

    def probed(self, token: bytes, now: float, *, size: int = 0) -> None:
        """A probe goes out; one of some ``size`` is for the MTU and says nothing when lost."""
        self._probes[token] = _Probe(now, size)
        while len(self._probes) > REMEMBERED:
            del self._probes[next(iter(self._probes))]
        if size:
            return
        if not self._first and self.state is PathState.VALID:
            self.state, self.suspected = PathState.PROBING, self._began
        self._first = False
        self._left -= 1
        self.granted -= 1
        self.due = now + self._wait
        self._wait = min(2 * self._wait, max(PROBE_RETRY_LIMIT, self.patience))

    def exhausted(self) -> bool:
        """Whether the running series has no probe left."""
        return self._left <= 0

    def fail(self, now: float) -> None:
        """The series went unanswered."""
        self.due, self.failed = None, now
        if self.state is not PathState.FAILED:
            self.state = PathState.FAILED
            if self.proven is None:
                return
            self.failures += 1
            self.shunned = now + min(SHUN * 2 ** min(self.failures - 1, 10), SHUN_LIMIT)

    def echoed(self, token: bytes, now: float) -> bool:
        """A challenge came back on this very path; ``False`` where it is none of its own."""
        probe = self._probes.pop(token, None)
        if probe is None:
            return False
        self.sampled(now - probe.sent)
        self.prove(now)
        if probe.size:
            self.pmtu.echoed(probe.size)
        return True

    def sampled(self, seconds: float) -> None:
        """A round trip took so long."""
        self.rtt = seconds if self.rtt is None else 0.875 * self.rtt + 0.125 * seconds

    def prove(self, now: float) -> None:
        """It works, both ways."""
        self.state, self.proven, self.limited = PathState.VALID, now, False
        self.due, self._left = None, 0


def preference(path: Path) -> tuple[bool, float]:
    """Order of paths: direct first, then the shorter round trip."""
    return path.relay is not None, path.rtt if path.rtt is not None else float("inf")


@define(eq=False)
class PathSet:
    """All paths of a tunnel, the active one among them.

    :ivar controlling: this side chooses; the other follows.
    :ivar active: what carries the traffic. :ivar former: what did before.
    :ivar trial: where else to send, the same datagrams, while the active path is in doubt: an
        address that the other side seems to have moved to (within the limit of R21), or after a
        move of our own the relay. Whatever arrives twice counts once.
    :ivar trial_left: bytes that may be sent on trial.
    """

    controlling: bool = False
    active: Path | None = None
    former: Path | None = None
    trial: Path | None = None
    trial_left: int = 0
    _switched: float = float("-inf")
    _nominated: Path | None = None
    _nominated_at: float = float("-inf")
    _paths: dict[tuple[bytes, Address], Path] = field(factory=dict)

    def __iter__(self) -> Iterator[Path]:
        return iter(tuple(self._paths.values()))

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, identifier: bytes, remote: Address) -> Path | None:
        """The path on which a datagram with this index came from there."""
        return self._paths.get((identifier, remote))

    def add(self, path: Path) -> Path:
        """Add a path; where it is known already, the known one is returned."""
        return self._paths.setdefault((path.identifier, path.remote), path)

    def observe(self, identifier: bytes, remote: Address) -> Path:
        """An authentic datagram came from an address unknown so far: a path not proven (R21)."""
        strangers = [p for p in self if p.limited and p is not self.active]
        for stranger in strangers[: max(0, len(strangers) - NOMINATIONS + 1)]:
            self.remove(stranger)
        return self.add(Path(identifier, remote, limited=True))

    def remove(self, path: Path) -> None:
        """Forget a path."""
        self._paths.pop((path.identifier, path.remote), None)
        if self._nominated is path:
            self._nominated = None
        if self.former is path:
            self.former = None
        if self.trial is path:
            self.trial = None
        if self.active is path:
            self.active = None

    def readdress(self, path: Path, remote: Address) -> None:
        """The same path has another address from now on."""
        self._paths.pop((path.identifier, path.remote), None)
        path.remote = remote
        self._paths[path.identifier, remote] = path

    def retire(self, identifier: bytes) -> None:
        """Forget the paths of a direction."""
        for path in self:
            if path.identifier == identifier:
                self.remove(path)

    def nominate(self, path: Path, now: float) -> bool:
        """The newest datagram, and no probe, came on ``path``.

        What is to be proven begins to be probed. ``True`` where this side chose otherwise and
        should say so again, by sending on the active path.
        """
        active = self.active
        if path is active:
            self._nominated = None
            return False
        patience = max(SETTLE, 4 * (active.rtt or 0.0) if active is not None else 0.0)
        if path is self._nominated and now < self._nominated_at + patience:
            return False
        if not self.controlling or active is None:
            path.ensure(now)
            self.attempt(path)
        elif path is self.former and now < self._switched + patience:
            return False  # sent before the other side knew
        elif path is self.former and now < self._switched + 2 * patience:
            self._nominated, self._nominated_at = path, now
            return True  # it may not have heard of the choice
        else:
            # It moved, or has reason to think that the active path is broken: the first to answer
            # is right, and if both do, preference decides again.
            if active.state is PathState.VALID:
                active.suspect(now)
                path.begin(now)
            path.ensure(now)
            self.attempt(path)
        self._nominated, self._nominated_at = path, now
        return False

    def attempt(self, path: Path) -> None:
        """Send on this path too until the active path is known. Its datagrams must be the same."""
        if self.active is not None and path.identifier == self.active.identifier:
            self.trial, self.trial_left = path, TRIAL

    def correspondent_moved(self, path: Path, now: float) -> None:
        """The correspondent said, on ``path``, that its addresses are others now.

        So what comes on another than the active path is no late datagram, but its choice.
        """
        self._switched = float("-inf")
        for known in self:
            direct = known.relay is None or known is self.active
            if direct and known is not path and known.state is PathState.VALID:
                known.suspect(now)

    def choose(self, now: float) -> str | None:
        """Make the right path the active one; the reason if that is a change, else None."""
        active = self.active
        if self._nominated is not None and self._nominated.state is PathState.FAILED:
            self._nominated = None
        valid = [path for path in self if path.state is PathState.VALID]
        best = min(valid, key=preference, default=None)
        if active is None or active.state is PathState.FAILED:
            reason = "the first that works" if active is None else "the former failed"
        elif active.state is not PathState.VALID:
            reason = "it works, the former is in doubt"
            proven = [p for p in valid if p.proven is not None and p.proven >= active.suspected]
            best = min(proven, key=preference, default=None)
        elif self.controlling:
            reason = "it is better"
            if best is None or not self._better(best, active, now):
                return None
        else:
            reason = "the correspondent uses it"
            best = self._nominated if self._nominated in valid else None
        if best is None or best is active:
            return None
        self.former, self.active, self._switched = active, best, now
        # A doubt is this side's own; the correspondent uses the former until it says otherwise.
        doubted = active is not None and active.state is PathState.PROBING
        self._nominated = active if doubted and not self.controlling else None
        return reason

    def _better(self, path: Path, active: Path, now: float) -> bool:
        if now < path.shunned:
            return False
        if (path.relay is None) != (active.relay is None):
            return path.relay is None
        if path.rtt is None or active.rtt is None:
            return False
        return path.rtt < BETTER_RATIO * active.rtt and path.rtt < active.rtt - BETTER_SECONDS

    def next_timer(self, now: float) -> float | None:
        """When :meth:`choose` may decide otherwise only because time passed."""
        times = [p.shunned for p in self if p.state is PathState.VALID and p.shunned > now]
        return min(times, default=None)

    def begin_on(self, path: Path, now: float) -> None:
        """Begin a session on this path."""
        self.former, self.active, self._switched = None, path, now
        self._nominated = self.trial = None
