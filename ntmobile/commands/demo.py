"""``ntm demo``: the whole platform on this machine, for a newcomer to watch."""

from __future__ import annotations

import os
import sys
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from ntmobile.demo.ladder import Style

#: Colours, on a terminal that wants any: of signalling, of tunnels, of steps and titles.
_COLOURS: Final = {"signalling": "cyan", "tunnel": "green", "step": "yellow"}


@click.command()
@click.option("--keep", is_flag=True, help="Keep files and logs, and say where they are.")
def demo(keep: bool) -> None:
    """Show the whole platform at work on this machine.

    An account server, two coordinators, a relay and two devices, in real processes behind real
    NATs, and the connection of an ordinary program, which goes on while the devices move. No root,
    no configuration; nothing is left behind.
    """
    from ntmobile.demo.loopback import LoopbackWorld
    from ntmobile.demo.stage import Stage
    from ntmobile.demo.world import LabWorld, World
    from ntmobile.lab.supervision import lab_unavailable
    from ntmobile.protocols.timing import real_reactor

    reactor = real_reactor()
    click.echo("The whole platform on this machine, in real processes. Ctrl-C ends it.")
    unavailable = lab_unavailable()
    world: World
    if unavailable is None:
        world = LabWorld.make(reactor)
    else:
        for line in wrap(f"No NATs here, all is on loopback: {unavailable}.", 80):
            click.echo(line)
        world = LoopbackWorld.make(reactor)
    click.echo()
    stage = Stage(reactor, world, _say, keep)
    status = stage.run()
    if status == 0 and not keep:
        click.echo("\nEverything has ended and is removed; ntm demo --keep leaves files and logs.")
    sys.exit(status)


def _say(line: str, style: Style | None) -> None:
    coloured = style is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if style is not None and coloured:
        line = click.style(line, fg=_COLOURS[style.value])
    click.echo(line)
