"""A tunnel's session: the keys that one handshake gave, and those that followed from it."""

from __future__ import annotations

from attrs import define

from ntmobile.machines.tunnel.constants import SESSION_LIFETIME
from ntmobile.machines.tunnel.handshake import Parties
from ntmobile.machines.tunnel.keys import Epoch, KeyRing
from ntmobile.machines.tunnel.noise import Secrets


@define(eq=False)
class Session:
    """Keys of the pair.

    :ivar direction: whose handshake made it. :ivar requester: FQDN that asked for that direction.
    :ivar initiator: this side began it, controls the paths and the rekeying.
    :ivar born: when its handshake began. :ivar adopted: when it became the one to send under.
    :ivar expires: when certificates are to be shown again (R20).
    :ivar used: when an authentic datagram first came under it, None before.
    :ivar heard: when one last did.
    """

    direction: bytes
    requester: str
    initiator: bool
    parties: Parties
    ring: KeyRing
    born: float
    expires: float
    adopted: float = 0.0
    used: float | None = None
    heard: float | None = None

    @classmethod
    def begin(
        cls,
        direction: bytes,
        requester: str,
        parties: Parties,
        secrets: Secrets,
        now: float,
        *,
        initiator: bool,
        born: float | None = None,
        expires: float | None = None,
    ) -> Session:
        """From the keys of a finished handshake.

        :param born: when the handshake began, if not just now.
        :param expires: when the first of the two certificates does, where that is known.
        """
        limit = now + SESSION_LIFETIME
        ring = KeyRing(Epoch(0, secrets, now), initiator=initiator)
        end = limit if expires is None else min(limit, expires)
        began = now if born is None else born
        return cls(direction, requester, initiator, parties, ring, began, end)

    def crosses(self, other: Session) -> bool:
        """Whether ``other`` was not yet in proven use when this one's handshake began (R15)."""
        return other.used is None or other.used >= self.born

    def precedes(self, other: Session) -> bool:
        """Whether this one wins over another that it crossed (R15): lower FQDN, then identifier."""
        return (self.requester, self.direction) < (other.requester, other.direction)

    def open(self, datagram: bytes, counter: int, now: float) -> tuple[Epoch, bytes] | None:
        """The epoch and plaintext of an authentic, new TUNNEL_DATA datagram."""
        epoch = self.ring.opening(datagram[1])
        plaintext = None if epoch is None else epoch.open(datagram, counter)
        if epoch is None or plaintext is None:
            return None
        if self.used is None:
            self.used = now
        self.heard = now
        return epoch, plaintext
