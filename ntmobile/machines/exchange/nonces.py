"""The memory of nonces: a signed request is served once (R28).

A nonce is remembered until its signature is refused for its age. Bounded in all, and for each key,
so that one who signs very much takes no other's place. What is kept of a nonce is 64 bits of a hash
that differs with each start, so that a million of them fit; a wrong match is as likely as that.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from attrs import Factory, define

from ntmobile.errors import AuthenticationError
from ntmobile.wire import problems
from ntmobile.wire.http_signatures import FRESH
from ntmobile.wire.problems import Problem

#: Nonces of one key, and of all together.
PER_KEY: Final = 100_000
TOTAL: Final = 1_000_000
#: Seconds that are forgotten together.
_SPAN: Final = 60


@define
class _Span:
    """The nonces whose signatures grow too old in the same minute, and how many each key has."""

    seen: set[int] = Factory(set)
    counts: Counter[str] = Factory(Counter)


class NonceMemory:
    """Nonces that were seen.

    :param per_key: :param total: how many are remembered of one key, and in all.
    """

    def __init__(self, per_key: int = PER_KEY, total: int = TOTAL) -> None:
        self._per_key = per_key
        self._total = total
        self._spans: dict[int, _Span] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return sum(len(span.seen) for span in self._spans.values())

    def use(self, key: str, nonce: bytes, created: int, now: float) -> None:
        """Take the nonce of a verified signature, once.

        :param key: who signed. :param created: when, as the signature says.
        :param now: unix seconds, of the clock by which the signature was verified.
        :raises AuthenticationError: it was used before.
        :raises Problem: this key, or all together, made too many requests.
        """
        for ended in [each for each in self._spans if (each + 1) * _SPAN < now - FRESH]:
            del self._spans[ended]
        number, mark = created // _SPAN, hash((key, nonce))
        span = self._spans.get(number, _Span())
        if any(mark in each.seen for each in self._spans.values()):
            raise AuthenticationError("the request was made before; sign it anew")
        count = sum(each.counts[key] for each in self._spans.values())
        if count >= self._per_key or len(self) >= self._total:
            detail = f"too many requests; try again in {2 * FRESH} s"
            raise Problem(problems.BUSY, detail, (("Retry-After", str(2 * FRESH)),))
        self._spans[number] = span
        span.seen.add(mark)
        span.counts[key] += 1
