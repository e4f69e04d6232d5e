"""The conversation that finds a coordinator in the DNS: NS, SRV, then addresses.

NS and both SRV questions go out together, so a lookup costs two round trips to the name server.
What the answers mean is :mod:`ntmobile.machines.direction.locating`'s.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import zip_longest
from typing import Any, Final, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from ntmobile.errors import NTMobileError, UnknownName, Unreachable
from ntmobile.interfaces import Coordinator
from ntmobile.machines.direction.locating import (
    ADDRESSES_EACH,
    ADDRESSES_LIMIT,
    TTL_MAX,
    TTL_MIN,
    addresses,
    alias_of,
    name_servers,
    negative_ttl,
    positive_ttl,
    services,
    usable,
)
from ntmobile.protocols.naming_client import Address, NameClient, shown
from ntmobile.wire.dns_messages import Reply
from ntmobile.wire.dns_records import Kind, Rcode

#: The port of a coordinator that has no SRV record (design section 5, DNS).
DEFAULT_PORT: Final = 4330
#: Seconds to remember that a lookup did not get through: just enough to stop a herd.
FAILURE_TTL: Final = 2.0

T = TypeVar("T")
U = TypeVar("U")


@frozen
class Finding:
    """What a lookup ended with, and for how many seconds to believe it."""

    outcome: Coordinator | NTMobileError
    ttl: float


class _Ended(Exception):
    """Ends a lookup with a finding."""

    def __init__(self, problem: NTMobileError, ttl: float) -> None:
        super().__init__(problem)
        self.finding = Finding(problem, ttl)


@frozen
class _Said:
    """A reply, to what, by whom."""

    name: str
    kind: Kind
    reply: Reply
    server: Address

    def __str__(self) -> str:
        code = "NXDOMAIN" if self.reply.rcode == Rcode.NXDOMAIN else "no such record"
        return f"{shown(self.server)} answers {code} to {self.name} {self.kind.name}"


@frozen
class _Host:
    """What is known of a host's addresses; ``ended`` says why there are none."""

    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    ttl: int = TTL_MAX
    ended: Finding | None = None


