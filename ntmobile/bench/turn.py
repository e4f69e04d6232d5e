"""As much of a TURN client (RFC 8656) as it takes to send channel data through a TURN server."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Final

_COOKIE: Final = 0x2112A442
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")

_ALLOCATE, _REFRESH, _CHANNEL_BIND = 0x0003, 0x0004, 0x0009
_SUCCESS: Final = 0x0100
_ERROR_CODE = 0x0009
_CHANNEL_NUMBER = 0x000C
_LIFETIME = 0x000D
_XOR_PEER_ADDRESS = 0x0012
_XOR_RELAYED_ADDRESS = 0x0016
_REQUESTED_TRANSPORT = 0x0019
_UDP = bytes([17, 0, 0, 0])

_ATTEMPTS: Final = 20

#: The first channel there may be; each allocation has its own.
CHANNEL: Final = 0x4000


class TurnError(Exception):
    """The server refused a request, or answered something else."""


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _xor_address(host: str, port: int) -> bytes:
    number = int.from_bytes(socket.inet_aton(host), "big") ^ _COOKIE
    return struct.pack("!BBHI", 0, 1, port ^ (_COOKIE >> 16), number)


def _attributes(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(body):
        kind, length = _ATTRIBUTE.unpack_from(body, at)
        found[kind] = body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def _ask(own: socket.socket, method: int, attributes: bytes) -> dict[int, bytes]:
    """Send a request on a connected socket; give the attributes of its answer."""
    transaction = os.urandom(12)
    request = _HEADER.pack(method, len(attributes), _COOKIE, transaction) + attributes
    answer = _exchange(own, request)
    kind, length, _, echoed = _HEADER.unpack_from(answer)
    found = _attributes(answer[_HEADER.size : _HEADER.size + length])
    if echoed != transaction or kind != method | _SUCCESS:
        code = found.get(_ERROR_CODE, bytes(4))
        said = code[4:].decode("utf-8", "replace").strip("\0")
        raise TurnError(f"request {method:#06x}: {code[2] * 100 + code[3]} {said}")
    return found


def _exchange(own: socket.socket, request: bytes) -> bytes:
    """Send until there is an answer; the server may just have been started."""
    own.settimeout(0.5)
    for _ in range(_ATTEMPTS):
        try:
            own.send(request)
            return own.recv(2048)
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.1)
    raise TurnError("the server does not answer")


def allocate(own: socket.socket) -> tuple[str, int]:
    """Allocate a relayed address for UDP, without credentials; give it."""
    found = _ask(own, _ALLOCATE, _attribute(_REQUESTED_TRANSPORT, _UDP))
    _, family, port, number = struct.unpack("!BBHI", found[_XOR_RELAYED_ADDRESS][:8])
    if family != 1:
        raise TurnError(f"a relayed address of family {family}")
    host = socket.inet_ntoa((number ^ _COOKIE).to_bytes(4, "big"))
    return host, port ^ (_COOKIE >> 16)


def release(own: socket.socket) -> None:
    """End the allocation; else the server would keep it for this address for ten minutes."""
    own.setblocking(True)
    _ask(own, _REFRESH, _attribute(_LIFETIME, bytes(4)))


def bind_channel(own: socket.socket, host: str, port: int) -> None:
    """Bind :data:`CHANNEL` to a peer; this permits the peer, too."""
    channel = _attribute(_CHANNEL_NUMBER, struct.pack("!HH", CHANNEL, 0))
    _ask(own, _CHANNEL_BIND, channel + _attribute(_XOR_PEER_ADDRESS, _xor_address(host, port)))


def channel_data(payload: bytes) -> bytes:
    """A datagram to the server whose payload goes to the peer."""
    return struct.pack("!HH", CHANNEL, len(payload)) + payload
