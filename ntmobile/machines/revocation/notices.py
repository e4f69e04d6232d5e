"""Revocation Notices that the DCs of other domains still have to hear (rule R34).

A DC that is out of reach is told again, less and less often, and at once when it is heard of, until
the certificates that the notice is about would have ended by themselves.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from ntmobile.wire.messages.coordination import RevocationNotice

#: Seconds until a DC that was not reached is told again: at first, and at most.
FIRST: Final = 2.0
MOST: Final = 300.0
#: Correspondents' names kept in notices, of all domains together; who holds most forgets first.
CAPACITY: Final = 100_000


@define(eq=False)
class _Domain:
    """What the DC of one domain has not heard; the notices in the order of their turn."""

    notices: dict[RevocationNotice, float] = field(factory=dict)
    names: int = 0
    due: float = 0.0
    wait: float = 0.0
    busy: bool = False


@define(eq=False)
class ForeignNotices:
    """Whom to tell what, and when.

    A domain is told one notice after another: :meth:`due` names it, :meth:`next` gives its notice,
    then comes :meth:`heard` and the next one, or :meth:`missed`.
    """

    _domains: dict[str, _Domain] = field(factory=dict, init=False)
    _names: int = field(default=0, init=False)

    def __len__(self) -> int:
        """How many notices are kept."""
        return sum(len(one.notices) for one in self._domains.values())

    def add(self, domain: str, notice: RevocationNotice, until: float) -> None:
        """A DC is to hear this, until then."""
        kept = self._domains.setdefault(domain, _Domain())
        self._drop(domain, notice)
        kept.notices[notice] = until
        kept.names += _size(notice)
        self._names += _size(notice)
        while self._names > CAPACITY:
            longest = max(self._domains, key=lambda each: self._domains[each].names)
            self._drop(longest, next(iter(self._domains[longest].notices)))

    def due(self, now: float) -> list[str]:
        """The domains to be told now; each is being told until :meth:`next` or it is missed."""
        found = []
        for domain, kept in list(self._domains.items()):
            for notice in [one for one, until in kept.notices.items() if until <= now]:
                self._drop(domain, notice)
            if kept.busy:
                continue
            if not kept.notices:
                del self._domains[domain]
            elif kept.due <= now:
                kept.busy = True
                found.append(domain)
        return found

    def next(self, domain: str) -> RevocationNotice | None:
        """The notice whose turn it is; None where nothing is left to tell."""
        kept = self._domains[domain]
        if not kept.notices:
            del self._domains[domain]
            return None
        return next(iter(kept.notices))

    def heard(self, domain: str, notice: RevocationNotice) -> None:
        """It acknowledged this one."""
        self._drop(domain, notice)
        self._domains[domain].wait = 0.0

    def missed(self, domain: str, notice: RevocationNotice, now: float) -> float:
        """It did not; another one has its turn first. :return: seconds until it is told again."""
        kept = self._domains[domain]
        if notice in kept.notices:
            kept.notices[notice] = kept.notices.pop(notice)
        kept.busy = False
        kept.wait = min(MOST, max(FIRST, 2 * kept.wait))
        kept.due = now + kept.wait
        return kept.wait

    def present(self, domain: str) -> None:
        """It was heard of: it can be told at once."""
        kept = self._domains.get(domain)
        if kept is not None:
            kept.due = 0.0

    def _drop(self, domain: str, notice: RevocationNotice) -> None:
        kept = self._domains[domain]
        if kept.notices.pop(notice, None) is not None:
            kept.names -= _size(notice)
            self._names -= _size(notice)


def _size(notice: RevocationNotice) -> int:
    return max(1, len(notice.correspondents))
