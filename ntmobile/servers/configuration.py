"""What the servers read from their TOML files (design section 7).

Paths in a file are relative to it, so that a server's directory can be moved as a whole. Sections
of plugins are handed to the plugin as they are. Every mistake is a
:class:`~ntmobile.errors.ConfigurationError` that names file, key, and what is expected there.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from attrs import frozen

from ntmobile.errors import InvalidName
from ntmobile.plugins.lookup_options import parse_address
from ntmobile.plugins.section import REQUIRED, Section
from ntmobile.servers.credentials import Credentials, load_credentials, load_trust
from ntmobile.wire import names, virtual
from ntmobile.wire.certificates import TrustStore

#: Default ports (design section 7).
AS_PORT: Final = 4335
DC_PORT: Final = 4330
DNS_PORT: Final = 53
RS_PORT: Final = 4331
CS_PORT: Final = 4332
#: Least and most virtual addresses that a pool may have.
_PREFIXES: Final = range(8, 29)


@frozen
class Listening:
    """Where a server is.

    :ivar addresses: numeric addresses under which others reach it; these are told to them.
    :ivar listen: numeric addresses that it binds to; the same unless the file says otherwise.
    :ivar port: the port, at both.
    """

    addresses: tuple[str, ...]
    listen: tuple[str, ...]
    port: int

    @classmethod
    def read(cls, section: Section, default_port: int) -> Listening:
        """Read ``addresses``, ``listen`` and ``port``."""
        addresses = section.addresses("addresses")
        return cls(
            addresses,
            section.addresses("listen", addresses),
            section.port("port", default_port),
        )


@frozen
class Server:
    """Another server of the realm: who it must prove to be, and where it is.

    :ivar role: :ivar name: as its certificate says. :ivar addresses: numeric. :ivar port: TCP.
    """

    role: str
    name: str
    addresses: tuple[str, ...]
    port: int


@frozen
class Identity:
    """What a server proves itself with, and whom it trusts. Files are read when asked for.

    :ivar role: :ivar name: what its certificate must say. :ivar realm: its realm.
    :ivar certificate: :ivar key: :ivar bundle: PEM files; the bundle is the realm's ``ca.pem``.
    :ivar foreign: domain suffix → bundle of a foreign realm.
    """

    role: str
    name: str
    realm: str
    certificate: Path
    key: Path
    bundle: Path
    foreign: dict[str, Path]

    @classmethod
    def read(cls, section: Section, role: str, name: str, realm: str) -> Identity:
        """Read ``certificate``, ``key``, ``trust`` and ``[foreign]``."""
        foreign = section.section("foreign")
        for suffix in foreign:
            if names.is_within(suffix, realm):
                raise foreign.problem(suffix, f"not foreign: it is within the own realm, {realm}")
            _key_is_domain(foreign, suffix)
        bundles = {suffix: foreign.path(suffix) for suffix in foreign}
        return cls(
            role,
            name,
            realm,
            section.path("certificate"),
            section.path("key"),
            section.path("trust"),
            bundles,
        )

    def credentials(self) -> Credentials:
        """Load key and certificate; see :func:`load_credentials`."""
        return load_credentials(self.certificate, self.key, self.role, self.name)

    def trust(self) -> TrustStore:
        """Load the realm's authority and the foreign ones; see :func:`load_trust`."""
        return load_trust(self.realm, self.bundle, self.foreign)


@frozen
class CachePlace:
    """A cache server that the AS tells of tokens.

    :ivar name: full name, ``NAME.DOMAIN``. :ivar endpoints: numeric addresses and ports, TCP.
    """

    name: str
    endpoints: tuple[tuple[str, int], ...]


