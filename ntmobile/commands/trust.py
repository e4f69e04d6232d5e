"""``ntm trust`` and ``ntm verify``: who a correspondent is (rule R5). The agent may be running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.pins import PinStore
from ntmobile.client.state import PINS
from ntmobile.commands.output import date, say
from ntmobile.commands.state import state_option
from ntmobile.wire import names


@contextmanager
def _opened(state: Path) -> Iterator[tuple[DeviceIdentity, PinStore]]:
    """The device in a state directory and its pins."""
    identity = DeviceIdentity.load(state)
    pins = PinStore(state / PINS)
    try:
        yield identity, pins
    finally:
        pins.close()


@click.command()
@click.argument("fqdn")
@state_option()
def trust(fqdn: str, state: Path) -> None:
    """Accept the identity that FQDN showed last, in place of the pinned one.

    Ask its user first whether the device was enrolled anew.
    """
    names.check_fqdn(fqdn)
    with _opened(state) as (identity, pins):
        pins.trust(fqdn)
        digits = pins.fingerprint(identity.certificate, fqdn)
    say(f"Accepted the new identity of {fqdn}. Both sides should now see:", "", *_lines(digits))


@click.command()
@click.argument("fqdn")
@state_option()
def verify(fqdn: str, state: Path) -> None:
    """Show digits to compare with the user of FQDN, who sees the same with ntm verify.

    Read them to each other over a channel where you know each other, such as the telephone.
    """
    names.check_fqdn(fqdn)
    with _opened(state) as (identity, pins):
        digits = pins.fingerprint(identity.certificate, fqdn)
        pin = pins.pinned(fqdn)
    say(*_lines(digits), "")
    if pin is not None:
        say(f"{fqdn} is pinned since {date(pin.since)} ({pin.how}).")
        if pin.offered:
            say(f"It has shown another identity since; ntm trust {fqdn} would accept that one.")
    say(f"There, the same digits must appear with: ntm verify {identity.fqdn}")


def _lines(digits: str) -> list[str]:
    """The digits in lines of four groups."""
    groups = digits.split()
    return ["    " + "  ".join(groups[at : at + 4]) for at in range(0, len(groups), 4)]