class Locator:
    """Finds coordinators by asking name servers.

    :param client: asks the questions.
    :param clock: the reactor.
    :param timeout: seconds for one lookup in all.
    """

    def __init__(self, client: NameClient, clock: IReactorTime, timeout: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout = timeout

    async def locate(self, domain: str) -> Finding:
        """Find the coordinator of ``domain``; never raises for what the DNS says or fails to."""
        try:
            return await self._locate(domain, self._clock.seconds() + self._timeout)
        except _Ended as ended:
            return ended.finding
        except Unreachable as problem:
            return Finding(problem, FAILURE_TTL)

    async def _locate(self, domain: str, deadline: float) -> Finding:
        service = f"_ntm._tcp.{domain}"
        ns, tcp = await _together(
            self._ask(domain, Kind.NS, deadline), self._ask(service, Kind.SRV, deadline)
        )
        names, ns_ttl = _name_servers(ns, domain)
        offered, tcp_ttl = services(tcp.reply, service)
        if any(not each.target for each in offered):
            raise _Ended(UnknownName(f"{domain} offers no service: {tcp}"), negative_ttl(tcp.reply))
        ports = [(each.target, each.port) for each in offered]
        ports = ports or [(name, DEFAULT_PORT) for name in names]
        hosts, udp = await _both(
            self._hosts([name for name, _ in ports], deadline), self._udp(domain, deadline)
        )
        ttls = [ns_ttl, *([tcp_ttl] if offered else []), *(host.ttl for host in hosts.values())]
        servers = _servers(ports, hosts)
        first = next(port for port in ports if hosts[port[0]].addresses)
        return Finding(
            Coordinator(domain, servers, udp.get(first[0], first[1]), first[1]), positive_ttl(ttls)
        )

    async def _ask(self, name: str, kind: Kind, deadline: float) -> _Said:
        reply, server = await self._client.ask(name, kind, deadline)
        return _Said(name, kind, reply, server)

    async def _udp(self, domain: str, deadline: float) -> dict[str, int]:
        """The ports of ``_ntm._udp`` by host; without an answer, the same as for TCP will do."""
        service = f"_ntm._udp.{domain}"
        try:
            said = await self._ask(service, Kind.SRV, deadline)
        except Unreachable:
            return {}
        return {each.target: each.port for each in services(said.reply, service)[0]}

    async def _hosts(self, names: Sequence[str], deadline: float) -> dict[str, _Host]:
        """The hosts of these names.

        :raises _Ended: none of them has a usable address.
        """
        unique = list(dict.fromkeys(names))
        found = await _together(*(self._host(name, deadline) for name in unique))
        if not any(host.addresses for host in found):
            ended = found[0].ended
            assert ended is not None and isinstance(ended.outcome, NTMobileError)
            raise _Ended(ended.outcome, ended.ttl)
        return dict(zip(unique, found, strict=True))

    async def _host(self, name: str, deadline: float) -> _Host:
        """The usable addresses of one host, IPv6 and IPv4 in turn."""
        questions = (self._try(name, kind, deadline) for kind in (Kind.AAAA, Kind.A))
        outcomes = await _together(*questions)
        said = [outcome for outcome in outcomes if isinstance(outcome, _Said)]
        found = [addresses(each.reply, name) for each in said]
        families = [[each for each in some if usable(each)][:ADDRESSES_EACH] for some, _ in found]
        mixed = [each for pair in zip_longest(*families) for each in pair if each is not None]
        if mixed:
            ttl = min(ttl for some, ttl in found if some)
            return _Host(tuple(mixed[:ADDRESSES_EACH]), ttl)
        refused = [each for some, _ in found for each in some]
        return _Host(ended=_no_address(name, outcomes, refused))

    async def _try(self, name: str, kind: Kind, deadline: float) -> _Said | Unreachable:
        try:
            return await self._ask(name, kind, deadline)
        except Unreachable as problem:
            return problem


def _name_servers(said: _Said, domain: str) -> tuple[list[str], int]:
    """The hosts that NS names, and their TTL.

    :raises _Ended: the domain does not exist, is an alias, or has no name server.
    """
    hosts, ttl = name_servers(said.reply, domain)
    if hosts:
        return hosts, ttl
    if alias_of(said.reply, domain) is not None:
        text = f"{domain} is an alias (CNAME), which a coordinator's domain cannot be"
    else:
        text = f"no coordinator of {domain}: {said}"
    hint = "check the spelling, or the delegation in the zone above"
    raise _Ended(UnknownName(f"{text}; {hint}"), negative_ttl(said.reply))


def _servers(
    ports: Sequence[tuple[str, int]], hosts: dict[str, _Host]
) -> tuple[tuple[str, int], ...]:
    """Addresses and ports in order of preference, each once."""
    every = [(str(each), port) for name, port in ports for each in hosts[name].addresses]
    return tuple(dict.fromkeys(every))[:ADDRESSES_LIMIT]


def _no_address(
    name: str,
    outcomes: Sequence[_Said | Unreachable],
    unusable: Sequence[IPv4Address | IPv6Address],
) -> Finding:
    """Why a host has no usable address, and how long to believe that."""
    if unusable:
        listed = ", ".join(map(str, unusable[:ADDRESSES_EACH]))
        text = f"{name} has only addresses at which no coordinator can be ({listed})"
        return Finding(Unreachable(f"{text}; its operator must correct its A and AAAA"), TTL_MIN)
    for outcome in outcomes:
        if isinstance(outcome, Unreachable):
            return Finding(outcome, FAILURE_TTL)
    told = "; ".join(map(str, outcomes))
    problem = Unreachable(f"{name} has no address: {told}; its operator must add A or AAAA")
    return Finding(problem, TTL_MIN)


async def _together(*steps: Coroutine[Any, Any, T]) -> list[T]:
    """The results of steps that run at once; the first to fail ends the others."""
    running = [Deferred.fromCoroutine(step) for step in steps]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as first:
        for each in running:
            each.cancel()
        first.subFailure.raiseException()


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """As :func:`_together`, for two of different types."""
    results: list[Any] = await _together(one, other)
    return results[0], results[1]
