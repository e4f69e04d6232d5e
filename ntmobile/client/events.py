"""What listeners of a node hear (:meth:`ntmobile.client.node.Node.listen`).

Of tunnels: :class:`Of` with the correspondent and :class:`Established`, :class:`PathChanged`,
:class:`RoundTrip` or :class:`Ended`. Of the coordinator: :class:`Registered`, :class:`Rebound` and
:class:`NotificationRequest`. Of stored data: :class:`Arrived`, :class:`Uploading`,
:class:`Stored`, :class:`Delivered` and :class:`Failed`.
"""

from __future__ import annotations

from ntmobile.client.exchange import Arrived, Delivered, Failed, Stored, Uploading
from ntmobile.machines.signalling.registration import Rebound, Registered
from ntmobile.machines.tunnel.correspondence import Of
from ntmobile.machines.tunnel.events import Ended, Established, PathChanged, RoundTrip
from ntmobile.wire.messages.realtime import NotificationRequest

__all__ = [
    "Arrived",
    "Delivered",
    "Ended",
    "Established",
    "Failed",
    "NotificationRequest",
    "Of",
    "PathChanged",
    "Rebound",
    "Registered",
    "RoundTrip",
    "Stored",
    "Uploading",
]
