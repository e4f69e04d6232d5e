"""``ntm netcheck``: the network this machine is in, as far as it and its DC can see."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say
from ntmobile.commands.state import json_option, state_option


@click.command()
@state_option()
@json_option()
def netcheck(state: Path, as_json: bool) -> None:
    """Examine the network this machine is in."""
    found = call(state, "netcheck")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    say(f"addresses   {', '.join(found['addresses']) or 'none'}")
    for family in ("ipv4", "ipv6"):
        seen = found.get(family)
        if seen is None:
            say(f"{family}        the coordinator does not see this device in it")
        else:
            nat = "translated by a NAT" if seen["nat"] else "not translated"
            say(f"{family}        seen as {seen['observed']}, {nat}")
    udp = "the coordinator answers" if found["udp"] else "the coordinator does not answer"
    say(f"UDP         {udp}")
    if found["keepalive"] is not None:
        say(f"keep-alive  every {found['keepalive']:.0f} s")
    for reason, count in found["unsent"].items():
        say(f"not sent    {count} datagrams: {reason}")
