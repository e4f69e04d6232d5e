"""``ntm why FQDN``: which paths were considered, what became of them, and why this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from ntmobile.client.control import call
from ntmobile.commands.output import say, say_wrapped
from ntmobile.commands.state import json_option, state_option

#: States of a path, in words.
_STATES: Final = {
    "unknown": "not tried yet",
    "probing": "being tried",
    "valid": "works",
    "failed": "does not answer",
}


@click.command()
@state_option()
@json_option()
@click.argument("name", metavar="FQDN")
def why(state: Path, name: str, as_json: bool) -> None:
    """Explain the path to a correspondent; tries to bring a tunnel up.

    The exit status is 1 where there is no tunnel.
    """
    found = call(state, "why", name=name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _explain(found)
    if found["problem"]:
        sys.exit(1)


def _ways(paths: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The paths, each way once.

    Every direction has its own leg through a relay, so that one relay may be there several times;
    what matters is the leg in use, or else one that works.
    """
    found: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for path in paths:
        way = path["kind"], path["relay"], path["remote"]
        if way not in found or _merit(path) > _merit(found[way]):
            found[way] = path
    return list(found.values())


def _merit(path: Mapping[str, Any]) -> tuple[bool, int]:
    states = ("failed", "unknown", "probing", "valid")
    state = path["state"]
    return bool(path["active"]), states.index(state) if state in states else -1


def _explain(found: Mapping[str, Any]) -> None:
    problem, decision = found["problem"], found["decision"]
    if problem:
        say_wrapped(f"no tunnel: {problem}")
    if decision and decision not in problem:
        say_wrapped(f"the coordinator decided: {decision}")
    for path in _ways(found["paths"]):
        relay = f"{path['relay']} " if path["relay"] else ""
        words = [_STATES.get(path["state"], path["state"])]
        if path["rtt_ms"] is not None:
            words.append(f"{path['rtt_ms']:.1f} ms")
        if path["active"]:
            words.append("carries the traffic")
        way = f"{path['kind']} {relay}{path['remote']}"
        say_wrapped(f"{'*' if path['active'] else ' '} {way}: {', '.join(words)}", hang=4)
    if not problem and not found["paths"]:
        say("no path is known")
