"""Gateways that join a network to the one before it: a plain router, and a stateful firewall."""

from __future__ import annotations

from collections.abc import Iterable

from ntmobile.testing.datagrams import Address, Datagram, family
from ntmobile.testing.links import Link, Way
from ntmobile.testing.networks import Network

#: A flow as seen from inside: protocol, inside address, outside address.
Flow = tuple[str, Address, Address]


class Gateway:
    """A router: passes everything both ways. The base of the other gateways.

    :ivar inside: the network it serves. :ivar outside: the network before it.
    :ivar link: the link between the gateway and the outside.
    :ivar blocks: protocols (``udp``, ``tcp``) that it lets through in neither direction.
    """

    def __init__(
        self,
        inside: Network,
        outside: Network,
        versions: Iterable[int],
        link: Link | None = None,
        blocks: Iterable[str] = (),
    ) -> None:
        self.inside = inside
        self.outside = outside
        self.link = link if link is not None else Link()
        self.blocks = set(blocks)
        self.versions = frozenset(versions)
        self.internet = inside.internet
        self.name = f"{type(self).__name__.lower()} of {inside.name}"
        self.random = self.internet.randomness(self.name)
        for version in self.versions:
            if version in inside.gateways:
                raise ValueError(f"network {inside.name} has a gateway for IPv{version} already")
            inside.gateways[version] = self
        outside.children.append(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inside.name}>"

    def claims(self, address: str) -> bool:
        """Whether the outside should hand datagrams to this address to us."""
        version = family(address)
        if version not in self.versions:
            return False
        if self.inside.on_wire(address):
            return True
        return any(child.claims(address) for child in self.inside.children)

    def leave(self, datagram: Datagram) -> None:
        """Take a datagram from the inside."""
        if datagram.protocol in self.blocks:
            self.drop(datagram, f"{datagram.protocol} is blocked")
            return
        passing = self.outbound(datagram)
        if passing is not None:
            self._carry(passing, Way.UP)

    def arrive(self, datagram: Datagram) -> None:
        """Take a datagram from the outside."""
        if datagram.protocol in self.blocks:
            self.drop(datagram, f"{datagram.protocol} is blocked")
        else:
            self._carry(datagram, Way.DOWN)

    def outbound(self, datagram: Datagram) -> Datagram | None:
        """What goes out for a datagram from inside; ``None`` where it ended (and was recorded)."""
        return datagram

    def inbound(self, datagram: Datagram) -> Datagram | None:
        """What goes in for a datagram from outside; ``None`` where it ended (and was recorded)."""
        return datagram

    def drop(self, datagram: Datagram, reason: str) -> None:
        """Record that a datagram ended here."""
        self.internet.dropped(datagram, self.name, reason)

    def _carry(self, datagram: Datagram, way: Way) -> None:
        through = self._left if way is Way.UP else self._arrived
        self.link.carry(datagram, way, self.internet.clock, self.random, through, self.drop)

    def _left(self, datagram: Datagram) -> None:
        self.outside.forward(datagram, self)

    def _arrived(self, datagram: Datagram) -> None:
        passing = self.inbound(datagram)
        if passing is not None:
            self.inside.forward(passing, self)


class Router(Gateway):
    """A gateway that passes everything."""


class Firewall(Gateway):
    """A stateful firewall without translation, as in front of IPv6 homes and of "global" offices.

    A datagram comes in only where one to its source went out from its destination not longer
    than ``timeout`` seconds ago; either direction keeps the flow alive.

    :ivar timeout: of UDP flows, in seconds. :ivar tcp_timeout: of TCP flows.
    :ivar admits: inside ``(protocol, port)`` pairs that anyone may reach.
    """

    def __init__(
        self,
        inside: Network,
        outside: Network,
        versions: Iterable[int],
        link: Link | None = None,
        blocks: Iterable[str] = (),
        timeout: float = 30.0,
        tcp_timeout: float = 7440.0,
        admits: Iterable[tuple[str, int]] = (),
    ) -> None:
        super().__init__(inside, outside, versions, link, blocks)
        self.timeout = timeout
        self.tcp_timeout = tcp_timeout
        self.admits = set(admits)
        self._flows: dict[Flow, float] = {}

    def forget(self) -> None:
        """Lose all state, as a restarted firewall does."""
        self._flows.clear()

    def outbound(self, datagram: Datagram) -> Datagram:
        """Remember the flow."""
        flow = (datagram.protocol, datagram.source, datagram.destination)
        self._flows[flow] = self.internet.clock.seconds()
        return datagram

    def inbound(self, datagram: Datagram) -> Datagram | None:
        """Admit answers and what is admitted for all."""
        if (datagram.protocol, datagram.destination[1]) in self.admits:
            return datagram
        flow = (datagram.protocol, datagram.destination, datagram.source)
        now = self.internet.clock.seconds()
        timeout = self.timeout if datagram.protocol == "udp" else self.tcp_timeout
        last = self._flows.get(flow)
        if last is None or now - last > timeout:
            self._flows.pop(flow, None)
            self.drop(datagram, "no such flow in the firewall")
            return None
        self._flows[flow] = now
        return datagram
