"""``twistd ntm-relay``: options and service of the relay server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from ntmobile.protocols.logs import LogOptions
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time
from ntmobile.servers.configuration import load_relay
from ntmobile.servers.relay import RelayService


class Options(LogOptions):
    """Options of the relay server."""

    synopsis = "--config FILE"
    longdesc = "A relay server (RS) of one direction coordinator; see ntm realm add-relay."
    optParameters = [["config", "c", None, "The relays/NAME.toml that ntm realm add-relay wrote."]]

    def postOptions(self) -> None:
        """Demand the file."""
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed; ntm realm add-relay writes it")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with configuration or port is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    return Starting(
        "ntm-relay",
        lambda: RelayService(load_relay(Path(options["config"])), reactor).bind(),
        options,
        reactor,
    )
