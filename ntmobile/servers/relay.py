"""The relay server as a service: data port, machine, and the link to the DC (R25 to R27)."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger

from ntmobile import __version__
from ntmobile.errors import ConfigurationError
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.server import RelayServer
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.datagram_watch import DatagramWatch
from ntmobile.protocols.relay_sockets import bind_data_port, family_of, path_limit
from ntmobile.protocols.relaying import Relaying
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.configuration import RelayConfiguration
from ntmobile.servers.listening import listen_udp
from ntmobile.servers.relay_link import CoordinatorLink
from ntmobile.wire.messages.coordination import RelayRegistration
from ntmobile.wire.messages.fields import Endpoint

log = Logger()


class RelayService(Service):
    """One relay server.

    :ivar relaying: its tunnels and sockets.
    :param random: makes the boot identifier and the secrets of this start.
    :raises ConfigurationError: certificate, key or trust are not usable, or the configuration has
        more than one address of a family.
    """

    def __init__(
        self,
        configuration: RelayConfiguration,
        reactor: Any,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._configuration = configuration
        self._reactor = reactor
        self._sockets: list[socket.socket] = []
        self._ports: list[Any] = []
        self._watch: DatagramWatch | None = None
        listening = configuration.listening
        _one_a_family(listening.addresses, "addresses")
        _one_a_family(listening.listen, "listen")
        credentials, trust = configuration.identity.credentials(), configuration.identity.trust()
        boot = random(8)
        limits = RelayLimits(
            capacity=configuration.tunnels, rate=configuration.rate, idle=configuration.idle
        )
        self.relaying = Relaying(RelayServer(boot, limits, random), reactor, path_limit)
        coordinator = configuration.coordinator
        tls = client_context_factory(
            credentials.key, credentials.chain, trust, coordinator.role, coordinator.name
        )
        registration = RelayRegistration(
            configuration.name,
            boot,
            tuple(Endpoint.of((host, listening.port)) for host in listening.addresses),
            configuration.tunnels,
            __version__,
        )
        self._link = CoordinatorLink(reactor, coordinator, tls, self.relaying, registration)

    def bind(self) -> RelayService:
        """Take the sockets before the program goes to the background, so that its user is told.

        :raises ConfigurationError: a port is in use, or an address is not this machine's.
        """
        if IReactorFDSet.providedBy(self._reactor) and not self._sockets:
            listening = self._configuration.listening
            for host in listening.listen:
                self._sockets.append(bind_data_port((host, listening.port)))
        return self

    def startService(self) -> None:
        """Open the data port, and dial the DC. :raises ConfigurationError: see :meth:`bind`."""
        Service.startService(self)
        self.bind()
        listening = self._configuration.listening
        for bound in self._sockets:
            port = DatagramPort(bound, self.relaying, self._reactor)
            self.relaying.attach(port, ipv6=bound.family == socket.AF_INET6)
            port.startListening()
            self._ports.append(port)
        if not self._sockets:  # a reactor without sockets: a test's
            for host in listening.listen:
                protocol = self.relaying.port(ipv6=":" in host)
                self._ports.append(listen_udp(self._reactor, listening.port, protocol, host))
        self._sockets.clear()
        ports = [port for port in self._ports if isinstance(port, DatagramPort)]
        self._watch = DatagramWatch(self._reactor, ports)
        self._watch.start()
        self._link.start()
        log.info(
            "relay server {name} on UDP port {port} of {hosts}: {kind}",
            name=self._configuration.name,
            port=listening.port,
            hosts=", ".join(listening.listen),
            kind=self.relaying.ports[0].kind,
        )

    def stopService(self) -> Deferred[None]:
        """Close link and port; tunnels end."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.relaying.stop()
        if self._watch is not None:
            self._watch.stop()
        await self._link.stop()
        counts = Counter(self.relaying.server.tally.counts())
        for port in self._ports:
            await maybeDeferred(port.stopListening)
            if isinstance(port, DatagramPort):
                counts.update(port.counts())
        self._ports.clear()
        log.info("relayed: {counts}", counts={name: n for name, n in counts.items() if n})


def _one_a_family(addresses: tuple[str, ...], key: str) -> None:
    if len({family_of(host) for host in addresses}) != len(addresses):
        raise ConfigurationError(f"{key}: a relay server has at most one address of each family")
