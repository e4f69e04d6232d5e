"""``ntm demo``: the whole platform on this machine, for a newcomer to watch."""

from __future__ import annotations

import signal
import sys

import click
from twisted.internet.defer import Deferred


@click.command()
@click.option("--keep", is_flag=True, help="Keep the files, and say where they are.")
def demo(keep: bool) -> None:
    """Show the whole platform at work on this machine.

    Real servers and devices, in real processes; no root, no configuration, and nothing is left
    behind. It takes about half a minute.
    """
    from twisted.internet import reactor

    from ntmobile.demo.show import Show
    from ntmobile.demo.world import LabWorld

    world = LabWorld.make(reactor)
    status = 0

    def ended(result: object) -> None:
        nonlocal status
        world.close(keep=keep)
        if result is not None:
            click.echo(result)
            status = 1
        reactor.stop()

    def begin() -> None:
        playing = Deferred.fromCoroutine(Show(reactor, world, click.echo).play())
        playing.addBoth(ended)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda n, f: reactor.callFromThread(playing.cancel))

    reactor.callWhenRunning(begin)
    reactor.run()
    sys.exit(status)
