"""``ntm bench``: measurements of the platform on this machine."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final

import click

from ntmobile.bench.load import Measurement, Report
from ntmobile.bench.load_report import lines
from ntmobile.commands.output import say
from ntmobile.commands.state import json_option
from ntmobile.lab.node import remove_tree

#: Most clients: the virtual addresses of the measured domain.
MOST: Final = 10_000_000


@click.group()
def bench() -> None:
    """Measure the platform on this machine."""


@bench.command()
@click.option(
    "--clients",
    type=click.IntRange(2, MOST),
    default=100_000,
    show_default=True,
    help="Clients that have logged in.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Length of each phase.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Requests that wait for an answer at once.",
)
@click.option(
    "--logins",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Real logins through the account server.",
)
@click.option(
    "--relay/--no-relay",
    default=True,
    show_default=True,
    help="With a relay server, a part of every direction.",
)
@json_option()
def load(
    clients: int, seconds: float, window: int, logins: int, relay: bool, as_json: bool
) -> None:
    """Put a coordinator under the load of very many clients.

    A realm of its own with account server, coordinator and relay server, in real processes on
    loopback; this process plays the clients: they say hello, register, keep alive, and ask for
    directions to each other. Takes about a minute and 1 GB of memory; nothing is left behind.
    """
    signal.signal(signal.SIGTERM, _terminated)
    directory = Path(tempfile.mkdtemp(prefix="ntmload-"))
    try:
        report = Measurement(directory, clients, seconds, window, logins, relay, _progress).run()
    finally:
        _progress("")
        remove_tree(directory)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        say(*lines(report))
    _check(report)


def _check(report: Report) -> None:
    """A load that nobody answered is no measurement."""
    silent = [name for name, rate in report.rates.items() if not rate.count]
    if silent:
        raise click.ClickException(f"nothing was answered: {', '.join(silent)}")


def _progress(text: str) -> None:
    """Say what is being done, in one line of a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
