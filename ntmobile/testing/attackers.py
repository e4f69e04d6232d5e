"""Attackers, ready made: on the path (recorder, tamperer) and off it (spoofer)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from ntmobile.testing.datagrams import Address, Datagram
from ntmobile.testing.networks import Network

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host

#: Chooses datagrams.
Choice = Callable[[Datagram], bool]


def everything(datagram: Datagram) -> bool:
    """Choose every UDP datagram that is not a refusal."""
    return datagram.protocol == "udp" and not datagram.refusal


@define
class Recorder:
    """Sits on a network, notes what passes there, and can send it again.

    :ivar network: where it sits. :ivar choose: what it notes. :ivar heard: what it has noted.
    """

    network: Network
    choose: Choice = everything
    heard: list[Datagram] = field(factory=list)
    remove: Callable[[], None] = field(init=False, default=lambda: None)

    def __attrs_post_init__(self) -> None:
        self.remove = self.network.tap(self._hear)

    def _hear(self, datagram: Datagram) -> list[Datagram]:
        if self.choose(datagram):
            self.heard.append(datagram)
        return [datagram]

    def replay(self, datagram: Datagram, source: Address | None = None) -> None:
        """Send a datagram again from here, from its own source or from another."""
        again = datagram if source is None else datagram.sent_from(source)
        self.network.forward(again, None)


def tamper(
    network: Network, change: Callable[[Datagram], Datagram | None], choose: Choice = everything
) -> Callable[[], None]:
    """Change (or with ``None`` swallow) the chosen datagrams that pass a network.

    Call the result to stop it.
    """

    def through(datagram: Datagram) -> list[Datagram]:
        if not choose(datagram):
            return [datagram]
        changed = change(datagram)
        return [] if changed is None else [changed]

    return network.tap(through)


def flip(datagram: Datagram, bit: int = 0) -> Datagram:
    """The datagram with one bit of its payload inverted, counted from the first byte's lowest."""
    payload = bytearray(datagram.payload)
    if payload:
        position = bit % (8 * len(payload))
        payload[position // 8] ^= 1 << position % 8
    return datagram.carrying(bytes(payload))


@define
class Spoofer:
    """Off the path: sends with any source address, and sees no answers but those to itself.

    :ivar host: the host it sends from; put it where no gateway corrects its sources.
    """

    host: Host

    def send(self, payload: bytes, source: Address, destination: Address) -> None:
        """Send a datagram that claims to come from ``source``."""
        self.host.inject(payload, source, destination)
