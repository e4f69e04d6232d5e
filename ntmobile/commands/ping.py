"""``ntm ping FQDN``: round trips to the other agent, through the tunnel."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
from attrs import define, field

from ntmobile.client.control import call
from ntmobile.commands.output import say
from ntmobile.commands.state import json_option, state_option
from ntmobile.errors import NTMobileError, Unreachable


@define
class Pings:
    """Requests so far.

    :ivar peer: the device that answers. :ivar tunnel: milliseconds until there was a tunnel.
    :ivar times: round trips, milliseconds.
    """

    peer: str
    tunnel: float
    sent: int = 0
    times: list[float] = field(factory=list)

    def summary(self) -> dict[str, Any]:
        """For programs."""
        times = self.times
        return {
            "peer": self.peer,
            "tunnel_ms": round(self.tunnel, 3),
            "sent": self.sent,
            "answered": len(times),
            "least_ms": round(min(times), 3) if times else None,
            "median_ms": round(statistics.median(times), 3) if times else None,
            "most_ms": round(max(times), 3) if times else None,
        }


@click.command()
@state_option()
@json_option()
@click.argument("name", metavar="FQDN")
@click.option("-c", "count", type=click.IntRange(1), help="Requests to send; else until Ctrl-C.")
@click.option(
    "-i",
    "interval",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="Seconds from one answer to the next request.",
)
def ping(state: Path, as_json: bool, name: str, count: int | None, interval: float) -> None:
    """Measure the way to a correspondent; brings the tunnel up.

    The exit status is 1 if not every request was answered. With --json the summary is printed,
    alone, at the end.
    """
    began = time.monotonic()
    peer = call(state, "connect", name=name)
    pings = Pings(peer, (time.monotonic() - began) * 1000)
    tell = (lambda line: None) if as_json else say
    tell(f"{peer}: tunnel in {pings.tunnel:.1f} ms")
    try:
        while count is None or pings.sent < count:
            tell(_ping(state, pings))
            if count is None or pings.sent < count:
                time.sleep(interval)
    except KeyboardInterrupt:
        tell("")
    if as_json:
        click.echo(json.dumps(pings.summary(), indent=2))
    elif pings.times:
        say(
            f"{pings.sent} sent, {len(pings.times)} answered; least {min(pings.times):.2f}, "
            f"median {statistics.median(pings.times):.2f}, most {max(pings.times):.2f} ms"
        )
    elif pings.sent:
        raise NTMobileError(f"no answer to {pings.sent} requests; see: ntm why {peer}")
    if len(pings.times) < pings.sent:
        sys.exit(1)


def _ping(state: Path, pings: Pings) -> str:
    """One request; gives the line about it."""
    pings.sent += 1
    try:
        seconds = call(state, "ping", name=pings.peer)
    except Unreachable as problem:
        call(state, "status")  # where the agent itself is gone, that is the error
        return f"{pings.sent}: {problem}"
    pings.times.append(seconds * 1000)
    ways = [one for one in call(state, "peers") if one["peer"] == pings.peer]
    way = f"  {ways[0]['path']} {ways[0]['remote']}" if ways else ""
    return f"{pings.sent}: {pings.times[-1]:.2f} ms{way}"
