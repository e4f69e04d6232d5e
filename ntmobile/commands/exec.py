"""``ntm exec -- CMD``: an unmodified program inside the virtual network."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ntmobile.commands.state import state_option
from ntmobile.errors import NotRegistered, NTMobileError
from ntmobile.plugins.netns.enter import CommandNotRun, enter


@click.command("exec", context_settings={"ignore_unknown_options": True})
@state_option()
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD ...")
def exec_(state: Path, argv: tuple[str, ...]) -> None:
    """Run a program inside the virtual network.

    It sees names and virtual addresses of correspondents, and nothing else. Standard streams,
    directory, environment, signals and exit status are its own.
    """
    try:
        enter(state, list(argv))
    except CommandNotRun as problem:
        click.echo(f"ntm exec: {problem}", err=True)
        sys.exit(problem.status)
    except NotRegistered as problem:
        click.echo(f"ntm exec: {_explained(state, problem)}", err=True)
        sys.exit(125)
    except NTMobileError as problem:
        click.echo(f"ntm exec: {problem}", err=True)
        sys.exit(125)


def _explained(state: Path, problem: NotRegistered) -> str:
    """Why there is no virtual network, as the agent says if one runs."""
    from ntmobile.client import control  # every program started would wait for its imports

    try:
        told = control.call(state, "status", 2.0)["attachment"]
    except NotRegistered as missing:  # no device is enrolled here
        return str(missing)
    except NTMobileError:
        return str(problem)
    return f"no virtual network runs in {state}: {told}"
