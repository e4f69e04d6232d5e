"""A coordinator's DNS function: an authoritative name server for its domain, over UDP and TCP.

:mod:`ntmobile.machines.zone` knows what to say; here it is said, within limits: responses are rate
limited by network and subject, so that the server is no amplifier (rule R8), and what is over the
limit is dropped or, every second time, answered with TC, which costs a real resolver one TCP
connection and a forged source nothing. TCP has limits on connections and time instead.
"""

from __future__ import annotations

from collections import Counter
from errno import EACCES, EADDRINUSE, EPERM
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ntmobile.errors import ConfigurationError, NotPermittedHere
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.zone import Zone
from ntmobile.protocols.naming_messages import (
    TCP_LIMIT,
    encode,
    read,
    truncated,
)
from ntmobile.protocols.naming_transports import DatagramNaming, NamingPorts, StreamNamingFactory
from ntmobile.wire.dns_messages import QUERY_LIMIT, Query
from ntmobile.wire.dns_records import Answer, Kind, Rcode

#: Like responses a second, and at once, to one network (/24 or /56) over UDP.
RESPONSE_RATE: Final = 20.0
RESPONSE_BURST: Final = 40.0
#: One of so many responses over the limit is sent with TC, the others are dropped.
SLIP: Final = 2
#: Tries to find a port that is free for both UDP and TCP, where any will do.
_PORT_TRIES: Final = 10

log = Logger()


class NameServer:
    """Answers DNS messages for one zone; never raises whatever they hold.

    :param zone: what to say.
    :param clock: the reactor, or a clock in tests.
    :param limiter: limits responses over UDP; keys are (network, subject).
    :ivar counts: messages by what became of them: ``answered``, ``refused``, ``malformed``,
        ``dropped``, ``limited``, ``slipped``.
    """

    def __init__(self, zone: Zone, clock: IReactorTime, limiter: RateLimiter | None = None) -> None:
        self._zone = zone
        self._clock = clock
        if limiter is None:
            limiter = RateLimiter(RESPONSE_RATE, RESPONSE_BURST)
        self._limiter = limiter
        self._over = 0
        self.counts: Counter[str] = Counter()

    def datagram(self, data: bytes, asker: str) -> bytes | None:
        """The response to a datagram; None if there shall be none."""
        query = read(data)
        if query is None:
            self.counts["dropped"] += 1
            return None
        if isinstance(query, bytes):
            self.counts["malformed"] += 1
            return query if self._allow(asker, "error") else None
        subject, response = self._respond(query, asker, query.udp_limit)
        if self._allow(asker, subject):
            return response
        self.counts["limited"] += 1
        self._over += 1
        if self._over % SLIP:
            return None
        self.counts["slipped"] += 1
        return truncated(query)

    def stream(self, data: bytes, asker: str) -> bytes | None:
        """The response to a message that came over TCP; None closes the connection."""
        query = read(data)
        if query is None:
            self.counts["dropped"] += 1
            return None
        if isinstance(query, bytes):
            self.counts["malformed"] += 1
            return query
        return self._respond(query, asker, TCP_LIMIT)[1]

    def _respond(self, query: Query, asker: str, limit: int) -> tuple[object, bytes]:
        """What the response is about (see :func:`_subject`), and the response."""
        try:
            answer = self._zone.answer(query.question, asker)
            response = encode(query, answer, limit)
        except Exception:
            # The zone's data come from elsewhere; whatever is wrong with them, we go on.
            log.failure("no answer to a DNS question of {asker}", asker=asker)
            answer = Answer(Rcode.SERVFAIL)
            response = encode(query, answer, limit)
        self.counts["refused" if answer.rcode == Rcode.REFUSED else "answered"] += 1
        return _subject(query, answer), response

    def _allow(self, asker: str, subject: object) -> bool:
        return self._limiter.allow((_network(asker), subject), self._clock.seconds())


def _subject(query: Query, answer: Answer) -> object:
    """What counts as the same response: a name and type, any name that is not, any refusal."""
    if answer.rcode == Rcode.NOERROR:
        return query.question.name, Kind.SOA if not answer.answers else query.question.kind
    return answer.rcode


def _network(asker: str) -> object:
    """The network that one forger or one site may have: a /24 or a /56."""
    try:
        address = ip_address(asker.partition("%")[0])
    except ValueError:
        return asker
    packed = getattr(address, "ipv4_mapped", None) or address
    return packed.packed[: 3 if packed.version == 4 else 7]


def listen(reactor: Any, server: NameServer, host: str, port: int = 53) -> NamingPorts:
    """Serve UDP and TCP at one address.

    :param reactor: provides time, UDP and TCP.
    :param host: numeric; the address itself, not a wildcard, where a machine has several: a
        resolver takes an answer only from the address it asked.
    :param port: 0 takes any that is free for both.
    :raises NotPermittedHere: the port needs a right that this process lacks.
    :raises ConfigurationError: the address is not of this machine, or the port is in use.
    """
    for attempt in range(1 if port else _PORT_TRIES):
        factory = StreamNamingFactory(server.stream, reactor)
        tcp = udp = None
        try:
            tcp = reactor.listenTCP(port, factory, interface=host)
            udp = reactor.listenUDP(
                tcp.getHost().port,
                DatagramNaming(server.datagram),
                interface=host,
                maxPacketSize=QUERY_LIMIT,
            )
            return NamingPorts(udp, tcp, factory)
        except CannotListenError as problem:
            if tcp is not None:
                tcp.stopListening()
            if port or attempt == _PORT_TRIES - 1:
                raise _explained(problem, host, port) from problem
    raise AssertionError("not reached")


def _explained(problem: CannotListenError, host: str, port: int) -> Exception:
    """What keeps us from listening, and what to do."""
    where = f"cannot serve DNS at {host} port {port}"
    code = getattr(problem.socketError, "errno", None)
    if code in (EACCES, EPERM):
        return NotPermittedHere(
            f"{where}: not permitted; give the process CAP_NET_BIND_SERVICE, or set dns_port"
        )
    if code == EADDRINUSE:
        return ConfigurationError(
            f"{where}: another server has it (systemd-resolved, named?); stop that, or set "
            "listen or dns_port"
        )
    return ConfigurationError(f"{where}: {problem.socketError}")
