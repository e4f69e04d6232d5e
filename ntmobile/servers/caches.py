"""A DC's own cache servers: their links, and what clients are told of them."""

from __future__ import annotations

from twisted.logger import Logger

from ntmobile.errors import AuthenticationError
from ntmobile.protocols.link import Link
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.exchange import (
    CacheRegistration,
    CacheServer,
    CacheServerListResponse,
)

log = Logger()

#: Cache servers that clients are told of.
TOLD = 64


class Caches:
    """The cache servers of one domain that are linked."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._here: dict[str, tuple[Link, CacheServer, int]] = {}

    def __len__(self) -> int:
        return len(self._here)

    def registered(self, registration: CacheRegistration, link: Link) -> LinkAcknowledgement:
        """A CS is here, or has more or less room now.

        :raises AuthenticationError: it is none of this domain.
        """
        assert link.peer is not None
        name = link.peer[1]
        if registration.cache.name != name or name.partition(".")[2] != self._domain:
            raise AuthenticationError(f"{name} is no cache server of {self._domain}")
        former = self._here.get(name)
        self._here[name] = (link, registration.cache, registration.free)
        if former is None or former[0] is not link:
            log.info("cache server {name} is here", name=name)
            link.closed.addCallback(lambda _: self._gone(name, link))
        return LinkAcknowledgement()

    def _gone(self, name: str, link: Link) -> None:
        here = self._here.get(name)
        if here is not None and here[0] is link:
            del self._here[name]
            log.warn("cache server {name} is gone", name=name)

    def listed(self) -> CacheServerListResponse:
        """What clients are told: the one with the most room first."""
        free = sorted(self._here.values(), key=lambda one: -one[2])
        return CacheServerListResponse(tuple(cache for _, cache, _ in free[:TOLD]))
