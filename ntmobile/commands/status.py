"""``ntm status`` and ``ntm peers``: the device and its tunnels at a glance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say, say_table
from ntmobile.commands.state import json_option, state_option


@click.command()
@state_option()
@json_option()
def status(state: Path, as_json: bool) -> None:
    """Show name, addresses, network and tunnels."""
    found = call(state, "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    virtual = found["virtual"]
    registered = "registered" if found["registered"] else f"not registered: {found['problem']}"
    say(
        found["fqdn"],
        f"  virtual   {virtual['ipv6']}  {virtual['ipv4']}  ({found['attachment']})",
        f"  state     {registered}",
        f"  network   {', '.join(found['network']['addresses']) or 'none'}",
    )
    for family in ("ipv4", "ipv6"):
        seen = found["network"].get(family)
        if seen:
            nat = "behind a NAT" if seen["nat"] else "no NAT"
            say(f"  {family}      seen as {seen['observed']}, {nat}")
    _say_peers(found["tunnels"])


@click.command()
@state_option()
@json_option()
def peers(state: Path, as_json: bool) -> None:
    """Show the correspondents that there are tunnels with."""
    found = call(state, "peers")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _say_peers(found)


def _say_peers(tunnels: Sequence[Mapping[str, Any]]) -> None:
    if not tunnels:
        say("no tunnels")
        return
    for tunnel in tunnels:
        rtt = "" if tunnel["rtt_ms"] is None else f", {tunnel['rtt_ms']:.1f} ms"
        moved = f", {tunnel['handovers']} handovers" if tunnel["handovers"] else ""
        way = f"{tunnel['path']} {tunnel['remote']}" if tunnel["path"] else "no path yet"
        say(f"{tunnel['peer']}", f"  {way}{rtt}{moved}")
    rows = [("PEER", "RECEIVED", "SENT")]
    rows += [(one["peer"], _size(one["rx_bytes"]), _size(one["tx_bytes"])) for one in tunnels]
    say_table(rows)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
