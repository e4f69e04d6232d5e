"""``ntm netcheck``: the network this machine is in, as far as it and its DC can see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say_fields
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
    fields = [("addresses", ", ".join(found["addresses"]) or "none")]
    fields += [(f"IP{family[2:]}", _seen(found, family)) for family in ("ipv4", "ipv6")]
    fields += [
        (f"IP{family[2:]} through", f"{way['used']}; {way['preferred']} leads nowhere so far")
        for family, way in sorted(found["interfaces"].items())
        if way["used"] != way["preferred"]
    ]
    answers = "answers" if found["udp"] else "does not answer"
    where = f" ({', '.join(found['coordinator'])})" if found["coordinator"] else ""
    fields.append(("UDP", f"the coordinator {answers}{where}"))
    fields.append(("datagrams", found["datagrams"]))
    if found["keepalive"] is not None:
        fields.append(("keep-alive", f"every {found['keepalive']:.0f} s"))
    if found["overruns"]:
        fields.append(("not read in time", f"{found['overruns']} datagrams"))
    fields += [
        ("not sent", f"{count} datagrams: {reason}") for reason, count in found["unsent"].items()
    ]
    say_fields(fields)


def _seen(found: Mapping[str, Any], family: str) -> str:
    """What the DC sees of a family, and what that says of a NAT."""
    seen = found.get(family)
    if seen is None:
        return "the coordinator does not see this device in it"
    if not seen["nat"]:
        return f"seen as {seen['observed']}, not translated"
    port = seen["observed"].rpartition(":")[2]
    kept = port == str(found["ports"].get(family))
    return f"seen as {seen['observed']}, translated by a NAT that {_port(kept)}"


def _port(kept: bool) -> str:
    return "keeps the port" if kept else "gives another port"
