"""``ntm send``, ``sent``, ``withdraw``, ``inbox`` and ``get``: data for devices that may be off."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import click

from ntmobile.client.control import call, converse
from ntmobile.client.exchange.serving import APPLICATION
from ntmobile.client.exchange.spool import Spool
from ntmobile.commands.output import date, say, say_fields
from ntmobile.commands.state import json_option, state_option
from ntmobile.errors import NTMobileError, StorageFailed

#: Seconds in which the agent says at least that it is there; looking up correspondents included.
PATIENCE: Final = 120.0
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
#: Digits of an identifier that are shown.
_SHORT: Final = 8

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def application_option() -> Decorator:
    """The option ``--application A``."""
    return click.option(
        "--application",
        default=APPLICATION,
        show_default=True,
        metavar="A",
        help="Whose items: applications never see each other's.",
    )


@click.command()
@state_option()
@json_option()
@application_option()
@click.option("--name", help="What it is called there; else as the file.")
@click.option("--note", default="", help="A line for those who get it; encrypted as all of it.")
@click.option(
    "--days",
    type=click.FloatRange(0, 30, min_open=True),
    default=14,
    show_default=True,
    help="For how long it waits.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait no longer for a cache server to have it.",
)
@click.option("--service", default="", help="Of the application; servers see it.")
@click.option("--item", default="", help="Of the service; servers see it.")
@click.option("--message", default="", help="The notification; servers see it.")
@click.argument("words", metavar="FQDN... FILE", nargs=-1)
def send(state: Path, as_json: bool, words: Sequence[str], **options: Any) -> None:
    """Send FILE, or - for standard input, to devices that may be off.

    A user instead of a device stands for all devices of that user. It is encrypted on this machine
    for the devices that it goes to. Ends when a cache server has it; interrupted, it goes on in
    the background. See also: ntm sent.
    """
    if len(words) < 2:
        raise click.UsageError("Say to whom, and which file: ntm send FQDN... FILE")
    *names, file = words
    days = options.pop("days")
    call(state, "status")  # before anything is read from a pipe
    with _source(state, file) as source:
        name = options.pop("name") or (Path(file).name if Path(file).is_file() else "")
        parameters = {
            **options,
            "destinations": names,
            "file": str(source),
            "name": name,
            "type": mimetypes.guess_type(name)[0] or "",
            "lifetime": days * 86400,
        }
        try:
            sent = _follow(state, "send", parameters, f"sending {name or 'it'}", quiet=as_json)
        except KeyboardInterrupt:
            raise NTMobileError("it goes on in the background; see: ntm sent") from None
    if as_json:
        click.echo(json.dumps(sent, indent=2))
    else:
        say(_title(sent))
    if sent["state"] == "uploading":
        reason = sent["reason"] or "it takes longer"
        raise NTMobileError(f"not sent yet: {reason}; it goes on in the background, see ntm sent")
    if not as_json:
        _say_destinations(sent)


@contextmanager
def _source(state: Path, file: str) -> Iterator[Path]:
    """The file; what is no file is written to one of the agent's, which removes it."""
    path = Path(file).absolute()
    if file != "-" and (path.is_file() or not path.exists() or path.is_dir()):
        if not path.is_file():
            what = "is a directory; pack it first" if path.is_dir() else "is not there"
            raise StorageFailed(f"{file}: {what}")
        yield path
        return
    spooled = Spool(state).new()
    try:
        with open(spooled, "xb", opener=_private) as target:
            if file == "-":
                shutil.copyfileobj(_standard(sys.stdin, "input").buffer, target)
            else:
                with path.open("rb") as stream:
                    shutil.copyfileobj(stream, target)
    except BaseException as problem:
        spooled.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            reason = f"cannot be kept until it is sent: {problem.strerror}"
            raise StorageFailed(f"{file}: {reason}; make room at {spooled.parent}") from None
        raise
    yield spooled  # from now on it is the agent's


def _standard(stream: TextIO | None, which: str) -> TextIO:
    """A standard stream, which a program may have been started without."""
    if stream is None:
        raise StorageFailed(f"standard {which} is closed; name a file")
    return stream


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


