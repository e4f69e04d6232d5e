"""DC_CN: what a coordinator tells another one of its clients, and of whom (rules R1, R13)."""

from __future__ import annotations

from typing import Final, TypeVar

from attrs import define, field

from ntmobile.errors import CertificateError
from ntmobile.machines.direction.deciding import check_request
from ntmobile.machines.direction.records import FRESHNESS
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.signalling.clients import ClientTable
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.messages.coordination import InformationRequest, InformationResponse
from ntmobile.wire.messages.realtime import Outcome

_K = TypeVar("_K")

#: What strangers, and the denied, hear (R13).
UNKNOWN: Final = InformationResponse(Outcome.UNKNOWN)
#: Signed requests of one domain remembered against being told twice; more are answered BUSY.
SEEN: Final = 50_000
#: Domains whose requests are remembered at once.
DOMAINS: Final = 1000
#: Seconds in which an admitted pair may be directed.
ADMITTED: Final = 60.0


@define
class Disclosure:
    """Verifies MN's signature and CN's allow list before anything is disclosed or woken.

    An admitted pair may be directed by the same DC for a minute; see :meth:`admitted`.

    :ivar refused: how often somebody was refused.
    """

    clients: ClientTable
    trust: TrustStore
    limiter: RateLimiter = field(factory=lambda: RateLimiter(rate=500, burst=2000, capacity=10_000))
    refused: int = field(default=0, init=False)
    _seen: dict[str, dict[bytes, float]] = field(factory=dict, init=False)
    _admitted: dict[tuple[str, str], float] = field(factory=dict, init=False)

    def asked(
        self, domain: str, request: InformationRequest, now: float, at: float
    ) -> InformationResponse:
        """An NTM Information Request of the DC of ``domain``, proven by its certificate.

        :param at: unix seconds, for certificates and freshness.
        """
        if not self.limiter.allow(domain, now):
            return InformationResponse(Outcome.BUSY)
        seen = self._seen.get(domain, {})
        _expire(seen, now)
        if len(seen) >= SEEN or (domain not in self._seen and not self._room(now)):
            return InformationResponse(Outcome.BUSY)
        # Before anybody is looked for, so that it takes as long for those who are here.
        if not self._verify(domain, request, at) or request.nonce in seen:
            self.refused += 1
            return UNKNOWN
        self._seen.setdefault(domain, seen)[request.nonce] = now + 2 * FRESHNESS
        return self.disclose(request.mn, request.cn, now, at)

    def disclose(self, mn: str, cn: str, now: float, at: float) -> InformationResponse:
        """What MN, whose request was verified, hears of CN."""
        client = self.clients.find(cn)
        if (
            client is None
            or client.fqdn == mn
            or not client.policy.admits(mn)
            or at > client.not_after
        ):
            self.refused += 1
            return UNKNOWN
        _expire(self._admitted, now)
        self._admitted.pop((mn, client.fqdn), None)
        self._admitted[mn, client.fqdn] = now + ADMITTED
        hide = client.policy.hides_from(mn)
        return InformationResponse(
            Outcome.OK,
            client.fqdn,
            client.der,
            client.located(now, hide=hide),
            hide,
        )

    def admitted(self, mn: str, cn: str, now: float) -> bool:
        """Whether MN was lately told of CN, so that a Route Direction between them may come."""
        return self._admitted.get((mn, cn), 0.0) > now

    def _verify(self, domain: str, request: InformationRequest, at: float) -> bool:
        """Whether MN is a device of that domain and really asked (R1, R13)."""
        try:
            certificate = self.trust.verify_device(request.certificate, at)
        except CertificateError:
            return False
        if certificate.fqdn != request.mn or names.domain_of(request.mn) != domain:
            return False
        return check_request(
            certificate, request.cn, request.nonce, request.issued, request.signature, at
        )

    def _room(self, now: float) -> bool:
        """Make room for another domain's requests, if some domain has none left."""
        if len(self._seen) >= DOMAINS:
            for domain, seen in list(self._seen.items()):
                _expire(seen, now)
                if not seen:
                    del self._seen[domain]
        return len(self._seen) < DOMAINS


def _expire(table: dict[_K, float], now: float) -> None:
    """Drop what is over; entries are in the order of their ends."""
    while table:
        key = next(iter(table))
        if table[key] > now:
            break
        del table[key]
