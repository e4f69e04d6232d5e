"""``ntm realm``: make a realm, and add servers and trust to it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import click

from ntmobile.commands.output import PATH, checked_addresses, say, say_next, say_table
from ntmobile.errors import AlreadyExists
from ntmobile.servers.configuration import AS_PORT, CS_PORT, DC_PORT, DNS_PORT, RS_PORT
from ntmobile.servers.realm import Outcome, Realm

PORT = click.IntRange(1, 65535)
DIRECTORY = click.argument("directory", type=PATH, metavar="DIR")
ADDRESSES = click.option(
    "--address",
    "addresses",
    multiple=True,
    required=True,
    metavar="A",
    help="Address where others reach it, IPv4 or IPv6; may be repeated.",
)


@click.group()
def realm() -> None:
    """Set up a realm: authority, servers, trust."""


@realm.command()
@DIRECTORY
@click.option("--domain", required=True, help="The realm's domain, such as ntm.example.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    default=("127.0.0.1",),
    show_default=True,
    help="Address where coordinators reach the account server; may be repeated.",
)
@click.option("--port", type=PORT, default=AS_PORT, show_default=True, help="Its TCP port.")
def init(directory: Path, domain: str, addresses: tuple[str, ...], port: int) -> None:
    """Make a realm in DIR: its authority, and the account server with its configuration.

    A realm that is there already is left as it is.
    """
    try:
        made = Realm.create(directory, domain, checked_addresses(addresses), port)
    except AlreadyExists as problem:
        if Realm(directory).domain != domain:
            raise
        say(str(problem))
        return
    where = ", ".join(made.account_server().listening.addresses)
    say(
        f"The realm {domain} is in {directory}:",
        "  authority/   the root key, needed only to add servers; keep a copy offline",
        "  as.toml as/  the account server, with the accounts",
        "  ca.pem       what devices and other realms are given to trust this one",
        f"Its account server is reached at {where} port {port}.",
    )
    say_next(["ntm", "realm", "add-dc", directory, f"dc1.{domain}", "--address", "ADDRESS"])


@realm.command("add-dc")
@DIRECTORY
@click.argument("domain")
@ADDRESSES
@click.option("--port", type=PORT, help=f"Its TCP and UDP port; at first {DC_PORT}.")
@click.option("--dns-port", type=PORT, help=f"Its port for DNS; at first {DNS_PORT}.")
def add_dc(
    directory: Path,
    domain: str,
    addresses: tuple[str, ...],
    port: int | None,
    dns_port: int | None,
) -> None:
    """Add the direction coordinator of DOMAIN, or change where it is reached."""
    opened = Realm(directory)
    outcome = opened.add_coordinator(domain, checked_addresses(addresses), port, dns_port)
    if not outcome.made:
        _say_changed(domain, outcome)
        return
    say(
        f"The coordinator of {domain} is in {outcome.path}.",
        "That directory may be moved as a whole to the machine where it shall run.",
        f"So that others find it, delegate {domain} in the DNS:",
        f"  {domain}. NS ns.{domain}.",
    )
    for address in opened.registry.coordinators[domain].addresses:
        kind = "A" if ip_address(address).version == 4 else "AAAA"
        say(f"  ns.{domain}. {kind} {address}")
    server = opened.account_server().listening.addresses
    loopback = [ip_address(each).is_loopback for each in server]
    if all(loopback) and not all(ip_address(each).is_loopback for each in addresses):
        say(
            f"It finds the account server at {server[0]}, so only on this machine. To run it",
            f"elsewhere, change addresses in {directory / 'as.toml'} and repeat this command.",
        )
    say_next(
        ["twistd", "-n", "ntm-as", "--config", directory / "as.toml"],
        ["twistd", "-n", "ntm-dc", "--config", outcome.file],
        ["ntm", "user", "add", f"alice@{domain}", "--realm", directory],
    )


@realm.command("add-relay")
@DIRECTORY
@click.argument("name")
@click.option("--dc", "domain", required=True, metavar="DOMAIN", help="Domain of its coordinator.")
@ADDRESSES
@click.option("--port", type=PORT, help=f"Its UDP port; at first {RS_PORT}.")
def add_relay(
    directory: Path, name: str, domain: str, addresses: tuple[str, ...], port: int | None
) -> None:
    """Add the relay server NAME to a coordinator, or change where it is reached."""
    outcome = Realm(directory).add_relay(name, domain, checked_addresses(addresses), port)
    if not outcome.made:
        _say_changed(name, outcome)
        return
    say(
        f"The relay {name} of {domain} is in {outcome.file} and {outcome.path}.",
        "Both may be moved together to the machine where it shall run.",
    )
    say_next(["twistd", "-n", "ntm-relay", "--config", outcome.file])


@realm.command("add-cache")
@DIRECTORY
@click.argument("name")
@click.option("--dc", "domain", required=True, metavar="DOMAIN", help="Domain of its coordinator.")
@ADDRESSES
@click.option("--port", type=PORT, help=f"Its TCP port; at first {CS_PORT}.")
def add_cache(
    directory: Path, name: str, domain: str, addresses: tuple[str, ...], port: int | None
) -> None:
    """Add the cache server NAME to a coordinator, or change where it is reached."""
    outcome = Realm(directory).add_cache(name, domain, checked_addresses(addresses), port)
    if not outcome.made:
        _say_changed(name, outcome)
        return
    say(
        f"The cache server {name} of {domain} is in",
        f"  {outcome.file} and {outcome.path}.",
        "Both may be moved together to the machine where it shall run.",
        "Restart the account server, which tells it who may use it.",
    )
    say_next(["twistd", "-n", "ntm-cache", "--config", outcome.file])


def _say_changed(name: str, outcome: Outcome) -> None:
    if outcome.changed:
        say(f"{name} is there already; changed: {', '.join(outcome.changed)}.")
        say(f"Restart it with {outcome.file}.")
    else:
        say(f"{name} is there already, just so; nothing was changed.")


@realm.command()
@DIRECTORY
@click.argument("suffix")
@click.argument("bundle", type=PATH, metavar="CA.pem")
@click.option("--replace", is_flag=True, help="Put it in the place of another for this suffix.")
def trust(directory: Path, suffix: str, bundle: Path, replace: bool) -> None:
    """Trust another realm's authority, CA.pem, for all names under SUFFIX and no others."""
    opened = Realm(directory)
    told = opened.trust(suffix, bundle, replace=replace)
    say(f"Names under {suffix} are now verified with {bundle}.", "Restart the servers of:")
    say(*(f"  {file}" for file in told))
    missing = [each for each in opened.registry.coordinators if not (directory / each).exists()]
    if missing:
        say(f"Not here, so not told: {', '.join(missing)}. There, copy the file to trust/ and")
        say(f'write in dc.toml, below [foreign]: "{suffix}" = "trust/{suffix}.pem"')
    for name in opened.registry.caches:
        if not (directory / "caches" / f"{name}.toml").exists():
            say(f"Not here, so not told: {name}. There, copy the file to {name}/trust/ and write")
            say(f"in {name}.toml, below [foreign]:", f'  "{suffix}" = "{name}/trust/{suffix}.pem"')


