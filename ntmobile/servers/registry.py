"""What belongs to a realm: ``realm.toml``, which remembers servers that were moved elsewhere."""

from __future__ import annotations

from pathlib import Path

from attrs import Factory, define, frozen

from ntmobile.errors import AlreadyExists, ConfigurationError, UnknownName
from ntmobile.plugins.files import write_file
from ntmobile.plugins.section import Section
from ntmobile.servers.cache_configuration import CacheConfiguration, load_cache
from ntmobile.servers.configuration import RelayConfiguration, load_coordinator, load_relay
from ntmobile.servers.realm_files import Place, Value, literal
from ntmobile.wire import names


@frozen
class CoordinatorEntry:
    """A coordinator: numeric addresses, and ports."""

    addresses: tuple[str, ...]
    port: int
    dns_port: int

    def as_coordinator(self) -> dict[Place, Value]:
        """What the file of a relay or cache server says of it."""
        return {("coordinator", "addresses"): self.addresses, ("coordinator", "port"): self.port}


@frozen
class AttachedEntry:
    """A relay or cache server: its coordinator's domain, numeric addresses, and port."""

    coordinator: str
    addresses: tuple[str, ...]
    port: int


def _take_in(
    entries: dict[str, AttachedEntry], name: str, found: RelayConfiguration | CacheConfiguration
) -> AttachedEntry:
    listening = found.listening
    entry = entries[name] = AttachedEntry(
        found.coordinator.name, listening.addresses, listening.port
    )
    return entry


@define
class Registry:
    """The servers of a realm, by domain and by name.

    :ivar realm: the realm's domain.
    """

    realm: str
    coordinators: dict[str, CoordinatorEntry] = Factory(dict)
    relays: dict[str, AttachedEntry] = Factory(dict)
    caches: dict[str, AttachedEntry] = Factory(dict)

    @classmethod
    def read(cls, file: Path) -> Registry:
        """Read ``realm.toml``; :class:`ConfigurationError` if there is none, or a wrong one."""
        if not file.exists():
            raise ConfigurationError(f"{file.parent} is no realm; ntm realm init makes one")
        top = Section.read(file)
        found = cls(top.text("realm", check=names.check_domain, expected="the realm's domain"))
        coordinators = top.section("coordinators")
        for domain in coordinators:
            entry = coordinators.section(domain)
            found.coordinators[domain] = CoordinatorEntry(
                entry.addresses("addresses"), entry.port("port"), entry.port("dns_port")
            )
            entry.finish()
        for kind, entries in found.attached():
            section = top.section(kind)
            for name in section:
                entry = section.section(name)
                entries[name] = AttachedEntry(
                    entry.text("coordinator", check=names.check_domain),
                    entry.addresses("addresses"),
                    entry.port("port"),
                )
                entry.finish()
        top.finish()
        return found

    def add_coordinator(self, domain: str, file: Path) -> CoordinatorEntry:
        """Take in, or anew, what a coordinator's file says."""
        found = load_coordinator(file)
        entry = CoordinatorEntry(found.listening.addresses, found.listening.port, found.dns_port)
        self.coordinators[domain] = entry
        return entry

    def attached(self) -> tuple[tuple[str, dict[str, AttachedEntry]], ...]:
        """The servers that belong to coordinators, by their kinds: ``relays`` and ``caches``."""
        return ("relays", self.relays), ("caches", self.caches)

    def add_relay(self, name: str, file: Path) -> AttachedEntry:
        """Take in, or anew, what a relay's file says."""
        return _take_in(self.relays, name, load_relay(file))

    def add_cache(self, name: str, file: Path) -> AttachedEntry:
        """Take in, or anew, what a cache server's file says."""
        return _take_in(self.caches, name, load_cache(file))

    def user_name(self, text: str) -> str:
        """The user that ``alice@dc1.ntm.example``, or ``alice`` where there is one DC, means.

        :return: such as ``alice.dc1.ntm.example``.
        :raises UnknownName: there is no such domain, or several and none is named.
        :raises InvalidName: the name cannot be a user's.
        """
        domains = list(self.coordinators)
        if "@" in text:
            user, domain = names.split_account(text)
            if domain not in domains:
                raise UnknownName(f"there is no coordinator of {domain}; see ntm realm add-dc")
        elif "." in text:
            user, _, domain = text.partition(".")
            names.check_user(user)
            if domain not in domains:
                raise UnknownName(f"{text}: write USER@DOMAIN, with a domain of this realm")
        else:
            user = names.check_user(text)
            if len(domains) != 1:
                listed = ", ".join(domains) or "none yet, see ntm realm add-dc"
                raise UnknownName(f"{text} of which domain? Write {text}@DOMAIN; here: {listed}")
            domain = domains[0]
        return f"{user}.{domain}"

    def check_new_user(self, name: str) -> None:
        """Refuse a user whose name is, or contains, that of a server (rule R1)."""
        attached = [
            f"{each}.{entry.coordinator}"
            for _, entries in self.attached()
            for each, entry in entries.items()
        ]
        for server in (*self.coordinators, *attached):
            if names.is_within(server, name):
                raise AlreadyExists(f"{name} is the name of a server; choose another user name")

    def write(self, file: Path) -> None:
        """Write ``realm.toml``."""
        lines = ["# What belongs to this realm. Written by ntm realm.", ""]
        lines.append(f"realm = {literal(self.realm)}")
        for domain, entry in sorted(self.coordinators.items()):
            lines += ["", f"[coordinators.{literal(domain)}]"]
            lines += [f"addresses = {literal(entry.addresses)}", f"port = {entry.port}"]
            lines += [f"dns_port = {entry.dns_port}"]
        for kind, entries in self.attached():
            for name, attached in sorted(entries.items()):
                lines += ["", f"[{kind}.{literal(name)}]"]
                lines += [f"coordinator = {literal(attached.coordinator)}"]
                lines += [f"addresses = {literal(attached.addresses)}", f"port = {attached.port}"]
        write_file(file, ("\n".join(lines) + "\n").encode(), 0o644)
