"""The resolver inside ``ntm exec``: names become the virtual addresses this client shows.

A program inside a client's namespace asks for ``laptop.bob.dc2.ntm.example``; that brings up the
tunnel, and the answer is the correspondent's address as it is seen *here* (rule R24). Names that do
not belong to the platform are refused, since only the virtual network is reachable inside; the
reason goes along as an extended error (RFC 8914), which ``dig`` shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import InvalidName, NTMobileError, UnknownName
from ntmobile.protocols.joining import Joining
from ntmobile.protocols.naming_messages import TCP_LIMIT, encode, read
from ntmobile.protocols.naming_transports import (
    DatagramNaming,
    NamingPorts,
    StreamNamingFactory,
)
from ntmobile.wire.dns_messages import QUERY_LIMIT, Query
from ntmobile.wire.dns_records import (
    IN,
    Answer,
    HostAddress,
    Kind,
    NotAny,
    Pointer,
    Rcode,
    Record,
    reverse_address,
)

#: Seconds a program may keep an answer; a user's name may soon stand for another device.
TTL: Final = 5
#: Seconds a name may take. libc asks twice, 5 seconds each; both questions get the one answer.
PATIENCE: Final = 15.0
#: Names being resolved at once; more are refused for now.
UNDER_WAY_LIMIT: Final = 256

#: Codes of extended errors (RFC 8914): other, not supported, no reachable authority.
_OTHER: Final = 0
_NOT_SUPPORTED: Final = 21
_UNREACHABLE: Final = 22

#: The addresses by which a correspondent is seen here; None in a family it has none in.
Addresses = tuple[IPv6Address | None, IPv4Address | None]

log = Logger()


class NameResolver:
    """Answers the DNS questions of the programs in a client's namespace.

    :param clock: the reactor.
    :param resolve: gives the addresses of a name, lower case, without a final dot. May take some
        seconds, as it brings the tunnel up. Raises :class:`~ntmobile.errors.UnknownName` or
        :class:`~ntmobile.errors.InvalidName` (answered NXDOMAIN); any other
        :class:`~ntmobile.errors.NTMobileError` is answered SERVFAIL, its text sent along.
    :param belongs: whether a name is the platform's; the others are refused.
    :param reverse: the name of a virtual address, or None.
    """

    def __init__(
        self,
        clock: IReactorTime,
        resolve: Callable[[str], Awaitable[Addresses]],
        belongs: Callable[[str], bool],
        reverse: Callable[[IPv4Address | IPv6Address], str | None],
    ) -> None:
        self._clock = clock
        self._resolve = resolve
        self._belongs = belongs
        self._reverse = reverse
        self._resolving: Joining[Addresses | Answer] = Joining()

    def datagram(self, data: bytes, asker: str) -> bytes | Deferred[bytes | None] | None:
        """The response to a datagram, at once or later; None if there shall be none."""
        query = read(data)
        return self._respond(query, query.udp_limit) if isinstance(query, Query) else query

    def stream(self, data: bytes, asker: str) -> bytes | Deferred[bytes | None] | None:
        """The response to a message that came over TCP; None closes the connection."""
        query = read(data)
        return self._respond(query, TCP_LIMIT) if isinstance(query, Query) else query

    def _respond(self, query: Query, limit: int) -> bytes | Deferred[bytes | None]:
        answer = self._known(query)
        if answer is not None:
            return encode(query, answer, limit)
        name, kind = query.question.name, query.question.kind

        def respond(found: Addresses | Answer) -> bytes | None:
            known = found if isinstance(found, Answer) else _addresses(name, kind, found)
            return encode(query, known, limit)

        return self._resolving.join(name, lambda: self._look_up(name)).addCallback(respond)

    def _known(self, query: Query) -> Answer | None:
        """The answer to what needs no looking up; None for the addresses of a name of ours."""
        name, kind = query.question.name, query.question.kind
        if query.question.klass != IN or 128 <= kind < Kind.ANY or kind == Kind.OPT:
            return _failed(Rcode.REFUSED, _NOT_SUPPORTED, "only records of hosts are served here")
        address = reverse_address(name)
        if address is not None:
            return self._pointer(name, kind, address)
        if not self._belongs(name):
            text = f"{name} is outside; only the virtual network is reachable here"
            return _failed(Rcode.REFUSED, _NOT_SUPPORTED, text)
        if kind == Kind.ANY:
            return _answer(Record(name, TTL, NotAny()))
        if kind not in (Kind.A, Kind.AAAA):
            # That a program asks for, say, HTTPS records is no reason to bring up a tunnel.
            return _answer()
        if name not in self._resolving and self._resolving.count >= UNDER_WAY_LIMIT:
            return _failed(Rcode.SERVFAIL, _OTHER, "too many names are being resolved; try again")
        return None

    def _pointer(self, name: str, kind: int, address: IPv4Address | IPv6Address) -> Answer:
        fqdn = self._reverse(address)
        if fqdn is None:
            return _failed(Rcode.NXDOMAIN, _OTHER, f"{address} is nobody's virtual address here")
        return _answer(Record(name, TTL, Pointer(fqdn))) if kind == Kind.PTR else _answer()

    async def _look_up(self, name: str) -> Addresses | Answer:
        """The addresses of a name, or the answer that says why there are none."""
        try:
            resolving = Deferred.fromCoroutine(_awaited(self._resolve(name)))
            return await resolving.addTimeout(PATIENCE, self._clock)
        except (UnknownName, InvalidName) as problem:
            return _failed(Rcode.NXDOMAIN, _OTHER, str(problem))
        except NTMobileError as problem:
            log.info("{name} is not resolved: {problem}", name=name, problem=problem)
            return _failed(Rcode.SERVFAIL, _UNREACHABLE, str(problem))
        except TimeoutError:
            text = f"{name} did not answer within {PATIENCE:.0f} s; `ntm why {name}` tells more"
            return _failed(Rcode.SERVFAIL, _UNREACHABLE, text)
        except Exception:
            log.failure("resolving {name} failed", name=name)
            return _failed(Rcode.SERVFAIL, _OTHER, "the client failed; its log has the reason")


async def _awaited(awaitable: Awaitable[Addresses]) -> Addresses:
    return await awaitable


def _answer(*records: Record) -> Answer:
    return Answer(authoritative=True, recursion=True, answers=records)


def _failed(rcode: Rcode, code: int, text: str) -> Answer:
    return Answer(rcode, recursion=True, remark=(code, text))


def _addresses(name: str, kind: int, found: Addresses) -> Answer:
    """The one of the addresses that is of the kind asked for, if there is one."""
    data = [HostAddress(address) for address in found if address is not None]
    return _answer(*(Record(name, TTL, each) for each in data if each.kind == kind))


def adopt(
    reactor: Any, resolver: NameResolver, datagram: int, stream: int, *, ipv6: bool = False
) -> NamingPorts:
    """Serve on sockets that were made inside the namespace.

    :param reactor: provides time and socket adoption.
    :param datagram: descriptor of a bound UDP socket; the caller's copy may be closed afterwards.
    :param stream: descriptor of a listening TCP socket; likewise.
    :param ipv6: the family of both.
    """
    family = AF_INET6 if ipv6 else AF_INET
    factory = StreamNamingFactory(resolver.stream, reactor)
    protocol = DatagramNaming(resolver.datagram)
    udp = reactor.adoptDatagramPort(datagram, family, protocol, maxPacketSize=QUERY_LIMIT)
    tcp = reactor.adoptStreamPort(stream, family, factory)
    return NamingPorts(udp, tcp, factory)
