"""The last step inwards: correspondents' packets, as applications shall see them, to a system.

Where the system takes several packets of one flow as one (TSO, USO), those that came together are
joined. Where it completes no checksums, they are completed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ntmobile.machines.device.shown import ShownAddresses
from ntmobile.wire.coalescing import Coalescer
from ntmobile.wire.offload import Offload, complete
from ntmobile.wire.packet import Buffer


class Takes(Protocol):
    """Where packets go: the part of an attachment that is needed here."""

    @property
    def offload(self) -> bool:
        """Whether it cuts packets and completes checksums."""

    def send(self, packet: Buffer, offload: Offload | None = None) -> None:
        """One packet."""

    def send_parts(self, parts: Sequence[Buffer], offload: Offload | None) -> None:
        """One packet in parts."""


class Plain:
    """A function that takes whole packets and nothing else."""

    offload = False

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver

    def send(self, packet: Buffer, offload: Offload | None = None) -> None:
        """One packet."""
        self._deliver(bytes(packet))

    def send_parts(self, parts: Sequence[Buffer], offload: Offload | None) -> None:
        """One packet in parts."""
        self._deliver(b"".join(parts))


class Delivery:
    """Delivers to one taker.

    :ivar taker: where packets go.
    """

    def __init__(self, shown: ShownAddresses) -> None:
        self.taker: Takes = Plain(lambda packet: None)
        self._shown = shown
        self._coalescer = Coalescer()

    def take(self, peer: str, packets: Sequence[Buffer], partial: bool) -> None:
        """Packets of a correspondent, in order; they go on at :meth:`flush` at the latest."""
        shown = self._shown.of(peer)
        if shown is None:
            return
        translated = shown.ipv4 != shown.certified
        joining = self.taker.offload
        for each in packets:
            packet = self._shown.inbound(peer, each, partial) if translated else each
            if packet is None:
                continue
            if joining:
                self._coalescer.add(memoryview(packet), partial)
            else:
                self.taker.send(complete(packet) if partial else bytes(packet))

    def flush(self) -> None:
        """Hand over what was joined."""
        for parts, offload in self._coalescer.drain():
            self.taker.send_parts(parts, offload)
