"""Network address translators, by the words of RFC 4787 and by the older names of their kinds."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from attrs import Factory, define, frozen

from ntmobile.testing.datagrams import Address, Datagram
from ntmobile.testing.gateways import Gateway
from ntmobile.testing.links import Link
from ntmobile.testing.networks import Network

#: Outside ports a NAT gives, unless it preserves the inside one.
PORTS: Final = (1024, 65535)


class NatKind(Enum):
    """The usual kinds. What differs is how a mapping is reused and whom it lets in."""

    FULL_CONE = "full cone"  #: one mapping for all destinations, open to everyone
    RESTRICTED_CONE = "restricted cone"  #: one mapping, open to addresses that were sent to
    PORT_RESTRICTED_CONE = "port-restricted cone"  #: one mapping, open to exact endpoints
    SYMMETRIC = "symmetric"  #: a mapping for each destination, open to that alone


@frozen
class NatPolicy:
    """How a NAT behaves.

    :ivar kind: its kind.
    :ivar hairpin: whether inside hosts reach each other through their outside addresses.
    :ivar timeout: seconds after which an unused UDP mapping ends. :ivar tcp_timeout: the same, TCP.
    :ivar preserve_ports: whether the outside port is the inside one where that is free.
    :ivar inbound_refreshes: whether incoming traffic keeps a mapping alive too (RFC 4787, REQ-6).
    """

    kind: NatKind = NatKind.PORT_RESTRICTED_CONE
    hairpin: bool = False
    timeout: float = 30.0
    tcp_timeout: float = 7440.0
    preserve_ports: bool = False
    inbound_refreshes: bool = False


@define
class Mapping:
    """One binding of an inside address to an outside port.

    :ivar used: when it was used last. :ivar sent_to: when each remote was sent to last.
    """

    protocol: str
    inside: Address
    port: int
    remote: Address | None
    used: float
    sent_to: dict[Address, float] = Factory(dict)


class NatBox(Gateway):
    """A NAT for IPv4. Nest networks to nest NATs (a home behind a carrier's).

    :ivar address: its outside address.
    :ivar policy: how it behaves; may be replaced at any time.
    :ivar ports: the first and last port it gives.
    """

    def __init__(
        self,
        inside: Network,
        outside: Network,
        policy: NatPolicy,
        address: str | None = None,
        link: Link | None = None,
        blocks: Iterable[str] = (),
    ) -> None:
        super().__init__(inside, outside, (4,), link, blocks)
        self.ports = PORTS
        self.policy = policy
        self._by_inside: dict[tuple[str, Address, Address | None], Mapping] = {}
        self._by_port: dict[tuple[str, int], Mapping] = {}
        self.address = self._take(address)

    def _take(self, address: str | None) -> str:
        if address is None:
            return self.outside.allocate(4, self)
        return self.outside.own(address, self)

    def claims(self, address: str) -> bool:
        """Nothing: what is behind a NAT is reached through its own address alone."""
        return False

    def rebind(self) -> None:
        """Drop all mappings, as a restarted box does; the next datagrams get new ports."""
        self._by_inside.clear()
        self._by_port.clear()

    def renumber(self, address: str | None = None) -> str:
        """Get another outside address (the next free one), and lose all mappings."""
        before = self.address
        self.address = self._take(address)
        self.outside.release(before)
        self.rebind()
        return self.address

    @property
    def mappings(self) -> list[Mapping]:
        """The mappings that live now."""
        return [mapping for mapping in self._by_port.values() if self._alive(mapping)]

    def leave(self, datagram: Datagram) -> None:
        """Take a datagram from the inside; one to our own outside address turns round (hairpin)."""
        if datagram.destination[0] != self.address:
            super().leave(datagram)
        elif not self.policy.hairpin:
            self.drop(datagram, "the NAT does not hairpin")
        else:
            turned = self.outbound(datagram)
            back = None if turned is None else self.inbound(turned)
            if back is not None:
                self.inside.forward(back, self)

    def outbound(self, datagram: Datagram) -> Datagram | None:
        """Replace the source by the mapping's, made where there is none."""
        now = self.internet.clock.seconds()
        mapping = self._mapping(datagram.protocol, datagram.source, datagram.destination)
        if mapping is None:
            self.drop(datagram, "the NAT has no free port")
            return None
        mapping.used = now
        mapping.sent_to[datagram.destination] = now
        return datagram.sent_from((self.address, mapping.port))

    def inbound(self, datagram: Datagram) -> Datagram | None:
        """Replace the destination by that of the mapping, if it lets the source in."""
        mapping = self._by_port.get((datagram.protocol, datagram.destination[1]))
        if mapping is None or not self._alive(mapping):
            self.drop(datagram, "no such mapping in the NAT")
            return None
        if not self._admits(mapping, datagram.source):
            self.drop(datagram, "filtered by the NAT")
            return None
        if self.policy.inbound_refreshes:
            now = self.internet.clock.seconds()
            mapping.used = now
            if datagram.source in mapping.sent_to:
                mapping.sent_to[datagram.source] = now
        return datagram.sent_to(mapping.inside)

    def _timeout(self, mapping: Mapping) -> float:
        return self.policy.timeout if mapping.protocol == "udp" else self.policy.tcp_timeout

    def _alive(self, mapping: Mapping) -> bool:
        return self.internet.clock.seconds() - mapping.used <= self._timeout(mapping)

    def _admits(self, mapping: Mapping, source: Address) -> bool:
        kind = self.policy.kind
        if kind is NatKind.FULL_CONE:
            return True
        oldest = self.internet.clock.seconds() - self._timeout(mapping)
        if kind is NatKind.RESTRICTED_CONE:
            return any(
                address == source[0] and when >= oldest
                for (address, _), when in mapping.sent_to.items()
            )
        when = mapping.sent_to.get(source)
        return when is not None and when >= oldest

    def _mapping(self, protocol: str, inside: Address, destination: Address) -> Mapping | None:
        remote = destination if self.policy.kind is NatKind.SYMMETRIC else None
        key = (protocol, inside, remote)
        mapping = self._by_inside.get(key)
        if mapping is not None:
            if self._alive(mapping):
                return mapping
            self._forget(mapping)
        port = self._free_port(protocol, inside[1])
        if port is None:
            return None
        mapping = Mapping(protocol, inside, port, remote, self.internet.clock.seconds())
        self._by_inside[key] = self._by_port[protocol, port] = mapping
        return mapping

    def _forget(self, mapping: Mapping) -> None:
        self._by_inside.pop((mapping.protocol, mapping.inside, mapping.remote), None)
        self._by_port.pop((mapping.protocol, mapping.port), None)

    def _free_port(self, protocol: str, wanted: int) -> int | None:
        if self.policy.preserve_ports and self._port_is_free(protocol, wanted):
            return wanted
        for _ in range(64):
            port = self.random.randint(*self.ports)
            if self._port_is_free(protocol, port):
                return port
        lowest, highest = self.ports
        ports = range(lowest, highest + 1)
        return next((port for port in ports if self._port_is_free(protocol, port)), None)

    def _port_is_free(self, protocol: str, port: int) -> bool:
        mapping = self._by_port.get((protocol, port))
        if mapping is None:
            return True
        if self._alive(mapping):
            return False
        self._forget(mapping)
        return True
