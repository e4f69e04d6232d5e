"""Tunnels of a relay without devices: whose keys both the coordinator and the generator know."""

from __future__ import annotations

import socket
import time
from hashlib import sha256

from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.coordination import RelayDirection
from ntmobile.wire.messages.relaying import LegState, RelayTunnelRequest, RelayTunnelResponse
from ntmobile.wire.relaying import open_relayed, seal_relayed

#: Seconds that a tunnel stands without traffic, and how often it is directed again.
LIFETIME, REPEAT = 120, 20.0
#: Bytes a second that a tunnel may carry: as good as no limit, as the peer has none.
RATE = 4_000_000_000


def index(number: int) -> bytes:
    """The direction identifier of a tunnel."""
    return b"bench" + number.to_bytes(3, "big")


def keys(number: int) -> tuple[bytes, bytes]:
    """The keys of both sides: no secret, as nothing else uses this realm."""
    first, second = (sha256(index(number) + side).digest() for side in (b"0", b"1"))
    return first, second


def direction(number: int) -> RelayDirection:
    """What the coordinator tells the relay."""
    return RelayDirection(index(number), keys(number), LIFETIME, RATE)


def datagram(number: int, size: int) -> bytes:
    """Tunnel data of so many bytes, the header included."""
    return Header(Kind.TUNNEL_DATA, 0, index(number), 1).pack() + bytes(size - 20)


def bind(own: socket.socket, number: int, side: int) -> None:
    """Bind a connected socket as the leg of a side (R25).

    :raises TimeoutError: the relay does not answer. :raises ValueError: it refuses.
    """
    own.settimeout(2.0)
    counter = time.time_ns() // 1000
    key = keys(number)[side]
    cookie, state = b"", -1
    for _ in range(2):
        request = RelayTunnelRequest(side, counter.to_bytes(16, "big"), cookie)
        own.send(seal_relayed(key, index(number), counter, request))
        _, answer = open_relayed(key, own.recv(2048))
        if not isinstance(answer, RelayTunnelResponse):
            raise ValueError(f"the relay answers {answer}")
        cookie, state = answer.cookie, answer.state
    if state not in (LegState.BOUND, LegState.JOINED):
        raise ValueError(f"the relay does not bind the leg: its state is {state}")


def drain(own: socket.socket) -> None:
    """Forget what has come: news of the other leg."""
    own.setblocking(False)
    try:
        while True:
            own.recv(2048)
    except BlockingIOError:
        pass
