"""``ntm why FQDN``: which paths were considered, what became of them, and why this one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say, say_table
from ntmobile.commands.state import json_option, state_option
from ntmobile.errors import Unreachable


@click.command()
@state_option()
@json_option()
@click.argument("name", metavar="FQDN")
def why(state: Path, name: str, as_json: bool) -> None:
    """Explain the path to a correspondent; tries to bring a tunnel up."""
    found = call(state, "why", name=name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if found["problem"]:
        say(f"no tunnel: {found['problem']}")
    if found["decision"]:
        say(f"the coordinator decided: {found['decision']}")
    if found["paths"]:
        rows = [("PATH", "REMOTE", "STATE", "RTT", "")]
        for path in found["paths"]:
            rtt = "" if path["rtt_ms"] is None else f"{path['rtt_ms']:.1f} ms"
            used = "carries the traffic" if path["active"] else ""
            via = f"{path['kind']} {path['relay'] or ''}".rstrip()
            rows.append((via, path["remote"], path["state"], rtt, used))
        say_table(rows)
    if found["problem"]:
        raise Unreachable(f"{name} is not reachable now")
