"""A program for a namespace whose loopback is narrow: relays one datagram that fits and one not.

It prints a JSON list: what the far leg got, and the size and limit of the signal the near one got.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ntmobile.machines.effects import Address
from ntmobile.machines.relay.server import RelayServer
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.relay_sockets import bind_data_port, family_of, path_limit
from ntmobile.protocols.relaying import Relaying
from ntmobile.wire.messages.relaying import RelayTooBig, RelayTunnelResponse
from ntmobile.wire.relaying import open_relayed
from tests.relay_clients import BOOT, KEYS, Leg, data, direction

reactor: Any = installed


def bind(host: str, side: int, rs: Address) -> socket.socket:
    """A client's socket, its leg bound."""
    client = socket.socket(family_of(host), socket.SOCK_DGRAM)
    client.bind((host, 0))
    client.settimeout(5)
    leg, cookie = Leg(side, (host, 0)), b""
    for fresh in (True, False):
        client.sendto(leg.request(cookie, fresh=fresh), rs)
        _, answer = open_relayed(leg.key, client.recv(2048))
        assert isinstance(answer, RelayTunnelResponse)
        cookie = answer.cookie
    return client


def exchange(host: str, rs: Address) -> list[int]:
    """Send 1200 and 1400 bytes; what came of them."""
    near, far = bind(host, 0, rs), bind(host, 1, rs)
    near.recv(2048)  # the news that the other is there
    near.sendto(data(1, 1200), rs)
    near.sendto(data(2, 1400), rs)
    passed = len(far.recv(2048))
    _, signal = open_relayed(KEYS[0], near.recv(2048))
    assert isinstance(signal, RelayTooBig)
    return [passed, signal.size, signal.limit]


async def run(host: str) -> None:
    """Serve on ``host`` and let a thread be the clients."""
    relaying = Relaying(RelayServer(BOOT), reactor, path_limit)
    port = DatagramPort(bind_data_port((host, 0)), relaying, reactor)
    relaying.attach(port, ipv6=":" in host)
    port.startListening()
    rs = (host, port.getHost().port)
    relaying.direct(direction())
    print(json.dumps(await deferToThread(exchange, host, rs)))


if __name__ == "__main__":
    running = Deferred.fromCoroutine(run(sys.argv[1]))
    running.addErrback(lambda failure: failure.printTraceback(sys.stderr))
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
