"""``ntm ping FQDN``: round trips to the other agent, through the tunnel."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click

from ntmobile.client.control import call
from ntmobile.commands.state import state_option
from ntmobile.errors import NTMobileError, Unreachable


@click.command()
@state_option()
@click.argument("name", metavar="FQDN")
@click.option("-c", "count", type=click.IntRange(1), help="Stop after so many.")
@click.option("-i", "interval", type=click.FloatRange(0.01), default=1.0, show_default=True)
def ping(state: Path, name: str, count: int | None, interval: float) -> None:
    """Measure the way to a correspondent; brings the tunnel up."""
    began = time.monotonic()
    peer = call(state, "connect", name=name)
    click.echo(f"{peer}: tunnel in {(time.monotonic() - began) * 1000:.1f} ms")
    times: list[float] = []
    sent = 0
    try:
        while count is None or sent < count:
            sent += 1
            try:
                seconds = call(state, "ping", name=peer, timeout=10.0)
            except Unreachable as problem:
                click.echo(f"{sent}: {problem}")
            else:
                times.append(seconds * 1000)
                way = next(one for one in call(state, "peers") if one["peer"] == peer)
                click.echo(f"{sent}: {times[-1]:.2f} ms  {way['path']} {way['remote']}")
            if count is None or sent < count:
                time.sleep(interval)
    except KeyboardInterrupt:
        click.echo()
    _summarize(sent, times)


def _summarize(sent: int, times: list[float]) -> None:
    if not times:
        raise NTMobileError(f"no answer to {sent} requests; see ntm why")
    median = statistics.median(times)
    click.echo(
        f"{sent} sent, {len(times)} answered; "
        f"least {min(times):.2f}, median {median:.2f}, most {max(times):.2f} ms"
    )
    if len(times) < sent:
        sys.exit(1)
