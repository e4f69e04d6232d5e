"""The ``ntm`` command: a table of commands, each imported only when it is asked for.

``ntm status`` must answer at once, so what it does not need (the lab, the authority, TLS) stays
unread. A module of this package that offers a command adds a row to :data:`COMMANDS`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click
from attrs import frozen

from ntmobile import __version__
from ntmobile.errors import NTMobileError


@frozen
class Row:
    """Where a command lives and what the list of commands says of it.

    :ivar module: name of a module below ``ntmobile.commands``.
    :ivar attribute: the :class:`click.Command` in it.
    :ivar summary: one line, without a full stop.
    """

    module: str
    attribute: str
    summary: str

    @property
    def path(self) -> str:
        """Full name of the module."""
        return f"ntmobile.commands.{self.module}"

    def load(self) -> click.Command:
        """Import the command."""
        command = getattr(import_module(self.path), self.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.path}.{self.attribute} is not a click command")
        return command


#: The commands in the order in which a newcomer meets them (design, section 7).
COMMANDS: Final[Mapping[str, Row]] = {
    "demo": Row("demo", "demo", "Show the whole platform at work on this machine"),
    "realm": Row("realm", "realm", "Set up a realm: authority, servers, trust"),
    "user": Row("user", "user", "Add, disable and list the users of a realm"),
    "device": Row("device", "device", "List and remove the devices of a user"),
    "enroll": Row("enroll", "enroll", "Make this machine a device of a user"),
    "up": Row("agent", "up", "Start the agent: be reachable"),
    "down": Row("agent", "down", "Stop the agent"),
    "logout": Row("enroll", "logout", "Give up this device's identity"),
    "trust": Row("trust", "trust", "Accept the new identity of a correspondent"),
    "verify": Row("trust", "verify", "Show a fingerprint to compare with a correspondent"),
    "status": Row("status", "status", "Show name, addresses, network and tunnels"),
    "peers": Row("status", "peers", "Show the correspondents"),
    "ping": Row("ping", "ping", "Measure the way to a correspondent"),
    "why": Row("why", "why", "Explain the path to a correspondent"),
    "netcheck": Row("netcheck", "netcheck", "Examine the network this machine is in"),
    "send": Row("exchange", "send", "Send a file to devices that may be off"),
    "sent": Row("exchange", "sent", "Show what was sent, and how far it is"),
    "withdraw": Row("exchange", "withdraw", "Take back what was sent"),
    "inbox": Row("exchange", "inbox", "Show what waits for this device"),
    "get": Row("exchange", "get", "Fetch what waits"),
    "exec": Row("exec", "exec_", "Run a program inside the virtual network"),
    "forward": Row("forward", "forward", "Forward a port into or out of the virtual network"),
    "socks": Row("socks", "socks", "Offer the virtual network as a SOCKS proxy"),
    "bench": Row("bench", "bench", "Measure the platform on this machine"),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is run, and knows its errors.

    An :class:`~ntmobile.errors.NTMobileError`, or an :class:`OSError` that names a file, ends the
    command with one line on standard error and exit status 1; its text already says what to do.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table."""
        return [name for name, row in COMMANDS.items() if find_spec(row.path) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the named command, or give None where there is none."""
        row = COMMANDS.get(cmd_name)
        if row is None or find_spec(row.path) is None:
            return None
        return row.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        names = self.list_commands(ctx)
        if names:
            with formatter.section("Commands"):
                formatter.write_dl([(name, COMMANDS[name].summary) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn the errors meant for the user into one line."""
        try:
            return super().invoke(ctx)
        except NTMobileError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ntm")
def main() -> None:
    """Reach devices by name, end to end, wherever they are and while they move."""