@frozen
class AccountServerConfiguration:
    """``as.toml``.

    :ivar identity: of role ``as``, named as the realm. :ivar listening: TCP.
    :ivar device_ca_certificate: :ivar device_ca_key: PEM files of what signs device certificates.
    :ivar device_certificate_lifetime: seconds (rule R3).
    :ivar lease: seconds for which a server that lost the AS may still accept new work (R34).
    :ivar store: the account store's plugin and its section. :ivar caches: of the realm.
    """

    file: Path
    realm: str
    identity: Identity
    listening: Listening
    device_ca_certificate: Path
    device_ca_key: Path
    device_certificate_lifetime: float
    lease: float
    store: tuple[str, Section]
    caches: tuple[CachePlace, ...] = ()


def load_account_server(file: Path) -> AccountServerConfiguration:
    """Read an account server's file."""
    top = Section.read(file)
    realm = top.text("realm", check=names.check_domain, expected="the realm's domain")
    device_ca = top.section("device_ca", optional=False)
    configuration = AccountServerConfiguration(
        file=file,
        realm=realm,
        identity=Identity.read(top, "as", realm, realm),
        listening=Listening.read(top, AS_PORT),
        device_ca_certificate=device_ca.path("certificate"),
        device_ca_key=device_ca.path("key"),
        device_certificate_lifetime=top.seconds(
            "device_certificate_lifetime", 86400.0, low=60, high=30 * 86400
        ),
        lease=top.seconds("lease", 600.0, low=5, high=86400),
        store=top.plugin("store", "sqlite"),
        caches=_caches(top.section("caches"), realm),
    )
    device_ca.finish()
    top.finish()
    return configuration


@frozen
class CoordinatorConfiguration:
    """``dc.toml``.

    :ivar identity: of role ``dc``, named as the domain. :ivar listening: TCP and UDP.
    :ivar dns_port: UDP and TCP, at the same addresses. :ivar account_server: the realm's AS.
    :ivar state: directory for what must survive a restart.
    :ivar pool: virtual IPv4 addresses for this domain's devices.
    :ivar dns_networks: from where virtual addresses may be asked by DNS.
    :ivar keepalive: shortest and longest interval of clients' keep-alives, seconds.
    :ivar allow: who may reach a client that has no list of its own (rule R13).
    :ivar lookup: :ivar notify: :ivar locations: :ivar waiting: plugins and their sections.
    """

    file: Path
    domain: str
    realm: str
    identity: Identity
    listening: Listening
    dns_port: int
    account_server: Server
    state: Path
    pool: IPv4Network
    dns_networks: tuple[IPv4Network | IPv6Network, ...]
    keepalive: tuple[float, float]
    allow: tuple[str, ...]
    lookup: tuple[str, Section]
    notify: tuple[str, Section]
    locations: tuple[str, Section]
    waiting: tuple[str, Section]


def load_coordinator(file: Path) -> CoordinatorConfiguration:
    """Read a direction coordinator's file."""
    top = Section.read(file)
    domain = top.text("domain", check=names.check_domain, expected="the domain that is served")
    realm = top.text("realm", check=names.check_domain, expected="the realm's domain")
    if not names.is_within(domain, realm):
        raise top.problem("domain", f"{domain} is not within the realm {realm}")
    account_server = top.section("account_server", optional=False)
    pool, dns = top.section("virtual"), top.section("dns")
    keepalive = top.section("keepalive")
    shortest = keepalive.seconds("shortest", 15.0, low=1, high=3600)
    configuration = CoordinatorConfiguration(
        file=file,
        domain=domain,
        realm=realm,
        identity=Identity.read(top, "dc", domain, realm),
        listening=Listening.read(top, DC_PORT),
        dns_port=top.port("dns_port", DNS_PORT),
        account_server=_server(account_server, "as", realm, AS_PORT),
        state=top.path("state", "state"),
        pool=IPv4Network(
            pool.text(
                "pool",
                str(virtual.POOL),
                check=_pool,
                expected=f'an IPv4 network of at least 16 addresses such as "{virtual.POOL}"',
            )
        ),
        dns_networks=dns.networks("networks"),
        keepalive=(
            shortest,
            keepalive.seconds("longest", max(120.0, shortest), low=shortest, high=3600),
        ),
        allow=top.texts(
            "allow",
            (f"*.{realm}",),
            check=names.check_pattern,
            expected='a list of patterns such as ["*.ntm.example"]',
        ),
        lookup=top.plugin("lookup", "dns"),
        notify=top.plugin("notify", "none"),
        locations=top.plugin("locations", "sqlite"),
        waiting=top.plugin("waiting", "sqlite"),
    )
    for section in (account_server, pool, dns, keepalive, top):
        section.finish()
    return configuration


