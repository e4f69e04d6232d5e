"""``ntm enroll`` and ``ntm logout``: becoming a device of a user, and giving it up."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from ntmobile.client.account import Account, parse_coordinator
from ntmobile.client.control import call
from ntmobile.client.identity import DeviceIdentity, erase, home_authority
from ntmobile.client.login import enroll as enroll_device
from ntmobile.client.login import find_coordinator, log_out
from ntmobile.client.settings import load_settings
from ntmobile.client.state import AUTHORITY, DEVICE, PENDING, SETTINGS
from ntmobile.commands.output import PATH, password_option, read_password, say, say_next
from ntmobile.commands.running import run
from ntmobile.commands.state import state_option
from ntmobile.errors import (
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    NTMobileError,
    Unreachable,
)
from ntmobile.plugins.files import read_file


@click.command()
@click.argument("account")
@click.option("--device", required=True, metavar="NAME", help="Label of this device: phone.")
@click.option(
    "--trust",
    "bundle",
    type=PATH,
    metavar="CA.pem",
    help="The realm's authority, as its operator gave it to you.",
)
@state_option()
@click.option("--dc", metavar="HOST:PORT", help="Where the coordinator is, if DNS does not say.")
@password_option()
@click.option(
    "--replace",
    is_flag=True,
    help="Take the place of a device of that name; its certificates end.",
)
def enroll(
    account: str,
    device: str,
    bundle: Path | None,
    state: Path,
    dc: str | None,
    password_file: Path | None,
    replace: bool,
) -> None:
    """Make this machine a device of ACCOUNT, such as alice@dc1.ntm.example.

    The device makes its own keys, which never leave the state directory; the account server
    certifies them for the user's password.
    """
    wanted = Account.parse(account, device, parse_coordinator(dc) if dc else None)
    former = _former(state, wanted, replace)
    bundle = bundle or _known_bundle(state)
    trust = home_authority(read_file(bundle), wanted.domain, bundle)
    password = read_password(password_file, confirm=False)
    click.echo(f"Enrolling {wanted.fqdn} ...", err=True)
    enrolled = run(
        lambda reactor: enroll_device(
            reactor, state, wanted, trust, password, former=former, replace=replace
        )
    )
    if enrolled.warning:
        click.echo(f"Note: {enrolled.warning}.", err=True)
    certificate = enrolled.identity.certificate
    say(f"This is {certificate.fqdn} now: {certificate.ipv6}, {certificate.ipv4}.")
    say_next(["ntm", "up", "--state", state])


def _former(state: Path, wanted: Account, replace: bool) -> DeviceIdentity | None:
    """The device in the directory so far, if it is this one and may be replaced.

    :raises AlreadyExists: there is one, and ``--replace`` is not given.
    :raises ConfigurationError: the directory is for something else.
    """
    if not (state / DEVICE).exists():
        kept = (SETTINGS, PENDING)
        if state.exists() and not (
            state.is_dir()
            and (any((state / name).exists() for name in kept) or not any(state.iterdir()))
        ):
            raise ConfigurationError(f"{state}: holds something else; name another with --state")
        return None
    try:
        former = DeviceIdentity.load(state)
    except NTMobileError as problem:
        if replace:  # damaged: that is what it is for
            return None
        raise AlreadyExists(f"{problem}") from None
    if former.fqdn != wanted.fqdn:
        raise AlreadyExists(
            f"{state}: the state of {former.fqdn}; name another with --state, or ntm logout first"
        )
    if not replace:
        raise AlreadyExists(
            f"{state}: {former.fqdn} is enrolled here already; --replace enrols it anew"
        )
    return former


def _known_bundle(state: Path) -> Path:
    """The authority from an earlier enrolment."""
    known = state / AUTHORITY
    if not known.exists():
        raise ConfigurationError("--trust CA.pem is needed: ask who runs the realm for its ca.pem")
    return known


@click.command()
@state_option()
@click.option(
    "--force", is_flag=True, help="Remove the secrets here even if nobody can be told of it."
)
def logout(state: Path, force: bool) -> None:
    """Give up this device's identity: revoke it, then remove its keys.

    Settings and pinned correspondents stay. End the agent first with ntm down.
    """
    identity = DeviceIdentity.load(state)
    account = load_settings(state).account
    with suppress(Unreachable):
        call(state, "status", timeout=5.0)
        raise ConfigurationError(f"the agent is running; end it first: ntm down --state {state}")
    try:
        run(lambda reactor: _log_out(reactor, identity, account))
    except (CertificateError, Unreachable) as problem:
        if not force:
            raise Unreachable(
                f"{problem}; nothing was changed. Try again, or remove the keys here with --force "
                f"and have the operator run: ntm device remove {identity.fqdn}"
            ) from None
        erase(state)
        say(f"Removed the keys of {identity.fqdn}, which was not revoked: {problem}.")
    except AuthenticationError as problem:
        erase(state)
        say(f"Removed the keys of {identity.fqdn}, which was no device any more: {problem}.")
    else:
        say(f"{identity.fqdn} is revoked, and its keys are removed.")


async def _log_out(reactor: object, identity: DeviceIdentity, account: Account) -> None:
    addresses = await find_coordinator(reactor, identity.domain, account.dc)
    await log_out(reactor, identity, addresses)
