"""``twistd ntm-as``: options and service of the account server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from ntmobile.protocols.logs import LogOptions
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time
from ntmobile.servers.account import AccountServer
from ntmobile.servers.configuration import load_account_server


class Options(LogOptions):
    """Options of the account server."""

    synopsis = "--config FILE"
    longdesc = "The account server (AS) of one realm; see ntm realm init."
    optParameters = [["config", "c", None, "The as.toml that ntm realm init wrote."]]

    def postOptions(self) -> None:
        """Demand the file."""
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed; ntm realm init writes it")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with configuration or port is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    return Starting(
        "ntm-as",
        lambda: AccountServer(load_account_server(Path(options["config"])), reactor),
        options,
        reactor,
    )
