# ruff: noqa: N805  (methods of an interface have no self)
"""How applications use virtual addresses (design, section 6)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ntmobile.errors import NTMobileError
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer


@frozen
class VirtualAddresses:
    """What applications of one client see of the virtual network.

    :ivar ipv6: the client's virtual IPv6 address.
    :ivar ipv4: the client's virtual IPv4 address.
    :ivar ipv6_prefix: length of its coordinator's prefix.
    :ivar ipv4_pool: the pool of its coordinator, reached through the device.
    :ivar mtu: the longest inner packet, in bytes.
    """

    ipv6: str
    ipv4: str
    ipv6_prefix: int = 64
    ipv4_pool: str = "198.18.0.0/15"
    mtu: int = 1280


@define
class AttachmentTraffic:
    """What an attachment has carried, in packets.

    :ivar to_applications: handed to applications.
    :ivar from_applications: taken from applications.
    :ivar dropped: refused by a full queue or the kernel, or not treated for an error of ours.
    """

    to_applications: int = 0
    from_applications: int = 0
    dropped: int = 0


class IAttachment(Interface):
    """A virtual network that applications use, while it is open.

    Packets are whole inner IPv4 or IPv6 packets. Every method is called in the reactor's thread and
    none blocks for longer than a millisecond or so. Those that ask something of the system raise
    :class:`~ntmobile.errors.NTMobileError` where it refuses.
    """

    traffic: AttachmentTraffic = Attribute("what it has carried")

    offload: bool = Attribute(
        "whether it cuts packets and completes checksums by itself, as an ``Offload`` says"
    )

    def send(packet: Buffer, offload: Offload | None = None) -> None:
        """Give one packet to the applications; what the system does not take is counted.

        :param offload: what is left to be done with it; only where :attr:`offload` is true.
        """

    def send_parts(parts: Sequence[Buffer], offload: Offload | None) -> None:
        """Give one packet that lies in several buffers, the first with all its headers."""

    def socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a non-blocking socket inside the virtual network.

        It may be bound, connected and given to the reactor from outside.

        :param family: ``AF_INET`` or ``AF_INET6``.
        :param kind: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        :raises NotPermittedHere: this attachment has no sockets of the kernel's.
        """

    def readdress(addresses: VirtualAddresses) -> None:
        """Replace the client's addresses; connections on those that stay go on."""

    def add_route(network: str) -> None:
        """Have the traffic of one more network (``198.18.0.0/15``) come through here."""

    def remove_route(network: str) -> None:
        """Have a network's traffic come through here no more; unknown ones are no error."""

    def close() -> None:
        """Stop carrying; may be repeated. What outlives the agent (``netns``) stays."""

    def shutdown() -> None:
        """Close, and end the virtual network itself: ``ntm down``."""


class IAttachmentFactory(Interface):
    """Opens a configured attachment, once in the life of an agent."""

    def open(
        addresses: VirtualAddresses,
        state: Path,
        receive: Callable[[Buffer, Offload | None], object],
        lost: Callable[[NTMobileError], None],
    ) -> Deferred[IAttachment]:
        """Make the virtual network, or go on with the one that an earlier agent left.

        :param state: the agent's state directory, of mode 0700; made if it is not there.
        :param receive: called with each packet that an application sent, valid only during the
            call, and what is left to be done with it.
        :param lost: called once if the virtual network ends by itself, with a line for the user;
            the attachment is then closed.
        :return: fires when applications may use it, or fails with
            :class:`~ntmobile.errors.NotPermittedHere`, whose text names the cause and the
            alternative, or another :class:`~ntmobile.errors.NTMobileError`.
        """


class IAttachmentProvider(Interface):
    """A plugin that makes an :class:`IAttachmentFactory` from a client's ``[attachment]``."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``netns``")

    def configure(section: Mapping[str, object], reactor: object) -> IAttachmentFactory:
        """Prepare an attachment.

        :param section: the section without its ``plugin`` key.
        :param reactor: provides what the plugin needs of a reactor (descriptors, processes, time).
        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
