"""One TCP connection whose every byte is checked, and which notes how long it stood still.

``tcp_stream.py receive PORT`` takes one connection and prints a JSON report when it is over.
``tcp_stream.py send HOST PORT`` sends at ``--rate`` for ``--duration`` seconds or until SIGTERM,
closes, and reports what the receiver acknowledged. ``connected`` is printed first by both.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import time
from types import FrameType

#: The byte at offset ``o`` is ``PATTERN[o % PERIOD]``; a prime, so that no whole number of
#: segments is a whole number of periods.
PERIOD = 65521
PATTERN = random.Random(4330).randbytes(PERIOD)
DOUBLED = PATTERN + PATTERN

#: Bytes a write at most; small, so that a stall shows.
CHUNK = 16384


def slice_at(offset: int, length: int) -> bytes:
    """Give what belongs at an offset; the length is at most a period."""
    start = offset % PERIOD
    return DOUBLED[start : start + length]


def receive(port: int) -> dict[str, object]:
    """Take one connection, check it, and acknowledge the number of good bytes at its end."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        connection, peer = server.accept()
    print("connected", flush=True)
    total, intact, error = 0, True, None
    began = last = time.monotonic()
    stall, stalled_at = 0.0, time.time()
    with connection:
        try:
            while data := connection.recv(CHUNK):
                now = time.monotonic()
                if now - last > stall:
                    stall, stalled_at = now - last, time.time()
                last = now
                intact = intact and data == slice_at(total, len(data))
                total += len(data)
            connection.sendall((total if intact else 0).to_bytes(8, "big"))
        except OSError as problem:
            error = str(problem)
    return {
        "peer": peer[0],
        "bytes": total,
        "intact": intact and error is None,
        "error": error,
        "seconds": last - began,
        "longest_stall_ms": stall * 1000,
        "stall_ended_at": stalled_at,
    }


class Sender:
    """Writes at a steady rate until it is told to stop."""

    def __init__(self, rate: float, duration: float | None) -> None:
        self._rate = rate
        self._duration = duration
        self._running = True

    def stop(self, number: int, frame: FrameType | None) -> None:
        """End the sending (a signal handler)."""
        self._running = False

    def run(self, host: str, port: int) -> dict[str, object]:
        """Connect, send, close, and read the acknowledgement."""
        total, acknowledged, error = 0, 0, None
        began = time.monotonic()
        try:
            with socket.create_connection((host, port)) as connection:
                print("connected", flush=True)
                while self._running and not self._over(began):
                    ahead = began + total / self._rate - time.monotonic()
                    if ahead > 0:
                        time.sleep(min(ahead, 0.05))
                        continue
                    size = max(1, min(CHUNK, int(self._rate / 100)))
                    connection.sendall(slice_at(total, size))
                    total += size
                connection.shutdown(socket.SHUT_WR)
                acknowledged = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
        except OSError as problem:
            error = str(problem)
        return {
            "bytes": total,
            "acknowledged": acknowledged,
            "intact": acknowledged == total and error is None,
            "error": error,
            "seconds": time.monotonic() - began,
        }

    def _over(self, began: float) -> bool:
        return self._duration is not None and time.monotonic() - began >= self._duration


def main() -> None:
    """Receive or send, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    receiver = roles.add_parser("receive")
    sender = roles.add_parser("send")
    sender.add_argument("host")
    sender.add_argument("--rate", type=float, default=1e6, help="bytes a second")
    sender.add_argument("--duration", type=float, help="seconds; default: until a signal")
    for role in (receiver, sender):
        role.add_argument("port", type=int)
    options = parser.parse_args()
    if options.role == "receive":
        report = receive(options.port)
    else:
        writer = Sender(options.rate, options.duration)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, writer.stop)
        report = writer.run(options.host, options.port)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
