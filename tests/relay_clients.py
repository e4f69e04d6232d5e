"""A client's side of relay legs, and a tunnel to relay, for the tests of the RS."""

from __future__ import annotations

from attrs import define, field

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.server import RelayServer
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.coordination import RelayDirection
from ntmobile.wire.messages.relaying import LegState, RelayTunnelRequest, RelayTunnelResponse
from ntmobile.wire.relaying import open_relayed, seal_relayed

BOOT = b"boot-one"
INDEX = b"tunnel-1"
KEYS = (b"0" * 32, b"1" * 32)
#: Where the two clients are.
HOME: Address = ("198.51.100.1", 40000)
CAFE: Address = ("203.0.113.7", 50000)
SIX: Address = ("2001:db8::7", 50000)
STRANGER: Address = ("192.0.2.66", 6666)


def direction(index: bytes = INDEX, lifetime: int = 60, rate: int = 0) -> RelayDirection:
    """A Relay Direction with the two keys of these tests."""
    return RelayDirection(index, KEYS, lifetime, rate)


def data(counter: int = 7, size: int = 100, index: bytes = INDEX, kind: int = 0x12) -> bytes:
    """A tunnel datagram of ``size`` bytes."""
    return Header(Kind(kind), 0, index, counter).pack() + bytes(size - 20)


def pseudorandom(length: int) -> bytes:
    """Not random at all."""
    return b"\x5a" * length


def relay(limits: RelayLimits | None = None, *, directed: bool = True) -> RelayServer:
    """An RS, with the tunnel directed at time 0."""
    server = RelayServer(BOOT, limits, pseudorandom)
    if directed:
        server.direct(direction(), 0.0)
    return server


@define
class Leg:
    """A client that binds a leg: it counts, and it keeps what it last heard."""

    side: int
    address: Address
    index: bytes = INDEX
    counter: int = 0
    key: bytes = field(default=b"")

    def __attrs_post_init__(self) -> None:
        self.key = self.key or KEYS[self.side]

    def request(self, cookie: bytes = b"", *, keepalive: bool = False, fresh: bool = True) -> bytes:
        """A sealed request, under the next counter if it is ``fresh``."""
        self.counter += fresh
        nonce = bytes([self.side]) * 15 + bytes([self.counter % 256])
        message = RelayTunnelRequest(self.side, nonce, cookie, keepalive)
        return seal_relayed(self.key, self.index, self.counter, message)

    def open(self, effect: Transmit) -> RelayTunnelResponse:
        """The response that an effect sends here."""
        _, message = open_relayed(self.key, effect.datagram)
        assert isinstance(message, RelayTunnelResponse)
        assert effect.remote == self.address
        return message

    def challenged(self, server: RelayServer, now: float = 0.0) -> bytes:
        """Ask once; the cookie of the challenge."""
        (effect,) = server.datagram_received(self.request(), self.address, now)
        answer = self.open(effect)
        assert answer.state == LegState.CHALLENGE
        return answer.cookie

    def bind(self, server: RelayServer, now: float = 0.0) -> list[Transmit]:
        """Ask, and return the cookie; the effects of the second request."""
        cookie = self.challenged(server, now)
        return server.datagram_received(self.request(cookie, fresh=False), self.address, now)


def joined(server: RelayServer, now: float = 0.0, far: Address = CAFE) -> tuple[Leg, Leg]:
    """Both legs bound."""
    near, other = Leg(0, HOME), Leg(1, far)
    near.bind(server, now)
    other.bind(server, now)
    return near, other
