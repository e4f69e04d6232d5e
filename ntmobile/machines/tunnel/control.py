"""What a control message of the correspondent means for a tunnel (R17, R20, R21)."""

from __future__ import annotations

from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.machines.tunnel.association import Association
from ntmobile.machines.tunnel.candidates import offered
from ntmobile.machines.tunnel.constants import SETTLE
from ntmobile.machines.tunnel.events import RoundTrip
from ntmobile.machines.tunnel.paths import Path, PathState
from ntmobile.wire.codec import Message, decode
from ntmobile.wire.messages.tunnel import (
    EchoRequest,
    EchoResponse,
    PathChallenge,
    PathOffer,
    PathResponse,
    RekeyRequest,
    RekeyResponse,
    TunnelEnd,
    TunnelKeepAlive,
)

#: Largest encoded control message: a challenge of a jumbo frame's size.
_LIMIT: Final = 9216
#: Echo requests of ours that may be open.
_PINGS: Final = 64


class Control:
    """Answers the control messages of one tunnel."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._pings: dict[bytes, tuple[int, float]] = {}
        self._offer = -1

    def ping(self, sequence: int, now: float) -> None:
        """Ask for an answer on the active path."""
        path = self._association.paths.active
        if path is None:
            return
        token = self._association.random(8)
        self._pings[token] = (sequence, now)
        while len(self._pings) > _PINGS:
            del self._pings[next(iter(self._pings))]
        self._association.tell(path, EchoRequest(sequence & 0xFFFFFFFF, token), now)

    def received(self, plaintext: bytes, path: Path, now: float) -> Message:
        """Act on an authentic control message that came on ``path``; it is returned.

        :raises MalformedMessage: it is none.
        :raises AuthenticationError: a rekeying that does not fit.
        """
        message = decode(plaintext, _LIMIT)
        association = self._association
        if isinstance(message, PathChallenge):
            if message.answer:
                self._echoed(path, message.answer, now)
            association.tell(path, association.probing.answer(path, message.token, now), now)
            self._doubted(path, now)
        elif isinstance(message, PathResponse):
            self._echoed(path, message.token, now)
        elif isinstance(message, PathOffer):
            self._offered(message, path, now)
        elif isinstance(message, EchoRequest):
            association.tell(path, EchoResponse(message.sequence, message.token), now)
        elif isinstance(message, EchoResponse):
            self._ponged(message, now)
        elif isinstance(message, RekeyRequest | RekeyResponse):
            self._rekeyed(message, path, now)
        elif isinstance(message, TunnelEnd):
            association.end(message.reason or "the correspondent ended it", now, tell=False)
        elif not isinstance(message, TunnelKeepAlive):
            raise MalformedMessage(f"a {type(message).__name__} inside a tunnel")
        return message

    def _echoed(self, path: Path, token: bytes, now: float) -> None:
        anew = path.state is not PathState.VALID
        if not path.echoed(token, now):
            self._association.drops["echo of no challenge"] += 1
            return
        if anew:
            path.pmtu.search(self._association.mtu, now)
            self._association.offer(path, now)

    def _doubted(self, path: Path, now: float) -> None:
        """The correspondent asks whether the active path works: perhaps it hears nothing of us."""
        recent = path.proven is not None and now < path.proven + SETTLE
        if path is self._association.paths.active and path.due is None and not recent:
            path.begin(now)

    def _offered(self, message: PathOffer, path: Path, now: float) -> None:
        """New addresses of the correspondent; newest offer wins, and R17 holds for it too."""
        if message.generation <= self._offer:
            return
        self._offer = message.generation
        association = self._association
        association.paths.correspondent_moved(path, now)
        heard = {each.remote[0] for each in association.paths if each.heard is not None}
        candidates = offered(message.candidates, heard, association.addresses, association.refused)
        for remote in candidates:
            if not association.reachable(remote):
                continue
            known = association.paths.find(path.identifier, remote)
            if known is None:
                known = association.paths.add(Path(path.identifier, remote))
            known.ensure(now)

    def _ponged(self, message: EchoResponse, now: float) -> None:
        asked = self._pings.pop(message.token, None)
        if asked is not None:
            self._association.effects.append(RoundTrip(asked[0], now - asked[1]))

    def _rekeyed(self, message: RekeyRequest | RekeyResponse, path: Path, now: float) -> None:
        association = self._association
        session = association.sessions.current
        if association.rekeying is None or session is None or now >= session.expires:
            return
        if isinstance(message, RekeyRequest):
            response = association.rekeying.requested(message, now)
            if response is not None:
                association.tell(path, response, now)
        elif association.rekeying.responded(message, now):
            association.confirm(now)
