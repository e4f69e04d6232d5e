"""What comes to a tunnel outside its session: handshakes, relay answers, hints (R15, R19, R25)."""

from __future__ import annotations

from typing import Final

from ntmobile.errors import AuthenticationError
from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.tunnel.association import Association
from ntmobile.machines.tunnel.constants import HINT_INTERVAL, SEALED
from ntmobile.machines.tunnel.opening import OpenDirection
from ntmobile.machines.tunnel.paths import Path, PathState
from ntmobile.machines.tunnel.session import Session
from ntmobile.wire.headers import Flag, Header, Kind

#: Handshake messages a second that are worth elliptic curves, per tunnel, and at once.
_CHECKS: Final = 10.0
_CHECK_BURST: Final = 20.0
#: A session under which something came so recently is not in doubt for a hint.
_RECENT: Final = 0.25
#: One under which nothing came for so long may be one that the other side does not have.
_SILENT: Final = 2.0
#: On a TUNNEL_UNKNOWN: this direction is known here, make its handshake.
_HANDSHAKE_PLEASE: Final = int(Flag.CONTROL)


class Admission:
    """Decides what becomes of everything that is not TUNNEL_DATA of the session."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._checks = RateLimiter(_CHECKS, _CHECK_BURST, 1)
        self._sent_hints = RateLimiter(1 / HINT_INTERVAL, 1, 16)
        self._taken_hints = RateLimiter(1 / HINT_INTERVAL, 1, 16)

    def received(self, datagram: bytes, remote: Address, now: float) -> bool:
        """Such a datagram; ``True`` if a session begins with it.

        :raises MalformedMessage: :raises AuthenticationError: it is dropped.
        """
        header = Header.parse(datagram)
        direction = self._association.directions.get(header.index)
        if direction is None:
            raise AuthenticationError("a datagram of a direction that this tunnel does not have")
        if header.kind is Kind.TUNNEL_REQUEST:
            self._requested(direction, datagram, remote, now)
        elif header.kind is Kind.TUNNEL_RESPONSE:
            return self._answered(direction, datagram, remote, now)
        elif header.kind is Kind.TUNNEL_UNKNOWN:
            self._unknown(direction, header, remote, now)
        elif header.kind in (Kind.RELAY_RESPONSE, Kind.RELAY_TOO_BIG):
            self._relay_answered(direction, datagram, remote, now)
        elif header.kind is Kind.RELAY_UNKNOWN:
            if direction.leg is not None and direction.leg.remote == remote:
                direction.leg.hinted(now)
        else:
            raise AuthenticationError(f"{header.kind.name} is nothing for a tunnel")
        return False

    # -- handshakes

    def _requested(
        self, direction: OpenDirection, datagram: bytes, remote: Address, now: float
    ) -> None:
        """Message 1: accepted once per direction, answered again as often as it comes (R19)."""
        association = self._association
        answer = direction.answer(datagram)
        if answer is None:
            psk = direction.psk(now)
            if psk is None or direction.message.initiator:
                raise AuthenticationError("a Tunnel Request that no direction here expects")
            self._check(now)
            relayed = direction.leg is not None and direction.leg.remote == remote
            secrets = direction.reception.requested(
                datagram,
                None if relayed else remote,
                direction.identifier,
                direction.parties,
                psk,
                association.random,
            )
            session = Session.begin(
                direction.identifier,
                direction.message.requester,
                direction.parties,
                secrets,
                now,
                initiator=False,
                expires=direction.certified,
            )
            association.sessions.pend(session, now)
            path = self._path(direction, remote)
            path.received += len(datagram)
            answer = direction.answer(datagram)
        if answer is not None:
            known = association.paths.find(direction.identifier, remote)
            if known is not None:
                known.sent += len(answer)
            association.effects.append(Transmit(answer, remote))

    def _answered(
        self, direction: OpenDirection, datagram: bytes, remote: Address, now: float
    ) -> bool:
        """Message 2: there are keys, and a path that works."""
        association = self._association
        if direction.initiation is None:
            raise AuthenticationError("a Tunnel Response to nothing we asked")
        self._check(now)
        secrets, _ = direction.initiation.answered(datagram)
        path = self._path(direction, remote)
        path.heard = now
        path.received += len(datagram)
        if not path.limited:
            # It was sent to a candidate or the relay, and answered from there.
            if direction.attempts(path) == 1:
                path.sampled(now - direction.asked(path))
            path.prove(now)
        session = Session.begin(
            direction.identifier,
            direction.message.requester,
            direction.parties,
            secrets,
            now,
            initiator=True,
            born=direction.begun,
            expires=direction.certified,
        )
        return association.begin_session(direction, session, path, now)

    def began(self, session: Session, path: Path, now: float) -> bool:
        """As responder: the initiator has used the new keys, so they are in force (R19)."""
        direction = self._association.directions.get(session.direction)
        return self._association.begin_session(direction, session, path, now)

    def _check(self, now: float) -> None:
        if not self._checks.allow(None, now):
            raise AuthenticationError("too many handshakes")

    def _path(self, direction: OpenDirection, remote: Address) -> Path:
        known = self._association.paths.find(direction.identifier, remote)
        return known or self._association.paths.observe(direction.identifier, remote)

    # -- the relay

    def _relay_answered(
        self, direction: OpenDirection, datagram: bytes, remote: Address, now: float
    ) -> None:
        if direction.leg is None:
            raise AuthenticationError("a relay's answer for a direction without relay")
        refused = direction.leg.datagram_received(datagram, remote, now)
        path = self._association.directions.relay_path(direction)
        if refused is not None and path is not None:  # R27: it did not fit the other leg
            path.pmtu.refused(refused.size - SEALED, max(0, refused.limit - SEALED), now)

    # -- hints

    def _unknown(
        self, direction: OpenDirection, header: Header, remote: Address, now: float
    ) -> None:
        """A hint that the correspondent has no session: never believed, only looked into (R15)."""
        association = self._association
        path = association.paths.find(direction.identifier, remote)
        session = association.sessions.current
        if path is None or session is None or now < (session.heard or session.adopted) + _RECENT:
            return  # stale or forged: it was here a moment ago, or cannot know of us yet
        if not self._taken_hints.allow(header.index, now):
            return
        if header.flags & _HANDSHAKE_PLEASE:
            # It has this direction. Should it be a liar: a handshake under a fresh temporal key
            # changes nothing for the worse, and there is one a direction.
            if direction.message.initiator and direction.fresh(now):
                association.directions.initiate(direction, now)
            return
        if path.state is PathState.VALID or path is association.paths.active:
            association.doubt(path, now)

    def unopened(self, datagram: bytes, remote: Address, now: float) -> None:
        """Data that nothing opens: if there are no keys, or none in use, say so (R8, R15)."""
        association = self._association
        direction = association.directions.get(datagram[4:12])
        sessions = association.sessions
        if direction is None or sessions.pending:
            return
        session = sessions.current
        if session is not None and now < (session.heard or session.adopted) + _SILENT:
            return
        if not self._sent_hints.allow(direction.identifier, now):
            return
        flags = 0
        if direction.fresh(now) and not direction.message.initiator:
            flags = _HANDSHAKE_PLEASE
        counter = int.from_bytes(datagram[12:20], "big")
        hint = Header(Kind.TUNNEL_UNKNOWN, flags, direction.identifier, counter)
        association.effects.append(Transmit(hint.pack(), remote))