@realm.command()
@DIRECTORY
def renew(directory: Path) -> None:
    """Renew the servers' certificates that are near their end; keys stay."""
    opened = Realm(directory)
    renewed, elsewhere = opened.renew(), opened.elsewhere()
    say(*(f"Renewed: {each}; restart it." for each in renewed))
    if not renewed:
        here = " here" if elsewhere else ""
        say(f"No certificate{here} is near its end; nothing was changed.")
    if elsewhere:
        say(f"Not here, so not looked at: {', '.join(elsewhere)}.")


@realm.command()
@DIRECTORY
def show(directory: Path) -> None:
    """Show what belongs to a realm."""
    opened = Realm(directory)
    listening = opened.account_server().listening
    rows = [("ROLE", "NAME", "ADDRESSES", "PORT")]
    rows.append(("as", opened.domain, " ".join(listening.addresses), str(listening.port)))
    for domain, entry in opened.registry.coordinators.items():
        rows.append(("dc", domain, " ".join(entry.addresses), str(entry.port)))
    for role, entries in (("rs", opened.registry.relays), ("cs", opened.registry.caches)):
        for name, attached in entries.items():
            full = f"{name}.{attached.coordinator}"
            rows.append((role, full, " ".join(attached.addresses), str(attached.port)))
    say_table(rows)
    trusted = sorted(opened.account_server().identity.foreign)
    say(*(f"trusts {suffix}" for suffix in trusted))


group = realm
