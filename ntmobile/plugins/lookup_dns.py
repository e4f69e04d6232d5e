"""The ``dns`` lookup: the coordinator of a domain by NS, then SRV, as in the paper (III-B).

In a server's configuration; all keys may be left out::

    [lookup]
    plugin = "dns"
    nameservers = ["192.0.2.53", "[2001:db8::53]:53"]   # else those of /etc/resolv.conf
    timeout = 5.0                                       # seconds for one lookup

The answers are hints (rule R14): see :mod:`ntmobile.machines.direction.locating`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import ConfigurationError, InvalidName, QuotaExceeded, Unreachable
from ntmobile.interfaces import Coordinator, ICoordinatorLookup, ICoordinatorLookupProvider
from ntmobile.machines.expiring import ExpiringCache
from ntmobile.plugins.lookup_options import parse_address
from ntmobile.plugins.section import reject_unknown
from ntmobile.protocols.joining import Joining
from ntmobile.protocols.locating import Finding, Locator
from ntmobile.protocols.naming_client import Address, NameClient
from ntmobile.wire.names import check_domain

#: Domains remembered, found or not.
CACHE_CAPACITY: Final = 4096
#: Lookups of different domains under way at once.
UNDER_WAY_LIMIT: Final = 128
DEFAULT_TIMEOUT: Final = 5.0
RESOLV_CONF: Final = Path("/etc/resolv.conf")
_KEYS: Final = ("nameservers", "timeout")

log = Logger()


@implementer(ICoordinatorLookup)
class DnsLookup:
    """Looks domains up, remembers the findings, and asks once for all who want the same.

    :param reactor: provides time, UDP and TCP.
    :param nameservers: gives the name servers to ask.
    :param timeout: seconds for one lookup.
    """

    def __init__(
        self,
        reactor: Any,
        nameservers: Callable[[], Sequence[Address]],
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._locator = Locator(NameClient(reactor, nameservers), reactor, timeout)
        self._findings: ExpiringCache[str, Finding] = ExpiringCache(CACHE_CAPACITY)
        self._looking: Joining[Finding] = Joining()

    def find(self, domain: str) -> Deferred[Coordinator]:
        """See :class:`~ntmobile.interfaces.ICoordinatorLookup`."""
        try:
            check_domain(domain)
        except InvalidName as problem:
            return fail(problem)
        finding = self._findings.get(domain, self._reactor.seconds())
        if finding is not None:
            return succeed(finding).addCallback(_told)
        if domain not in self._looking and self._looking.count >= UNDER_WAY_LIMIT:
            return fail(QuotaExceeded(f"too many domains are being looked up; ask {domain} again"))
        return self._looking.join(domain, lambda: self._look_up(domain)).addCallback(_told)

    async def _look_up(self, domain: str) -> Finding:
        try:
            finding = await self._locator.locate(domain)
        except Exception:
            log.failure("looking up {domain} failed", domain=domain)
            return Finding(Unreachable(f"looking up {domain} failed; the log has the reason"), 0.0)
        self._findings.put(domain, finding, self._reactor.seconds() + finding.ttl)
        return finding


def _told(finding: Finding) -> Coordinator:
    """What a caller hears; an error is a new one for each, for it takes up a traceback."""
    outcome = finding.outcome
    if isinstance(outcome, Coordinator):
        return outcome
    raise type(outcome)(*outcome.args)


class SystemNameservers:
    """The name servers of ``/etc/resolv.conf``, read again whenever the file changes.

    :param path: the file; without it, or without servers in it, the local host is asked, as libc
        does (resolv.conf(5)).
    """

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._servers: list[Address] = []

    def __call__(self) -> Sequence[Address]:
        """The addresses at present."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                self._servers = list(_servers_in(self._path.read_text("utf-8", "replace")))
                self._seen = seen
        except OSError as problem:
            log.warn("{path}: {problem}", path=str(self._path), problem=problem.strerror)
            self._seen, self._servers = None, []
        return self._servers or [("127.0.0.1", 53)]


def _servers_in(text: str) -> Sequence[Address]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(parse_address("nameserver", words[1], 53))
            except ConfigurationError:
                log.warn("resolv.conf: {server} is no address", server=words[1])
    return found


@implementer(IPlugin, ICoordinatorLookupProvider)
class DnsLookupProvider:
    """Makes a :class:`DnsLookup`; keys ``nameservers`` and ``timeout``."""

    name = "dns"

    def configure(self, section: Mapping[str, object], reactor: object) -> DnsLookup:
        """See :class:`~ntmobile.interfaces.ICoordinatorLookupProvider`."""
        reject_unknown("lookup", section, _KEYS)
        return DnsLookup(reactor, _nameservers(section), _timeout(section))


def _nameservers(section: Mapping[str, object]) -> Callable[[], Sequence[Address]]:
    if "nameservers" not in section:
        return SystemNameservers()
    value = section["nameservers"]
    if not isinstance(value, list) or not value:
        raise ConfigurationError('lookup.nameservers is no list such as ["192.0.2.53:53"]')
    servers = [parse_address("lookup.nameservers", item, 53) for item in value]
    return lambda: servers


def _timeout(section: Mapping[str, object]) -> float:
    value = section.get("timeout", DEFAULT_TIMEOUT)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 60:
        raise ConfigurationError("lookup.timeout is no number of seconds from 0.1 to 60")
    return float(value)


dnsLookup = DnsLookupProvider()
