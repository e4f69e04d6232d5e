"""``ntm status`` and ``ntm peers``: the device and its tunnels at a glance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say, say_fields, say_wrapped
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
    virtual, network = found["virtual"], found["network"]
    registered = "registered" if found["registered"] else f"not registered: {found['problem']}"
    fields = [
        ("state", registered),
        ("virtual", f"{virtual['ipv6']}, {virtual['ipv4']}"),
        ("programs", _programs(found["attachment"])),
        ("network", ", ".join(network["addresses"]) or "none"),
    ]
    for family in ("ipv4", "ipv6"):
        seen = network.get(family)
        if seen:
            nat = "behind a NAT" if seen["nat"] else "no NAT"
            fields.append((f"IP{family[2:]}", f"seen as {seen['observed']}, {nat}"))
    say(found["fqdn"])
    say_fields(fields, indent=2)
    say("")
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


def _programs(attachment: str) -> str:
    """What the agent says of its virtual network, for who wants to run programs in it."""
    match attachment:
        case "open":
            return "the virtual network is open"
        case "opening":
            return "the virtual network is being opened"
        case _:
            return f"no virtual network: {attachment}"


def _say_peers(tunnels: Sequence[Mapping[str, Any]]) -> None:
    if not tunnels:
        say("no tunnels")
    for tunnel in tunnels:
        say(tunnel["peer"])
        say_wrapped(", ".join(_words(tunnel)), indent=2)


def _words(tunnel: Mapping[str, Any]) -> list[str]:
    if tunnel["path"] is None:
        words = ["no path yet"]
    else:
        relay = f"{tunnel['relay']} " if tunnel["relay"] else ""
        words = [f"{tunnel['path']} {relay}{tunnel['remote']}"]
    if tunnel["rtt_ms"] is not None:
        words.append(f"{tunnel['rtt_ms']:.1f} ms")
    if tunnel["established"] is not None:
        words.append(f"up {_duration(tunnel['established'])}")
    count = tunnel["handovers"]
    if count:
        words.append(f"{count} handover{'s' if count > 1 else ''}")
    return [*words, f"{_size(tunnel['rx_bytes'])} received", f"{_size(tunnel['tx_bytes'])} sent"]


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
