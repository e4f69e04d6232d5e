"""A network: hosts on a wire, and the gateways out of it and into the networks behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Protocol

from ntmobile.testing.datagrams import Datagram, canonical, family
from ntmobile.testing.links import Link

if TYPE_CHECKING:
    from ntmobile.testing.gateways import Gateway
    from ntmobile.testing.hosts import Host
    from ntmobile.testing.internet import VirtualInternet

#: Sees every datagram that a place forwards, and says what goes on instead of it: the same, a
#: changed one, several, or none.
Tap = Callable[[Datagram], Iterable[Datagram]]


class Neighbour(Protocol):
    """What owns an address on a network: a host's interface, or the outside of a gateway."""

    def arrive(self, datagram: Datagram) -> None:
        """Take a datagram from the network."""


class Taps:
    """The taps at one place, in the order they were set."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []

    def add(self, tap: Tap) -> Callable[[], None]:
        """Set a tap; call the result to remove it."""
        self._taps.append(tap)
        return lambda: self._taps.remove(tap) if tap in self._taps else None

    def through(self, datagram: Datagram) -> Iterable[Datagram]:
        """What comes out of the last tap."""
        passing: list[Datagram] = [datagram]
        for tap in tuple(self._taps):
            passing = [out for one in passing for out in tap(one)]
        return passing


class Network:
    """A network of hosts, with gateways; make it with :meth:`VirtualInternet.network`.

    :param first: how many addresses at the start of each prefix are given on request only.
    :ivar name: for captures and errors.
    :ivar prefixes: what is on the wire here, by family.
    :ivar link: what a host's link is like when it attaches here (each gets a copy).
    :ivar isolated: whether hosts here cannot reach each other (guests of a hotel).
    :ivar gateways: the way out, by family; none on the backbone.
    :ivar children: gateways of the networks behind this one.
    """

    def __init__(
        self,
        internet: VirtualInternet,
        name: str,
        prefixes: Iterable[str],
        link: Link | None = None,
        isolated: bool = False,
        first: int = 0,
    ) -> None:
        self.internet = internet
        self.name = name
        self.prefixes: dict[int, IPv4Network | IPv6Network] = {}
        for text in prefixes:
            prefix = ip_network(text)
            if prefix.version in self.prefixes:
                raise ValueError(f"network {name} has two prefixes of IPv{prefix.version}")
            self.prefixes[prefix.version] = prefix
        self.link = link if link is not None else Link()
        self.isolated = isolated
        self.gateways: dict[int, Gateway] = {}
        self.children: list[Gateway] = []
        self.random: Random = internet.randomness(f"network {name}")
        self._taps = Taps()
        self._owners: dict[str, Neighbour] = {}
        self._first = first

    def __repr__(self) -> str:
        return f"<Network {self.name} {', '.join(map(str, self.prefixes.values()))}>"

    # Addresses.

    def own(self, address: str, neighbour: Neighbour) -> str:
        """Give an address to a neighbour; a ``ValueError`` where it is taken or outside."""
        address = canonical(address)
        if not self.on_wire(address):
            raise ValueError(f"{address} is not an address of network {self.name}")
        if address in self._owners:
            raise ValueError(f"{address} is taken in network {self.name}")
        self._owners[address] = neighbour
        return address

    def allocate(self, version: int, neighbour: Neighbour) -> str:
        """Give the lowest free address of a family to a neighbour."""
        for candidate in islice(self.prefixes[version].hosts(), self._first, None):
            if str(candidate) not in self._owners:
                return self.own(str(candidate), neighbour)
        raise ValueError(f"network {self.name} has no free IPv{version} address")

    def release(self, address: str) -> None:
        """Take an address back; nobody has it until it is given again."""
        del self._owners[address]

    def on_wire(self, address: str) -> bool:
        """Whether the address belongs here; on the backbone every address does."""
        prefix = self.prefixes.get(family(address))
        if self is self.internet.backbone:
            return prefix is not None
        return prefix is not None and ip_address(address) in prefix

    def owner(self, address: str) -> Neighbour | None:
        """Who has the address: a host's interface, a gateway, or nobody."""
        return self._owners.get(address)

    # Inhabitants.

    def host(self, name: str, *addresses: str, link: Link | None = None) -> Host:
        """A new host in this network; see :meth:`Host.attach` for the addresses."""
        host = self.internet.host(name)
        host.attach(self, *addresses, link=link)
        return host

    def contains(self, other: Network) -> bool:
        """Whether the other network is this one, or somewhere behind it."""
        return other is self or any(child.inside.contains(other) for child in self.children)

    # Forwarding.

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Let ``tap`` see, change, drop or multiply all that passes; call the result to end it."""
        return self._taps.add(tap)

    def forward(self, datagram: Datagram, sender: Neighbour | Gateway | None) -> None:
        """Bring a datagram one step further. ``sender`` is who handed it to this network."""
        for passing in self._taps.through(datagram):
            self._forward(passing, sender)

    def _forward(self, datagram: Datagram, sender: Neighbour | Gateway | None) -> None:
        address = datagram.destination[0]
        neighbour = self._owners.get(address)
        if neighbour is not None:
            if self.isolated and self._is_guest(sender) and self._is_guest(neighbour):
                self.drop(datagram, "guests are isolated")
            else:
                neighbour.arrive(datagram)
            return
        for child in self.children:
            if child.claims(address):
                child.arrive(datagram)
                return
        gateway = self.gateways.get(family(address))
        if gateway is None or self.on_wire(address):
            self.drop(datagram, "no such host")
        else:
            gateway.leave(datagram)

    def _is_guest(self, neighbour: Neighbour | Gateway | None) -> bool:
        return neighbour is not None and neighbour not in self.gateways.values()

    def drop(self, datagram: Datagram, reason: str) -> None:
        """Record that a datagram ended here."""
        self.internet.dropped(datagram, self.name, reason)
