"""The node: one device's end of the platform (the public API).

:func:`ntmobile.client.opening.open_node` opens one inside a program; the agent runs one for
unmodified programs.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Network
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ntmobile.client.directing import Directing, Pins
from ntmobile.client.exchange import Exchange
from ntmobile.client.login import LoginResult
from ntmobile.client.registering import Registering
from ntmobile.client.tracing import DatagramTrace
from ntmobile.client.traffic import Traffic
from ntmobile.client.ways import WaysOut
from ntmobile.errors import (
    InvalidName,
    NTMobileError,
    UnknownName,
    Unreachable,
)
from ntmobile.interfaces import IAttachment, INetworkWatcher, LocalNetworks
from ntmobile.machines.device.shown import Shown, ShownAddresses
from ntmobile.machines.effects import Address
from ntmobile.machines.login.identities import Devices
from ntmobile.machines.signalling.clients import Policy
from ntmobile.machines.signalling.registration import Rebound, Registered
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.tunnel.correspondence import Correspondence, Of
from ntmobile.machines.tunnel.events import Doubted, Ended, Established, PathChanged, RoundTrip
from ntmobile.machines.tunnel.paths import Path
from ntmobile.machines.tunnel.tunnel import LocalIdentity, Tunnel
from ntmobile.protocols import trace
from ntmobile.protocols.virtual_udp import VirtualSocket
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    DirectionRefusal,
    NotificationRequest,
    Outcome,
    PolicyRequest,
    Purpose,
    Reason,
    RevocationOrder,
    RouteDirection,
    RouteDirectionAcknowledgement,
)
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

log = Logger()

#: Seconds that :meth:`Node.connect` waits for a tunnel.
CONNECT_TIMEOUT: Final = 15.0
#: The largest inner packet that goes whole over Ethernet, by IPv4 and by IPv6 outside.
DEVICE_MTU: Final = 1416


@frozen
class NodeSettings:
    """What a node may be told; see ``node.toml``.

    :ivar allow: FQDN patterns of those who may ask for this device; None: the realm's own devices.
    :ivar relay_only: patterns of those from whom addresses are hidden.
    :ivar keepalive: shortest and longest keep-alive interval, in seconds.
    :ivar idle: seconds after which an unused tunnel ends. :ivar port: UDP port; 0 takes any.
    :ivar mtu: of the virtual network, in bytes; paths that carry less are found.
    """

    allow: tuple[str, ...] | None = None
    relay_only: tuple[str, ...] = ()
    keepalive: tuple[float, float] = (15.0, 120.0)
    idle: float = 300.0
    port: int = 0
    mtu: int = DEVICE_MTU


class Node:
    """One device on the platform.

    :param identity: the device's keys and certificate; see ``ntmobile.client.identity``.
    :param watcher: tells of changes of the network.
    :param log_in: logs in with the certificate.
    :param ask_devices: gets the verified device list of a user (R5).
    :ivar exchange: stored data: what is sent to and from devices that are off.
    :ivar fqdn: this device. :ivar correspondence: its tunnels. :ivar shown: its correspondents.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        certificate: DeviceCertificate,
        x25519: bytes,
        sign: Callable[[bytes], bytes],
        trust: TrustStore,
        pins: Pins,
        log_in: Callable[[], Deferred[LoginResult]],
        watcher: INetworkWatcher,
        settings: NodeSettings,
        ask_devices: Callable[[str], Awaitable[Devices]],
        exchange: Exchange,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.fqdn = certificate.fqdn
        self.certificate = certificate
        self.settings = settings
        self.exchange = exchange
        self.networks = LocalNetworks(())
        self._reactor = reactor
        self._x25519 = x25519
        self._watcher = watcher
        self._watching = False
        self._registering: list[Deferred[None]] = []
        self._listeners: list[Callable[[object], None]] = []
        self._connecting: dict[str, list[Deferred[Tunnel]]] = {}
        self._pings: dict[tuple[str, int], Deferred[float]] = {}
        self._sequence = 0
        self._since: dict[str, float] = {}
        allow = settings.allow if settings.allow is not None else (f"*.{trust.home}",)
        policy = Policy(allow, settings.relay_only)
        self.shown = ShownAddresses(certificate.ipv6, certificate.ipv4)
        local = LocalIdentity.of(certificate, x25519)
        self.correspondence = Correspondence(local, random, idle=settings.idle, mtu=settings.mtu)
        self._trace = DatagramTrace(self.fqdn)
        self.traffic = Traffic(
            reactor,
            self.correspondence,
            self.shown,
            lambda datagram, remote: self.registering.datagram_received(datagram, remote),
            lambda wanted: self.directing.repair(wanted),
            self._tunnel_told,
            self._trace,
        )
        self.registering = Registering(
            reactor,
            self,
            log_in,
            self.traffic.sockets.send,
            self.local_endpoints,
            shortest=settings.keepalive[0],
            longest=settings.keepalive[1],
        )
        self.ways = WaysOut(
            reactor,
            self.traffic.sockets,
            self.registering.knock,
            lambda: self._moved(self.networks),
        )
        # Said at each start, also where it is the default: the DC keeps what it was told before.
        self.registering.policy = PolicyRequest(0, allow, settings.relay_only)
        self.directing = Directing(
            self.fqdn,
            self.registering,
            self.correspondence,
            self.shown,
            pins,
            policy,
            trust,
            reactor,
            sign,
            self._refused,
            ask_devices,
            self.traffic.flush,
        )

    # -- life

    def start(self, last_port: int = 0) -> None:
        """Open the sockets, watch the network, log in and register; returns at once.

        :param last_port: the UDP port to take where none is configured and it is free.
        :raises NotPermittedHere: no socket can be opened.
        """
        self.traffic.sockets.open(self.settings.port, last_port)
        self._took(self._watcher.start(self._network_changed))
        self.ways.changed(self.networks)
        self._watching = True
        self.registering.start()

    async def rebind(self) -> None:
        """Take new sockets, and go on from there as after a move.

        For programs whose sockets the system took away while they slept.

        :raises NotPermittedHere: no socket can be opened.
        """
        await self.traffic.sockets.reopen()
        ports = ", ".join(map(str, self.traffic.sockets.ports.values()))
        trace.note("network", f"UDP port {ports}")
        self._moved(self.networks)

    async def stop(self) -> None:
        """End all tunnels, deregister, close."""
        if self._watching:
            self._watching = False
            self._watcher.stop()
        for tunnel in self.correspondence.tunnels:
            self.correspondence.end(tunnel.peer, "going down", self._reactor.seconds())
        self.traffic.stop()
        self.ways.stop()
        await self.exchange.stop()
        await self.registering.stop()
        await self.traffic.sockets.close()

    def listen(self, listener: Callable[[object], None]) -> None:
        """Tell a listener of what happens: tunnel effects, registrations, stored data."""
        self._listeners.append(listener)

    def tell(self, event: object) -> None:
        """Tell the listeners."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.failure("a listener failed")

    # -- applications' side

    def set_attachment(self, attachment: IAttachment | None) -> None:
        """Whose packets are those of the applications; None: nobody's."""
        if attachment is None:
            self.traffic.set_deliver(lambda packet: None)
        else:
            self.traffic.set_taker(attachment)

    def packet_from_application(self, packet: Buffer, offload: Offload | None = None) -> bool:
        """An inner packet of an application; ``False`` if it goes to nobody that is known."""
        return self.traffic.packet_from_application(packet, offload)

    def listen_datagram(
        self,
        port: int,
        receive: Callable[[bytes, str, int], None],
        refused: Callable[[str, int], None] | None = None,
    ) -> VirtualSocket:
        """UDP on this device's virtual addresses inside this program, without any device.

        :param port: 0 takes a free one. :param receive: called with payload, source address, port.
        :param refused: called with address and port where nobody listens there.
        :return: has ``send(payload, address, port)`` and ``close()``.
        :raises AlreadyExists: the port is in use.
        :raises NotPermittedHere: the node has another attachment.
        """
        return self.traffic.listen_datagram(port, receive, refused)

    async def when_registered(self, timeout: float) -> None:
        """Wait until the DC has our location. :raises Unreachable: not in ``timeout`` seconds."""
        if self.registering.registered:
            return
        waiting: Deferred[None] = Deferred()
        self._registering.append(waiting)

        def explain(result: object, _: float) -> Failure:
            text = f"not registered within {timeout:g} s: {self.registering.problem}"
            return Failure(Unreachable(text))

        waiting.addTimeout(timeout, self._reactor, explain)
        await waiting

    async def connect(self, name: str, timeout: float = CONNECT_TIMEOUT) -> Tunnel:
        """A live tunnel to a device by its FQDN, or to a user's device that registered last.

        :raises InvalidName: not a name of a device or user.
        :raises UnknownName: nobody of that name, or not for us.
        :raises Unreachable: no way was found in ``timeout`` seconds.
        :raises AuthenticationError: it is not trusted, or another than the pinned one.
        """
        if names.check_name(name) == self.fqdn:
            raise InvalidName(f"{name} is this device itself")
        tunnel = self.correspondence.find(name)
        if tunnel is not None and tunnel.established:
            return tunnel
        peer = name
        if tunnel is None:
            peer = await self.directing.ask(name, Purpose.NEW)
        tunnel = self.correspondence.find(peer)
        if tunnel is not None and tunnel.established:
            return tunnel
        waiting: Deferred[Tunnel] = Deferred()
        self._connecting.setdefault(peer, []).append(waiting)
        waiting.addTimeout(timeout, self._reactor, self._timed_out(peer, timeout))
        return await waiting

    def _timed_out(self, peer: str, timeout: float) -> Callable[[object, float], Failure]:
        def explain(result: object, _: float) -> Failure:
            why = self.directing.history.get(peer, "")
            text = f"{peer} did not answer within {timeout:g} s"
            return Failure(Unreachable(f"{text} ({why})" if why else text))

        return explain

    def belongs(self, name: str) -> bool:
        """Whether a name can be that of a correspondent: some trusted authority decides for it."""
        return self.directing.trust.trusts(name)

    async def resolve(self, name: str) -> Shown:
        """Names to the addresses applications use; brings the tunnel up. Raises as connect does."""
        tunnel = await self.connect(name)
        shown = self.shown.of(tunnel.peer)
        if shown is None:
            raise UnknownName(f"{name} has no address here")
        return shown

    async def ping(self, name: str, timeout: float = 5.0) -> float:
        """Seconds of a round trip to the other agent in the tunnel. Raises as connect does."""
        tunnel = await self.connect(name)
        self._sequence += 1
        key = (tunnel.peer, self._sequence)
        answer: Deferred[float] = Deferred()
        self._pings[key] = answer
        answer.addTimeout(timeout, self._reactor, self._timed_out(tunnel.peer, timeout))
        self.correspondence.ping(tunnel.peer, self._sequence, self._reactor.seconds())
        self.traffic.flush()
        try:
            return await answer
        finally:
            self._pings.pop(key, None)

    def established_seconds(self, peer: str) -> float | None:
        """For how many seconds a tunnel has stood; None if it does not."""
        since = self._since.get(peer)
        return None if since is None else round(self._reactor.seconds() - since, 3)

    def end(self, peer: str, reason: str = "ended here") -> None:
        """End the tunnel with a device."""
        self.correspondence.end(peer, reason, self._reactor.seconds())
        self.traffic.flush()

    # -- network's side

    def local_endpoints(self) -> Mapping[int, tuple[Endpoint, ...]]:
        """Own addresses with the port of the socket, by family."""
        found: dict[int, list[Endpoint]] = {}
        for host in (*self.networks.addresses, *self.registering.loopbacks):
            family = 6 if ":" in host else 4
            port = self.traffic.sockets.ports.get(family)
            if port is not None:
                found.setdefault(family, []).append(Endpoint.of((host, port)))
        return {family: tuple(endpoints) for family, endpoints in found.items()}

    def _took(self, networks: LocalNetworks) -> tuple[Address, ...]:
        self.networks = networks
        self.shown.set_networks(
            IPv4Network(one, strict=False) for one in networks.networks if ":" not in one
        )
        addresses = tuple(
            endpoint.pair()
            for endpoints in self.local_endpoints().values()
            for endpoint in endpoints
        )
        self.correspondence.addresses = addresses
        self.correspondence.gateways = networks.gateways
        return addresses

    def _network_changed(self, networks: LocalNetworks) -> None:
        """At once and in parallel: register, probe, ask for directions (design, section 5).

        Where another network is merely preferred, everything stays where it is until that works.
        """
        log.info("the network changed: {addresses}", addresses=", ".join(networks.addresses))
        trace.note("network", ", ".join(networks.addresses) or "none")
        if self.ways.changed(networks):
            self._took(networks)
            self.registering.network_changed()
        else:
            self._moved(networks)

    def _another_way(self) -> None:
        self._moved(self.networks)

    def _moved(self, networks: LocalNetworks) -> None:
        addresses = self._took(networks)
        self.registering.network_changed()
        self.correspondence.network_changed(addresses, self._reactor.seconds())
        self.traffic.flush()
        self.exchange.network_changed()

    def _tunnel_told(self, told: Of) -> None:
        peer = told.peer
        match told.effect:
            case Established() as established:
                log.info("tunnel with {peer}: {path}", peer=peer, path=_way(established.path))
                trace.note("tunnel", _way(established.path))
                self._since[peer] = self._reactor.seconds()
                tunnel = self.correspondence.find(peer)
                for waiting in self._connecting.pop(peer, []):
                    if tunnel is not None and not waiting.called:
                        waiting.callback(tunnel)
            case PathChanged(path, reason):
                trace.note("path", _way(path))
                log.info(
                    "tunnel with {peer} now {path}: {reason}",
                    peer=peer,
                    path=_way(path),
                    reason=reason,
                )
            case Doubted():
                self.ways.doubt()
            case Ended(reason):
                log.info("tunnel with {peer} ended: {reason}", peer=peer, reason=reason)
                self._since.pop(peer, None)
                self._refused(peer, Unreachable(f"{peer}: {reason}"))
            case RoundTrip(sequence, seconds):
                answer = self._pings.pop((peer, sequence), None)
                if answer is not None:
                    answer.callback(seconds)
        self.tell(told)

    def _refused(self, peer: str, problem: NTMobileError) -> None:
        for waiting in self._connecting.pop(peer, []):
            if not waiting.called:
                waiting.errback(Failure(problem))

    # -- what the DC says (client.registering.Told)

    def logged_in(self, session: LoginResult) -> None:
        """A login succeeded: a fresh certificate, and whom to trust."""
        self.certificate = session.certificate
        self.directing.trust = session.trust
        self.correspondence.renew(LocalIdentity.of(session.certificate, self._x25519))
        self._took(self.networks)
        self.tell(session)

    def registered(self, event: Registered) -> None:
        """The DC has our location."""
        waiting, self._registering = self._registering, []
        for one in waiting:
            if not one.called:
                one.callback(None)
        if event.fresh:
            self.correspondence.coordinator_back(self._reactor.seconds())
            self.traffic.flush()
            self.exchange.start()
        self.tell(event)

    def rebound(self, event: Rebound) -> None:
        """Our NAT rebound: what goes through it is probed as after a move."""
        addresses = self.correspondence.addresses
        self.correspondence.network_changed(addresses, self._reactor.seconds())
        self.traffic.flush()
        self.tell(event)

    def reached(self, way: object) -> None:
        """The DC answered by this way."""
        self.ways.answered(way)

    def silent(self) -> None:
        """The DC does not answer by the present way."""
        self.ways.doubt()

    def asked(self, asked: Asked) -> None:
        """The DC asks."""
        match asked.message:
            case RouteDirection() as direction:
                self._trace.directed(direction)
                outcome = self.directing.directed(direction)
                acknowledgement = RouteDirectionAcknowledgement(
                    direction.direction, direction.generation, outcome
                )
                self.registering.answer(asked, acknowledgement)
            case DirectionRefusal() as denied:
                self.directing.denied(denied)
                self.registering.answer(asked, Acknowledgement())
            case RevocationOrder(peer):
                log.warn("{peer} is revoked", peer=peer)
                self.registering.answer(asked, Acknowledgement())
                if peer == self.fqdn:
                    for tunnel in self.correspondence.tunnels:
                        self.end(tunnel.peer, "this device is revoked")
                    self.registering.revoked()
                else:
                    self.end(peer, "revoked")
            case NotificationRequest() as request:
                self.tell(request)
                if request.kind == Reason.ITEM:
                    self.exchange.look()
                self.registering.answer(asked, Acknowledgement())
            case _:
                refusal = Acknowledgement(Outcome.REFUSED, "not understood")
                self.registering.answer(asked, refusal)
        self.traffic.flush()


def _way(path: Path) -> str:
    """A path, for people: in the log and in the trace."""
    return f"direct to {path.remote[0]}" if path.relay is None else f"through {path.relay}"
