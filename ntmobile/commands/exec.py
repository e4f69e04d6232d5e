"""``ntm exec -- CMD``: an unmodified program inside the virtual network."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ntmobile.commands.state import state_option
from ntmobile.errors import NTMobileError
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
    except NTMobileError as problem:
        click.echo(f"ntm exec: {problem}", err=True)
        sys.exit(125)
