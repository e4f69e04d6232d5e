"""DC_CN: what a coordinator tells another one of its clients, and of whom (rules R1, R13)."""

from __future__ import annotations

from typing import Final, TypeVar

from attrs import define, field

from ntmobile.errors import CertificateError
from ntmobile.machines.clients import ClientTable
from ntmobile.machines.directing import FRESHNESS
from ntmobile.machines.direction import check_request
from ntmobile.machines.rate import RateLimiter
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.messages.coordination import InformationRequest, InformationResponse
from ntmobile.wire.messages.realtime import Outcome

_K = TypeVar("_K")

#: What strangers, and the denied, hear (R13).
UNKNOWN: Final = InformationResponse(Outcome.UNKNOWN)
#: Signed requests remembered against being told twice.
SEEN: Final = 100_000


@define
class Disclosure:
    """Verifies MN's signature and CN's allow list before anything is disclosed or woken.

    An admitted pair may be directed by the same DC for a minute; see :meth:`admitted`.
    """

    clients: ClientTable
    trust: TrustStore
    limiter: RateLimiter = field(factory=lambda: RateLimiter(rate=500, burst=2000, capacity=10_000))
    _seen: dict[bytes, float] = field(factory=dict, init=False)
    _admitted: dict[tuple[str, str], float] = field(factory=dict, init=False)
    refused: int = field(default=0, init=False)

    def asked(
        self, domain: str, request: InformationRequest, now: float, at: float
    ) -> InformationResponse:
        """An NTM Information Request of the DC of ``domain``, proven by its certificate.

        :param at: unix seconds, for certificates and freshness.
        """
        _expire(self._seen, now)
        _expire(self._admitted, now)
        if not self.limiter.allow(domain, now):
            return InformationResponse(Outcome.BUSY)
        client = self.clients.find(request.cn)
        acceptable = self._verify(domain, request, now, at)
        if client is None or not acceptable or client.fqdn == request.mn:
            self.refused += 1
            return UNKNOWN
        if not client.policy.admits(request.mn) or at > client.certificate.not_after:
            self.refused += 1
            return UNKNOWN
        self._admitted.pop((request.mn, client.fqdn), None)
        self._admitted[request.mn, client.fqdn] = now + 60.0
        return InformationResponse(
            Outcome.OK,
            client.fqdn,
            client.certificate.der,
            client.located(now),
            client.policy.hides_from(request.mn),
        )

    def admitted(self, mn: str, cn: str, now: float) -> bool:
        """Whether MN was lately told of CN, so that a Route Direction between them may come."""
        return self._admitted.get((mn, cn), 0.0) > now

    def _verify(self, domain: str, request: InformationRequest, now: float, at: float) -> bool:
        try:
            certificate = self.trust.verify_device(request.certificate, at)
        except CertificateError:
            return False
        if certificate.fqdn != request.mn or names.domain_of(request.mn) != domain:
            return False
        if request.nonce in self._seen or len(self._seen) >= SEEN:
            return False
        if not check_request(
            certificate, request.cn, request.nonce, request.issued, request.signature, at
        ):
            return False
        self._seen[request.nonce] = now + 2 * FRESHNESS
        return True


def _expire(table: dict[_K, float], now: float) -> None:
    """Drop what is over; entries are in the order of their ends."""
    while table:
        key = next(iter(table))
        if table[key] > now:
            break
        del table[key]
