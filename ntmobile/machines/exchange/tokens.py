"""Authentication tokens at a cache server: told by the AS, good as long as it is heard (R28, R34).

The AS numbers its changes. An update says from which number on it tells, and up to which; what does
not join what is known is not taken, and the answer to it, the last number that is known, makes the
AS go on from there. Nothing is kept over a restart: then the AS tells all anew.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from ntmobile.wire.messages.exchange import TokenUpdate

#: Longest lease that an AS may give, in seconds.
_LONGEST: Final = 86400


@frozen
class KnownToken:
    """A device's token. :ivar key: the client-CS key. :ivar expires: unix seconds."""

    fqdn: str
    key: bytes = field(repr=False)
    expires: float


class TokenTable:
    """The tokens that hold.

    :ivar sequence: number of the last change that is known; 0: none.
    """

    def __init__(self) -> None:
        self.sequence = 0
        self._tokens: dict[bytes, KnownToken] = {}
        self._of_device: dict[str, set[bytes]] = {}
        self._until: float | None = None

    def __len__(self) -> int:
        """How many tokens there are, expired ones included."""
        return len(self._tokens)

    def apply(self, update: TokenUpdate, now: float) -> bool:
        """Take an update, and with it the lease if everything up to there is known then.

        :param now: monotonic seconds.
        :return: whether it was taken; the AS is answered with :attr:`sequence` in any case.
        """
        if update.since == 0:
            self._tokens.clear()
            self._of_device.clear()
            self.sequence, self._until = 0, None
            self._change(update)
        elif update.since <= self.sequence < update.sequence:
            self._change(update)
        if self.sequence != update.sequence:
            return False
        if update.lease:
            self._until = now + min(update.lease, _LONGEST)
        return True

    def _change(self, update: TokenUpdate) -> None:
        # First what ends: a token in the same update is of after that.
        for fqdn in update.revoked:
            for token in self._of_device.pop(fqdn, ()):
                del self._tokens[token]
        for each in update.tokens:
            self._forget(each.token)
            self._tokens[each.token] = KnownToken(each.fqdn, each.key, each.expires)
            self._of_device.setdefault(each.fqdn, set()).add(each.token)
        self.sequence = update.sequence

    def _forget(self, token: bytes) -> None:
        known = self._tokens.pop(token, None)
        if known is not None:
            others = self._of_device[known.fqdn]
            others.discard(token)
            if not others:
                del self._of_device[known.fqdn]

    def accepts(self, now: float) -> bool:
        """Whether the AS was heard within its lease, monotonic seconds (R34)."""
        return self._until is not None and now < self._until

    @property
    def heard(self) -> bool:
        """Whether the AS has told everything, ever since this began or was told anew."""
        return self._until is not None

    def find(self, token: bytes, at: float) -> KnownToken | None:
        """The device of a token, unless it has expired by ``at``, unix seconds."""
        known = self._tokens.get(token)
        return None if known is None or known.expires <= at else known

    def expire(self, at: float) -> None:
        """Forget the tokens that have expired by ``at``, unix seconds."""
        for token in [token for token, known in self._tokens.items() if known.expires <= at]:
            self._forget(token)
