"""Telling the DCs of other domains who is revoked, until they have heard it (rule R34)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import NTMobileError
from ntmobile.machines.revocation.notices import FIRST, ForeignNotices
from ntmobile.servers.outside import Outside
from ntmobile.wire import names
from ntmobile.wire.messages.coordination import RevocationNotice

log = Logger()

#: Correspondents in one Revocation Notice.
NOTICED: Final = 256


@define(eq=False)
class NoticesAbroad:
    """Carries out what :class:`~ntmobile.machines.revocation.notices.ForeignNotices` wants."""

    outside: Outside
    clock: IReactorTime
    notices: ForeignNotices = field(factory=ForeignNotices, init=False)

    def tell(self, revoked: str, peers: Iterable[str], serial: bytes, until: float) -> None:
        """Tell the DCs of a revoked device's correspondents, now and until then if need be."""
        by_domain: dict[str, list[str]] = {}
        for peer in peers:
            domain = names.domain_of(peer)
            if domain != names.domain_of(revoked):
                by_domain.setdefault(domain, []).append(peer)
        for domain, those in by_domain.items():
            for start in range(0, len(those), NOTICED):
                some = tuple(those[start : start + NOTICED])
                self.notices.add(domain, RevocationNotice(revoked, some, serial), until)
            self.notices.present(domain)
        self.tick()

    def tick(self) -> None:
        """Every second: tell whom it is time to tell."""
        for domain in self.notices.due(self.clock.seconds()):
            Deferred.fromCoroutine(self._tell(domain)).addErrback(
                lambda failure: log.failure("telling of a revocation failed", failure)
            )

    async def _tell(self, domain: str) -> None:
        while (notice := self.notices.next(domain)) is not None:
            try:
                await self.outside.ask_coordinator(domain, notice)
            except NTMobileError as problem:
                if self.notices.missed(domain, notice, self.clock.seconds()) == FIRST:
                    log.warn(
                        "could not tell {domain} that {revoked} is revoked; it is told again: "
                        "{problem}",
                        domain=domain,
                        revoked=notice.revoked,
                        problem=str(problem),
                    )
                return
            self.notices.heard(domain, notice)
