"""The zone of a coordinator's domain: what its DNS function says to whom (design section 5, DNS).

To everyone: SOA and NS at the apex, the name server's addresses, and the SRV records of the
coordinator's ports. To askers in the configured networks also AAAA and A of the *virtual* addresses
of clients; to all others those names do not exist (NXDOMAIN, whether or not there is such a
client), so that a stranger learns neither who is enrolled nor whether a guess was right. Locations
are not in here at all.

Names that only have names below them exist (NODATA), which resolvers that minimise query names
strictly rely on (RFC 8020, RFC 9156).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final, Protocol

from attrs import define, field

from ntmobile.errors import ConfigurationError
from ntmobile.wire.dns_records import (
    IN,
    Answer,
    Authority,
    Data,
    HostAddress,
    Kind,
    NotAny,
    Question,
    Rcode,
    Record,
    ServerName,
    ServicePort,
    Sets,
)
from ntmobile.wire.names import RESERVED_LABELS, is_device_of, is_user_of, is_within

#: Seconds that resolvers may keep the records of the servers.
SERVER_TTL: Final = 300
#: Seconds that resolvers may keep a device's virtual addresses, which never change.
DEVICE_TTL: Final = 60
#: Seconds for a user's name: which device registered last may change at any time.
USER_TTL: Final = 5
#: Seconds that resolvers may remember that something does not exist (RFC 2308).
NEGATIVE_TTL: Final = 30
#: Record types that are commands or transport, not data (RFC 6895, section 3.1); ANY is apart.
_META: Final = range(128, 255)

VirtualAddresses = tuple[IPv6Address | None, IPv4Address | None]


class ZoneData(Protocol):
    """What a zone asks the coordinator about its clients; answers at once, from memory."""

    def virtual_addresses(self, name: str) -> VirtualAddresses | None:
        """The virtual addresses of a device, or for a user's name those of a device of his.

        :param name: ``DEVICE.USER.DOMAIN`` of a device, enrolled, registered at present or not; or
            ``USER.DOMAIN``, which stands for the device of that user that registered last.
        :return: (IPv6, IPv4), each None where there is none; or None if there is no such device,
            or no device of that user has registered.
        """

    def has_below(self, name: str) -> bool:
        """Whether any device's name ends in ``.name``; asked for users' names."""


@define
class Zone:
    """The zone of one domain.

    :ivar domain: the coordinator's domain, the apex.
    :ivar data: the coordinator's clients.
    :ivar host: the name of the name server, which is the SRV target too; ``ns.DOMAIN`` by default.
    :ivar addresses: its addresses; served if ``host`` lies in the zone.
    :ivar udp_port: the coordinator's port for ``_ntm._udp``.
    :ivar tcp_port: the coordinator's port for ``_ntm._tcp``.
    :ivar networks: the askers that may see virtual addresses; none by default.
    :ivar serial: the SOA serial; it matters to nobody, for the zone is not transferred.
    :raises ConfigurationError: ``host`` is a name below the domain that users may have.
    """

    domain: str
    data: ZoneData
    addresses: tuple[IPv4Address | IPv6Address, ...]
    host: str = ""
    udp_port: int = 4330
    tcp_port: int = 4330
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    serial: int = 1
    _servers: dict[str, Sets] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.host = self.host or f"ns.{self.domain}"
        self._check_host()
        self._add(self.domain, ServerName(self.host))
        self._add(self.domain, self._authority())
        self._add(f"_ntm._udp.{self.domain}", ServicePort(0, 0, self.udp_port, self.host))
        self._add(f"_ntm._tcp.{self.domain}", ServicePort(0, 0, self.tcp_port, self.host))
        if is_within(self.host, self.domain):
            for address in self.addresses:
                self._add(self.host, HostAddress(address))

    def answer(self, question: Question, asker: str) -> Answer:
        """What to say to ``question``.

        :param asker: the numeric address it came from.
        """
        name, kind = question.name, question.kind
        if question.klass != IN or kind in _META or not is_within(name, self.domain):
            return Answer(Rcode.REFUSED)
        if kind in (0, Kind.OPT):
            return Answer(Rcode.FORMERR)
        found = self._servers.get(name)
        ttl = SERVER_TTL
        if found is None:
            ttl = USER_TTL if is_user_of(name, self.domain) else DEVICE_TTL
            found = self._client(name) if self._may_see_clients(asker) else None
        if found is None:
            return self._nothing(Rcode.NXDOMAIN)
        if kind == Kind.ANY:
            return self._found(name, ttl, (NotAny(),))
        data = found.get(kind, ())
        return self._found(name, ttl, data) if data else self._nothing(Rcode.NOERROR)

    def _check_host(self) -> None:
        """A name server's name must not be one that a user or device could have."""
        if self.host != self.domain and is_within(self.host, self.domain):
            label = self.host.removesuffix(f".{self.domain}").rpartition(".")[2]
            if label not in RESERVED_LABELS:
                raise ConfigurationError(
                    f"the name server {self.host} has the name of a user; call it ns.{self.domain}"
                )

    def _add(self, name: str, data: Data) -> None:
        """Put a record of the servers into the zone, and the names between it and the apex."""
        for ancestor in _ancestors(name, self.domain):
            self._servers.setdefault(ancestor, {})
        sets = dict(self._servers[name])
        sets[data.kind] = (*sets.get(data.kind, ()), data)
        self._servers[name] = sets

    def _authority(self) -> Authority:
        return Authority(
            host=self.host,
            mailbox=f"hostmaster.{self.domain}",
            serial=self.serial,
            refresh=3600,
            retry=600,
            expire=86400,
            minimum=NEGATIVE_TTL,
        )

    def _may_see_clients(self, asker: str) -> bool:
        if not self.networks:
            return False
        try:
            address = ip_address(asker.partition("%")[0])
        except ValueError:
            return False
        # A socket for both families shows IPv4 askers as mapped addresses.
        seen = getattr(address, "ipv4_mapped", None) or address
        return any(seen in network for network in self.networks)

    def _client(self, name: str) -> Sets | None:
        """The records of a device or user; None if there is nobody of that name."""
        user = is_user_of(name, self.domain)
        if not user and not is_device_of(name, self.domain):
            return None
        addresses = self.data.virtual_addresses(name)
        if addresses is None:
            return {} if user and self.data.has_below(name) else None
        return {item.kind: (item,) for item in (HostAddress(a) for a in addresses if a is not None)}

    def _found(self, name: str, ttl: int, data: tuple[Data, ...]) -> Answer:
        return Answer(
            authoritative=True,
            answers=tuple(Record(name, ttl, item) for item in data),
            additional=tuple(self._addresses_of_targets(data)),
        )

    def _addresses_of_targets(self, data: tuple[Data, ...]) -> Iterator[Record]:
        """The addresses of our name server, beside an answer that names it."""
        if any(isinstance(item, ServerName | ServicePort) for item in data):
            for items in self._servers.get(self.host, {}).values():
                for item in items:
                    if isinstance(item, HostAddress):
                        yield Record(self.host, SERVER_TTL, item)

    def _nothing(self, rcode: Rcode) -> Answer:
        """NODATA or NXDOMAIN: with the SOA, whose TTL here is the negative one (RFC 2308)."""
        authority = Record(self.domain, NEGATIVE_TTL, self._authority())
        return Answer(rcode, authoritative=True, authority=(authority,))


def _ancestors(name: str, apex: str) -> Iterator[str]:
    """``name`` and the names above it, down from it to ``apex``."""
    while name != apex:
        yield name
        name = name.partition(".")[2]
    yield apex
