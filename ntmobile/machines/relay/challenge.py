"""The stateless challenge of an RS: a cookie proves that a client receives at an address (R25)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.constant_time import bytes_eq

from ntmobile.machines.effects import Address
from ntmobile.wire.relaying import relay_mac

#: Seconds of one epoch; a cookie is good for its own epoch and the next.
EPOCH: Final = 10.0


class Challenge:
    """Makes and checks cookies, bound to tunnel, side, address, time and this start of the RS.

    A cookie costs no memory. Those of an earlier start are void, and with them every recorded
    request: an RS that restarted has forgotten the counters.
    """

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._secret = random(32)

    def cookie(self, direction: bytes, side: int, source: Address, now: float) -> bytes:
        """The cookie of 16 bytes that must come back from ``source``."""
        return self._cookie(direction, side, source, int(now // EPOCH))

    def answered(
        self, cookie: bytes, direction: bytes, side: int, source: Address, now: float
    ) -> bool:
        """Whether this cookie was sent to ``source`` a short time ago."""
        if not cookie:
            return False
        epoch = int(now // EPOCH)
        return any(
            bytes_eq(cookie, self._cookie(direction, side, source, one))
            for one in (epoch, epoch - 1)
        )

    def _cookie(self, direction: bytes, side: int, source: Address, epoch: int) -> bytes:
        place = f"{side}|{epoch}|{source[1]}|{source[0]}".encode()
        return relay_mac(self._secret, direction + place)
