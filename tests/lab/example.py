"""A small lab as an example of use: ``python -m tests.lab.example`` prints what it saw as JSON.

A laptop and a server measure the path between them while the laptop moves from a home network to
another network. The self-tests run it under conditions that a test process cannot put itself in.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from ntmobile.lab.internet import Access, Internet
from ntmobile.lab.measure import UdpProbe, start_udp_echo
from ntmobile.lab.node import Lab
from ntmobile.lab.process import pause


async def demonstrate(lab: Lab) -> dict[str, Any]:
    """Build, measure, move; gives the report of the probe and who ran it."""
    internet = await Internet.build(lab)
    server = await internet.server("dc1")
    laptop = await internet.client("laptop", await internet.access(Access.HOME, "home"))
    cafe = await internet.access(Access.GLOBAL4, "cafe")
    await start_udp_echo(server)
    probe = await UdpProbe.start(laptop, server.ipv4)
    await laptop.attachment.move(cafe)
    await pause(IReactorTime(lab.reactor), 0.5)
    report = await probe.report()
    who = await laptop.run(["sh", "-c", "id -u; grep CapEff /proc/self/status; cat /proc/1/comm"])
    uid, capabilities, first = who.stdout.splitlines()
    return {
        "report": asdict(report),
        "uid": int(uid),
        "capabilities": int(capabilities.split()[1], 16),
        "first_process": first,
        "directory": str(lab.directory),
    }


async def main(lab: Lab, wait: bool) -> None:
    """Show the demonstration; ``wait`` keeps the lab up until somebody ends it."""
    with lab:
        print(json.dumps(await demonstrate(lab)), flush=True)
        if wait:
            await Deferred()


if __name__ == "__main__":
    react(
        lambda reactor: Deferred.fromCoroutine(main(Lab.start(reactor), "--wait" in sys.argv[1:]))
    )
