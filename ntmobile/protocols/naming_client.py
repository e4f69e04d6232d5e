"""Asking recursive name servers: over UDP, over TCP where a reply was too long, in bounded time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from ntmobile.errors import MalformedMessage, Unreachable
from ntmobile.protocols.naming_messages import encode_question
from ntmobile.wire.dns_messages import REPLY_LIMIT, TC, Reply, parse_reply
from ntmobile.wire.dns_records import IN, Kind, Question, Rcode

#: Seconds to wait for one server's answer to the first datagram; doubled each round.
FIRST_WAIT: Final = 1.0
#: Name servers that are asked; more are not configured anywhere in earnest.
SERVERS_LIMIT: Final = 4

Address = tuple[str, int]
T = TypeVar("T")

#: Gives the reply in some bytes, None for one to another question; raises MalformedMessage.
Accept = Callable[[bytes], "Reply | None"]


class NameClient:
    """Asks the configured name servers in turn until one answers the question.

    :param reactor: provides time, UDP and TCP.
    :param nameservers: gives their numeric addresses and ports, whenever a question is asked.
    :param random: gives so many random bytes.
    """

    def __init__(
        self,
        reactor: Any,
        nameservers: Callable[[], Sequence[Address]],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._reactor = reactor
        self._nameservers = nameservers
        self._random = random

    async def ask(self, name: str, kind: Kind, deadline: float) -> tuple[Reply, Address]:
        """The answer to one question, NOERROR or NXDOMAIN, and who gave it.

        :param deadline: the reactor's time at which to give up.
        :raises Unreachable: nobody answered, or all refused or failed; says who said what.
        """
        servers = list(self._nameservers())[:SERVERS_LIMIT]
        said: dict[Address, str] = {}
        wait = FIRST_WAIT
        asking = servers
        while asking and self._reactor.seconds() < deadline:
            silent = []
            for server in asking:
                left = min(wait, deadline - self._reactor.seconds())
                if left <= 0:
                    break
                outcome = await self._try(name, kind, server, left, deadline)
                if isinstance(outcome, Reply):
                    return outcome, server
                if outcome is None:
                    silent.append(server)
                else:
                    said[server] = outcome
            asking = silent
            wait *= 2
        raise Unreachable(_explained(name, kind, servers, said))

    async def _try(
        self, name: str, kind: Kind, server: Address, wait: float, deadline: float
    ) -> Reply | str | None:
        """A usable reply of one server; or what it said instead; or None if it was silent."""
        number = int.from_bytes(self._random(2), "big")
        question = encode_question(number, name, kind)

        def accept(data: bytes) -> Reply | None:
            return _matching(data, number, Question(name, kind, IN))

        try:
            reply = await self._exchange(question, accept, server, wait)
            if reply is not None and reply.flags & TC:
                left = deadline - self._reactor.seconds()
                reply = await self._exchange_stream(question, accept, server, left)
        except OSError as problem:
            return problem.strerror or type(problem).__name__
        except (ConnectError, ConnectionDone, CannotListenError) as problem:
            return str(problem).rstrip(".")
        except MalformedMessage as problem:
            return f"a malformed reply ({problem})"
        if reply is None or reply.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
            return reply
        return _code(reply.rcode)

    async def _exchange(
        self, question: bytes, accept: Accept, server: Address, wait: float
    ) -> Reply | None:
        """One question over UDP, from a port of its own; None after ``wait`` seconds."""
        asked = _DatagramQuestion(question, accept, server)
        family = "::" if ":" in server[0] else ""
        port = self._reactor.listenUDP(0, asked, interface=family, maxPacketSize=REPLY_LIMIT)
        try:
            return await _within(self._reactor, asked.answered, wait)
        finally:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped

    async def _exchange_stream(
        self, question: bytes, accept: Accept, server: Address, wait: float
    ) -> Reply | None:
        """One question over TCP; None after ``wait`` seconds."""
        endpoint = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        asked = _StreamQuestion(question, accept)
        connecting = endpoint(self._reactor, *server, timeout=wait).connect(
            Factory.forProtocol(lambda: asked)
        )
        start = self._reactor.seconds()
        connected = await _within(self._reactor, connecting, wait)
        if connected is None:
            return None
        try:
            left = wait - (self._reactor.seconds() - start)
            return await _within(self._reactor, asked.answered, max(left, 0.0))
        finally:
            if asked.transport is not None:
                ITCPTransport(asked.transport).abortConnection()
                await asked.closed


class _DatagramQuestion(DatagramProtocol):
    """A question over UDP.

    :ivar answered: fires with the first acceptable reply; fails if the server refuses datagrams.
    """

    noisy = False

    def __init__(self, question: bytes, accept: Accept, server: Address) -> None:
        self._question = question
        self._accept = accept
        self._server = server
        self.answered: Deferred[Reply] = Deferred()

    def startProtocol(self) -> None:
        # Connected: the kernel drops what others send, and tells when nobody listens there.
        assert self.transport is not None
        try:
            self.transport.connect(*self._server)
            self.transport.write(self._question, None)
        except OSError:  # no route, or no IPv6 at all
            self.answered.errback()

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        try:
            reply = self._accept(datagram)
        except MalformedMessage:
            return  # It may be forged; the true one may still come.
        if reply is not None and not self.answered.called:
            self.answered.callback(reply)

    def connectionRefused(self) -> None:
        if not self.answered.called:
            self.answered.errback(ConnectionRefusedError("no DNS server there"))

    def stopProtocol(self) -> None:
        # epoll tells of ICMP's "port unreachable" as of an end, and the reactor closes the socket.
        self.connectionRefused()


class _StreamQuestion(Int16StringReceiver):
    """A question over TCP.

    :ivar answered: fires with the reply; fails if it is malformed or the connection ends first.
    :ivar closed: fires when the connection has ended.
    """

    MAX_LENGTH = REPLY_LIMIT

    def __init__(self, question: bytes, accept: Accept) -> None:
        self._question = question
        self._accept = accept
        self.answered: Deferred[Reply] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._question)

    def stringReceived(self, string: bytes) -> None:
        if self.answered.called:
            return
        try:
            reply = self._accept(string)
        except MalformedMessage:
            self.answered.errback()
            return
        if reply is None:
            self.answered.errback(MalformedMessage("an answer to another question"))
        else:
            self.answered.callback(reply)

    def lengthLimitExceeded(self, length: int) -> None:
        if not self.answered.called:
            self.answered.errback(MalformedMessage(f"a reply of {length} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answered.called:
            self.answered.errback(ConnectionDone("closed the connection without an answer"))
        self.closed.callback(None)


def _matching(data: bytes, number: int, question: Question) -> Reply | None:
    """The reply, if it is one to this very question; None if it is to another."""
    reply = parse_reply(data)
    if reply.id != number or (reply.question or question) != question:
        return None
    # A server that refuses may leave the question out; an answer must repeat it.
    if reply.question is None and reply.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return None
    return reply


async def _within(clock: Any, awaited: Deferred[T], seconds: float) -> T | None:
    """What ``awaited`` gives within so many seconds, else None."""
    awaited.addTimeout(seconds, clock)
    try:
        return await awaited
    except TimeoutError:
        return None


def _code(rcode: int) -> str:
    try:
        return Rcode(rcode).name
    except ValueError:
        return f"code {rcode}"


def shown(server: Address) -> str:
    """A server as one writes it: ``192.0.2.1:53``, ``[2001:db8::1]:53``."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explained(name: str, kind: Kind, servers: Sequence[Address], said: dict[Address, str]) -> str:
    """Which question got which answer, and what to do."""
    asked = f"DNS question {name} {kind.name}"
    if not servers:
        return f"{asked}: no name server is configured; set lookup.nameservers"
    told = ", ".join(f"{shown(each)}: {said.get(each, 'no answer')}" for each in servers)
    return f"{asked} was not answered ({told}); check the name servers and the zone's own servers"