@click.command()
@state_option()
@json_option()
@click.argument("ident", metavar="[ID]", default="")
def sent(state: Path, as_json: bool, ident: str) -> None:
    """Show what was sent, and how far it is."""
    answer = call(state, "sent", PATIENCE, item=ident)
    found = answer["items"]
    if answer["problem"]:
        click.echo(f"Note: as last known, because {answer['problem']}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        say("Nothing was sent from here.")
    for one in found:
        say(f"{_title(one)}, {one['state']}, of {date(one['made'])}")
        if one["reason"]:
            say(f"          {one['reason']}")
        _say_destinations(one)


@click.command()
@state_option()
@click.argument("ident", metavar="ID")
def withdraw(state: Path, ident: str) -> None:
    """Take back what was sent, by the beginning of its ID.

    Who has not fetched it yet never will; its place at the cache server is free again.
    """
    gone = call(state, "withdraw", PATIENCE, item=ident)
    say(f"{_title(gone)}, withdrawn")


def _title(one: Mapping[str, Any]) -> str:
    """An item in a line."""
    return "  ".join(filter(None, [one["id"][:_SHORT], one["name"], size(one["length"])]))


def _say_destinations(one: Mapping[str, Any]) -> None:
    for each in one["destinations"]:
        state = each["state"]
        if one["state"] in ("failed", "withdrawn"):
            continue
        ended = one["state"] == "expired"
        words = {
            "waiting": "did not fetch it" if ended else "waits there for it",
            "not told": f"not told yet{': ' + each['reason'] if each['reason'] else ''}",
            "confirmed": f"has it since {date(each['at'])}" if each["at"] else "has it",
        }
        say(f"          {each['destination']}: {words.get(state, state)}")


@click.command()
@state_option()
@json_option()
@application_option()
@click.option("--all", "everything", is_flag=True, help="Items of all applications.")
def inbox(state: Path, as_json: bool, application: str, everything: bool) -> None:
    """Show what waits for this device."""
    wanted = None if everything else application
    answer = call(state, "inbox", PATIENCE, application=wanted)
    found = answer["items"]
    for problem in answer["problems"]:
        click.echo(f"Note: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        say("Nothing can be shown now." if answer["problems"] else "Nothing waits.")
    if answer["others"]:
        say(f"For other applications: {answer['others']}; see ntm inbox --all.")
    for one in found:
        say(_title(one))
        fields = [("from", one["sender"]), ("until", date(one["expires"]))]
        if one["note"]:
            fields.insert(1, ("note", one["note"]))
        if one["message"]:
            fields.insert(1, ("message", one["message"]))
        if everything:
            fields.append(("for", one["application"]))
        say_fields(fields, indent=10)
    if found:
        say("", f"Fetch one with: ntm get {found[0]['id'][:_SHORT]}")


@click.command()
@state_option()
@json_option()
@click.argument("ident", metavar="[ID]", default="")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Try no longer where a server does not answer.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="A file, a directory, or - for standard output; else the name that it has.",
)
def get(state: Path, as_json: bool, ident: str, wait: float | None, output: str | None) -> None:
    """Fetch an item, by the beginning of its ID, and have its sender told.

    Without an ID it is the one that waits, if it is the only one.

    The file is there only when all of it has come and is what its sender signed; interrupted, the
    same command goes on where it was. The file is for you alone until you change its mode.
    """
    to_screen = output == "-"
    if output is not None and not to_screen and not Path(output).absolute().parent.is_dir():
        raise StorageFailed(f"{Path(output).parent}: is no directory")
    if to_screen:
        _standard(sys.stdout, "output")  # before anything is fetched
    into = None if to_screen else str(Path(output or ".").absolute())
    quiet = as_json or to_screen
    try:
        parameters = {"item": ident, "into": into, "wait": wait}
        got = _follow(state, "get", parameters, "fetching", quiet=quiet)
    except KeyboardInterrupt:
        raise NTMobileError("interrupted; the same command goes on where it was") from None
    if to_screen:
        _copy_out(Path(got["file"]), sys.stdout.buffer)
    elif as_json:
        click.echo(json.dumps(got, indent=2))
    else:
        say(_as_asked(got["file"], output))
        say(f"          {size(got['length'])} from {got['sender']}")


def _as_asked(file: str, output: str | None) -> str:
    """A file as whoever asked for it would call it."""
    if output is None:
        return os.path.basename(file)
    asked = Path(output)
    return str(
        asked / os.path.basename(file) if asked.is_dir() else asked.with_name(Path(file).name)
    )


def _copy_out(path: Path, stream: BinaryIO) -> None:
    """Write a fetched item to standard output, and remove it when that was done."""
    try:
        with path.open("rb") as source:
            shutil.copyfileobj(source, stream)
        stream.flush()
    except OSError as problem:
        reason = f"standard output: cannot be written: {problem.strerror}"
        raise StorageFailed(f"{reason}; all of the item is in {path}") from None
    path.unlink()


def _follow(
    state: Path, command: str, parameters: Mapping[str, Any], label: str, *, quiet: bool
) -> dict[str, Any]:
    """Have the agent do something long; shows progress on a terminal."""
    talk = converse(state, command, PATIENCE, **parameters)
    message: dict[str, Any] = next(talk)
    if "done" not in message:
        return message
    hidden = quiet or not sys.stderr.isatty()
    problem = ""
    with click.progressbar(
        length=max(1, message["length"]), label=label, file=sys.stderr, hidden=hidden
    ) as bar:
        for message in talk:
            if "done" not in message:
                bar.update(bar.length - bar.pos if bar.length else 0)
                break
            bar.length = max(1, message["length"])
            bar.update(max(0, message["done"] - bar.pos))
            if message.get("problem", "") not in ("", problem) and not quiet:
                problem = message["problem"]
                click.echo(f"waiting: {problem}", err=True)
    return message


def size(octets: int) -> str:
    """A number of bytes for people."""
    value, unit = float(octets), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{octets} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
