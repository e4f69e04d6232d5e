"""``ntm user``: the users of a realm. The account server may be running; it notices at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import click

from ntmobile.commands.output import (
    password_option,
    read_password,
    realm_option,
    say,
    say_next,
    say_table,
)
from ntmobile.errors import AlreadyExists
from ntmobile.interfaces import IAccountStore
from ntmobile.servers.passwords import check_password, hash_password
from ntmobile.servers.realm import Realm


@contextmanager
def opened_accounts(realm: Realm) -> Iterator[IAccountStore]:
    """The accounts of a realm, closed afterwards."""
    accounts = realm.accounts()
    try:
        yield accounts
    finally:
        accounts.close()


@click.group()
def user() -> None:
    """Add, disable and list the users of a realm.

    NAME is alice@dc1.ntm.example, or just alice where the realm has one coordinator.
    """


@user.command()
@click.argument("name")
@realm_option()
@password_option()
def add(name: str, directory: Path, password_file: Path | None) -> None:
    """Add a user, asking for the password unless --password-file has it."""
    realm = Realm(directory)
    full = realm.registry.user_name(name)
    realm.registry.check_new_user(full)
    with opened_accounts(realm) as accounts:
        if accounts.user(full) is not None:  # before anybody types a password in vain
            raise AlreadyExists(f"{full} is there already; ntm user password changes its password")
        password = check_password(read_password(password_file, confirm=True))
        accounts.add_user(full, hash_password(password))
    label, _, domain = full.partition(".")
    say(
        f"Added {full}.",
        f"Give this user a copy of {directory / 'ca.pem'}. With it, and the password, each device",
        "is enrolled, under a name of its own such as phone, on that device:",
    )
    command = ["ntm", "enroll", f"{label}@{domain}", "--device", "phone", "--trust", "ca.pem"]
    entry = realm.registry.coordinators[domain]
    if ip_address(entry.addresses[0]).is_loopback:  # a trial on one machine, without DNS
        command += ["--dc", f"{entry.addresses[0]}:{entry.port}"]
    say_next(command)


@user.command()
@click.argument("name")
@realm_option()
@password_option()
def password(name: str, directory: Path, password_file: Path | None) -> None:
    """Change a user's password; devices that are enrolled stay."""
    realm = Realm(directory)
    full = realm.registry.user_name(name)
    with opened_accounts(realm) as accounts:
        new = check_password(read_password(password_file, confirm=True))
        accounts.set_password(full, hash_password(new))
    say(f"Changed the password of {full}.")


@user.command()
@click.argument("name")
@realm_option()
def disable(name: str, directory: Path) -> None:
    """Disable a user: nobody logs in any more, and the devices' certificates end now."""
    realm = Realm(directory)
    full = realm.registry.user_name(name)
    with opened_accounts(realm) as accounts:
        revoked = accounts.set_disabled(full, True, time.time())
    devices = len({each.fqdn for each in revoked})
    say(
        f"{full} is disabled; {devices} {'device was' if devices == 1 else 'devices were'} revoked."
    )


@user.command()
@click.argument("name")
@realm_option()
def enable(name: str, directory: Path) -> None:
    """Enable a user that was disabled; its devices log in again by themselves."""
    realm = Realm(directory)
    full = realm.registry.user_name(name)
    with opened_accounts(realm) as accounts:
        accounts.set_disabled(full, False, time.time())
    say(f"{full} is enabled.")


@user.command("list")
@realm_option()
def list_users(directory: Path) -> None:
    """List the users, with how many devices each has."""
    rows = [("USER", "STATE", "DEVICES")]
    with opened_accounts(Realm(directory)) as accounts:
        for each in accounts.users():
            devices = sum(not device.removed for device in accounts.devices(each.name))
            rows.append((each.name, "disabled" if each.disabled else "enabled", str(devices)))
    say_table(rows)


group = user
