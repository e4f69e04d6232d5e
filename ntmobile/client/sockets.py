"""The client's UDP sockets: one a family, for signalling, tunnels and relays alike (rule R23).

The system chooses the interface of a datagram by its routes. Where another one is to be used, the
datagram says so itself (``IP_PKTINFO``, ip(7); RFC 3542), so that the sockets and their ports stay.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from attrs import define, field
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from ntmobile.errors import NotPermittedHere
from ntmobile.machines.effects import Address
from ntmobile.protocols.datagram_adapter import RunTransport, listen
from ntmobile.protocols.datagram_port import RunReceiver
from ntmobile.protocols.datagram_sending import Ancillary
from ntmobile.protocols.fragmenting import never_fragment
from ntmobile.wire.packet import Buffer

log = Logger()

#: Of ip(7); a constant of the socket module in later Pythons only.
_IP_PKTINFO: Final = 8
#: Correspondents whose route is remembered.
_ROUTES: Final = 4096


@define
class _Pin:
    """Datagrams of a family go through this interface, where else the default route is taken.

    :ivar ancillary: what says so to the kernel. :ivar preferred: the own addresses of the
        interface that the default route leads through.
    :ivar routes: host to whether it is reached by the default route.
    """

    ancillary: Ancillary
    index: int
    preferred: tuple[str, ...]
    routes: dict[str, bool] = field(factory=dict)


def _through(family: int, index: int) -> Ancillary:
    """Ancillary data: send through this interface, from its address."""
    if family == 4:
        return [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i8x", index))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16xi", index))]


class ClientSockets:
    """Both sockets, on one port number where that is possible.

    :param receiver: is handed what comes.
    """

    def __init__(self, reactor: Any, receiver: RunReceiver) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._ports: dict[int, tuple[RunTransport, Any]] = {}
        self._pins: dict[int, _Pin] = {}
        self._networks: tuple[IPv4Network | IPv6Network, ...] = ()
        self._failures: Counter[str] = Counter()

    @property
    def failures(self) -> Counter[str]:
        """Datagrams that the system refused to send, by reason."""
        return sum((port.dropped for port, _ in self._ports.values()), self._failures.copy())

    @property
    def overruns(self) -> int:
        """Datagrams that came faster than they were read, and were lost."""
        return sum(port.kernel_drops for port, _ in self._ports.values())

    @property
    def kind(self) -> str:
        """How datagrams are received and sent, for people."""
        return next((port.kind for port, _ in self._ports.values()), "not open")

    def open(self, port: int = 0, last: int = 0) -> None:
        """Open the sockets of all families that this system has.

        :param port: UDP port; 0 takes any, as does one that is in use, with a warning.
        :param last: the one to take rather than any, if it is free.
        :raises NotPermittedHere: there is neither.
        """
        problem: object = None
        configured, port = port, port or last
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

    def _listen(self, family: int, port: int) -> tuple[RunTransport, Any]:
        host = "0.0.0.0" if family == 4 else "::"
        return listen(self._reactor, (host, port), self._receiver, _bind)

    @property
    def ports(self) -> dict[int, int]:
        """Family to port number."""
        return {family: listening.getHost().port for family, (_, listening) in self._ports.items()}

    def pin(self, family: int, index: int, preferred: tuple[str, ...]) -> None:
        """Send through this interface what the system would send by the default route.

        :param preferred: own addresses of the interface that the default route leads through.
        """
        known = self._pins.get(family)
        if known is None or (known.index, known.preferred) != (index, preferred):
            self._pins[family] = _Pin(_through(family, index), index, preferred)

    def unpin(self, family: int) -> None:
        """Send by the system's routes."""
        self._pins.pop(family, None)

    def forget_routes(self, networks: Iterable[str]) -> None:
        """The system's routes may be others now; it is in these networks."""
        self._networks = tuple(ip_network(one, strict=False) for one in networks)
        for pin in self._pins.values():
            pin.routes.clear()

    def send(self, datagram: Buffer, remote: Address, interface: int = 0) -> bool:
        """Send a datagram; what the system refuses is counted: other paths see to it.

        :param interface: index of the interface to send it through; 0: as everything.
        :return: ``False`` if it is larger than the path, as far as the system knows.
        """
        port, ancillary = self._port(remote[0], interface)
        return port is None or port.send(datagram, remote, ancillary)

    def send_run(self, data: Buffer, segment: int, remote: Address) -> bool:
        """Send datagrams of ``segment`` bytes that lie one after another, as :meth:`send` does."""
        port, ancillary = self._port(remote[0])
        return port is None or not port.send_run(data, segment, remote, ancillary)

    def _port(self, host: str, interface: int = 0) -> tuple[RunTransport | None, Ancillary]:
        """What to send to a host through, and how."""
        family = 6 if ":" in host else 4
        found = self._ports.get(family)
        if found is None:
            self._failures["no such family"] += 1
            return None, ()
        pin = self._pins.get(family)
        if interface:
            return found[0], _through(family, interface)
        if pin is not None and self._by_default_route(host, family, pin):
            return found[0], pin.ancillary
        return found[0], ()

    def _by_default_route(self, host: str, family: int, pin: _Pin) -> bool:
        """Whether a host is reached by the default route, and not by a route of its own."""
        known = pin.routes.get(host)
        if known is None:
            address = ip_address(host)
            near = any(address in one for one in self._networks if one.version == family)
            known = not near and _source(host, family) in pin.preferred
            if len(pin.routes) >= _ROUTES:
                pin.routes.clear()
            pin.routes[host] = known
        return known

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

    async def _close(self, ports: dict[int, tuple[RunTransport, Any]]) -> None:
        for port, _ in ports.values():
            self._failures += port.dropped
        for _, listening in ports.values():
            stopped = listening.stopListening()
            if stopped is not None:
                await stopped


def _bind(address: Address) -> socket.socket:
    """A socket on this address, or on another port where that is in use (``open`` says so)."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        never_fragment(made, believe=False)  # paths are probed (R23)
        try:
            made.bind(address)
        except OSError:
            made.bind((address[0], 0))
    except BaseException:
        made.close()
        raise
    return made


def _source(host: str, family: int) -> str:
    """The own address from which the system would send to a host; empty where it has no route."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((host, 9))
        except OSError:
            return ""
        return str(asking.getsockname()[0])