@frozen
class RelayConfiguration:
    """``relays/NAME.toml``.

    :ivar name: full name, ``NAME.DOMAIN``. :ivar identity: of role ``rs``, under that name.
    :ivar listening: UDP. :ivar coordinator: its DC.
    :ivar rate: most bytes a second that one tunnel may carry. :ivar idle: seconds without a
        datagram after which a tunnel is forgotten. :ivar tunnels: most tunnels at once.
    """

    file: Path
    name: str
    realm: str
    identity: Identity
    listening: Listening
    coordinator: Server
    rate: int
    idle: float
    tunnels: int


def load_relay(file: Path) -> RelayConfiguration:
    """Read a relay server's file."""
    top = Section.read(file)
    name, realm, coordinator = attached(top)
    limits = top.section("limits")
    configuration = RelayConfiguration(
        file=file,
        name=name,
        realm=realm,
        identity=Identity.read(top, "rs", name, realm),
        listening=Listening.read(top, RS_PORT),
        coordinator=coordinator,
        rate=limits.integer("rate", 125_000_000, low=1000, high=1 << 40),
        idle=limits.seconds("idle", 180.0, low=5, high=86400),
        tunnels=limits.integer("tunnels", 10_000, low=1, high=1 << 24),
    )
    for section in (limits, top):
        section.finish()
    return configuration


def attached(top: Section) -> tuple[str, str, Server]:
    """Full name and realm of a server that belongs to a coordinator, and that coordinator."""
    realm = top.text("realm", check=names.check_domain, expected="the realm's domain")
    name = top.text("name", check=names.check_server, expected="the server's name, NAME.DOMAIN")
    section = top.section("coordinator", optional=False)
    domain = section.text("domain", check=names.check_domain, expected="the DC's domain")
    if name.partition(".")[2] != domain or not names.is_within(domain, realm):
        raise top.problem("name", f"{name} is not directly within {domain}, or not in {realm}")
    coordinator = _server(section, "dc", domain, DC_PORT)
    section.finish()
    return name, realm, coordinator


def _server(section: Section, role: str, name: str, port: int) -> Server:
    addresses = section.addresses("addresses", REQUIRED)
    return Server(role, name, addresses, section.port("port", port))


def _caches(section: Section, realm: str) -> tuple[CachePlace, ...]:
    found = []
    for name in section:
        if isinstance(section[name], dict):
            raise section.problem(
                name, 'write the name in quotes, such as "cs1.dc1.ntm.example" = ["192.0.2.1:4332"]'
            )
        try:
            names.check_server(name)
        except InvalidName as problem:
            raise section.problem(name, str(problem)) from None
        if not names.is_within(name, realm):
            raise section.problem(name, f"not within the realm {realm}")
        expected = 'a list such as ["192.0.2.1:4332", "[2001:db8::1]:4332"]'
        listed = section.texts(name, expected=expected, least=1)
        key = f"{section.file}: caches.{name}"
        places = tuple(parse_address(key, one, CS_PORT) for one in listed)
        found.append(CachePlace(name, places))
    return tuple(found)


def _pool(text: str) -> str:
    network = IPv4Network(text)
    if network.prefixlen not in _PREFIXES or network.is_multicast or network.is_loopback:
        raise ValueError
    return str(network)


def _key_is_domain(section: Section, key: str) -> None:
    if isinstance(section[key], dict):
        raise section.problem(key, 'write the suffix in quotes, such as "else.example" = "ca.pem"')
    try:
        names.check_domain(key)
    except InvalidName as problem:
        raise section.problem(key, str(problem)) from None
