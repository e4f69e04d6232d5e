"""Kinds of servers that belong to a coordinator: relays and cache servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import frozen

from ntmobile.servers.configuration import CS_PORT, RS_PORT
from ntmobile.servers.realm_files import CACHE, RELAY
from ntmobile.servers.registry import Registry


@frozen
class Attached:
    """A kind of servers that belong to coordinators.

    :ivar folder: where they are, and in the registry. :ivar word: what one is called.
    :ivar trusts: whether they have to do with foreign realms.
    :ivar take_in: has a registry read one's file.
    """

    role: str
    folder: str
    word: str
    template: str
    port: int
    trusts: bool
    take_in: Callable[[Registry, str, Path], object]


RELAYS: Final = Attached("rs", "relays", "relay", RELAY, RS_PORT, False, Registry.add_relay)
CACHES: Final = Attached("cs", "caches", "cache server", CACHE, CS_PORT, True, Registry.add_cache)
