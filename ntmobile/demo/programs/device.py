"""A device of the demo where there are no namespaces: a program with a node inside.

``python -m ntmobile.demo.programs.device STATE serve PORT`` answers datagrams with what it got.
``... STATE count NAME PORT`` waits for SIGUSR2, sends a numbered datagram every 10 ms, and prints
``NUMBER UNIX-TIME`` for each answer. Both take other sockets, and so another address, at SIGUSR1.
It is also an example of the library: UDP on virtual addresses, without any attachment.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react
from twisted.logger import Logger

from ntmobile.client.node import Node
from ntmobile.client.opening import open_node
from ntmobile.protocols.logs import begin_logging
from ntmobile.protocols.timing import use_monotonic_time

log = Logger()

#: Seconds between two datagrams, and their size.
INTERVAL: Final = 0.01
SIZE: Final = 1024


def serve(node: Node, port: int) -> None:
    """Echo, and say who is new."""
    known: set[tuple[str, int]] = set()

    def received(payload: bytes, source: str, source_port: int) -> None:
        if (source, source_port) not in known:
            known.add((source, source_port))
            print("connection from", source, source_port, flush=True)
        socket.send(payload, source, source_port)

    socket = node.listen_datagram(port, received)


async def count(node: Node, name: str, port: int) -> None:
    """Send numbers to a name."""
    number = 0

    def received(payload: bytes, source: str, source_port: int) -> None:
        print(int(payload[:8]), f"{time.time():.6f}", flush=True)

    def send() -> None:
        nonlocal number
        number += 1
        socket.send(f"{number:08}".encode().ljust(SIZE, b"."), address, port)

    socket = node.listen_datagram(0, received)
    address = str((await node.resolve(name)).ipv6)
    await LoopingCall(send).start(INTERVAL)


def on_signal(reactor: Any, number: int, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have a signal start something."""

    def begin() -> None:
        Deferred.fromCoroutine(call()).addErrback(
            lambda failure: log.failure("at a signal", failure)
        )

    signal.signal(number, lambda *_: reactor.callFromThread(begin))


async def main(reactor: Any, state: str, role: str, *rest: str) -> None:
    """Open the node, and be what the command line says."""
    use_monotonic_time(reactor)
    begin_logging(sys.stdout)
    node = await open_node(Path(state), reactor)
    on_signal(reactor, signal.SIGUSR1, node.rebind)
    if role == "serve":
        serve(node, int(rest[0]))
    else:
        on_signal(reactor, signal.SIGUSR2, lambda: count(node, rest[0], int(rest[1])))
    print("ready", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
