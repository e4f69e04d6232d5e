"""Measure the gaps of a path: a datagram every 10 ms to a UDP echo, a JSON report at the end.

Ends after ``--duration`` seconds, or on SIGTERM or SIGINT. ``answered`` is printed when the first
echo has come, so that a test can wait for it before it breaks something.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import statistics
import struct
import time
from itertools import pairwise
from types import FrameType
from typing import Any

PAYLOAD = struct.Struct("!Qd")

#: Seconds after the last datagram in which echoes still count.
LINGER = 0.5


class Probe:
    """A socket, what was sent, and what came back when. Times are monotonic seconds."""

    def __init__(self, host: str, port: int, interval: float, size: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        self._address: tuple[Any, ...] = found[0][4]
        self._socket = socket.socket(found[0][0], socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._interval = interval
        self._padding = bytes(max(0, size - PAYLOAD.size))
        self._running = True
        self.sent = 0
        self.refused: dict[str, int] = {}
        self.last_sent = 0.0
        self.rtts: dict[int, float] = {}
        self.arrivals: list[float] = []
        self.duplicates = 0
        self.reordered = 0
        self._highest = -1

    def stop(self, number: int, frame: FrameType | None) -> None:
        """End the sending (a signal handler)."""
        self._running = False

    def _send(self) -> None:
        now = time.monotonic()
        try:
            data = PAYLOAD.pack(self.sent, now) + self._padding
            self._socket.sendto(data, self._address)
        except OSError as problem:
            name = problem.strerror or str(problem)
            self.refused[name] = self.refused.get(name, 0) + 1
        self.sent += 1
        self.last_sent = now

    def _receive(self, timeout: float) -> None:
        """Take echoes, or wait for one."""
        if not select.select([self._socket], [], [], max(0.0, timeout))[0]:
            return
        try:
            data = self._socket.recv(65535)
        except OSError:
            return  # an ICMP error about an earlier datagram
        now = time.monotonic()
        number, sent_at = PAYLOAD.unpack_from(data)
        if number in self.rtts:
            self.duplicates += 1
            return
        self.rtts[number] = now - sent_at
        self.arrivals.append(now)
        self.reordered += number < self._highest
        self._highest = max(self._highest, number)
        if len(self.arrivals) == 1:
            print("answered", flush=True)

    def run(self, duration: float | None) -> None:
        """Send on schedule until the duration is over or :meth:`stop`, then collect the rest."""
        start = time.monotonic()
        due = start
        while self._running and (duration is None or due < start + duration):
            if time.monotonic() >= due:
                self._send()
                # After a suspension the missed ones are not made up for.
                due = max(due + self._interval, time.monotonic() - self._interval)
            self._receive(due - time.monotonic())
        end = time.monotonic() + LINGER
        while len(self.rtts) < self.sent and time.monotonic() < end:
            self._receive(end - time.monotonic())

    def report(self) -> dict[str, object]:
        """Give counts, the longest time without an echo, and every gap worth a look."""
        gaps = [(after - before, before) for before, after in pairwise(self.arrivals)]
        if self.arrivals:  # a path that did not come back is a gap too
            gaps.append((max(0.0, self.last_sent - self.arrivals[-1]), self.arrivals[-1]))
        longest = max(gaps, default=(None, 0.0))[0]
        offset = time.time() - time.monotonic()
        rtts = list(self.rtts.values())
        return {
            "sent": self.sent,
            "received": len(self.rtts),
            "lost": self.sent - len(self.rtts),
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "refused": self.refused,
            "longest_gap_ms": None if longest is None else longest * 1000,
            "gaps": [
                {"at": offset + begin, "ms": gap * 1000}
                for gap, begin in gaps
                if gap > 2 * self._interval
            ],
            "rtt_ms": statistics.median(rtts) * 1000 if rtts else None,
        }


def main() -> None:
    """Probe as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--interval", type=float, default=0.01, help="seconds")
    parser.add_argument("--duration", type=float, help="seconds; default: until a signal")
    parser.add_argument("--size", type=int, default=64, help="bytes of payload")
    options = parser.parse_args()
    probe = Probe(options.host, options.port, options.interval, options.size)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, probe.stop)
    probe.run(options.duration)
    print(json.dumps(probe.report()), flush=True)


if __name__ == "__main__":
    main()
