"""The client's UDP sockets: one a family, for signalling, tunnels and relays alike (rule R23)."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IReactorSocket
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ntmobile.errors import NotPermittedHere
from ntmobile.machines.effects import Address

log = Logger()

#: Largest datagram taken from a socket.
DATAGRAM_SIZE: Final = 8192

Receiver = Callable[[bytes, Address], None]


class ClientPort(DatagramProtocol):
    """One family's socket."""

    noisy = False

    def __init__(self, receive: Receiver) -> None:
        self._receive = receive

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Any datagram."""
        self._receive(datagram, addr[:2])

    def connectionRefused(self) -> None:
        """An ICMP error; other paths and timers see to it."""


class ClientSockets:
    """Both sockets, on one port number where that is possible.

    :param receive: called with each datagram and where it came from.
    :ivar failures: datagrams that the system refused to send, by reason.
    """

    def __init__(self, reactor: Any, receive: Receiver) -> None:
        self._reactor = reactor
        self._receive = receive
        self._ports: dict[int, tuple[ClientPort, Any]] = {}
        self.failures: Counter[str] = Counter()

    def open(self, port: int = 0) -> None:
        """Open the sockets of all families that this system has.

        :param port: UDP port; 0 takes any, as does one that is in use, with a warning.
        :raises NotPermittedHere: there is neither.
        """
        problem: object = None
        configured = port
        for family in (4, 6):
            try:
                listening = self._listen(family, port)
            except (OSError, CannotListenError) as failed:
                problem = getattr(failed, "strerror", None) or failed
                log.info("no IPv{family} socket: {problem}", family=family, problem=problem)
                continue
            self._ports[family] = listening
            given = listening[1].getHost().port
            if configured not in (0, given):
                log.warn(
                    "UDP port {port} of IPv{family} is in use by another program; this is {given}",
                    port=configured,
                    family=family,
                    given=given,
                )
            port = port or given
        if not self._ports:
            raise NotPermittedHere(f"no UDP socket can be opened: {problem}")

    def _listen(self, family: int, port: int) -> tuple[ClientPort, Any]:
        protocol = ClientPort(self._receive)
        if not IReactorSocket.providedBy(self._reactor):
            host = "0.0.0.0" if family == 4 else "::"
            listening = self._reactor.listenUDP(port, protocol, interface=host)
            return protocol, listening
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.socket(kind, socket.SOCK_DGRAM) as made:
            made.setblocking(False)
            if kind == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
            try:
                made.bind(("", port))
            except OSError:
                made.bind(("", 0))
            listening = self._reactor.adoptDatagramPort(
                made.fileno(), kind, protocol, DATAGRAM_SIZE
            )
        return protocol, listening

    @property
    def ports(self) -> dict[int, int]:
        """Family to port number."""
        return {family: listening.getHost().port for family, (_, listening) in self._ports.items()}

    def send(self, datagram: bytes, remote: Address) -> bool:
        """Send a datagram; what the system refuses is counted: other paths see to it.

        :return: ``False`` if it is larger than the path, as far as the system knows.
        """
        found = self._ports.get(6 if ":" in remote[0] else 4)
        if found is None or found[0].transport is None:
            self.failures["no such family"] += 1
            return True
        try:
            found[0].transport.write(datagram, remote)
        except MessageLengthError:
            self.failures["larger than the path"] += 1
            return False
        except OSError as problem:
            self.failures[problem.strerror or "unknown"] += 1
        return True

    async def reopen(self) -> None:
        """Take new sockets, on other ports, in the place of those that are open.

        :raises NotPermittedHere: there are none; those that were stay closed.
        """
        former, self._ports = self._ports, {}
        try:
            self.open()
        finally:
            await self._close(former)

    async def close(self) -> None:
        """Close both."""
        ports, self._ports = self._ports, {}
        await self._close(ports)

    async def _close(self, ports: dict[int, tuple[ClientPort, Any]]) -> None:
        for _, listening in ports.values():
            stopped = listening.stopListening()
            if stopped is not None:
                await stopped
