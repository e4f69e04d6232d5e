"""``ntm up`` and ``ntm down``: the agent of a state directory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from ntmobile.client.control import call
from ntmobile.commands.state import state_option
from ntmobile.errors import NTMobileError, Unreachable

#: The agent's log, in its state directory.
LOG: Final = "agent.log"
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"


def _command(state: Path, log: str) -> list[str]:
    """How the agent is run: as twistd runs it."""
    options = ["--nodaemon", "--pidfile=", f"--logfile={log}", "ntm-client", f"--state={state}"]
    return [sys.executable, "-c", _TWISTD, *options]


@click.command()
@state_option()
@click.option("--foreground", is_flag=True, help="Stay, and log to the terminal.")
@click.option(
    "--wait", type=float, default=20.0, show_default=True, help="Seconds to wait for the DC."
)
def up(state: Path, foreground: bool, wait: float) -> None:
    """Start the agent: register, and be reachable.

    Without --foreground the agent goes to the background when it is registered; its log is
    agent.log in the state directory.
    """
    if foreground:
        command = _command(state, "-")
        os.execv(command[0], command)
    try:
        call(state, "status")
    except Unreachable:
        pass
    else:
        raise click.ClickException(f"an agent is running already for {state}; see ntm status")
    with (state / LOG).open("ab") as log:
        agent = subprocess.Popen(
            _command(state, str(state / LOG)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    status = _await(state, agent, wait)
    click.echo(f"{status['fqdn']} is up: {status['virtual']['ipv6']}, {status['virtual']['ipv4']}")
    if status["attachment"] != "open":
        click.echo(f"Note: no virtual network for programs: {status['attachment']}.", err=True)
    if not status["registered"]:
        raise click.ClickException(
            f"not registered yet ({status['problem']}); the agent goes on trying, see ntm status"
        )


def _await(state: Path, agent: subprocess.Popen[bytes], wait: float) -> dict[str, Any]:
    deadline = time.monotonic() + wait
    status: dict[str, Any] | None = None
    while time.monotonic() < deadline and not (status and _is_up(status)):
        if agent.poll() is not None:
            raise click.ClickException(last_line(state / LOG))
        with suppress(NTMobileError):
            status = call(state, "status", timeout=2.0)
        time.sleep(0.05)
    if status is None:
        raise click.ClickException(f"the agent did not start; see {state / LOG}")
    return status


def _is_up(status: dict[str, Any]) -> bool:
    return bool(status["registered"]) and status["attachment"] != "opening"


def last_line(log: Path) -> str:
    """What an agent that ended said last, as it printed or logged it."""
    lines = log.read_text(errors="replace").splitlines()
    said = [text for _, own, text in (line.partition("ntm-client: ") for line in lines) if own]
    return said[-1] if said else f"the agent ended; see {log}"


@click.command()
@state_option()
def down(state: Path) -> None:
    """Stop the agent, and end its virtual network with the programs' connections in it."""
    click.echo(call(state, "down"))
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            call(state, "status", timeout=2.0)
        except NTMobileError:
            return
        time.sleep(0.05)
    raise click.ClickException("the agent did not end within 10 s; see its log")
