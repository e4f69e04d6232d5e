"""A host of the virtual internet: addresses that change, sockets, timers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.error import CannotListenError, MessageLengthError

from ntmobile.testing.clock import HostTimers
from ntmobile.testing.datagrams import (
    LOOPBACK,
    WILDCARD,
    Address,
    Datagram,
    Event,
    canonical,
    family,
)
from ntmobile.testing.links import Link, Way
from ntmobile.testing.networks import Network, Taps

if TYPE_CHECKING:
    from ntmobile.testing.internet import VirtualInternet
    from ntmobile.testing.reactor import HostReactor

#: Where a host takes the port of a socket that asked for none.
EPHEMERAL: Final = (32768, 60999)
#: Datagrams a suspended host keeps, as the buffers of its sockets would.
BACKLOG: Final = 256


class Socket(Protocol):
    """What a host hands datagrams to."""

    def received(self, datagram: Datagram) -> None:
        """Take a datagram that is addressed to this socket."""

    def vanish(self) -> None:
        """Be dead from now on, without a word to anyone: the host has crashed."""


class Interface:
    """A host's attachment to one network.

    :ivar link: the link between host and network, both ways; change it freely.
    :ivar addresses: the addresses it has there, canonical.
    """

    def __init__(self, host: Host, network: Network, link: Link) -> None:
        self.host = host
        self.network = network
        self.link = link
        self.addresses: list[str] = []

    def __repr__(self) -> str:
        return f"<Interface of {self.host.name} in {self.network.name}: {self.addresses}>"

    def arrive(self, datagram: Datagram) -> None:
        """Take a datagram from the network."""
        self._carry(datagram, Way.DOWN, self._arrived)

    def send(self, datagram: Datagram) -> None:
        """Hand a datagram to the network, whatever source it claims."""
        self._carry(datagram, Way.UP, lambda through: self.network.forward(through, self))

    def _carry(self, datagram: Datagram, way: Way, through: Callable[[Datagram], None]) -> None:
        internet = self.host.internet
        self.link.carry(datagram, way, internet.clock, self.host.random, through, self._lost)

    def _arrived(self, datagram: Datagram) -> None:
        if datagram.destination[0] in self.addresses:
            self.host.receive(datagram)
        else:
            self._lost(datagram, "the host has left")

    def _lost(self, datagram: Datagram, reason: str) -> None:
        self.host.internet.dropped(datagram, self.host.name, reason)


class Host:
    """A machine; make it with :meth:`VirtualInternet.host` or :meth:`Network.host`.

    :ivar interfaces: its attachments, the preferred one first.
    :ivar timers: its pending calls.
    :ivar reactor: what programs on it use as their reactor.
    """

    #: Set by :meth:`VirtualInternet.host`.
    reactor: HostReactor

    def __init__(self, internet: VirtualInternet, name: str) -> None:
        self.internet = internet
        self.name = name
        self.random = internet.randomness(f"host {name}")
        self.interfaces: list[Interface] = []
        self.timers = HostTimers(internet.clock)
        self._sockets: dict[tuple[str, str, int], Socket] = {}
        self._streams: dict[tuple[Address, Address], Socket] = {}
        self._watchers: list[Callable[[], None]] = []
        self._taps = Taps()
        self._suspended: list[Datagram] | None = None

    def __repr__(self) -> str:
        return f"<Host {self.name} {' '.join(self.addresses)}>"

    def entropy(self, length: int) -> bytes:
        """Seeded bytes, for a program that takes ``random: Callable[[int], bytes]``."""
        return self.random.randbytes(length)

    # Attachment.

    @property
    def addresses(self) -> list[str]:
        """All its addresses but loopback, those of the preferred interface first."""
        return [address for one in self.interfaces for address in one.addresses]

    @property
    def network(self) -> Network | None:
        """The network of the preferred interface."""
        return self.interfaces[0].network if self.interfaces else None

    @property
    def link(self) -> Link:
        """The link of the preferred interface."""
        return self.interfaces[0].link

    def address(self, version: int = 4) -> str:
        """The preferred address of a family; a ``LookupError`` where it has none."""
        for address in self.addresses:
            if family(address) == version:
                return address
        raise LookupError(f"host {self.name} has no IPv{version} address")

    def attach(self, network: Network, *addresses: str, link: Link | None = None) -> Interface:
        """Join a network as well, and prefer it from now on.

        :param addresses: those to have there; without any, one of each family of the network.
        :param link: its link there; by default a copy of ``network.link``.
        """
        interface = Interface(self, network, link if link is not None else network.link.copy())
        self._assign(interface, addresses)
        self.interfaces.insert(0, interface)
        self._changed()
        return interface

    def detach(self, network: Network) -> None:
        """Leave a network; sockets that are bound to its addresses can send no more."""
        for interface in [one for one in self.interfaces if one.network is network]:
            self._leave(interface)
        self._changed()

    def move(self, to: Network, *addresses: str, link: Link | None = None) -> Interface:
        """Leave all networks and join this one, at once. See :meth:`attach`."""
        for interface in tuple(self.interfaces):
            self._leave(interface)
        return self.attach(to, *addresses, link=link)

    def set_addresses(self, *addresses: str) -> None:
        """Replace the addresses in the preferred network (a new lease on the same interface)."""
        interface = self.interfaces[0]
        for address in interface.addresses:
            interface.network.release(address)
        interface.addresses = []
        self._assign(interface, addresses)
        self._changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change of addresses; call the result to end that."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed) if changed in self._watchers else None

    def _assign(self, interface: Interface, addresses: Iterable[str]) -> None:
        network = interface.network
        wanted = tuple(addresses)
        try:
            for address in wanted:
                interface.addresses.append(network.own(address, interface))
            if not wanted:
                for version in network.prefixes:
                    interface.addresses.append(network.allocate(version, interface))
        except ValueError:
            for address in interface.addresses:
                network.release(address)
            raise

    def _leave(self, interface: Interface) -> None:
        for address in interface.addresses:
            interface.network.release(address)
        interface.addresses = []
        self.interfaces.remove(interface)

    def _changed(self) -> None:
        for changed in tuple(self._watchers):
            self.timers.callLater(0, changed)

    # Sending.

    def interface_for(self, destination: str, source: str | None = None) -> Interface:
        """Which interface a datagram leaves by; ``OSError`` (ENETUNREACH) where there is no way."""
        version = family(destination)
        usable = [
            one
            for one in self.interfaces
            if (source in one.addresses)
            or (source is None and any(family(address) == version for address in one.addresses))
        ]
        for one in usable:
            if one.network is not self.internet.backbone and one.network.on_wire(destination):
                return one
        if usable:
            return usable[0]
        raise OSError(ENETUNREACH, "Network is unreachable")

    def source_for(self, destination: str) -> str:
        """The source address that a datagram to this destination gets by itself."""
        version = family(destination)
        if destination == LOOPBACK[version] or destination in self.addresses:
            return destination
        interface = self.interface_for(destination)
        return next(address for address in interface.addresses if family(address) == version)

    def send(self, datagram: Datagram) -> None:
        """Send what one of this host's sockets says.

        :raises OSError: ENETUNREACH: no address of that family, or the source is no longer ours.
        :raises MessageLengthError: larger than the MTU of the host's link.
        """
        destination = datagram.destination[0]
        if destination in LOOPBACK.values() or destination in self.addresses:
            self.timers.callLater(0, self.receive, datagram)
            return
        interface = self.interface_for(destination, datagram.source[0])
        if not interface.link.fits(datagram):
            raise MessageLengthError(f"larger than the MTU of {interface.link.mtu}")
        self._emit(interface, datagram)

    def inject(self, payload: bytes, source: Address, destination: Address) -> None:
        """Send a UDP datagram with any source address: what a spoofer does."""
        target = (canonical(destination[0]), destination[1])
        forged = Datagram((canonical(source[0]), source[1]), target, payload, origin=self)
        self._emit(self.interface_for(target[0]), forged)

    def _emit(self, interface: Interface, datagram: Datagram) -> None:
        for passing in self._taps.through(datagram):
            self.internet.record(Event.SENT, self.name, passing)
            interface.send(passing)

    # Receiving.

    def tap(self, tap: Callable[[Datagram], Iterable[Datagram]]) -> Callable[[], None]:
        """Let ``tap`` see, change, drop or multiply all this host sends and receives."""
        return self._taps.add(tap)

    def receive(self, datagram: Datagram) -> None:
        """Take a datagram that has arrived."""
        if self.internet.parted(datagram.origin, self):
            self.internet.dropped(datagram, self.name, "partition")
        elif self._suspended is None:
            for passing in self._taps.through(datagram):
                self.internet.record(Event.DELIVERED, self.name, passing)
                self._deliver(passing)
        elif len(self._suspended) < BACKLOG:
            self._suspended.append(datagram)
        else:
            self.internet.dropped(datagram, self.name, "suspended")

    def _deliver(self, datagram: Datagram) -> None:
        socket = self._streams.get((datagram.destination, datagram.source))
        if socket is None or datagram.segment is None:
            socket = self.socket_at(datagram.protocol, *datagram.destination)
        if socket is not None:
            socket.received(datagram)
        else:
            self.internet.refuse(self, datagram)

    # Sockets.

    def socket_at(self, protocol: str, address: str, port: int) -> Socket | None:
        """The socket that is bound there, exactly or by wildcard."""
        exact = self._sockets.get((protocol, address, port))
        return exact or self._sockets.get((protocol, WILDCARD[family(address)], port))

    def bind(self, protocol: str, address: str, port: int, socket: Socket) -> int:
        """Bind a socket; returns its port, chosen where 0 was asked for.

        :raises CannotListenError: the port is taken, or the address is none of this host's.
        """
        version = family(address)
        if address not in (WILDCARD[version], LOOPBACK[version], *self.addresses):
            problem = OSError(EADDRNOTAVAIL, "Cannot assign requested address")
            raise CannotListenError(address, port, problem)
        if not port:
            port = self.free_port(protocol, address)
        elif not self._is_free(protocol, address, port):
            raise CannotListenError(address, port, OSError(EADDRINUSE, "Address already in use"))
        self._sockets[protocol, address, port] = socket
        return port

    def unbind(self, protocol: str, address: str, port: int) -> None:
        """Free a port."""
        self._sockets.pop((protocol, address, port), None)

    def join(self, local: Address, remote: Address, socket: Socket) -> None:
        """Give the segments from ``remote`` to ``local`` to a stream's socket."""
        self._streams[local, remote] = socket

    def part(self, local: Address, remote: Address) -> None:
        """End what :meth:`join` began."""
        self._streams.pop((local, remote), None)

    def free_port(self, protocol: str, address: str) -> int:
        """An ephemeral port that nothing is bound to at this address."""
        used = {local[1] for local, _ in self._streams} if protocol == "tcp" else set()
        while True:
            port = self.random.randint(*EPHEMERAL)
            if port not in used and self._is_free(protocol, address, port):
                return port

    def _is_free(self, protocol: str, address: str, port: int) -> bool:
        wildcard = WILDCARD[family(address)]
        bound = {held for kind, held, at in self._sockets if (kind, at) == (protocol, port)}
        if address == wildcard:
            return all(family(held) != family(wildcard) for held in bound)
        return address not in bound and wildcard not in bound

    # Life.

    def suspend(self) -> None:
        """Stop the host's programs, as SIGSTOP or a closed lid does; time goes on."""
        if self._suspended is None:
            self._suspended = []
            self.timers.stop()

    def resume(self) -> None:
        """Let a suspended host go on: due timers run, and what arrived meanwhile is delivered."""
        waiting, self._suspended = self._suspended or [], None
        self.timers.resume()
        for datagram in waiting:
            self.timers.callLater(0, self.receive, datagram)

    def crash(self) -> None:
        """Lose all sockets and timers without a word to anyone, as a power cut does.

        The host stays where it is; start new programs on its reactor afterwards.
        """
        for socket in (*self._sockets.values(), *self._streams.values()):
            socket.vanish()
        self._sockets.clear()
        self._streams.clear()
        self.timers.clear()
        self._suspended = None
        self.timers.resume()
        self._watchers.clear()
