"""Small protocols that most tests need at one end."""

from __future__ import annotations

from typing import Self

from twisted.internet.protocol import DatagramProtocol

from ntmobile.testing.datagrams import Address
from ntmobile.testing.hosts import Host
from ntmobile.testing.udp import UDPPort


class Mailbox(DatagramProtocol):
    """A UDP socket that keeps what it receives.

    :ivar datagrams: payload and source of each, oldest first.
    :ivar refusals: how often a connected socket heard that nobody listens.
    :ivar port: the port it is bound to. :ivar address: its own address and port.
    """

    port: UDPPort

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Address]] = []
        self.refusals = 0

    @classmethod
    def at(cls, host: Host, port: int = 0, interface: str = "") -> Self:
        """A mailbox bound on a host."""
        mailbox = cls()
        mailbox.port = host.reactor.listenUDP(port, mailbox, interface)
        return mailbox

    @property
    def address(self) -> Address:
        """Where it is reached on its own network; of a wildcard, the host's address."""
        bound = self.port.getHost()
        version = 6 if ":" in bound.host else 4
        wildcard = bound.host in ("0.0.0.0", "::")
        return (self.port.host.address(version) if wildcard else bound.host, bound.port)

    @property
    def payloads(self) -> list[bytes]:
        """What was received."""
        return [payload for payload, _ in self.datagrams]

    @property
    def sources(self) -> list[Address]:
        """Whom it was received from."""
        return [source for _, source in self.datagrams]

    def send(self, payload: bytes, destination: Address) -> None:
        """Send a datagram."""
        self.port.write(payload, destination)

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep it."""
        self.datagrams.append((datagram, addr))

    def connectionRefused(self) -> None:
        """Count it."""
        self.refusals += 1


class Echo(Mailbox):
    """A mailbox that answers everything with itself."""

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep it and send it back."""
        super().datagramReceived(datagram, addr)
        self.send(datagram, addr)
