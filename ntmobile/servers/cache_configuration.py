"""``caches/NAME.toml``: what a cache server reads (design section 7)."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ntmobile.interfaces import Quotas
from ntmobile.plugins.section import Section
from ntmobile.servers.configuration import CS_PORT, Identity, Listening, Server, attached

#: Largest number of bytes that may be written anywhere here.
_BYTES = 1 << 60


@frozen
class CacheConfiguration:
    """A cache server's file.

    :ivar name: full name, ``NAME.DOMAIN``. :ivar identity: of role ``cs``, under that name.
    :ivar listening: TCP. :ivar coordinator: its DC.
    :ivar state: directory for what is stored, unless the storage is elsewhere.
    :ivar quotas: what one user and one application may store.
    :ivar largest: bytes that one object may have.
    :ivar connections: at once. :ivar requests: of one device in a second.
    :ivar idle: seconds without a new part after which an unfinished object is removed.
    :ivar lookup: :ivar storage: plugins and their sections.
    """

    file: Path
    name: str
    realm: str
    identity: Identity
    listening: Listening
    coordinator: Server
    state: Path
    quotas: Quotas
    largest: int
    connections: int
    requests: int
    idle: float
    lookup: tuple[str, Section]
    storage: tuple[str, Section]


def load_cache(file: Path) -> CacheConfiguration:
    """Read a cache server's file."""
    top = Section.read(file)
    name, realm, coordinator = attached(top)
    quotas, limits = top.section("quotas"), top.section("limits")
    configuration = CacheConfiguration(
        file=file,
        name=name,
        realm=realm,
        identity=Identity.read(top, "cs", name, realm),
        listening=Listening.read(top, CS_PORT),
        coordinator=coordinator,
        state=top.path("state", "state"),
        quotas=Quotas(
            user=quotas.integer("user", 0, low=0, high=_BYTES),
            application=quotas.integer("application", 0, low=0, high=_BYTES),
            items=quotas.integer("items", 0, low=0, high=1 << 40),
        ),
        largest=limits.integer("object", 1 << 36, low=1 << 16, high=1 << 48),
        connections=limits.integer("connections", 2000, low=1, high=1 << 20),
        requests=limits.integer("requests", 250, low=1, high=1 << 20),
        idle=limits.seconds("idle", 86400.0, low=60, high=30 * 86400),
        lookup=top.plugin("lookup", "dns"),
        storage=top.plugin("storage", "files"),
    )
    for section in (quotas, limits, top):
        section.finish()
    return configuration
