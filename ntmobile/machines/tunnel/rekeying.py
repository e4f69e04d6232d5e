"""New keys inside a session: a KKpsk0 whose psk the session gives (R20). No DC is needed.

The session's initiator begins it when an epoch was used for 120 s, the other side if that is
overdue. Where both begin at once, the request of the lower FQDN goes on. The request is repeated,
the same bytes, until it is answered; so is the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmobile.machines.tunnel.constants import (
    EPOCH_OVERLAP,
    REKEY_AFTER,
    REKEY_DATAGRAMS,
    REKEY_GRACE,
    REKEY_RETRY,
    REKEY_RETRY_LIMIT,
)
from ntmobile.machines.tunnel.keys import Epoch
from ntmobile.machines.tunnel.noise import Handshake
from ntmobile.machines.tunnel.session import Session
from ntmobile.wire.messages.tunnel import RekeyRequest, RekeyResponse


class Rekeying:
    """Makes the next epochs of one session."""

    def __init__(self, session: Session, random: Callable[[int], bytes]) -> None:
        self._session = session
        parties = session.parties
        #: The two, with this side as the initiator.
        self._own = parties if session.initiator else parties.swapped()
        self._random = random
        self._handshake: Handshake | None = None
        self._request: RekeyRequest | None = None
        self._retry: float | None = None
        self._wait = REKEY_RETRY
        self._answered: tuple[RekeyRequest, RekeyResponse] | None = None

    def due(self) -> float | None:
        """When the current epoch is to be replaced, if it is used then."""
        epoch = self._session.ring.current
        if epoch is None or self._session.ring.upcoming is not None or self._request is not None:
            return None
        grace = 0.0 if self._session.initiator else REKEY_GRACE
        if epoch.counter >= REKEY_DATAGRAMS:
            return epoch.born + EPOCH_OVERLAP + grace
        return epoch.born + REKEY_AFTER + grace

    def begin(self, now: float) -> None:
        """Make a request; :meth:`pending` has it."""
        epoch = self._session.ring.current
        if epoch is None or not epoch.proven or self._request is not None:
            return
        self._handshake = self._start(epoch, initiator=True)
        self._request = RekeyRequest(epoch.number + 1, self._handshake.write(b""))
        self._retry, self._wait = now, REKEY_RETRY

    def pending(self, now: float) -> RekeyRequest | None:
        """The request to be sent now, if it is time to."""
        if self._request is None or self._retry is None or now < self._retry:
            return None
        self._retry = now + self._wait
        self._wait = min(2 * self._wait, REKEY_RETRY_LIMIT)
        return self._request

    def next_timer(self) -> float | None:
        """When :meth:`pending` or :meth:`begin` is to be called."""
        return self._retry if self._request is not None else self.due()

    def requested(self, request: RekeyRequest, now: float) -> RekeyResponse | None:
        """The answer to the other side's request; None where it gets none.

        :raises AuthenticationError: it does not belong to this session's keys.
        """
        if self._answered is not None and self._answered[0] == request:
            return self._answered[1]
        epoch = self._session.ring.current
        if epoch is None or request.epoch != epoch.number + 1:
            return None
        if self._request is not None and self._own.names[0] < self._own.names[1]:
            return None  # both at once: ours goes on
        handshake = self._start(epoch, initiator=False)
        handshake.read(request.noise)
        response = RekeyResponse(request.epoch, handshake.write(b""))
        self._forget()
        self._session.ring.propose(Epoch(request.epoch, handshake.secrets(), now))
        self._answered = (request, response)
        return response

    def responded(self, response: RekeyResponse, now: float) -> bool:
        """Take the answer to ours; ``True`` if there is a new epoch to seal with.

        :raises AuthenticationError: it does not answer our request.
        """
        if self._handshake is None or self._request is None:
            return False
        if response.epoch != self._request.epoch:
            return False
        handshake = self._handshake.fork()
        handshake.read(response.noise)
        self._session.ring.adopt(Epoch(response.epoch, handshake.secrets(), now), now)
        self._forget()
        return True

    def _forget(self) -> None:
        self._handshake, self._request, self._retry = None, None, None

    def _start(self, epoch: Epoch, *, initiator: bool) -> Handshake:
        identifier = epoch.binding + (epoch.number + 1).to_bytes(4, "big")
        parties = self._own if initiator else self._own.swapped()
        return parties.handshake(
            "rekey", identifier, epoch.export, self._random, initiator=initiator
        )
