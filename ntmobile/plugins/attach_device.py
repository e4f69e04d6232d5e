"""What attachments to a TUN device have in common: packets go to it and come from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import AttachmentTraffic
from ntmobile.plugins.tun_device import Receive as Receive
from ntmobile.plugins.tun_device import TunDevice
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

Lost = Callable[[NTMobileError], None]


class DeviceAttachment:
    """The part of an :class:`~ntmobile.interfaces.IAttachment` that carries packets.

    :param device: reads and writes them.
    """

    def __init__(self, device: TunDevice) -> None:
        self._device = device

    @property
    def traffic(self) -> AttachmentTraffic:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        return self._device.traffic

    @property
    def offload(self) -> bool:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        return self._device.offload

    def send(self, packet: Buffer, offload: Offload | None = None) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._device.send(packet, offload)

    def send_parts(self, parts: Sequence[Buffer], offload: Offload | None) -> None:
        """See :class:`~ntmobile.interfaces.IAttachment`."""
        self._device.send_parts(parts, offload)
