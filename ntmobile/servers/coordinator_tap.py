"""``twistd ntm-dc``: options and service of the direction coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from ntmobile.protocols.logs import LogOptions
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time
from ntmobile.servers.configuration import load_coordinator
from ntmobile.servers.coordinator import CoordinatorService


class Options(LogOptions):
    """Options of the direction coordinator."""

    synopsis = "--config FILE"
    longdesc = "The direction coordinator (DC) of one domain; see ntm realm add-dc."
    optParameters = [["config", "c", None, "The dc.toml that ntm realm add-dc wrote."]]

    def postOptions(self) -> None:
        """Demand the file."""
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed; ntm realm add-dc writes it")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with the configuration is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    return Starting(
        "ntm-dc",
        lambda: CoordinatorService(load_coordinator(Path(options["config"])), reactor),
        options,
        reactor,
    )
