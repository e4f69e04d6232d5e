"""``python -m ntmobile.bench.generator``: a closed loop of datagrams through a relay, counted.

One process sends and receives, and keeps at most ``--window`` datagrams under way: so the relay is
kept busy, nothing overflows, and what is counted has arrived. It prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Sequence

from attrs import define, field

from ntmobile.bench import legs, turn
from ntmobile.bench.datagrams import Burst, Sink, udp_socket

#: Milliseconds without a datagram after which those under way are given up, and after the end,
#: after which none comes any more.
GIVEN_UP, QUIET = 20, 100
WARM_UP = 0.3


@define
class Pair:
    """A sender, a receiver, and what is sent."""

    sender: socket.socket
    receiver: socket.socket
    burst: Burst


@define
class Loop:
    """Sends from all pairs in turn, and counts what arrives at all of them."""

    pairs: Sequence[Pair]
    sink: Sink
    window: int
    sent: int = 0
    _under_way: int = 0
    _next: int = 0
    _poll: select.poll = field(factory=select.poll)

    def __attrs_post_init__(self) -> None:
        for pair in self.pairs:
            self.sink.adopt(pair.receiver)
            self._poll.register(pair.receiver, select.POLLIN)

    def run(self, seconds: float) -> float:
        """Go on for some time; gives what it was exactly."""
        began = time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            self._fill()
            self._take()
        return now - began

    def drain(self) -> None:
        """Take what is still under way; what has not come then is lost."""
        while ready := self._poll.poll(QUIET):
            for descriptor, _ in ready:
                self.sink.receive(descriptor)
        self._under_way = 0

    @property
    def lost(self) -> int:
        """How many datagrams never arrived, once all is drained."""
        return self.sent - self.sink.datagrams

    def _fill(self) -> None:
        burst = self.pairs[0].burst
        while self._under_way + burst.datagrams <= self.window:
            pair = self.pairs[self._next]
            self._next = (self._next + 1) % len(self.pairs)
            sent = pair.burst.send(pair.sender.fileno())
            self.sent += sent
            self._under_way += sent
            if sent < pair.burst.datagrams:
                return

    def _take(self) -> None:
        ready = self._poll.poll(GIVEN_UP)
        if not ready:
            self._under_way = 0
        for descriptor, _ in ready:
            self._under_way = max(0, self._under_way - self.sink.receive(descriptor))


def through_ntm(options: argparse.Namespace) -> list[Pair]:
    """Bind both legs of each tunnel at an ``ntm-relay``."""
    pairs = []
    for number in range(options.senders):
        sender, receiver = udp_socket(options.host), udp_socket(options.host)
        for side, own in enumerate((sender, receiver)):
            own.connect((options.relay, options.port))
            legs.bind(own, number, side)
        datagram = legs.datagram(number, options.size)
        pairs.append(Pair(sender, receiver, Burst(datagram, options.segments, options.messages)))
    time.sleep(0.05)
    for pair in pairs:
        legs.drain(pair.sender)
    return pairs


def through_turn(options: argparse.Namespace) -> list[Pair]:
    """Allocate at a TURN server, and bind a channel to a peer that is an ordinary socket."""
    pairs = []
    for _ in range(options.senders):
        sender, receiver = udp_socket(options.host), udp_socket(options.host)
        sender.connect((options.relay, options.port))
        turn.allocate(sender)
        turn.bind_channel(sender, *receiver.getsockname())
        datagram = turn.channel_data(bytes(options.size))
        pairs.append(Pair(sender, receiver, Burst(datagram, options.segments, options.messages)))
    return pairs


WAYS = {"ntm": through_ntm, "turn": through_turn}


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m ntmobile.bench.generator")
    options.add_argument("way", choices=sorted(WAYS))
    options.add_argument("host", help="own address")
    options.add_argument("relay", help="the relay's address")
    options.add_argument("port", type=int)
    options.add_argument("--senders", type=int, default=1)
    options.add_argument("--segments", type=int, default=1, help="datagrams of one run")
    options.add_argument("--messages", type=int, default=1, help="runs of one call")
    options.add_argument("--size", type=int, default=1200)
    options.add_argument("--window", type=int, nargs="+", default=[216])
    options.add_argument("--seconds", type=float, default=3.0)
    return options


def measure(pairs: Sequence[Pair], size: int, window: int, seconds: float) -> dict[str, float]:
    """Run one window; what was not received does not count."""
    loop = Loop(pairs, Sink(size), window)
    loop.run(WARM_UP)
    before = loop.sent, loop.sink.datagrams, loop.sink.receptions
    took = loop.run(seconds)
    after = loop.sent, loop.sink.datagrams, loop.sink.receptions
    sent, received, receptions = (new - old for new, old in zip(after, before, strict=True))
    loop.drain()
    return {
        "window": window,
        "seconds": took,
        "sent": sent,
        "received": received,
        "lost": loop.lost,
        "rate": received / took,
        "run": received / receptions if receptions else 0.0,
    }


def main() -> None:
    """Measure each window, and say what was."""
    options = parser().parse_args()
    pairs = WAYS[options.way](options)
    results = [measure(pairs, options.size, each, options.seconds) for each in options.window]
    if options.way == "turn":
        for pair in pairs:
            turn.release(pair.sender)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
