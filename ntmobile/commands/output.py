"""What the command groups have in common: options, passwords, and plain text in 80 columns."""

from __future__ import annotations

import shlex
import stat
import sys
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import click

from ntmobile.errors import AuthenticationError, ConfigurationError

#: A directory or file given on the command line.
PATH = click.Path(path_type=Path)

#: Columns of a terminal.
WIDTH: Final = 80

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def realm_option() -> Decorator:
    """The option ``--realm DIR`` of commands on accounts."""
    return click.option(
        "--realm",
        "directory",
        type=PATH,
        envvar="NTM_REALM",
        show_envvar=True,
        required=True,
        metavar="DIR",
        help="Directory of the realm, as ntm realm init made it.",
    )


def password_option() -> Decorator:
    """The option ``--password-file F``, for :func:`read_password`."""
    return click.option(
        "--password-file",
        type=PATH,
        metavar="F",
        help="Take the password from the first line of a private file, or of - (standard input).",
    )


def checked_addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Numeric addresses under which a server can be reached, each once, in their usual form.

    :raises ConfigurationError: one is not numeric, or is no host's.
    """
    found = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise ConfigurationError(
                f"{text!r} is no address; write numbers such as 203.0.113.1 or 2001:db8::1"
            ) from None
        if address.is_multicast or address.is_unspecified:
            raise ConfigurationError(f"{text} is not where a server can be reached")
        found.append(str(address))
    return tuple(dict.fromkeys(found))


def read_password(file: Path | None, *, confirm: bool) -> str:
    """A password from a private file's first line, or asked for without showing it.

    :param confirm: whether to ask twice.
    :raises ConfigurationError: the file is unreadable or not private, or nobody can be asked.
    :raises AuthenticationError: it is empty.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise ConfigurationError("no terminal to ask for the password; use --password-file")
        text = str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))
    elif str(file) == "-":
        text = sys.stdin.readline(4096)
    else:
        text = _first_line(file)
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise AuthenticationError("the password is empty; nothing was changed")
    return text


def _first_line(file: Path) -> str:
    """The first line of a file that nobody else may read (rule R6)."""
    try:
        with file.open("rb") as stream:
            mode = file.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o004:
                raise ConfigurationError(f"{file}: everybody may read it; run chmod 600 {file}")
            return stream.readline(4096).decode("utf-8")
    except OSError as problem:
        raise ConfigurationError(f"{file}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: its first line is not UTF-8") from None


def say(*lines: str) -> None:
    """Print lines."""
    for line in lines:
        click.echo(line)


def say_wrapped(text: str, *, indent: int = 0, hang: int | None = None) -> None:
    """Print a text in 80 columns.

    :param indent: blanks before it. :param hang: blanks before its other lines, if not the same.
    """
    after = indent if hang is None else hang
    for line in textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * after,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        click.echo(line)


def say_fields(fields: Sequence[tuple[str, str]], *, indent: int = 0) -> None:
    """Print titles and what belongs to each, in two columns."""
    width = max((len(title) for title, _ in fields), default=0) + 2
    for title, text in fields:
        say_wrapped(f"{' ' * indent}{title.ljust(width)}{text}", hang=indent + width)


def say_next(*commands: Sequence[str | Path]) -> None:
    """Print what to type next; a long command goes on in the next line, as a shell takes it."""
    for number, command in enumerate(commands):
        line = "      " if number else "Next: "
        for place, word in enumerate(shlex.quote(str(each)) for each in command):
            if place and len(line) + len(word) > WIDTH - 3:
                click.echo(line + " \\")
                line = " " * 9
            line += f" {word}" if place else word
        click.echo(line)


def say_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def date(seconds: float) -> str:
    """A moment, unix seconds, to the minute, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")
