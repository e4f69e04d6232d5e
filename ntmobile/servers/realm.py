"""The directory of a realm: what ``ntm realm`` makes, and adds to (design section 7).

::

    DIR/realm.toml               what belongs to the realm; written here, read by the ntm command
    DIR/ca.pem                   what others are given to trust the realm
    DIR/authority/               the root's key and certificate; needed only to add something
    DIR/as.toml  DIR/as/         the account server, with the device-CA and the accounts
    DIR/trust/                   authorities of foreign realms
    DIR/DOMAIN/                  a coordinator: dc.toml and all it needs; may be moved as a whole
    DIR/relays/NAME.toml  NAME/  a relay and all it needs
    DIR/caches/NAME.toml  NAME/  a cache server and all it needs

Keys are made once and never replaced. What is made appears whole, or not at all.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from ntmobile.errors import AlreadyExists, ConfigurationError, UnknownName
from ntmobile.interfaces import IAccountStore, IAccountStoreProvider
from ntmobile.plugins import find
from ntmobile.plugins.files import make_directory, read_file, write_file
from ntmobile.servers.attached import CACHES, RELAYS, Attached
from ntmobile.servers.authority import Signer, issue_device_ca, issue_root
from ntmobile.servers.configuration import (
    DC_PORT,
    DNS_PORT,
    AccountServerConfiguration,
    load_account_server,
)
from ntmobile.servers.credentials import load_authority, load_signer
from ntmobile.servers.realm_files import (
    ACCOUNT_SERVER,
    COORDINATOR,
    Place,
    Value,
    change,
    fill,
)
from ntmobile.servers.realm_keys import (
    is_ending,
    renew_server,
    staged,
    write_server,
    write_signer,
)
from ntmobile.servers.registry import Registry
from ntmobile.servers.trusted import check_told, with_realm
from ntmobile.wire import names
from ntmobile.wire.certificates import Authority


@frozen
class Outcome:
    """What adding something did.

    :ivar path: the server's directory or file. :ivar file: its TOML file.
    :ivar made: whether it is new. :ivar changed: otherwise, what was changed, in words.
    """

    path: Path
    file: Path
    made: bool
    changed: tuple[str, ...] = ()


class Realm:
    """A realm's directory.

    :ivar directory: where. :ivar registry: what belongs to it.
    """

    def __init__(self, directory: Path) -> None:
        """Open a realm; :class:`ConfigurationError` if there is none."""
        self.directory = directory
        self.registry = Registry.read(directory / "realm.toml")

    @property
    def domain(self) -> str:
        """The realm's name."""
        return self.registry.realm

    @classmethod
    def create(cls, directory: Path, domain: str, addresses: Sequence[str], port: int) -> Realm:
        """Make a new realm with its authority and account server.

        :raises AlreadyExists: there is one.
        :raises ConfigurationError: there is something else.
        """
        names.check_domain(domain)
        if (directory / "realm.toml").exists():
            found = cls(directory).domain
            raise AlreadyExists(f"{directory} is the realm {found} already; nothing was changed")
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigurationError(f"{directory} holds something else; name a new directory")
        directory.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        with staged(directory) as stage:
            root = issue_root(domain, now)
            device_ca = issue_device_ca(root, domain, now)
            authority = Authority(domain, domain, root.certificate, (device_ca.certificate,))
            for name in ("authority", "as", "trust", "relays", "caches"):
                make_directory(stage / name)
            write_signer(root, stage / "authority" / "root")
            write_signer(device_ca, stage / "as" / "device-ca")
            write_file(stage / "ca.pem", authority.to_pem(), 0o644)
            write_server(root, "as", domain, stage / "as" / "as")
            text = fill(ACCOUNT_SERVER, realm=domain, addresses=addresses, port=port)
            write_file(stage / "as.toml", text.encode(), 0o644)
            Registry(domain).write(stage / "realm.toml")
            _open_accounts(load_account_server(stage / "as.toml"), make=True).close()
        return cls(directory)

    def account_server(self) -> AccountServerConfiguration:
        """The account server's configuration."""
        return load_account_server(self.directory / "as.toml")

    def accounts(self) -> IAccountStore:
        """Open the accounts; the caller closes them. The account server may be running."""
        return _open_accounts(self.account_server(), make=False)

    def add_coordinator(
        self,
        domain: str,
        addresses: Sequence[str],
        port: int | None = None,
        dns_port: int | None = None,
    ) -> Outcome:
        """Make a coordinator's directory, or bring one that exists up to date.

        :param port: :param dns_port: None stands for the default, or for what it is already.
        """
        self._check_domain(domain)
        directory = self.directory / domain
        file = directory / "dc.toml"
        server = self.account_server().listening
        with self._locked():
            if self._is_new("coordinators", domain, directory, file):
                with staged(directory) as stage:
                    make_directory(stage / "state")
                    make_directory(stage / "trust")
                    write_server(self._root(), "dc", domain, stage / "dc")
                    text = fill(
                        COORDINATOR,
                        domain=domain,
                        realm=self.domain,
                        addresses=addresses,
                        port=port or DC_PORT,
                        dns_port=dns_port or DNS_PORT,
                        as_addresses=server.addresses,
                        as_port=server.port,
                    )
                    write_file(stage / "dc.toml", text.encode(), 0o644)
                    self._write_trust(stage, stage / "dc.toml")
                outcome = Outcome(directory, file, True)
            else:
                changes: dict[Place, Value] = {
                    ("", "addresses"): addresses,
                    ("account_server", "addresses"): server.addresses,
                    ("account_server", "port"): server.port,
                }
                changes |= {("", "port"): port} if port else {}
                changes |= {("", "dns_port"): dns_port} if dns_port else {}
                changed = change(file, changes)
                changed += self._write_trust(directory, file)
                changed += self._renewed("dc", domain, directory / "dc")
                outcome = Outcome(directory, file, False, tuple(changed))
            entry = self.registry.add_coordinator(domain, file)
            for kind, entries in self.registry.attached():
                for name, attached in entries.items():
                    path = self.directory / kind / f"{name}.toml"
                    if attached.coordinator == domain and path.exists():
                        change(path, entry.as_coordinator())
            self.registry.write(self.directory / "realm.toml")
        return outcome

    def add_relay(
        self, name: str, domain: str, addresses: Sequence[str], port: int | None = None
    ) -> Outcome:
        """Make a relay's files, or bring those that exist up to date."""
        if len({":" in address for address in addresses}) != len(addresses):
            raise ConfigurationError(
                "a relay server has at most one address of each family; add another relay for more"
            )
        return self._add(RELAYS, name, domain, addresses, port)

    def add_cache(
        self, name: str, domain: str, addresses: Sequence[str], port: int | None = None
    ) -> Outcome:
        """Make a cache server's files, or bring those that exist up to date.

        The account server is told where it is, because it tells it of tokens.
        """
        outcome = self._add(CACHES, name, domain, addresses, port)
        entry = self.registry.caches[name]
        places = [f"[{each}]" if ":" in each else each for each in entry.addresses]
        full = f"{name}.{domain}"
        with self._locked():
            told: dict[Place, Value] = {
                ("caches", full): [f"{place}:{entry.port}" for place in places]
            }
            change(self.directory / "as.toml", told)
        return outcome

    def _add(
        self, kind: Attached, name: str, domain: str, addresses: Sequence[str], port: int | None
    ) -> Outcome:
        """Make the files of a server that belongs to a coordinator, or bring them up to date."""
        names.check_user(name)
        coordinator = self.registry.coordinators.get(domain)
        if coordinator is None:
            raise UnknownName(f"there is no coordinator of {domain}; see ntm realm add-dc")
        full = names.check_server(f"{name}.{domain}")
        directory = self.directory / kind.folder / name
        file = directory.parent / f"{name}.toml"
        other = dict(self.registry.attached())[kind.folder].get(name)
        if other is not None and other.coordinator != domain:
            raise AlreadyExists(
                f"the {kind.word} {name} is of {other.coordinator}; choose another name"
            )
        self._check_no_user(full)
        with self._locked():
            if self._is_new(kind.folder, name, directory, file):
                make_directory(directory.parent)
                if not (directory / f"{kind.role}.key").exists():
                    with staged(directory) as stage:
                        write_server(self._root(), kind.role, full, stage / kind.role)
                        write_file(stage / "ca.pem", read_file(self.directory / "ca.pem"), 0o644)
                text = fill(
                    kind.template,
                    name=full,
                    realm=self.domain,
                    addresses=addresses,
                    port=port or kind.port,
                    certificate=f"{name}/{kind.role}.pem",
                    key=f"{name}/{kind.role}.key",
                    trust=f"{name}/ca.pem",
                    state=f"{name}/state",
                    domain=domain,
                    dc_addresses=coordinator.addresses,
                    dc_port=coordinator.port,
                )
                write_file(file, text.encode(), 0o644)
                outcome = Outcome(directory, file, True)
                if kind.trusts:
                    self._write_trust(directory, file)
            else:
                changes = {("", "addresses"): addresses, **coordinator.as_coordinator()}
                changes |= {("", "port"): port} if port else {}
                changed = change(file, changes)
                changed += self._renewed(kind.role, full, directory / kind.role)
                if kind.trusts:
                    changed += self._write_trust(directory, file)
                outcome = Outcome(directory, file, False, tuple(changed))
            kind.take_in(self.registry, name, file)
            self.registry.write(self.directory / "realm.toml")
        return outcome

    def trust(self, suffix: str, bundle: Path, *, replace: bool = False) -> list[Path]:
        """Trust a foreign realm's authority for the names under a suffix.

        The account server, and every coordinator and cache server whose files are here, is told.

        :return: the TOML files of the servers that now trust it.
        :raises AlreadyExists: another authority is trusted for it, and ``replace`` is not set.
        :raises ConfigurationError: it is none, or devices cannot be told of one more.
        """
        authority = load_authority(names.check_domain(suffix), bundle)
        if names.is_within(suffix, self.domain):
            raise ConfigurationError(f"{suffix} is within this realm; it needs no trust")
        if not names.is_within(suffix, authority.realm):
            raise ConfigurationError(
                f"{bundle}: the authority of {authority.realm}, which {suffix} is not within; "
                f"ask who runs that realm for its ca.pem"
            )
        file = self.directory / "trust" / f"{suffix}.pem"
        if file.exists() and load_authority(suffix, file) != authority and not replace:
            raise AlreadyExists(
                f"another authority is trusted for {suffix}; --replace puts this one in its place"
            )
        with self._locked():
            trust = self.account_server().identity.trust()
            check_told(read_file(self.directory / "ca.pem"), with_realm(trust, suffix, authority))
            make_directory(file.parent)
            write_file(file, authority.to_pem(), 0o644)
            told = [self.directory / "as.toml"]
            change(told[0], {("foreign", suffix): f"trust/{suffix}.pem"})
            for domain in self.registry.coordinators:
                configuration = self.directory / domain / "dc.toml"
                if configuration.exists():
                    self._write_trust(configuration.parent, configuration)
                    told.append(configuration)
            for name in self.registry.caches:
                configuration = self.directory / "caches" / f"{name}.toml"
                if configuration.exists():
                    self._write_trust(configuration.with_suffix(""), configuration)
                    told.append(configuration)
        return told

    def renew(self) -> list[str]:
        """Renew certificates that are in the last third of their life; the servers' names."""
        with self._locked():
            renewed = self._renewed("as", self.domain, self.directory / "as" / "as")
            for domain in self.registry.coordinators:
                renewed += self._renewed("dc", domain, self.directory / domain / "dc")
            for role, full, stem in self._attached():
                renewed += self._renewed(role, full, stem)
        return renewed

    def elsewhere(self) -> list[str]:
        """The servers whose certificates are not here, because they were moved away."""
        stems = {domain: self.directory / domain / "dc" for domain in self.registry.coordinators}
        stems |= {full: stem for _, full, stem in self._attached()}
        return [name for name, stem in stems.items() if not stem.with_suffix(".pem").exists()]

    # -- Within

    def _attached(self) -> Iterator[tuple[str, str, Path]]:
        """Role, full name and stem of certificate and key of relays and cache servers."""
        for kind in (RELAYS, CACHES):
            for name, entry in dict(self.registry.attached())[kind.folder].items():
                stem = self.directory / kind.folder / name / kind.role
                yield kind.role, f"{name}.{entry.coordinator}", stem

    def _check_domain(self, domain: str) -> None:
        names.check_domain(domain)
        if not names.is_within(domain, self.domain):
            raise ConfigurationError(f"{domain} is not within {self.domain}, which this realm is")
        self._check_no_user(domain)

    def _check_no_user(self, server: str) -> None:
        """Refuse a server's name that is, or lies below, a user's (rule R1)."""
        accounts = self.accounts()
        try:
            taken = [each.name for each in accounts.users() if names.is_within(server, each.name)]
        finally:
            accounts.close()
        if taken:
            raise AlreadyExists(f"{server} belongs to the user {taken[0]}; choose another name")

    def _is_new(self, kind: str, name: str, directory: Path, file: Path) -> bool:
        """Whether a server is to be made; it is not if it only was moved away."""
        if file.exists():
            return False
        if name in getattr(self.registry, kind):
            raise ConfigurationError(
                f"{name} was made, but {file} is not here; put it back, or remove {name} "
                f"from {self.directory / 'realm.toml'} to make it anew"
            )
        if kind == "coordinators" and directory.exists():
            raise ConfigurationError(f"{directory} holds something else; move it away")
        return True

    def _renewed(self, role: str, name: str, stem: Path) -> list[str]:
        """Renew a server's certificate if its end is near; what was renewed, in words."""
        if not is_ending(stem):
            return []
        renew_server(self._root(), role, name, stem)
        return [f"the certificate of {role}:{name}"]

    def _root(self) -> Signer:
        stem = self.directory / "authority" / "root"
        return load_signer(stem.with_suffix(".pem"), stem.with_suffix(".key"))

    def _write_trust(self, directory: Path, file: Path) -> list[str]:
        """Copy the realm's bundle and the foreign ones to a server, and name them in its file."""
        write_file(directory / "ca.pem", read_file(self.directory / "ca.pem"), 0o644)
        changed: list[str] = []
        for bundle in sorted((self.directory / "trust").glob("*.pem")):
            make_directory(directory / "trust")
            write_file(directory / "trust" / bundle.name, read_file(bundle), 0o644)
            place = (directory / "trust" / bundle.name).relative_to(file.parent)
            changed += change(file, {("foreign", bundle.stem): str(place)})
        return changed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other commands out, and see what they did before."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.registry = Registry.read(self.directory / "realm.toml")
            yield
        finally:
            os.close(descriptor)


def _open_accounts(configuration: AccountServerConfiguration, *, make: bool) -> IAccountStore:
    plugin, section = configuration.store
    provider: IAccountStoreProvider = find(IAccountStoreProvider, plugin)
    return provider.open(section, configuration.file.parent, make=make)
