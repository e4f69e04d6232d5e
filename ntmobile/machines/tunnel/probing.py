"""Probes of a tunnel's paths: challenges, their echoes, and when which path is probed (R17, R21).

Challenges are padded so that no answer is larger, or to the size of an inner packet, which proves
that such packets go through whole (R23). An answer may be a challenge itself, so that both
sides have proven the path after one and a half round trips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from ntmobile.machines.tunnel.constants import RECOVERY, REVIVAL
from ntmobile.machines.tunnel.paths import Path, PathSet, PathState
from ntmobile.wire.codec import encode
from ntmobile.wire.headers import HEADER_SIZE, TAG_SIZE
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.tunnel import PathChallenge, PathOffer, PathResponse

#: Encoded size of a small challenge; the largest response has 37 bytes.
SMALL: Final = 48
#: Messages that nominate no path (R21).
PROBES: Final = (PathChallenge, PathResponse, PathOffer)
_TOKEN: Final = 8
_SEALED: Final = HEADER_SIZE + TAG_SIZE


def padded(challenge: PathChallenge, size: int) -> PathChallenge:
    """The same challenge, so padded that its encoding has ``size`` bytes."""
    missing = size - len(encode(challenge))
    if missing > 255:
        missing -= 1  # MessagePack's length has one byte more then
    return replace(challenge, padding=bytes(max(0, missing)))


class Probing:
    """Runs the probes of a set of paths.

    :param keepalive: seconds after which a path that works is probed again.
    """

    def __init__(self, paths: PathSet, random: Callable[[int], bytes], keepalive: float) -> None:
        self._paths = paths
        self._random = random
        self._keepalive = keepalive

    def due(self, now: float) -> list[tuple[Path, PathChallenge]]:
        """The challenges to be sent now. Paths whose series is over fail."""
        result: list[tuple[Path, PathChallenge]] = []
        for path in self._paths:
            self._refresh(path, now)
            if path.due is not None and now >= path.due:
                if path.exhausted() or not path.affords(SMALL + _SEALED):
                    path.fail(now)
                    if path.limited and path is not self._paths.active:
                        self._paths.remove(path)
                else:
                    result.append((path, self.challenge(path, now)))
            sizes = path.pmtu.sizes(now, path.patience)
            result += [(path, self.challenge(path, now, size=size)) for size in sizes]
        return result

    def challenge(
        self, path: Path, now: float, *, answer: bytes = b"", size: int = 0
    ) -> PathChallenge:
        """A challenge for this path, which must go out now; of a size, to find its MTU."""
        token = self._random(_TOKEN)
        path.probed(token, now, size=size)
        return padded(PathChallenge(token, answer), size or SMALL)

    def answer(self, path: Path, token: bytes, now: float) -> PathChallenge | PathResponse:
        """What to answer to a challenge that came on this path; never more than it."""
        unknown = path.due is not None or path.state is not PathState.VALID
        if unknown and not path.waiting(now):
            return self.challenge(path, now, answer=token)
        observed = Endpoint.of(path.remote) if path.relay is None else None
        return PathResponse(token, observed)

    def _refresh(self, path: Path, now: float) -> None:
        """Begin a series where one is due: to know standby paths, to win back lost ones."""
        due = self._refreshed(path)
        if due is not None and now >= due:
            path.begin(now, 3 if path.state is PathState.VALID else 1)

    def _refreshed(self, path: Path) -> float | None:
        active = self._paths.active
        if path.due is not None:
            return None
        if path is active and path.state is not PathState.FAILED:
            return None  # the tunnel's own keep-alive looks after it
        if path.state is PathState.VALID and path.proven is not None:
            return path.proven + self._keepalive
        if path.state is PathState.FAILED and path.answers and not path.limited:
            lost = active is None or active.state is not PathState.VALID
            return path.failed + (REVIVAL if lost else RECOVERY)
        return None

    def next_timer(self) -> float | None:
        """When :meth:`due` has something."""
        result: float | None = None
        for path in self._paths:
            for due in (path.due, path.pmtu.due, self._refreshed(path)):
                if due is not None and (result is None or due < result):
                    result = due
        return result
