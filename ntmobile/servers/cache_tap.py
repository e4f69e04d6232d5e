"""``twistd ntm-cache``: options and service of the cache server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from ntmobile.protocols.logs import LogOptions
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time
from ntmobile.servers.cache import CacheService
from ntmobile.servers.cache_configuration import load_cache


class Options(LogOptions):
    """Options of the cache server."""

    synopsis = "--config FILE"
    longdesc = "A cache server (CS) of one direction coordinator; see ntm realm add-cache."
    optParameters = [["config", "c", None, "The caches/NAME.toml that ntm realm add-cache wrote."]]

    def postOptions(self) -> None:
        """Demand the file."""
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed; ntm realm add-cache writes it")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with configuration or port is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    return Starting(
        "ntm-cache",
        lambda: CacheService(load_cache(Path(options["config"])), reactor),
        options,
        reactor,
    )
