"""A node's traffic: sockets below, applications above, and the tunnels between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntmobile.client.delivery import Delivery, Plain, Takes
from ntmobile.client.sockets import ClientSockets
from ntmobile.client.tracing import DatagramTrace
from ntmobile.errors import MalformedMessage, NotPermittedHere
from ntmobile.interfaces import VirtualAddresses
from ntmobile.machines.device.shown import ShownAddresses
from ntmobile.machines.effects import Address, Transmit, TransmitRun
from ntmobile.machines.tunnel.correspondence import AskDirection, Correspondence, Of
from ntmobile.machines.tunnel.events import Deliver, DeliverRun
from ntmobile.plugins.attach_datagram import DatagramAttachment
from ntmobile.protocols import trace
from ntmobile.protocols.timing import MachineTimer
from ntmobile.protocols.virtual_udp import VirtualSocket
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer


class Traffic:
    """Carries datagrams to the tunnels, packets to the applications, and both back.

    :param signalling: takes the datagrams of the DC.
    :param ask: asks for a direction that a tunnel wants.
    :param told: hears what else happens in a tunnel.
    :param names: names the ends of datagrams, where they are traced.
    """

    def __init__(
        self,
        reactor: Any,
        correspondence: Correspondence,
        shown: ShownAddresses,
        signalling: Callable[[bytes, Address], None],
        ask: Callable[[AskDirection], None],
        told: Callable[[Of], None],
        names: DatagramTrace,
    ) -> None:
        self.sockets = ClientSockets(reactor, self)
        self._reactor = reactor
        self._correspondence = correspondence
        self._shown = shown
        self._signalling = signalling
        self._ask = ask
        self._told = told
        self._trace = names
        self._stopped = False
        self._attached = False
        self._datagrams: DatagramAttachment | None = None
        self._delivery = Delivery(shown)
        self._in_batch = False
        self._timer = MachineTimer(reactor, self._wake)

    def stop(self) -> None:
        """Send what there is, then nothing more."""
        self.flush()
        self._stopped = True
        self._timer.cancel()

    # -- applications' side

    def set_deliver(self, deliver: Callable[[bytes], None]) -> None:
        """Where packets for the applications go, whole and complete."""
        self.set_taker(Plain(deliver))

    def set_taker(self, taker: Takes) -> None:
        """Where packets for the applications go: an attachment."""
        self._delivery.taker = taker
        self._attached = True

    def packet_from_application(self, packet: Buffer, offload: Offload | None = None) -> bool:
        """An inner packet of an application.

        A correspondent that is known but has no tunnel now gets one; the packet waits in it.

        :param offload: what is still to be done with it: cut it, complete its checksum.
        :return: whether the packet goes to a known correspondent.
        """
        partial = offload is not None and offload.partial
        try:
            found = self._shown.outbound(packet, partial)
        except MalformedMessage:
            return False
        if found is None:
            return False
        peer, packet = found
        now = self._reactor.seconds()
        if not self._correspondence.send(peer, packet, now, offload):
            self._correspondence.open(peer, packet, now, offload)
        self.flush()
        return True

    def listen_datagram(
        self,
        port: int,
        receive: Callable[[bytes, str, int], None],
        refused: Callable[[str, int], None] | None,
    ) -> VirtualSocket:
        """UDP inside this program; see :meth:`ntmobile.client.node.Node.listen_datagram`."""
        if self._datagrams is None:
            if self._attached:
                raise NotPermittedHere(
                    "this node's packets go to a virtual network; open sockets in there instead"
                )
            addresses = VirtualAddresses(str(self._shown.ipv6), str(self._shown.ipv4))
            self._datagrams = DatagramAttachment(self._reactor, addresses, self._packet)
            self.set_taker(self._datagrams)
        return self._datagrams.listen(port, receive, refused)

    def _packet(self, packet: Buffer, offload: Offload | None = None) -> None:
        self.packet_from_application(packet, offload)

    # -- network's side

    def datagram_received(self, datagram: bytes, remote: Address) -> None:
        """Any datagram: the first byte tells the traffics apart (R23)."""
        if not datagram or self._stopped:
            return
        if datagram[0] & 0xF0 == 0x20:
            self._signalling(datagram, remote)
        else:
            if trace.switch.on:
                self._trace.received(datagram, remote)
            now = self._reactor.seconds()
            self._correspondence.datagram_received(datagram, remote, now)
        self.flush()

    def run_received(self, data: memoryview, segment: int, remote: Address) -> None:
        """Datagrams of one length that came together; valid only during the call.

        The system joins what came from one address: the DC's and, from a relay, several tunnels'.
        """
        if self._stopped or not data:
            return
        self._in_batch = True
        if len(data) <= segment or trace.switch.on:
            for at in range(0, len(data), segment):
                self.datagram_received(bytes(data[at : at + segment]), remote)
            return
        now = self._reactor.seconds()
        while data and not self._stopped:
            if data[0] & 0xF0 == 0x20:
                end = min(segment, len(data))
                self._signalling(bytes(data[:end]), remote)
            else:
                end = self._correspondence.run_received(data, segment, remote, now)
            data = data[end:]
        self.flush()

    def batch_ended(self) -> None:
        """No more runs in this moment: what was joined goes to the applications."""
        self._in_batch = False
        self._delivery.flush()

    def _wake(self, now: float) -> None:
        self._correspondence.handle_timer(now)
        self.flush()

    def flush(self) -> None:
        """Carry out what the tunnels want; to be called after each use of them."""
        while effects := self._correspondence.effects():
            for effect in effects:
                match effect:
                    case Transmit():
                        if trace.switch.on:
                            self._trace.sent(effect.datagram, effect.remote)
                        if not self.sockets.send(effect.datagram, effect.remote):
                            now = self._reactor.seconds()
                            size = len(effect.datagram)
                            self._correspondence.too_big(effect.remote, size, now)
                    case TransmitRun(data, segment, remote):
                        if not self.sockets.send_run(data, segment, remote):
                            now = self._reactor.seconds()
                            self._correspondence.too_big(remote, segment, now)
                    case AskDirection():
                        self._ask(effect)
                    case Of(peer, DeliverRun(packets, partial)):
                        self._delivery.take(peer, packets, partial)
                    case Of(peer, Deliver(packet, partial)):
                        self._delivery.take(peer, (packet,), partial)
                    case Of():
                        self._told(effect)
        if not self._in_batch:
            self._delivery.flush()
        if not self._stopped:
            self._timer.set(self._correspondence.next_timer())
