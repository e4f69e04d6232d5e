"""The ``datagram`` attachment: UDP on virtual addresses inside the program, on any platform.

No device, no privilege, no other programs. In a client's configuration::

    [attachment]
    plugin = "datagram"

The program listens and sends through the attachment itself, with receivers or Twisted protocols::

    socket = attachment.listen(5000, lambda payload, source, port: ...)
    socket.send(b"hello", "fd12:3456:789a::1", 5000)
    port = attachment.listen_udp(53, DNSDatagramProtocol(controller))
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.errors import NotPermittedHere, NTMobileError
from ntmobile.interfaces import (
    AttachmentTraffic,
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.machines.device.datagrams import Arrived, DatagramStack, Emit, Refused
from ntmobile.plugins.section import reject_unknown
from ntmobile.protocols.virtual_udp import Receive, VirtualSocket, VirtualUDPPort
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer, parse


@implementer(IAttachment)
class DatagramAttachment:
    """A UDP stack of the program's own.

    :param receive: called with each packet that the program sends.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        addresses: VirtualAddresses,
        receive: Callable[[Buffer, Offload | None], object],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.traffic = AttachmentTraffic()
        self._reactor = reactor
        self._receive = receive
        self._closed = False
        self._stack = DatagramStack(_packed(addresses), addresses.mtu, random)

    def listen(
        self,
        port: int,
        receive: Receive,
        refused: Callable[[str, int], None] | None = None,
    ) -> VirtualSocket:
        """Listen for datagrams on a port of all our virtual addresses; 0 takes a free one.

        :param receive: called with payload, source address and source port.
        :param refused: called with address and port of a correspondent where nobody listens.
        :raises AlreadyExists: the port is in use.
        """
        return VirtualSocket(self._stack, self._emit, port, receive, refused)

    def listen_udp(self, port: int, protocol: AbstractDatagramProtocol) -> VirtualUDPPort:
        """Listen with a Twisted protocol, as ``reactor.listenUDP`` would.

        :raises CannotListenError: the port is in use.
        """
        listening = VirtualUDPPort(self._stack, self._emit, port, protocol)
        listening.startListening()
        return listening

    offload = False

    def send_parts(self, parts: Sequence[Buffer], offload: Offload | None) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self.send(b"".join(parts), offload)

    def send(self, packet: Buffer, offload: Offload | None = None) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`; nothing may be left to be done with it."""
        if self._closed:
            self.traffic.dropped += 1
            return
        before = self._stack.dropped
        effects = self._stack.received(bytes(packet), self._reactor.seconds())
        self.traffic.dropped += self._stack.dropped - before
        for effect in effects:
            if isinstance(effect, Emit):
                self._emit([effect])
            elif isinstance(effect, Arrived) and isinstance(effect.receiver, VirtualSocket):
                self.traffic.to_applications += 1
                effect.receiver.arrived(effect.payload, effect.source, effect.port)
            elif isinstance(effect, Refused) and isinstance(effect.receiver, VirtualSocket):
                effect.receiver.refused(effect.destination, effect.port)

    def _emit(self, packets: list[Emit]) -> None:
        for emit in packets:
            if self._closed:
                self.traffic.dropped += 1
            elif parse(emit.packet).destination in self._stack.addresses:
                # To ourselves; later, so that nobody is called back within a call to send.
                self._reactor.callLater(0, self.send, emit.packet)
            else:
                self.traffic.from_applications += 1
                self._receive(emit.packet, None)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        raise NotPermittedHere(
            'the "datagram" attachment has no sockets, only UDP inside the program; '
            'set attachment.plugin = "netns" or "tun" in node.toml for others'
        )

    def readdress(self, addresses: VirtualAddresses) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._stack.readdress(_packed(addresses))
        self._stack.mtu = addresses.mtu

    def add_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: everything sent goes through here."""

    def remove_route(self, network: str) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`: everything sent goes through here."""

    def close(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._closed = True

    def shutdown(self) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self.close()


def _packed(addresses: VirtualAddresses) -> tuple[bytes, bytes]:
    return ip_address(addresses.ipv6).packed, ip_address(addresses.ipv4).packed


@implementer(IAttachmentFactory)
class DatagramAttachmentFactory:
    """Makes a stack in memory."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def open(
        self,
        addresses: VirtualAddresses,
        state: Path,
        receive: Callable[[Buffer, Offload | None], object],
        lost: Callable[[NTMobileError], None],
    ) -> Deferred[IAttachment]:
        """See :class:`~ntmobile.interfaces.IAttachmentFactory`; the state directory is not used."""
        attachment: IAttachment = DatagramAttachment(self._reactor, addresses, receive)
        return succeed(attachment)


@implementer(IPlugin, IAttachmentProvider)
class DatagramProvider:
    """Makes a :class:`DatagramAttachmentFactory`; its section has no keys."""

    name = "datagram"

    def configure(
        self, section: Mapping[str, object], reactor: object
    ) -> DatagramAttachmentFactory:
        """See :class:`~ntmobile.interfaces.IAttachmentProvider`."""
        reject_unknown("attachment", section, ())
        return DatagramAttachmentFactory(IReactorTime(reactor))


datagramAttachment = DatagramProvider()
