"""The agent: a node with a virtual network for unmodified programs, under a control socket.

``ntm up`` and ``twistd ntm-client`` run it. Programs inside the virtual network go on while it is
restarted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AF_INET, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ntmobile.client.announcing import Announcing
from ntmobile.client.control import Command, listen_control
from ntmobile.client.exchange.serving import Serving
from ntmobile.client.known import load_known, save_known
from ntmobile.client.last_port import load_port, save_port
from ntmobile.client.node import Node
from ntmobile.client.reporting import Reporting
from ntmobile.client.state import KNOWN, PORT
from ntmobile.errors import InvalidName, NTMobileError
from ntmobile.interfaces import (
    IAttachment,
    IAttachmentFactory,
    INotificationPresenter,
    VirtualAddresses,
)
from ntmobile.machines.device.shown import Shown
from ntmobile.machines.tunnel.correspondence import Of
from ntmobile.machines.tunnel.events import Established
from ntmobile.plugins.notify_none import NoPresenter
from ntmobile.protocols.resolving import NameResolver, adopt
from ntmobile.wire.icmp import Reason, unreachable
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

log = Logger()

#: Where programs inside ask for names; their resolv.conf says so.
RESOLVER: Final = ("127.0.0.53", 53)
#: Seconds after which a new correspondent's addresses are kept.
KEEP_AFTER: Final = 0.2


class Agent(Service):
    """One state directory's agent.

    :param node: the device. :param attach: makes the virtual network.
    :param end: ends the program, for ``ntm down``. :param presenter: shows what comes.
    :ivar announcing: through which others have something shown.
    """

    def __init__(
        self,
        reactor: Any,
        state: Path,
        node: Node,
        attach: IAttachmentFactory,
        end: Callable[[], None],
        presenter: INotificationPresenter | None = None,
    ) -> None:
        self.node = node
        self.announcing = Announcing(node.fqdn, presenter or NoPresenter())
        self.attachment: IAttachment | None = None
        self.problem = ""
        self._reactor = reactor
        self._state = state
        self._attach = attach
        self._end = end
        self._control: Any = None
        self._resolving: Any = None
        self._shutdown = False
        self._kept: tuple[Shown, ...] = ()
        self._keeping: IDelayedCall | None = None
        node.listen(self._told)
        node.listen(self.announcing.told)

    def startService(self) -> None:
        """Open control socket and node, then the virtual network.

        :raises NTMobileError: another agent runs, or no socket can be opened.
        """
        Service.startService(self)
        self._control = listen_control(self._reactor, self._state, self.commands())
        self.node.shown.restore(load_known(self._state / KNOWN))
        self._kept = self.node.shown.remembered
        self.announcing.start()
        self.node.start(load_port(self._state / PORT))
        self._keep_port()
        opening = Deferred.fromCoroutine(self._open())
        opening.addErrback(lambda failure: log.failure("opening the virtual network", failure))

    async def _open(self) -> None:
        certificate = self.node.certificate
        mtu = self.node.settings.mtu
        addresses = VirtualAddresses(str(certificate.ipv6), str(certificate.ipv4), mtu=mtu)
        try:
            attachment = await self._attach.open(
                addresses, self._state, self._from_application, self._lost
            )
        except NTMobileError as problem:
            self.problem = str(problem)
            log.error("no virtual network: {problem}", problem=self.problem)
            return
        self.attachment = attachment
        self.node.set_attachment(attachment)
        try:
            self._resolving = self._resolve_inside(attachment)
        except NTMobileError as problem:
            log.info("no resolver inside: {problem}", problem=str(problem))
        log.info("the virtual network is open")

    def _resolve_inside(self, attachment: IAttachment) -> Any:
        """Answer DNS questions at 127.0.0.53 inside the virtual network."""
        resolver = NameResolver(self._reactor, self.resolve, self.node.belongs, self.reverse)
        with (
            attachment.socket(AF_INET, SOCK_DGRAM) as datagram,
            attachment.socket(AF_INET, SOCK_STREAM) as stream,
        ):
            datagram.bind(RESOLVER)
            stream.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            stream.bind(RESOLVER)
            stream.listen(16)
            return adopt(self._reactor, resolver, datagram.fileno(), stream.fileno())

    def _told(self, event: object) -> None:
        """Have new correspondents kept, all of a moment together."""
        established = isinstance(event, Of) and isinstance(event.effect, Established)
        if established and self._keeping is None:
            self._keeping = self._reactor.callLater(KEEP_AFTER, self._keep)

    def _keep(self) -> None:
        self._keeping = None
        known = self.node.shown.remembered
        if known != self._kept:
            self._kept = known
            save_known(self._state / KNOWN, known)

    def _keep_port(self) -> None:
        ports = self.node.traffic.sockets.ports
        if ports and not self.node.settings.port:
            save_port(self._state / PORT, next(iter(ports.values())))

    def _lost(self, problem: NTMobileError) -> None:
        self.problem = str(problem)
        self.attachment = None
        self.node.set_attachment(None)
        log.error("the virtual network ended: {problem}", problem=str(problem))

    def _from_application(self, packet: Buffer, offload: Offload | None = None) -> None:
        if self.node.packet_from_application(packet, offload) or self.attachment is None:
            return
        error = unreachable(packet, Reason.NO_ROUTE)
        if error is not None:
            self.attachment.send(error)

    def stopService(self) -> Deferred[None]:
        """Close; the virtual network is ended only by ``ntm down``."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._resolving is not None:
            await self._resolving.stop()
        self._keep_port()
        await self.node.stop()
        await self.announcing.stop()
        if self._keeping is not None:
            self._keeping.cancel()
        self._keep()
        if self.attachment is not None:
            if self._shutdown:
                self.attachment.shutdown()
            else:
                self.attachment.close()
        if self._control is not None:
            stopped = self._control.stopListening()
            if stopped is not None:
                await stopped

    # -- names inside

    async def resolve(self, name: str) -> tuple[IPv6Address, IPv4Address]:
        """A name to virtual addresses; brings the tunnel up. Raises as :meth:`Node.connect`."""
        if name == self.node.fqdn:
            return self.node.certificate.ipv6, self.node.certificate.ipv4
        shown = await self.node.resolve(name)
        return shown.ipv6, shown.ipv4

    def reverse(self, address: IPv4Address | IPv6Address) -> str | None:
        """A virtual address to a name."""
        if address in (self.node.certificate.ipv6, self.node.certificate.ipv4):
            return self.node.fqdn
        shown = self.node.shown.at(address.packed)
        return None if shown is None else shown.fqdn

    # -- commands

    def commands(self) -> dict[str, Command]:
        """The commands of the control socket."""
        reporting = Reporting(
            self.node, lambda: self.problem or ("open" if self.attachment else "opening")
        )
        serving = Serving(self._reactor, self.node.exchange)

        async def status(_: Mapping[str, Any], __: object) -> object:
            return reporting.status()

        async def peers(_: Mapping[str, Any], __: object) -> object:
            return reporting.peers()

        async def ping(parameters: Mapping[str, Any], _: object) -> object:
            return await self.node.ping(_name(parameters), float(parameters.get("timeout", 5)))

        async def connect(parameters: Mapping[str, Any], _: object) -> object:
            tunnel = await self.node.connect(_name(parameters))
            return tunnel.peer

        async def end(parameters: Mapping[str, Any], _: object) -> object:
            every = [tunnel.peer for tunnel in self.node.correspondence.tunnels]
            ended = [_name(parameters)] if "name" in parameters else every
            for peer in ended:
                self.node.end(peer)
            return ended

        async def resolve(parameters: Mapping[str, Any], _: object) -> object:
            ipv6, ipv4 = await self.resolve(_name(parameters))
            return {"ipv6": str(ipv6), "ipv4": str(ipv4)}

        async def why(parameters: Mapping[str, Any], _: object) -> object:
            return await reporting.why(_name(parameters))

        async def netcheck(_: Mapping[str, Any], __: object) -> object:
            return await reporting.netcheck()

        async def down(_: Mapping[str, Any], __: object) -> object:
            self._shutdown = True
            self._reactor.callLater(0.05, self._end)
            return "going down"

        return {
            "status": status,
            "peers": peers,
            "ping": ping,
            "connect": connect,
            "end": end,
            "resolve": resolve,
            "why": why,
            "netcheck": netcheck,
            "down": down,
            "send": serving.send,
            "sent": serving.sent,
            "withdraw": serving.withdraw,
            "inbox": serving.inbox,
            "get": serving.get,
        }


def _name(parameters: Mapping[str, Any]) -> str:
    name = parameters.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidName("a name is needed, such as phone.alice.dc1.ntm.example")
    return name.rstrip(".").lower()
