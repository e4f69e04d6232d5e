"""A name server that says what a test tells it, on real sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTCP, IReactorTime, IReactorUDP
from twisted.names import dns

from ntmobile.protocols.naming_transports import DatagramNaming, NamingPorts, StreamNamingFactory

SOA = dns.Record_SOA("ns.example", "root.example", 1, 2, 3, 4, minimum=60)


def rr(name: str, payload: Any, ttl: int = 300) -> dns.RRHeader:
    """A record."""
    return dns.RRHeader(name, payload.TYPE, ttl=ttl, payload=payload)


@define
class Saying:
    """What to answer: records, a response code, or something odd by ``change`` of the message."""

    answers: list[dns.RRHeader] = field(factory=list)
    rcode: int = 0
    authority: list[dns.RRHeader] = field(factory=list)
    truncated: bool = False
    silent: bool = False
    raw: Callable[[bytes], bytes] | None = None


NXDOMAIN = Saying(rcode=3, authority=[rr("example", SOA, 60)])
NODATA = Saying(authority=[rr("example", SOA, 60)])
SERVFAIL = Saying(rcode=2)
SILENT = Saying(silent=True)


@define
class ScriptedServer:
    """Answers questions from a table of (name, type); NXDOMAIN for all others.

    :ivar asked: how often each question came, over UDP and TCP together.
    """

    script: dict[tuple[str, int], Saying] = field(factory=dict)
    over_tcp: dict[tuple[str, int], Saying] = field(factory=dict)
    otherwise: Saying = NXDOMAIN
    asked: Counter[tuple[str, int]] = field(factory=Counter)
    address: tuple[str, int] = ("", 0)
    _ports: NamingPorts | None = None

    def start(self) -> None:
        """Listen."""
        host = "127.0.0.1"
        factory = StreamNamingFactory(self._stream, IReactorTime(reactor))
        tcp: Any = IReactorTCP(reactor).listenTCP(0, factory, interface=host)
        port = tcp.getHost().port
        udp = IReactorUDP(reactor).listenUDP(port, DatagramNaming(self._datagram), host, 8192)
        self._ports = NamingPorts(udp, tcp, factory)
        self.address = ("127.0.0.1", port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._ports is not None:
            await self._ports.stop()

    def say(self, name: str, *payloads: Any, ttl: int = 300) -> None:
        """Put records of one type at a name into the script."""
        key = (name, payloads[0].TYPE)
        self.script[key] = Saying([rr(name, payload, ttl) for payload in payloads])

    def _datagram(self, data: bytes, host: str) -> bytes | None:
        return self._answer(data, {})

    def _stream(self, data: bytes, host: str) -> bytes | None:
        return self._answer(data, self.over_tcp)

    def _answer(self, data: bytes, first: dict[tuple[str, int], Saying]) -> bytes | None:
        message = dns.Message()
        message.fromStr(data)
        (question,) = message.queries
        key = (question.name.name.decode().lower(), question.type)
        self.asked[key] += 1
        saying = first.get(key) or self.script.get(key, self.otherwise)
        if saying.silent:
            return None
        message.maxSize = 0
        message.answer = 1
        message.recAv = 1
        message.rCode = saying.rcode
        message.trunc = int(saying.truncated)
        message.answers = list(saying.answers)
        message.authority = list(saying.authority)
        response = message.toStr()
        return saying.raw(response) if saying.raw else response
