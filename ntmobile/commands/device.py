"""``ntm device``: the devices of a realm's users, as the account server knows them."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ntmobile.commands.output import date, realm_option, say, say_table
from ntmobile.commands.user import opened_accounts
from ntmobile.errors import UnknownName
from ntmobile.servers.realm import Realm
from ntmobile.wire.names import check_fqdn


@click.group()
def device() -> None:
    """List and remove the devices of a user."""


@device.command("list")
@click.argument("user")
@realm_option()
def list_devices(user: str, directory: Path) -> None:
    """List the devices of USER, with when each was enrolled and until when it is certified."""
    realm = Realm(directory)
    name = realm.registry.user_name(user)
    with opened_accounts(realm) as accounts:
        if accounts.user(name) is None:
            raise UnknownName(f"there is no user {name}; ntm user list shows who there is")
        devices = accounts.devices(name)
    rows = [("DEVICE", "ENROLLED", "CERTIFIED UNTIL")]
    for each in devices:
        until = "removed" if each.removed else date(each.certificate.not_after)
        rows.append((each.fqdn, date(each.enrolled_at), until))
    say_table(rows)


@device.command()
@click.argument("fqdn")
@realm_option()
def remove(fqdn: str, directory: Path) -> None:
    """Remove the device FQDN: its certificate ends now, and it must be enrolled again."""
    with opened_accounts(Realm(directory)) as accounts:
        accounts.remove(check_fqdn(fqdn), time.time())
    say(f"Removed {fqdn}; running servers hear of it within a second.")


group = device
