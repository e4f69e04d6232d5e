"""What a DC's domain needs of the world; the service provides it, and tests do."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import RelayDirection


class Outside(Protocol):
    """The other DCs, and this DC's own RSs."""

    def ask_coordinator(
        self, domain: str, message: Message, then: str | None = None
    ) -> Awaitable[Message]:
        """Send a request to the DC of another domain; ``then``: who may be asked after it."""

    def direct_relay(
        self, relay: str, message: RelayDirection, devices: tuple[str, str]
    ) -> Awaitable[Message]:
        """Send a request to an RS of ours; ``devices``: the two ends of the tunnel."""

    def end_relays(self, device: str) -> None:
        """Have our RSs forget the tunnels of a device (R34)."""
